"""Rendering a folder of objects: workers, limits, resuming.

DATASET/dataset.json    the options it was rendered with; another run must have the same
DATASET/objects/NAME/   see ``object_files``; appears whole or not at all
DATASET/failed/NAME.json  why an object could not be rendered; it is not tried again unless asked for
DATASET/manifest.json   all of these in one list, written when nothing is left to do
DATASET/run.jsonl       seconds and memory of each object, in the order they ended

All but the last hold nothing that depends on time, order or machine, so a run that was killed and resumed ends with
the same bytes as one that was not: `dataset_digest`.
"""

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwright.curate.blender import BLENDER_SUFFIXES, find_blender, render_blender
from meshwright.curate.inputs import ObjectFile, find_objects
from meshwright.curate.isolate import Outcome, run_isolated
from meshwright.curate.object_files import ObjectRecord, object_files
from meshwright.curate.options import CurateRenderOptions, DrawOptions, RendererName, ViewSetOptions
from meshwright.curate.render import MESH_SUFFIXES, Renderer, render_builtin
from meshwright.curate.view_sets import object_cameras
from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.progress import Progress, silent

_FORMAT = "meshwright-rendered-objects"
_VERSION = 1
_OF_THE_MACHINE = {"blender", "cycles_device"}
"""Options that say where is drawn and not what, so another machine may go on with the set."""


@dataclass(frozen=True)
class RunSummary:
    """What a run of `render_objects` did. ``failures``: reasons and how often, over the whole data set."""

    rendered: int
    already_there: int
    failed: int
    failures: dict[str, int]
    seconds: float
    bytes_written: int


@dataclass(frozen=True)
class Job:
    """All that is needed to render one object, anywhere."""

    item: ObjectFile
    dataset: Path
    views: ViewSetOptions
    draw: DrawOptions
    renderer: RendererName
    seed: int


def render_objects(options: CurateRenderOptions, progress: Progress = silent) -> RunSummary:
    """Render every object that is not there yet.

    Raises:
        InputError: no objects, or ``options.out`` holds a data set of other options.
    """
    started = time.monotonic()
    jobs, there = prepare(options)
    workers = options.workers or os.cpu_count() or 1
    if options.ray is None:
        ended = run_isolated(render_job, [(job,) for job in jobs], workers, options.limits)
    else:
        from meshwright.curate.ray_run import run_on_ray

        ended = run_on_ray(jobs, options.ray, options.limits)
    for count, (number, outcome) in enumerate(ended, 1):
        note_outcome(jobs[number], outcome)
        progress("render", count / len(jobs), f"{jobs[number].item.name}: {outcome.reason or 'done'}")
    return finish(options, jobs, there, started)


def prepare(options: CurateRenderOptions) -> tuple[list[Job], int]:
    """Make or check the data set's folder; the objects that are left to do, and how many are there already."""
    blender = options.renderer == "blender"
    if blender:
        find_blender(options.draw.blender)  # better known now than after every object has failed
    elif options.draw.lighting == "varied":
        raise InputError("`lighting='varied'` needs Blender; use `renderer='blender'`, or unlit or studio light")
    elif options.draw.cycles_device != "cpu":
        raise InputError("`cycles_device='gpu'` needs Blender; use `renderer='blender'`")
    found = find_objects(options.objects, BLENDER_SUFFIXES if blender else MESH_SUFFIXES)
    dataset = options.out.absolute()
    settings = _settings(options.views, options.draw, options.renderer, options.seed)
    text = json.dumps(settings, indent=1) + "\n"
    stated = dataset / "dataset.json"
    if stated.is_file():
        _check_settings(stated, settings, options.out)
    else:
        if dataset.is_dir() and any(dataset.iterdir()):
            raise InputError(f"{options.out}: holds other files and no data set; choose another `out`")
        try:
            (dataset / "objects").mkdir(parents=True)
            (dataset / "failed").mkdir()
        except OSError as error:
            raise InputError(
                f"{options.out}: cannot be made ({(error.strerror or '').lower()}); choose another"
            ) from None
        with atomic_path(stated) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for folder in ("objects", "failed"):
        (dataset / folder).mkdir(exist_ok=True)
        for leftover in (dataset / folder).glob(".*"):  # of a run that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if options.retry_failed:
        for record in (dataset / "failed").glob("*.json"):
            record.unlink()
    done = {path.name for path in (dataset / "objects").iterdir()}
    done |= {path.stem for path in (dataset / "failed").glob("*.json")}
    jobs = [
        Job(item, dataset, options.views, options.draw, options.renderer, options.seed)
        for item in found
        if item.name not in done
    ]
    return jobs, len(found) - len(jobs)


def _settings(views: ViewSetOptions, draw: DrawOptions, renderer: RendererName, seed: int) -> dict[str, Any]:
    """What dataset.json says, as it is read back: lists for tuples."""
    settings = {
        "format": _FORMAT,
        "version": _VERSION,
        "views": dataclasses.asdict(views),
        "draw": {key: value for key, value in dataclasses.asdict(draw).items() if key not in _OF_THE_MACHINE},
        "renderer": renderer,
        "seed": seed,
    }
    return json.loads(json.dumps(settings))


