"""What came out, as pictures and as numbers: preview.png, turntable.mp4, report.json."""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.evaluate.metrics import psnr, silhouette_iou
from meshwright.images import write_video
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.raster import render
from meshwright.shape.refine import Refined
from meshwright.views import Views

LIBRARIES = ("meshwright", "torch", "numpy", "scipy", "numba", "pillow", "av", "trimesh", "PyMCubes")


_TILE_PX = 256  # side of a square of the preview
_VIEWS_AT_ONCE = 8  # that are rendered together


@dataclass(frozen=True)
class ViewScore:
    """How well a mesh agrees with one of its input pictures, over the whole picture on white."""

    name: str
    psnr_db: float
    silhouette_iou: float


@dataclass(frozen=True)
class Stage:
    """One stage of the work: its name, how long it took, and how much memory the process held at most."""

    name: str
    seconds: float
    peak_memory_mib: float


@dataclass
class StageClock:
    """A Progress that notes seconds and peak memory of each stage and passes everything on."""

    inner: Progress = silent
    stages: list[Stage] = field(default_factory=list)
    _current: str | None = None
    _started: float = 0.0

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        if stage != self._current:
            self.close()
            self._current, self._started = stage, time.perf_counter()
            _reset_peak_memory()
        self.inner(stage, fraction, detail)

    def close(self) -> None:
        """End the running stage, if there is one."""
        if self._current is not None:
            seconds = time.perf_counter() - self._started
            self.stages.append(Stage(self._current, round(seconds, 3), round(_peak_memory_mib(), 1)))
            self._current = None


@dataclass(frozen=True, eq=False)
class Scored:
    """A mesh, the views it is judged by, how well it agrees with each, and how it looks there, in small squares."""

    mesh: Mesh
    views: Views
    scores: list[ViewScore]
    tiles: list[Float[Tensor, "3 side side"]]

    @classmethod
    def of(cls, mesh: Mesh, views: Views) -> "Scored":
        """Render the mesh by the views' cameras: PSNR over each whole picture on white, and silhouette IoU."""
        scores, tiles = [], []
        for i in range(len(views)):
            if i % _VIEWS_AT_ONCE == 0:
                together = render(mesh, views.cameras[i : i + _VIEWS_AT_ONCE], *views.images.shape[2:])
            height, width = (int(side) for side in views.sizes_px[i])
            rgb = together.rgb[[i % _VIEWS_AT_ONCE], :, :height, :width].clamp(0, 1)
            alpha = together.alpha[[i % _VIEWS_AT_ONCE], :, :height, :width]
            psnr_db = float(psnr(rgb, views.images[[i], :, :height, :width]))
            iou = float(silhouette_iou(alpha, views.alpha[[i], :, :height, :width]))
            # JSON knows no infinity.
            scores.append(ViewScore(views.names[i], round(min(psnr_db, 99.0), 3), round(iou, 4)))
            tiles.append(_tile(rgb[0]))
        return cls(mesh, views, scores, tiles)

    @property
    def psnr_db(self) -> float:
        return float(np.mean([score.psnr_db for score in self.scores]))

    @property
    def silhouette_iou(self) -> float:
        return float(np.mean([score.silhouette_iou for score in self.scores]))

    def summary(self) -> dict[str, object]:
        return {
            "mesh": {
                "triangles": len(self.mesh.faces),
                "vertices": len(self.mesh.vertices),
                "watertight": self.mesh.is_watertight(),
                "components": int(self.mesh.components().max()) + 1,
            },
            "views": [asdict(score) for score in self.scores],
            "mean": {"psnr_db": round(self.psnr_db, 3), "silhouette_iou": round(self.silhouette_iou, 4)},
        }


