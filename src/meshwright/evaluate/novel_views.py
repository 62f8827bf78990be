"""How near a reconstruction is to pictures it was not made from, to the surface that they show, and to the whole of it.

`evaluate` takes any function from input views to a mesh, so models, hulls and other people's meshes are judged alike.
One line of JSON an object; a run that was stopped goes on with the next.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.evaluate.metrics import ShapeScores, SurfaceSamples, compare_shapes, psnr, silhouette_iou, ssim
from meshwright.evaluate.report import versions
from meshwright.evaluate.scans import Scene
from meshwright.files import atomic_path
from meshwright.images import write_image
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.raster import rasterize, render
from meshwright.views import Views

THRESHOLDS = (0.01, 0.02, 0.05)
"""Distances (world units; objects fill [-1, 1]^3) at which F-scores of visible surfaces are taken."""
WHOLE_THRESHOLDS = (0.005, 0.01, 0.02)
"""Shares of the true object's diagonal at which F-scores of whole surfaces are taken."""

_SAMPLES = 2  # points along a pixel's side, of our renders
_VISIBLE_POINTS = 50_000  # at most, of each of the two visible surfaces
_WHOLE_POINTS = 100_000  # of each of the two whole ones
_SHOWN_VIEWS, _SHOWN_PX = 6, 128

PictureDistance = Callable[[Float[Tensor, "views 3 _ _"], Float[Tensor, "views 3 _ _"]], Float[Tensor, " views"]]
"""Pictures in [0, 1] and the true ones to a perceptual distance a view: LPIPS."""


@dataclass(frozen=True)
class Split:
    """Numbers of the views of an object that are given, and of those that are predicted."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An object to be judged by, read when its turn comes. ``split``: which of its views, where a data set has them."""

    name: str
    read: Callable[[], Scene]
    split: Split | None = None


@dataclass(frozen=True)
class Scores:
    """Of one object: means over the target views; the surfaces that the target views see; the whole surfaces.

    ``psnr_db``, ``ssim``, ``lpips``: of whole pictures on white. ``iou``: of coverages. ``chamfer`` (mean of both
    directions, world units), ``f_scores`` (at `THRESHOLDS`), ``normals`` (mean |cosine|): of what the target views see.
    ``whole_chamfer_percent`` (of the true object's diagonal), ``whole_f_scores`` (at `WHOLE_THRESHOLDS`),
    ``whole_normals``: of points all over both surfaces. None: not known, for lack of depth, normals, a true mesh, the
    weights of LPIPS, or of faces. ``seconds``: of the reconstruction.
    """

    name: str
    psnr_db: float
    ssim: float
    lpips: float | None
    iou: float
    chamfer: float | None
    f_scores: tuple[float, ...] | None
    normals: float | None
    whole_chamfer_percent: float | None
    whole_f_scores: tuple[float, ...] | None
    whole_normals: float | None
    triangles: int
    seconds: float
    split: Split | None


@dataclass(frozen=True)
class Failure:
    """An object that could not be reconstructed, and why. It counts in no mean, and the summary says how many."""

    name: str
    error: str


def draw_split(name: str, views: int, inputs: int, targets: int, seed: int = 0, most_inputs: int = 0) -> Split:
    """``inputs`` views and up to ``targets`` others, by the object's name and the seed alone.

    With ``most_inputs``, evaluations of fewer inputs take some of the same inputs and the same targets.

    Raises:
        InputError: the object has too few views.
    """
    first = max(inputs, most_inputs)
    if views < first + 1:
        raise InputError(f"{name}: has {views} views, too few for {first} inputs and a target; ask for fewer inputs")
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    order = [int(i) for i in np.random.default_rng(list(key)).permutation(views)]
    return Split(tuple(order[:inputs]), tuple(order[first : first + targets]))


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


def score(
    mesh: Mesh, scene: Scene, case: Case, seconds: float = 0.0, perceptual: PictureDistance | None = None
) -> Scores:
    """A mesh against the true target views and surface, in their world."""
    targets = scene.targets
    height, width = targets.images.shape[2:]
    drawn = render(mesh, targets.cameras, height, width, samples=_SAMPLES)
    rgb = drawn.rgb.clamp(0, 1)
    lpips = None
    if perceptual is not None:
        with torch.no_grad():
            lpips = float(perceptual(rgb, targets.images).mean())
    visible, whole = _visible_scores(mesh, scene), _whole_scores(mesh, scene)
    return Scores(
        name=case.name,
        psnr_db=float(psnr(rgb, targets.images).clamp(max=100.0).mean()),  # equal pictures: not infinite
        ssim=float(ssim(rgb, targets.images).mean()),
        lpips=lpips,
        iou=float(silhouette_iou(drawn.alpha, targets.alpha).mean()),
        chamfer=None if visible is None else visible.chamfer,
        f_scores=None if visible is None else visible.f_scores,
        normals=None if visible is None or math.isnan(visible.normal_consistency) else visible.normal_consistency,
        whole_chamfer_percent=None if whole is None else 100 * whole.chamfer,
        whole_f_scores=None if whole is None else whole.f_scores,
        whole_normals=None if whole is None else whole.normal_consistency,
        triangles=len(mesh.faces),
        seconds=seconds,
        split=case.split,
    )


def _visible_scores(mesh: Mesh, scene: Scene) -> ShapeScores | None:
    """Of the points that the target views' pixels see, on both sides; normals are those of faces, else NaN."""
    targets = scene.targets
    if targets.depth_z is None or len(mesh.faces) == 0:
        return None
    ours = _visible_surface(mesh, targets)
    if scene.mesh is not None:
        true = _visible_surface(scene.mesh, targets)
    else:
        seen = targets.depth_z[:, 0] > 0
        normals = torch.full_like(targets.images, math.nan) if targets.normals is None else targets.normals
        true = _samples_at(targets.depth_z[:, 0], normals.permute(0, 2, 3, 1)[seen], targets.cameras)
    if not len(ours.points) or not len(true.points):
        return None
    return compare_shapes(ours, true, THRESHOLDS)


