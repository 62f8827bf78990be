"""How near a reconstruction is to pictures it was not made from, and to the surface that they show.

`evaluate` takes any function from input views to a mesh, so models, hulls and other people's meshes are judged alike.
One line of JSON an object; a run that was stopped goes on with the next.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.evaluate.metrics import chamfer, f_score, psnr, silhouette_iou, ssim
from meshwright.evaluate.report import versions
from meshwright.files import atomic_path
from meshwright.images import write_image
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.raster import rasterize, render
from meshwright.views import Views

THRESHOLDS = (0.01, 0.02, 0.05)
"""Distances (world units; objects fill [-1, 1]^3) at which F-scores are taken."""

_SAMPLES = 2  # points along a pixel's side, of our renders
_SURFACE_POINTS = 50_000  # at most, of each of the two visible surfaces
_SHOWN_VIEWS, _SHOWN_PX = 4, 128


@dataclass(frozen=True)
class Split:
    """Numbers of the views of an object that are given, and of those that are predicted."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Of one object: means over the target views; then the surfaces that the target views see, one against the other.

    ``psnr_db``, ``ssim``, ``iou``: of whole pictures on white. ``chamfer``: mean of both directions, world units.
    ``f_scores``: at `THRESHOLDS`. The last two are None without depth in the data set, or without a mesh.
    """

    name: str
    psnr_db: float
    ssim: float
    iou: float
    chamfer: float | None
    f_scores: tuple[float, ...] | None
    triangles: int
    split: Split


@dataclass(frozen=True)
class Failure:
    """An object that could not be reconstructed, and why. It counts in no mean, and the summary says how many."""

    name: str
    error: str


def draw_split(name: str, views: int, inputs: int, targets: int, seed: int = 0) -> Split:
    """``inputs`` views and up to ``targets`` others, by the object's name and the seed alone.

    Raises:
        InputError: the object has too few views.
    """
    if views < inputs + 1:
        raise InputError(f"{name}: has {views} views, too few for {inputs} inputs and a target; ask for fewer inputs")
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    order = [int(i) for i in np.random.default_rng(list(key)).permutation(views)]
    return Split(tuple(order[:inputs]), tuple(order[inputs : inputs + targets]))


def read_splits(path: Path) -> dict[str, Split]:
    """An index file: JSON of {"NAME": {"inputs": [0, 3], "targets": [1, 2]}, ...}.

    Raises:
        InputError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {
            str(name): Split(*(tuple(int(i) for i in entry[key]) for key in ("inputs", "targets")))
            for name, entry in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: is no index of views ({type(error).__name__}); see docs/evaluation.md") from None
    if not found or any(not s.inputs or not s.targets or set(s.inputs) & set(s.targets) for s in found.values()):
        raise InputError(f"{path}: each object needs inputs and targets that are no inputs; mend the index")
    return found


def score(name: str, mesh: Mesh, targets: Views, split: Split) -> Scores:
    """A mesh against the true target views, in their world."""
    height, width = targets.images.shape[2:]
    drawn = render(mesh, targets.cameras, height, width, samples=_SAMPLES)
    measured, at_thresholds = None, None
    if targets.depth_z is not None and len(mesh.faces):
        fragments = rasterize(mesh.vertices, mesh.faces, targets.cameras, height, width)
        ours = _thinned(points_at_depth(fragments.depth_z, targets.cameras))
        true = _thinned(points_at_depth(targets.depth_z[:, 0], targets.cameras))
        if len(ours) and len(true):
            measured, at_thresholds = chamfer(ours, true), f_score(ours, true, THRESHOLDS)
    opaque, true_opaque = ((alpha > 0.5).float() for alpha in (drawn.alpha, targets.alpha))
    return Scores(
        name,
        float(psnr(drawn.rgb.clamp(0, 1), targets.images).clamp(max=100.0).mean()),  # equal pictures: not infinite
        float(ssim(drawn.rgb.clamp(0, 1), targets.images).mean()),
        float(silhouette_iou(opaque, true_opaque).mean()),
        measured,
        at_thresholds,
        len(mesh.faces),
        split,
    )


def points_at_depth(depth_z: Float[Tensor, "views height width"], cameras: Cameras) -> Float[Tensor, "points 3"]:
    """World points at the centres of all pixels whose depth along the viewing axis is above 0."""
    rays = cameras.rays(*depth_z.shape[1:])
    forward = -cameras.T_world_camera[:, :3, 2]
    distance = depth_z / torch.einsum("vhwc,vc->vhw", rays.directions, forward)
    return (rays.origins + distance[..., None] * rays.directions)[depth_z > 0]


def evaluate(
    objects: Iterable[tuple[str, Callable[[Split], tuple[Views, Views]], Split]],
    reconstruct: Callable[[str, Views], Mesh],
    out: Path,
    settings: Mapping[str, Any],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Reconstruct and score objects, writing ``out``/objects.jsonl, pictures/ and summary.json; returns the summary.

    ``objects``: name, how to read its input and target views, and which these are. ``settings``: all that decides the
    numbers; a folder that holds results of other settings is refused.

    Raises:
        InputError: ``out`` holds other results or cannot be written.
    """
    lines = _begin(out, settings)
    done = {entry["name"]: entry for entry in lines}
    listed = list(objects)
    for number, (name, read, split) in enumerate(listed):
        if name not in done:
            try:
                inputs, targets = read(split)
                mesh = reconstruct(name, inputs)
                entry = asdict(score(name, mesh, targets, split))
                write_image(_strip(mesh, targets), out / "pictures" / f"{name}.png")
            except InputError as error:
                entry = asdict(Failure(name, str(error)))
            done[name] = json.loads(json.dumps(entry))
            with (out / "objects.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        progress("evaluate", (number + 1) / len(listed), name)
    chosen = [done[name] for name, _, _ in listed]
    summary = summarize(chosen) | {"settings": dict(settings), "versions": versions()}
    _write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def summarize(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the objects that were reconstructed, and how many were not."""
    good = [entry for entry in entries if "error" not in entry]
    means: dict[str, Any] = {}
    for key in ("psnr_db", "ssim", "iou", "chamfer"):
        values = [entry[key] for entry in good if entry[key] is not None]
        means[key] = math.fsum(values) / len(values) if values else None
    scored = [entry["f_scores"] for entry in good if entry["f_scores"] is not None]
    means["f_scores"] = [math.fsum(column) / len(column) for column in zip(*scored, strict=True)]
    failed = [entry["name"] for entry in entries if "error" in entry]
    return {"objects": len(entries), "failed": failed, "means": means, "thresholds": list(THRESHOLDS)}


def _begin(out: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make the folder, or read what it holds already, if it is of the same settings."""
    text = json.dumps(dict(settings), indent=1) + "\n"
    stated = out / "settings.json"
    try:
        if stated.exists():
            if stated.read_text(encoding="utf-8") != text:
                raise InputError(f"{out}: holds results of other settings (see {stated}); choose another `out`")
        else:
            (out / "pictures").mkdir(parents=True, exist_ok=True)
            _write(stated, text)
        lines = (out / "objects.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{out}: cannot be used ({(error.strerror or '').lower()}); choose another `out`") from None
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut off when a run was killed
            continue
    _write(out / "objects.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    return entries


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _thinned(points: Float[Tensor, "points 3"]) -> Float[Tensor, "fewer 3"]:
    """At most _SURFACE_POINTS of the points, evenly through their order."""
    step = max(1, -(-len(points) // _SURFACE_POINTS))
    return points[::step]


def _strip(mesh: Mesh, targets: Views) -> Float[Tensor, "3 height width"]:
    """The first target views, and below them the mesh from there."""
    shown = targets[: min(_SHOWN_VIEWS, len(targets))]
    drawn = render(mesh, shown.cameras, _SHOWN_PX, _SHOWN_PX, samples=_SAMPLES).rgb
    true = torch.nn.functional.interpolate(shown.images, size=(_SHOWN_PX, _SHOWN_PX), mode="area")
    rows = [torch.cat(list(pictures), dim=2) for pictures in (true, drawn)]
    return torch.cat(rows, dim=1).clamp(0, 1)
