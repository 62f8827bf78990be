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
_MOST_ASTRAY = 0.02  # share of pixels or points that may disagree
_DEPTH_SLACK = 0.02
# Wires and blades: pixels of the next view pass their points by (0.031 of a whisk's), so more may be missing where
# little of an object is wider than three pixels (0.09 of the whisk, 0.3 to 0.6 of others), if what is wider is found.
_THIN = 0.2
_MOST_MISSING_THIN = 0.05
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
    astray = float(((seen & (alpha == 0)) | (~seen & (alpha == 1))).sum() / seen.sum())
    if astray > _MOST_ASTRAY:
        lines.append(f"alpha: disagrees with depth in {astray:.1%} of the object's pixels")
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
    missing, total = torch.zeros(2), torch.zeros(2)  # of thin parts, of wide ones
    errors = []
    for i in range(len(rendered)):
        j = (i + 1) % len(rendered)
        points, colors, wide = _points(rendered, i, generator)
        uv, depth_z = rendered.cameras[[j]].project(points)
        height, width = rendered.rgba.shape[2:]
        column, row = (uv[0, :, 0] * width).floor().long(), (uv[0, :, 1] * height).floor().long()
        inside = (column >= 1) & (column < width - 1) & (row >= 1) & (row < height - 1) & (depth_z[0] > 0)
        column, row, p_depth = column[inside], row[inside], depth_z[0, inside]
        colors, wide = colors[inside], wide[inside]
        around = torch.stack(
            [rendered.depth_z[j, 0][row + down, column + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
        )
        nearest = torch.where(around > 0, around, torch.inf).amin(0)
        astray = p_depth < nearest - _DEPTH_SLACK
        total += torch.stack([(~wide).sum(), wide.sum()])
        missing += torch.stack([(astray & ~wide).sum(), (astray & wide).sum()])
        same = (p_depth - around[4]).abs() < _DEPTH_SLACK
        there = rendered.rgba[j][:, row, column].float().T / 255
        same &= there[:, 3] == 1
        errors.append((there[:, :3] - colors)[same].abs().mean(1))
    lines = []
    share = float(missing.sum() / total.sum().clamp(min=1))
    thin = total[1] < _THIN * total.sum() and missing[1] <= _MOST_ASTRAY * total[1]
    if share > (_MOST_MISSING_THIN if thin else _MOST_ASTRAY):
        lines.append(f"views: {share:.1%} of the points of one view are missing in the next")
    error = torch.cat(errors)
    if len(error) and float(error.median()) > _MOST_COLOR_ERROR:
        lines.append(f"colours: differ by {float(error.median()):.2f} between views of the same point")
    return lines


def _points(
    rendered: RenderedObject, view: int, generator: torch.Generator
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 3"], Bool[Tensor, "points"]]:
    """World points of some opaque pixels of a view, their colours, and whether they lie on something wide.

    That is: the pixels around show one surface, turned away by less than 45 degrees.
    """
    camera = Cameras(rendered.cameras.T_world_camera[[view]], rendered.cameras.intrinsics[[view]])
    depth_z = rendered.depth_z[view]
    seen = ((depth_z[0] > 0) & (rendered.rgba[view, 3] == 255)).flatten().nonzero()[:, 0]
    chosen = seen[torch.randperm(len(seen), generator=generator)[:_POINTS]]
    rays = camera.rays(*rendered.rgba.shape[2:])
    directions = rays.directions.reshape(-1, 3)[chosen]
    forward = -camera.T_world_camera[0, :3, 2]
    distance = depth_z.flatten()[chosen] / (directions @ forward)
    colors = rendered.rgba[view, :3].flatten(1)[:, chosen].T.float() / 255
    nearest, farthest = -F.max_pool2d(-depth_z, 3, 1, 1), F.max_pool2d(depth_z, 3, 1, 1)  # 0 where nothing is
    pixel = depth_z / (camera.intrinsics[0, 0] * depth_z.shape[2])  # its side where the surface is
    wide = ((nearest > 0) & (farthest - nearest < 2 * pixel)).flatten()[chosen]
    return camera.positions + distance[:, None] * directions, colors, wide