def preview(results: Sequence[Scored], columns: int = 7, most: int = 21) -> Float[Tensor, "3 height width"]:
    """Groups of rows: the input pictures, and right below each every result, seen by its own camera of that picture.

    More than ``most`` views are thinned out evenly.
    """
    views = results[0].views
    stacks = []
    for i in torch.linspace(0, len(views) - 1, min(len(views), most)).round().long().tolist():
        height, width = (int(side) for side in views.sizes_px[i])
        stacks.append([_tile(views.images[i, :, :height, :width]), *(result.tiles[i] for result in results)])
    columns = min(columns, len(stacks))
    blank = torch.ones_like(stacks[0][0])
    stacks += [[blank] * len(stacks[0])] * (-len(stacks) % columns)
    rows = [
        torch.cat([stack[row] for stack in stacks[start : start + columns]], dim=2)
        for start in range(0, len(stacks), columns)
        for row in range(len(stacks[0]))
    ]
    return torch.cat(rows, dim=1)


def turntable(
    mesh: Mesh, path: str | os.PathLike[str], frames: int = 90, size_px: int = 384, progress: Progress = silent
) -> None:
    """Write an mp4 of the mesh turning once, seen from 15 degrees above its middle."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    fov_deg = 30.0
    # The bounding sphere touches the picture's edge at this distance; a little more leaves a margin.
    radius = 1.1 * float((high - low).norm()) / 2 / float(np.sin(np.radians(fov_deg / 2)))
    cameras = Cameras.orbit(frames, 15.0, radius, fov_deg)
    T_world_camera = cameras.T_world_camera.clone()
    T_world_camera[:, :3, 3] += (low + high).cpu() / 2
    cameras = Cameras(T_world_camera, cameras.intrinsics)

    def pictures() -> Iterator[Float[Tensor, "3 height width"]]:
        for start in range(0, frames, _VIEWS_AT_ONCE):
            yield from render(mesh, cameras[start : start + _VIEWS_AT_ONCE], size_px, size_px).rgb
            progress("turntable", min(1.0, (start + _VIEWS_AT_ONCE) / frames))

    write_video(pictures(), path, fps=30.0)


def write_report(
    path: str | os.PathLike[str],
    start: Scored,
    result: Scored,
    refined: Refined | None,
    rejected_views: Sequence[int],
    settings: Mapping[str, object],
    stages: Sequence[Stage],
) -> None:
    """Write report.json: settings, versions, stages, agreement with each view before and after, mesh facts."""
    views = start.views
    report = {
        "settings": dict(settings),
        "input": {
            "rig": views.rig,
            "views": len(views),
            "assumptions": list(views.assumptions),
            "rejected_silhouettes": [views.names[i] for i in rejected_views],
        },
        "versions": versions(),
        "stages": [asdict(stage) for stage in stages],
        "start": start.summary(),
        "refinement": None if refined is None else _refinement(refined, views),
        **result.summary(),
    }
    Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _refinement(refined: Refined, views: Views) -> dict[str, object]:
    """Errors on withheld pixels, and what the fit found out about each view."""
    turned_deg, moved = views.cameras.difference(refined.views.cameras)
    return {
        "withheld_error_before": refined.error_before,
        "withheld_error_after": refined.error_after,
        "views": [
            {"name": name, "trust": round(trust, 3), "camera_turned_deg": round(deg, 3), "camera_moved": round(by, 4)}
            for name, trust, deg, by in zip(
                views.names, refined.view_trust.tolist(), turned_deg.tolist(), moved.tolist(), strict=True
            )
        ],
    }


def versions() -> dict[str, str]:
    """Versions of Python, the operating system and the libraries that matter for a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def _tile(picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 side side"]:
    """Shrink or enlarge to fit a white square, centred."""
    height, width = picture.shape[1:]
    scale = _TILE_PX / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    fitted = torch.nn.functional.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]
    tile = torch.ones(3, _TILE_PX, _TILE_PX)
    top, left = (_TILE_PX - size[0]) // 2, (_TILE_PX - size[1]) // 2
    tile[:, top : top + size[0], left : left + size[1]] = fitted.clamp(0, 1)
    return tile


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
