"""The process of one job: takes a task on standard input, walks the road, says how far it is in lines of JSON.

The task: ``{"folder": ..., "task": ..., "options": {...}, "limits": {...}}``. Messages: ``{"stage", "fraction",
"detail"}``, ``{"show": file}`` for a new file in ``live/``, and at last ``{"end": "done"}`` or ``{"end": "failed",
"error": sentence}``. Results are moved to ``result/`` all at once.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshwright import options as road
from meshwright.app.inputs import lay_out
from meshwright.app.job_request import JobRequest
from meshwright.app.limits import Limits
from meshwright.app.option_fields import in_options
from meshwright.errors import InputError
from meshwright.limits import refusing, restrain

if TYPE_CHECKING:
    from torch import Tensor

    from meshwright.cameras import Cameras
    from meshwright.mesh import Mesh
    from meshwright.progress import Progress
    from meshwright.reconstruct import StartShape
    from meshwright.views import Views

_SAY_EVERY_S = 0.1
_JPEG_QUALITY = 90
_LIVE_PX = 320  # side of the small picture of the mesh at hand
_SHOW_SHARE = 0.1  # of a job's time, at most, goes into showing the mesh while it is fitted
_MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
_SCRATCH_BYTES = 4 << 30  # largest file that a job may write


class Channel:
    """The way back to the server."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream
        self._stage, self._said_s = "", 0.0

    def progress(self, stage: str, fraction: float, detail: str = "") -> None:
        """As `meshwright.progress.Progress`; what comes too fast is left out."""
        now_s = time.monotonic()
        if stage != self._stage or fraction >= 1 or now_s - self._said_s > _SAY_EVERY_S:
            self._stage, self._said_s = stage, now_s
            self.say(stage=stage, fraction=round(float(fraction), 4), detail=detail[:200])

    def say(self, **message: object) -> None:
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()


def main() -> None:
    """Wait for one task, do it, and end."""
    channel = _take_stdout()
    import_everything()
    line = sys.stdin.readline()
    if not line:
        return
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    task = json.loads(line)
    folder = Path(task["folder"])
    limits = Limits(**task["limits"])
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    tempfile.tempdir = str(scratch)
    _restrain(folder, scratch, task.get("model_dir"))
    request = JobRequest(task["task"], task["options"]["options"], tuple(task["options"]["exclude"]))
    try:
        run_job(folder, request, limits, channel, task.get("model_dir"))
        channel.say(end="done")
    except InputError as error:
        channel.say(end="failed", error=_for_the_client(str(error), folder))
    except MemoryError:
        channel.say(end="failed", error="the job needs more memory than it may have; send fewer or smaller pictures")
    except Exception:  # our fault: the log has it, the client gets a sentence
        traceback.print_exc()
        channel.say(end="crash")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def import_everything() -> None:
    """Import what a job needs, so that it starts at once."""
    import meshwright.capture
    import meshwright.evaluate
    import meshwright.mesh_files
    import meshwright.reconstruct
    import meshwright.results  # noqa: F401


def run_job(folder: Path, request: JobRequest, limits: Limits, channel: Channel, model_dir: str | None = None) -> None:
    """Do what a request asks with the files in a job's folder; ``result/`` appears when all is done.

    Raises:
        InputError: the files or options cannot be used.
    """
    for left in ("input", "live", "result"):  # of an attempt that was interrupted
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "live").mkdir()
    making = Path(tempfile.mkdtemp(prefix="result-", dir=folder))
    try:
        channel.progress("input", 0.0)
        source = lay_out(folder, limits)
        groups = request.groups()
        mesh_path = _mesh_among(source, folder) if request.task in ("refine", "texture") else None
        if mesh_path is not None:
            inside = [entry for entry in source.iterdir() if not entry.name.startswith(".")]
            source = inside[0] if len(inside) == 1 else source
        channel.progress("input", 1.0)
        # Messages name files as the client knows them.
        os.chdir(source.parent)
        _make(Path(source.name), mesh_path, request, groups, making, folder / "live", channel, model_dir)
        making.rename(folder / "result")
    finally:
        os.chdir(folder)  # not where the input goes away
        shutil.rmtree(folder / "input", ignore_errors=True)
        shutil.rmtree(making, ignore_errors=True)