def _visible_surface(mesh: Mesh, views: Views) -> SurfaceSamples:
    fragments = rasterize(mesh.vertices, mesh.faces, views.cameras, *views.images.shape[2:])
    seen: Bool[Tensor, "views height width"] = fragments.depth_z > 0
    normals = torch.nn.functional.normalize(mesh.face_normals(), dim=1)[fragments.face_ids[seen]]
    return _samples_at(fragments.depth_z, normals, views.cameras)


def _samples_at(
    depth_z: Float[Tensor, "views height width"], normals: Float[Tensor, "points 3"], cameras: Cameras
) -> SurfaceSamples:
    points = points_at_depth(depth_z, cameras)
    step = max(1, -(-len(points) // _VISIBLE_POINTS))  # evenly through their order
    return SurfaceSamples(points[::step], normals[::step])


def _whole_scores(mesh: Mesh, scene: Scene) -> ShapeScores | None:
    """Of points all over both surfaces, in units of the true object's diagonal."""
    if scene.mesh is None or len(mesh.faces) == 0:
        return None
    diagonal = float((scene.mesh.vertices.amax(0) - scene.mesh.vertices.amin(0)).norm())
    found = compare_shapes(
        SurfaceSamples.of(mesh, _WHOLE_POINTS),
        SurfaceSamples.of(scene.mesh, _WHOLE_POINTS),
        [share * diagonal for share in WHOLE_THRESHOLDS],
    )
    return ShapeScores(found.chamfer / diagonal, found.f_scores, found.normal_consistency)


def points_at_depth(depth_z: Float[Tensor, "views height width"], cameras: Cameras) -> Float[Tensor, "points 3"]:
    """World points at the centres of all pixels whose depth along the viewing axis is above 0."""
    rays = cameras.rays(*depth_z.shape[1:])
    forward = -cameras.T_world_camera[:, :3, 2]
    distance = depth_z / torch.einsum("vhwc,vc->vhw", rays.directions, forward)
    return (rays.origins + distance[..., None] * rays.directions)[depth_z > 0]


def evaluate(
    cases: Iterable[Case],
    reconstruct: Callable[[str, Scene], Mesh],
    out: Path,
    settings: Mapping[str, Any],
    progress: Progress = silent,
    perceptual: PictureDistance | None = None,
) -> dict[str, Any]:
    """Reconstruct and score objects, writing ``out``/objects.jsonl, pictures/ and summary.json; returns the summary.

    ``settings``: all that decides the numbers; a folder that holds results of other settings is refused.
    ``reconstruct`` is given the object's name and scene, and looks at the scene's inputs alone.

    Raises:
        InputError: ``out`` holds other results or cannot be written.
    """
    lines = _begin(out, settings)
    done = {entry["name"]: entry for entry in lines}
    listed = list(cases)
    for number, case in enumerate(listed):
        if case.name not in done:
            try:
                scene = case.read()
                start = time.perf_counter()
                mesh = reconstruct(case.name, scene)
                seconds = time.perf_counter() - start
                entry = asdict(score(mesh, scene, case, seconds, perceptual))
                write_image(_strip(mesh, scene.targets), out / "pictures" / f"{case.name}.png")
            except InputError as error:
                entry = asdict(Failure(case.name, str(error)))
            done[case.name] = json.loads(json.dumps(entry))
            with (out / "objects.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        progress("evaluate", (number + 1) / len(listed), case.name)
    chosen = [done[case.name] for case in listed]
    summary = summarize(chosen) | {"settings": dict(settings), "versions": versions()}
    _write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


MEANS = (
    "psnr_db",
    "ssim",
    "lpips",
    "iou",
    "chamfer",
    "f_scores",
    "normals",
    "whole_chamfer_percent",
    "whole_f_scores",
    "whole_normals",
    "triangles",
    "seconds",
)


def summarize(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the objects that were reconstructed, and how many were not."""
    good = [entry for entry in entries if "error" not in entry]
    means: dict[str, Any] = {}
    for key in MEANS:
        values = [entry[key] for entry in good if entry[key] is not None]
        if key.endswith("f_scores"):
            means[key] = [_mean(column) for column in zip(*values, strict=True)]
        else:
            means[key] = _mean(values) if values else None
    failed = [entry["name"] for entry in entries if "error" in entry]
    thresholds = {"thresholds": list(THRESHOLDS), "whole_thresholds": list(WHOLE_THRESHOLDS)}
    return {"objects": len(entries), "failed": failed, "means": means, **thresholds}


def _mean(values: Sequence[float | int]) -> float:
    return math.fsum(values) / len(values)


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


def _strip(mesh: Mesh, targets: Views) -> Float[Tensor, "3 height width"]:
    """Some target views; below them the mesh from there, and its bare shape."""
    step = max(1, len(targets) // _SHOWN_VIEWS)
    shown = targets[list(range(0, len(targets), step))[:_SHOWN_VIEWS]]
    bare = mesh.replace(uv=None, uv_faces=None, texture=None, vertex_colors=None)
    drawn = [render(each, shown.cameras, _SHOWN_PX, _SHOWN_PX, samples=_SAMPLES).rgb for each in (mesh, bare)]
    true = torch.nn.functional.interpolate(shown.images, size=(_SHOWN_PX, _SHOWN_PX), mode="area")
    rows = [torch.cat(list(pictures), dim=2) for pictures in (true, *drawn)]
    return torch.cat(rows, dim=1).clamp(0, 1)
