"""Whether a data set holds what it should: every file read, and pictures, depth, normals and cameras compared."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.curate.isolate import run_isolated
from meshwright.curate.layouts import open_dataset
from meshwright.curate.object_files import RenderedObject
from meshwright.curate.options import CurateCheckOptions
from meshwright.curate.rendered_folder import RenderedFolder
from meshwright.curate.shards import Shards
from meshwright.errors import InputError
from meshwright.progress import Progress, silent

_POINTS = 2000  # of each view that are looked for in the next one
_MOST_ASTRAY = 0.02  # share of pixels that may disagree
# Where an object is as thin as a pixel, what one view sees lies between the pixels of another. There so many may be
# astray (measured: up to 0.18, a bow's string; with shifted alpha or moved cameras 0.4 and more).
_MOST_ASTRAY_THIN = 0.25
_DEPTH_SLACK = 0.02
# Share of the points of one view that may be missing in the next. Only those count whose surface that view does not
# see edge-on, for a sheet is thinner than a pixel there. Of 120 sound objects at most 0.004 were missing, with those
# seen edge-on 0.031 (a whisk). Cameras turned by half a degree: 98 of the 120 are noticed.
_MOST_MISSING = 0.01
_EDGE_ON = 0.2  # cosine between the surface's normal and the line of sight
_MOST_COLOR_ERROR = 0.1
_CORNER = 3.0**0.5 + 1e-3  # of [-1, 1]^3


@dataclass(frozen=True)
class CheckSummary:
    """``problems``: (object, what is wrong), in the order of names. ``kinds``: how many objects have each kind."""

    objects: int
    views: int
    problems: tuple[tuple[str, str], ...]
    kinds: dict[str, int]


def check_dataset(options: CurateCheckOptions, progress: Progress = silent) -> CheckSummary:
    """Check every object, each in a process of its own.

    Raises:
        InputError: ``dataset`` is none.
    """
    names = open_dataset(options.dataset).names
    problems: dict[str, list[str]] = {}
    views = 0
    tasks = [(options.dataset, name) for name in names]
    for count, (number, outcome) in enumerate(
        run_isolated(check_named, tasks, max(1, options.workers), options.limits), 1
    ):
        if outcome.kind == "done":
            seen, lines = outcome.value
            views += seen
        else:
            lines = [f"files: {outcome.reason}"]
        if lines:
            problems[names[number]] = lines
        progress("check", count / len(names), names[number])
    listed = [(name, line) for name in sorted(problems) for line in problems[name]]
    kinds = Counter(kind for lines in problems.values() for kind in {line.partition(":")[0] for line in lines})
    return CheckSummary(len(names), views, tuple(listed), dict(kinds))


def check_named(dataset: Path, name: str) -> tuple[int, list[str]]:
    """The number of views of one object, and what is wrong with it, each line beginning with its kind."""
    source = open_dataset(dataset)
    try:
        rendered = source.read(name)
        lines = check_object(rendered)
        if isinstance(source, (RenderedFolder, Shards)):
            record = source.record(name)
            if record.name != name or record.views != len(rendered) or record.size_px != rendered.rgba.shape[2]:
                lines.append("record: object.json speaks of another name, size or number of views")
    except InputError as error:
        return 0, [f"files: {error}"]
    return len(rendered), lines


def check_object(rendered: RenderedObject) -> list[str]:
    """What is wrong with an object that could be read: sizes, camera matrices and lengths of normals are right then."""
    lines = []
    alpha = rendered.rgba[:, 3].float() / 255
    empty = (alpha == 0).flatten(1).all(1)
    if bool(empty.any()):
        lines.append(f"empty: {int(empty.sum())} of {len(alpha)} views see nothing")
    if not bool(rendered.depth_z.any()):
        return lines  # a layout without depth
    seen = rendered.depth_z[:, 0] > 0
    distance = rendered.cameras.positions.norm(dim=1)[:, None, None]
    outside = seen & ((rendered.depth_z[:, 0] - distance).abs() > _CORNER)
    if bool(outside.any()):
        lines.append(f"depth: {int(outside.sum())} pixels lie outside [-1, 1]^3")
    thick = _thick(seen)
    astray = torch.where(seen, (alpha == 0), (alpha == 1) & _thick(~seen))
    if share := _share_astray(astray[seen | astray], thick[seen | astray], _MOST_ASTRAY):
        lines.append(f"alpha: disagrees with depth in {share:.1%} of the object's pixels")
    lines += _normal_problems(rendered, seen)
    lines += _view_problems(rendered)
    return lines


def _normal_problems(rendered: RenderedObject, seen: Tensor) -> list[str]:
    known = (rendered.normals != 0).any(1)
    if bool((known != seen).float().sum() > _MOST_ASTRAY * seen.sum()):
        return ["normals: are not where depth is"]
    directions = rendered.cameras.rays(*seen.shape[1:]).directions.permute(0, 3, 1, 2)
    away = float((((rendered.normals * directions).sum(1) > 0.02) & known).sum() / known.sum())
    return [f"normals: {away:.1%} look away from the camera"] if away > _MOST_ASTRAY else []


def _view_problems(rendered: RenderedObject) -> list[str]:
    """What each view sees must be where the next one has it, or behind what that sees."""
    generator = torch.Generator().manual_seed(0)
    missing, thick = [], []
    errors = []
    for i in range(len(rendered)):
        j = (i + 1) % len(rendered)
        points, normals, colors, on_thick = _points(rendered, i, generator)
        uv, depth_z = rendered.cameras[[j]].project(points)
        height, width = rendered.rgba.shape[2:]
        column, row = (uv[0, :, 0] * width).floor().long(), (uv[0, :, 1] * height).floor().long()
        inside = (column >= 1) & (column < width - 1) & (row >= 1) & (row < height - 1) & (depth_z[0] > 0)
        column, row, p_depth, colors = column[inside], row[inside], depth_z[0, inside], colors[inside]
        cosine = (normals * F.normalize(rendered.cameras.positions[j] - points, dim=1)).sum(1)[inside]
        around = torch.stack(
            [rendered.depth_z[j, 0][row + down, column + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
        )
        nearest = torch.where(around > 0, around, torch.inf).amin(0)
        counted = cosine.abs() > _EDGE_ON
        missing.append((p_depth < nearest - _DEPTH_SLACK)[counted])
        thick.append(on_thick[inside][counted])
        same = (cosine > _EDGE_ON) & ((p_depth - around[4]).abs() < _DEPTH_SLACK)  # not the other side of a sheet
        there = rendered.rgba[j][:, row, column].float().T / 255
        same &= there[:, 3] == 1
        errors.append((there[:, :3] - colors)[same].abs().mean(1))
    lines = []
    if share := _share_astray(torch.cat(missing), torch.cat(thick), _MOST_MISSING):
        lines.append(f"views: {share:.1%} of the points of one view are missing in the next")
    error = torch.cat(errors)
    if len(error) and float(error.median()) > _MOST_COLOR_ERROR:
        lines.append(f"colours: differ by {float(error.median()):.2f} between views of the same point")
    return lines


def _thick(mask: Bool[Tensor, "views height width"]) -> Bool[Tensor, "views height width"]:
    """Where the mask holds for six of the nine pixels around: at straight edges, but not on what is a pixel wide."""
    return F.avg_pool2d(mask.float(), 3, 1, 1) > 5.5 / 9


def _share_astray(astray: Bool[Tensor, " n"], thick: Bool[Tensor, " n"], most: float) -> float:
    """The share that is astray, if it is too much: on thick parts alone, or on thin ones."""
    count = max(1, int(thick.sum())), max(1, int((~thick).sum()))
    on_thick, on_thin = int((astray & thick).sum()), int((astray & ~thick).sum())
    share = (on_thick + on_thin) / max(1, len(astray))
    if on_thick > most * count[0]:
        return max(share, on_thick / count[0])
    return share if share > most and on_thin > _MOST_ASTRAY_THIN * count[1] else 0.0


def _points(
    rendered: RenderedObject, view: int, generator: torch.Generator
) -> tuple[
    Float[Tensor, "points 3"], Float[Tensor, "points 3"], Float[Tensor, "points 3"], Bool[Tensor, " points"]
]:  # fmt: skip
    """World points of some opaque pixels of a view, their normals and colours, and whether they lie on thick parts."""
    camera = Cameras(rendered.cameras.T_world_camera[[view]], rendered.cameras.intrinsics[[view]])
    seen = ((rendered.depth_z[view, 0] > 0) & (rendered.rgba[view, 3] == 255)).flatten().nonzero()[:, 0]
    chosen = seen[torch.randperm(len(seen), generator=generator)[:_POINTS]]
    rays = camera.rays(*rendered.rgba.shape[2:])
    directions = rays.directions.reshape(-1, 3)[chosen]
    forward = -camera.T_world_camera[0, :3, 2]
    distance = rendered.depth_z[view].flatten()[chosen] / (directions @ forward)
    colors = rendered.rgba[view, :3].flatten(1)[:, chosen].T.float() / 255
    normals = rendered.normals[view].flatten(1)[:, chosen].T
    thick = _thick(rendered.depth_z[[view], 0] > 0).flatten()[chosen]
    return camera.positions + distance[:, None] * directions, normals, colors, thick