def _make(
    source: Path,
    mesh_path: Path | None,
    request: JobRequest,
    groups: Mapping[type, Any],
    making: Path,
    live: Path,
    channel: Channel,
    model_dir: str | None,
) -> None:
    from meshwright.capture import load_views
    from meshwright.device import resolve_device
    from meshwright.evaluate import StageClock
    from meshwright.mesh_files import load_mesh
    from meshwright.reconstruct import finish, in_output_frame
    from meshwright.results import colored_start, start_from_mesh, write_results

    run, output = groups[road.RunOptions], groups.get(road.OutputOptions, road.OutputOptions())
    device = resolve_device(run.device)
    clock = StageClock(channel.progress)
    views = load_views(source, groups[road.ViewOptions], progress=clock)
    if request.exclude:
        kept = [number for number in range(len(views)) if number not in request.exclude]
        if not kept:
            raise InputError("exclude: leaves no view; keep at least one")
        views = views[kept]
    if mesh_path is None:
        views, frame = in_output_frame(views, output.frame)
    else:
        start, views, frame = start_from_mesh(load_mesh(mesh_path), mesh_path.name, views, output.frame, device)
    show_views(views, live, channel)
    if request.task == "inspect":
        for file in live.iterdir():
            shutil.copyfile(file, making / file.name)
        return
    views = views.to(device)
    if mesh_path is None:
        start = _start(views, groups, clock, model_dir)
    shown = colored_start(start, views)
    _show_mesh(shown.to("cpu"), views, live, "start.glb", channel)
    finished = finish(
        start,
        views,
        fit=groups.get(road.FitOptions, road.FitOptions(refine="off")),
        color=groups[road.ColorOptions],
        seed=run.seed,
        progress=clock,
        observe=_FitShown(views, live, channel),
    )
    wanted = replace(output, format=tuple(dict.fromkeys(("glb", *output.format))))  # the page shows a GLB
    settings = {"task": request.task, "exclude": list(request.exclude), **request.options, "device": str(run.device)}
    _, result = write_results(making, start, finished, views, frame, wanted, settings, clock, shown)
    if "obj" in output.format:
        _pack_obj(making)
    shutil.copyfile(live / "start.glb", making / "start.glb")
    show_views(result.views, making, None, [score.psnr_db for score in result.scores])
    channel.progress("files", 1.0)


def _pack_obj(folder: Path) -> None:
    """One file of what an OBJ is made of, because browsers save one file at a time."""
    parts = [folder / name for name in ("mesh.obj", "mesh.mtl", "mesh.png") if (folder / name).exists()]
    with zipfile.ZipFile(folder / "mesh-obj.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in parts:
            archive.write(part, part.name)


def _start(views: "Views", groups: Mapping[type, Any], progress: "Progress", model_dir: str | None) -> "StartShape":
    """The shape to go on from: what a model sees, or the hull."""
    from meshwright.reconstruct import start_shape
    from meshwright.weights import load_model

    wanted = groups[road.ModelOptions]
    model = None
    if wanted.model != "none":
        model = load_model(
            wanted.model,
            model_dir=None if model_dir is None else Path(model_dir),
            revision=wanted.revision,
            device=groups[road.RunOptions].device,
            progress=progress,
        )
    fit = groups[road.FitOptions]
    return start_shape(views, model=model, shape=groups[road.ShapeOptions], fit=fit, progress=progress)


def _mesh_among(source: Path, folder: Path) -> Path:
    """Take the one mesh file out of the input, so that its pictures are left."""
    files = [source] if source.is_file() else sorted(source.iterdir())
    meshes = [file for file in files if file.suffix.lower() in _MESH_SUFFIXES]
    if len(meshes) != 1 or source.is_file():
        raise InputError(f"send one mesh ({', '.join(_MESH_SUFFIXES)}) and its pictures beside it")
    target = folder / "scratch" / meshes[0].name
    return meshes[0].rename(target)


def show_views(
    views: "Views", folder: Path, channel: Channel | None, psnr_db: Sequence[float | None] | None = None
) -> None:
    """Write each picture as view-NNN.jpg and all cameras as views.json.

    Cameras there are those of the pictures themselves, in the world (z up): ``T_world_camera`` by rows, OpenGL;
    ``intrinsics`` (fx, fy, cx, cy) in shares of picture width and height.
    """
    entries = []
    for number, name in enumerate(views.names):
        height, width = (int(side) for side in views.sizes_px[number])
        full_height, full_width = views.images.shape[2:]
        camera: Cameras = views.cameras[[number]].cropped(0.0, 0.0, width / full_width, height / full_height)
        alpha = views.alpha[number, 0, :height, :width]
        file = f"view-{number:03d}.jpg"
        _write_jpeg(views.images[number, :, :height, :width], folder / file)
        entries.append({
            "name": name, "file": file, "width": width, "height": height,
            "coverage": round(float(alpha.mean()), 4),
            "T_world_camera": [round(value, 7) for value in camera.T_world_camera[0].flatten().tolist()],
            "intrinsics": [round(value, 7) for value in camera.intrinsics[0].tolist()],
            "psnr_db": None if psnr_db is None else psnr_db[number],
        })  # fmt: skip
    document = {"rig": views.rig, "assumptions": list(views.assumptions), "views": entries}
    (folder / "views.json").write_text(json.dumps(document), encoding="utf-8")
    if channel is not None:
        channel.say(show="views.json")


def _write_jpeg(picture: "Tensor", path: Path) -> None:
    from PIL import Image

    from meshwright.files import atomic_path

    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, quality=_JPEG_QUALITY)