def _check_settings(stated: Path, settings: dict[str, Any], out: Path) -> None:
    """Raise unless the set was made with these settings; one that it does not name had its default."""
    try:
        there = json.loads(stated.read_text(encoding="utf-8"))
        if not isinstance(there, dict) or not all(isinstance(there.get(part, {}), dict) for part in ("views", "draw")):
            raise ValueError
    except (OSError, ValueError):
        raise InputError(f"{stated}: is not what a rendering run writes; choose another `out`") from None
    defaults = _settings(ViewSetOptions(), DrawOptions(), "builtin", 0)
    differing = []
    for part, value in settings.items():
        if isinstance(value, dict):
            old = {**defaults[part], **there.get(part, {})}
            differing += [
                f"{key} {old.get(key)}, not {value.get(key)}"
                for key in sorted(old.keys() | value.keys())
                if old.get(key) != value.get(key) and key not in _OF_THE_MACHINE
            ]
        elif there.get(part, defaults[part]) != value:
            differing.append(f"{part} {there.get(part, defaults[part])}, not {value}")
    if differing:
        raise InputError(f"{out}: was rendered with other options ({'; '.join(differing)}); choose another `out`")


def render_job(job: Job) -> None:
    """Render one object into its folder.

    Raises:
        InputError: its file cannot be used.
    """
    item = job.item
    try:
        sha256 = hashlib.sha256(item.path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{item.path}: cannot be read ({(error.strerror or '').lower()}); check it") from None
    cameras, drawing_seed = object_cameras(job.views, job.seed, sha256)
    draw: Renderer = {"builtin": render_builtin, "blender": render_blender}[job.renderer]
    drawn = draw(item.name, item.path, cameras, job.draw, drawing_seed)
    record = ObjectRecord(
        name=item.name,
        source_file=item.path.name,
        sha256=sha256,
        views=len(cameras),
        size_px=job.draw.size_px,
        view_set=job.views.view_set,
        seed=job.seed,
        renderer=drawn.renderer,
        lighting=job.draw.lighting,
        normalization=drawn.normalization,
        bounds=drawn.bounds,
        faces=drawn.faces,
        split=item.split,
        source=item.source,
        licence=item.licence,
        credit=item.credit,
        warnings=drawn.warnings,
    )
    publish(object_files(drawn.rendered, record), job.dataset / "objects" / item.name)


def publish(files: Mapping[str, bytes], folder: Path) -> None:
    """Make ``folder`` with these files, whole or not at all; where somebody else has made it before, leave theirs.

    A rename of a folder beside it, not `meshwright.files.atomic_directory`: that fills a folder which exists already,
    and a run that resumes takes an existing one for done.
    """
    temporary = folder.parent / f".{folder.name}-{secrets.token_hex(6)}"
    temporary.mkdir()
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def note_outcome(job: Job, outcome: Outcome) -> None:
    """Write down why an object failed, and what it took."""
    name = job.item.name
    for leftover in (job.dataset / "objects").glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if outcome.kind != "done":
        failure = {"name": name, "source_file": job.item.path.name, "kind": outcome.kind, "reason": outcome.reason}
        with atomic_path(job.dataset / "failed" / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(failure, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    line = {"name": name, **dataclasses.asdict(outcome), "at": round(time.time(), 1)}
    del line["value"]
    with (job.dataset / "run.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def finish(options: CurateRenderOptions, jobs: list[Job], there: int, started: float) -> RunSummary:
    """Write the manifest and count."""
    dataset = options.out.absolute()
    entries: list[dict[str, Any]] = []
    for folder in sorted((dataset / "objects").iterdir()):
        record = ObjectRecord.from_json((folder / "object.json").read_bytes(), folder / "object.json")
        entries.append({key: getattr(record, key) for key in _MANIFEST_KEYS})
    failures = [json.loads(path.read_bytes()) for path in sorted((dataset / "failed").glob("*.json"))]
    with atomic_path(dataset / "manifest.json") as temporary:
        text = json.dumps({"objects": entries, "failed": failures}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    rendered = [job.item.name for job in jobs if (dataset / "objects" / job.item.name).is_dir()]
    size = sum(file.stat().st_size for name in rendered for file in (dataset / "objects" / name).iterdir())
    kinds = Counter(f"{failure['kind']}: {_without_name(failure)}" for failure in failures)
    return RunSummary(len(rendered), there, len(jobs) - len(rendered), dict(kinds), time.monotonic() - started, size)


_MANIFEST_KEYS = ("name", "split", "source", "licence", "credit", "source_file", "sha256", "views", "size_px", "faces")


def _without_name(failure: dict[str, str]) -> str:
    """The reason without the file it speaks of, so that equal reasons can be counted."""
    _, found, rest = failure["reason"].partition(f"{failure['source_file']}: ")
    return rest if found else failure["reason"]


def dataset_digest(dataset: Path) -> str:
    """SHA-256 over the names and contents of all files of a data set but its log."""
    digest = hashlib.sha256()
    for path in sorted(path for path in dataset.rglob("*") if path.is_file() and path.name != "run.jsonl"):
        digest.update(path.relative_to(dataset).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
