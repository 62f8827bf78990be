"""Which silhouettes contradict the others, and how many to overrule at each point."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from meshwright.shape.hull.bounds import Box, bounding_box
from meshwright.shape.hull.cones import Silhouettes, ViewingCones
from meshwright.shape.hull.mending import mend
from meshwright.shape.hull.rays import (
    CLEAR,
    STEPS,
    ClippedRays,
    kept_out_by_one,
    rays_a_side,
    rays_through,
)

_RAYS_TO_BLAME = 4096  # looked along to find views that contradict the others
_RAYS_TO_FILL = 12288  # looked along to measure how well a hull fills the silhouettes
_BLAME = 0.002  # share of all such rays that a wrong view alone keeps from meeting it
_SINGLED_OUT = 3  # times the blame of an ordinary view: less, and the views disagree among each other
_MENDED = 0.5  # of its blame that a view may keep when mended: more, and that was not what is wrong with it
_FILLED = 0.97  # silhouette IoU of a hull that needs no tolerance
_GAIN = 0.003  # in silhouette IoU, that makes one more overruled view worth the loss of detail
_MOST = 5  # one view in so many may be left out, and as many be overruled at each point


@dataclass(frozen=True)
class Agreement:
    """``kept``: numbers of the views to carve with; ``ignored_per_point``: how many of them to overrule anywhere.

    ``silhouettes``: of all views, mended. ``unknown``: pixels of each view's background that are not believed.
    """

    kept: list[int]
    ignored_per_point: int
    silhouettes: Silhouettes
    unknown: dict[int, Bool[Tensor, "height width"]]


def agreeing_views(silhouettes: Silhouettes) -> Agreement:
    """The views whose hull fills the silhouettes.

    Views that contradict the others one by one are mended where they lack a piece, else left out. Where many disagree
    a little, a few of them stand out by chance; then all are kept as they are, and some are overruled at each point, if
    that hull fills the silhouettes better.
    """
    agreement = _agreement(silhouettes, mending=True)
    if agreement.unknown and agreement.ignored_per_point > 0:
        return _agreement(silhouettes, mending=False)
    return agreement


def _agreement(silhouettes: Silhouettes, mending: bool) -> Agreement:
    everyone = list(range(len(silhouettes)))
    most = (len(everyone) - 1) // _MOST
    if most == 0:
        return Agreement(everyone, 0, silhouettes, {})
    box = bounding_box(ViewingCones(silhouettes, ignored=most))
    kept, silhouettes, unknown = _without_contradictions(silhouettes, box, most, mending)
    rays = rays_through(silhouettes, box, rays_a_side(_RAYS_TO_FILL, len(silhouettes)))
    ignored, _ = _choose_ignored(silhouettes[kept], rays.of_views(kept), most)
    if kept == everyone:
        return Agreement(kept, ignored, silhouettes, unknown)
    ignored_of_all, iou_of_all = _choose_ignored(silhouettes, rays, most)
    if iou_of_all > _silhouette_iou(ViewingCones(silhouettes[kept], ignored), rays):
        return Agreement(everyone, ignored_of_all, silhouettes, unknown)
    return Agreement(kept, ignored, silhouettes, unknown)


def _without_contradictions(
    silhouettes: Silhouettes, box: Box, most: int, mending: bool
) -> tuple[list[int], Silhouettes, dict[int, Bool[Tensor, "height width"]]]:
    """Numbers of the views left, all silhouettes, and what is unknown of them, when contradictions are gone.

    Up to ``most`` views are mended (where ``mending``, and if that helps) or left out, each time the one to blame for
    most missed rays.
    """
    kept, unknown = list(range(len(silhouettes))), dict[int, Tensor]()
    rays = rays_through(silhouettes, box, rays_a_side(_RAYS_TO_BLAME, len(silhouettes)))
    rays = rays[rays.clearance < -CLEAR * box.side]
    for _ in range(most):
        looked_at = rays.of_views(kept)
        alone = kept_out_by_one(silhouettes[kept], looked_at)
        blame = alone.sum(1) / max(1, len(looked_at))
        ranked = blame.sort(descending=True).values.tolist()
        if ranked[0] < max(_BLAME, _SINGLED_OUT * ranked[most]):
            break
        worst = int(blame.argmax())
        lost = looked_at.views[alone[worst]].bincount(minlength=len(silhouettes))[kept]
        lacking = [i for i in lost.argsort(descending=True, stable=True).tolist() if lost[i] > 0]
        mended = mend(silhouettes[kept], box, worst, lacking) if mending else None
        if mended is None or kept_out_by_one(mended.silhouettes, looked_at)[worst].sum() > _MENDED * alone[worst].sum():
            unknown.pop(kept.pop(worst), None)
            continue
        silhouettes = silhouettes.replaced(kept, mended.silhouettes)
        before = unknown.get(kept[worst])
        unknown[kept[worst]] = mended.unknown if before is None else mended.unknown | before
    return kept, silhouettes, unknown


def _choose_ignored(silhouettes: Silhouettes, rays: ClippedRays, most: int) -> tuple[int, float]:
    """How many views to ignore at each point, no more than helps, and the silhouette IoU of that hull."""
    ignored, iou = 0, _silhouette_iou(ViewingCones(silhouettes), rays)
    while iou < _FILLED and ignored < most:
        better = _silhouette_iou(ViewingCones(silhouettes, ignored + 1), rays)
        if better < iou + _GAIN:
            break
        ignored, iou = ignored + 1, better
    return ignored, iou


def _silhouette_iou(cones: ViewingCones, rays: ClippedRays) -> float:
    """IoU of the hull's silhouettes with the given ones, on a sample of rays."""
    low, high = torch.zeros_like(rays.clearance), torch.ones_like(rays.clearance)
    for steps in (STEPS, 9, 9):  # close in on the point of each ray that is deepest inside
        points = rays.points(low, high, steps)
        field = cones(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        deepest, at = field.min(dim=1)
        step = (high - low) / (steps - 1)
        low, high = (low + (at - 1) * step).clamp(min=0), (low + (at + 1) * step).clamp(max=1)
    in_hull, in_silhouette = deepest <= 0, rays.clearance <= 0
    return float((in_hull & in_silhouette).sum() / (in_hull | in_silhouette).sum().clamp(min=1))