def _show_mesh(mesh: "Mesh", views: "Views", live: Path, name: str, channel: Channel) -> None:
    """A mesh, and a small picture of it, for who waits for the result."""
    from meshwright.files import atomic_path
    from meshwright.raster import render

    with atomic_path(live / name) as path:
        mesh.save(path)
    height, width = views.images.shape[2:]
    scale = _LIVE_PX / max(height, width)
    picture = render(mesh, views.cameras[[0]].to("cpu"), max(1, round(height * scale)), max(1, round(width * scale)))
    _write_jpeg(picture.rgb[0], live / "live.jpg")
    channel.say(show=name)


class _FitShown:
    """Shows the mesh while it is fitted, as fit-001.glb and so on, as often as costs little."""

    def __init__(self, views: "Views", live: Path, channel: Channel) -> None:
        self._views, self._live, self._channel = views, live, channel
        self._number, self._next_s = 0, 0.0

    def __call__(self, mesh: "Mesh") -> None:
        from meshwright.color import color_vertices

        began_s = time.monotonic()
        if began_s < self._next_s:
            return
        before = self._live / f"fit-{self._number:03d}.glb"
        self._number += 1
        colored = color_vertices(mesh, self._views).to("cpu")
        _show_mesh(colored, self._views, self._live, f"fit-{self._number:03d}.glb", self._channel)
        before.unlink(missing_ok=True)
        now_s = time.monotonic()
        self._next_s = now_s + (now_s - began_s) / _SHOW_SHARE


def _take_stdout() -> Channel:
    """Keep standard output for messages: whatever a library prints goes to the log."""
    own = os.dup(1)
    os.dup2(2, 1)
    return Channel(os.fdopen(own, "w", encoding="utf-8"))


def _end_with_the_server() -> None:
    """End when the server does, however it ends: its end of our input closes."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.read()
    os._exit(1)


def _restrain(folder: Path, scratch: Path, model_dir: str | None) -> None:
    """Bound what a job can do to the machine, and close every file to it that is none of its business.

    A camera file may name pictures anywhere. What Python code opens is therefore checked here; native decoders are
    given open files, or files of the job. Programs may not be started and connections not be opened.
    """
    restrain(file_bytes=_SCRATCH_BYTES)
    with contextlib.suppress(OSError):  # if the machine runs out of memory, a job goes before the server
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    sys.addaudithook(audit_hook(folder, model_dir))


def audit_hook(folder: Path, model_dir: str | None) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that refuses files outside a job's folder and the installation, other programs, and connections."""
    system = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys", "/dev", "/run/systemd")
    package = Path(road.__file__).parent  # numba keeps compiled code beside the sources
    own = [folder, Path(sys.prefix), Path(sys.base_prefix), package]
    own += [Path(path) for path in sysconfig.get_paths().values()]
    own += [Path(path) for path in (model_dir, os.environ.get("NUMBA_CACHE_DIR")) if path]
    own += [Path.home() / ".cache" / name for name in ("numba", "huggingface")]
    allowed = tuple({os.path.realpath(path) + os.sep for path in (*map(str, own), *system)})
    others = os.path.realpath(folder.parent) + os.sep
    mine = os.path.realpath(folder) + os.sep

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(mine):
                return
            if path.startswith(others) or not (path + os.sep).startswith(allowed):
                raise PermissionError(13, "not a file of this job", os.path.basename(path))

    return refusing(check)


def _for_the_client(message: str, folder: Path) -> str:
    """An error in the API's words, without the server's own paths."""
    message = in_options(message)
    for place in (str(folder / "input"), str(folder), os.getcwd()):
        message = message.replace(place + os.sep, "").replace(place, "")
    return message.removeprefix("input/").replace(" input/", " ")


if __name__ == "__main__":
    main()
