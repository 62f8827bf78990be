"""Which silhouettes contradict the others, and how many to overrule at each point."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.shape.hull.bounds import Box, bounding_box
from meshwright.shape.hull.cones import SAMPLES_AT_ONCE, Silhouettes, ViewingCones

_RAYS_TO_BLAME = 4096  # looked along to find views that contradict the others
_RAYS_TO_FILL = 12288  # looked along to measure how well a hull fills the silhouettes
_STEPS = 48  # samples along each of these rays
_CLEAR = 0.01  # of the object's size: a ray so far inside its own silhouette must meet the hull
_BLAME = 0.002  # share of all such rays that a wrong view alone keeps from meeting it
_SINGLED_OUT = 3  # times the blame of an ordinary view: less, and the views disagree among each other
_FILLED = 0.97  # silhouette IoU of a hull that needs no tolerance
_GAIN = 0.003  # in silhouette IoU, that makes one more overruled view worth the loss of detail
_MOST = 5  # one view in so many may be left out, and as many be overruled at each point


@dataclass(frozen=True)
class Agreement:
    """``kept``: numbers of the views to carve with; ``ignored_per_point``: how many of them to overrule anywhere."""

    kept: list[int]
    ignored_per_point: int


@dataclass(frozen=True, eq=False)
class _ClippedRays:
    """Rays through the pictures, cut to the box of the object.

    ``near`` and ``far``: the ends inside the box. ``clearance``: distance of the ray inside (negative) or outside
    of its own view's silhouette, in world units at the object. ``views``: the view each ray belongs to.
    """

    near: Float[Tensor, "rays 3"]
    far: Float[Tensor, "rays 3"]
    clearance: Float[Tensor, " rays"]
    views: Int[Tensor, " rays"]

    def __getitem__(self, chosen: Tensor) -> "_ClippedRays":
        return _ClippedRays(self.near[chosen], self.far[chosen], self.clearance[chosen], self.views[chosen])

    def of_views(self, numbers: list[int]) -> "_ClippedRays":
        return self[torch.isin(self.views, torch.tensor(numbers, device=self.views.device))]

    def points(
        self, low: Float[Tensor, " rays"], high: Float[Tensor, " rays"], steps: int
    ) -> Float[Tensor, "rays steps 3"]:
        """Points from ``low`` to ``high``, as fractions of the way from ``near`` to ``far``."""
        t = torch.linspace(0, 1, steps, device=self.near.device)
        t = low[:, None] + (high - low)[:, None] * t
        return self.near[:, None] + t[..., None] * (self.far - self.near)[:, None]


def agreeing_views(silhouettes: Silhouettes) -> Agreement:
    """The views whose hull fills the silhouettes.

    Views that contradict the others one by one are left out. Where many disagree a little, a few of them stand out by
    chance; then all are kept, and some are overruled at each point, if that hull fills the silhouettes better.
    """
    everyone = list(range(len(silhouettes)))
    most = (len(everyone) - 1) // _MOST
    if most == 0:
        return Agreement(everyone, 0)
    box = bounding_box(ViewingCones(silhouettes, ignored=most))
    kept = _without_contradicting(silhouettes, box, most)
    rays = _rays_through(silhouettes, box, _RAYS_TO_FILL)
    ignored, _ = _choose_ignored(silhouettes[kept], rays.of_views(kept), most)
    if kept == everyone:
        return Agreement(kept, ignored)
    ignored_of_all, iou_of_all = _choose_ignored(silhouettes, rays, most)
    if iou_of_all > _silhouette_iou(ViewingCones(silhouettes[kept], ignored), rays):
        return Agreement(everyone, ignored_of_all)
    return Agreement(kept, ignored)


def _without_contradicting(silhouettes: Silhouettes, box: Box, most: int) -> list[int]:
    """Numbers of the views left when up to ``most`` have gone, each time the one to blame for most missed rays."""
    kept = list(range(len(silhouettes)))
    rays = _rays_through(silhouettes, box, _RAYS_TO_BLAME)
    rays = rays[rays.clearance < -_CLEAR * box.side]
    for _ in range(most):
        blame = _blame(silhouettes[kept], rays.of_views(kept))
        ranked = blame.sort(descending=True).values.tolist()
        if ranked[0] < max(_BLAME, _SINGLED_OUT * ranked[most]):
            break
        kept.pop(int(blame.argmax()))
    return kept


def _choose_ignored(silhouettes: Silhouettes, rays: _ClippedRays, most: int) -> tuple[int, float]:
    """How many views to ignore at each point, no more than helps, and the silhouette IoU of that hull."""
    ignored, iou = 0, _silhouette_iou(ViewingCones(silhouettes), rays)
    while iou < _FILLED and ignored < most:
        better = _silhouette_iou(ViewingCones(silhouettes, ignored + 1), rays)
        if better < iou + _GAIN:
            break
        ignored, iou = ignored + 1, better
    return ignored, iou


def _blame(silhouettes: Silhouettes, rays: _ClippedRays) -> Float[Tensor, " views"]:
    """For each view the share of all object rays that miss the hull because of this view alone.

    A ray lies inside the silhouette of its own view, which therefore is never the one.
    """
    chunk = max(1, SAMPLES_AT_ONCE // (len(silhouettes) * _STEPS))
    start, end = torch.zeros_like(rays.clearance), torch.ones_like(rays.clearance)
    blame = torch.zeros(len(silhouettes), device=rays.clearance.device)
    for part in torch.arange(len(rays.views), device=rays.views.device).split(chunk):
        points = rays[part].points(start[part], end[part], _STEPS)
        distances = silhouettes.distances_to_cones(points.flatten(0, 1)).unflatten(1, points.shape[:2])
        largest, farthest = distances.max(dim=0)
        second = distances.scatter(0, farthest[None], -math.inf).amax(0)
        missed = largest.amin(1) > 0
        for view in range(len(silhouettes)):
            without = torch.where(farthest == view, second, largest).amin(1)
            blame[view] += (missed & (without <= 0)).sum()
    return blame / max(1, len(rays.views))


def _silhouette_iou(cones: ViewingCones, rays: _ClippedRays) -> float:
    """IoU of the hull's silhouettes with the given ones, on a sample of rays."""
    low, high = torch.zeros_like(rays.clearance), torch.ones_like(rays.clearance)
    for steps in (_STEPS, 9, 9):  # close in on the point of each ray that is deepest inside
        points = rays.points(low, high, steps)
        field = cones(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        deepest, at = field.min(dim=1)
        step = (high - low) / (steps - 1)
        low, high = (low + (at - 1) * step).clamp(min=0), (low + (at + 1) * step).clamp(max=1)
    in_hull, in_silhouette = deepest <= 0, rays.clearance <= 0
    return float((in_hull & in_silhouette).sum() / (in_hull | in_silhouette).sum().clamp(min=1))


def _rays_through(silhouettes: Silhouettes, box: Box, about: int) -> _ClippedRays:
    """``about`` so many rays spread evenly over where each picture shows the box."""
    cameras, count = silhouettes.cameras, math.ceil(math.sqrt(about / len(silhouettes)))
    corners = torch.cartesian_prod(*torch.stack([box.low, box.high], dim=1))
    uv, depth_z = cameras.project(corners)
    height, width = silhouettes.distances_px.shape[2:]
    last = silhouettes.sizes_px.flip(1) / torch.tensor([width, height], device=uv.device)
    uv = torch.where((depth_z > 0)[..., None], uv, uv.new_tensor(0.5))
    low, high = uv.amin(1).clamp(min=0), torch.minimum(uv.amax(1), last)
    shares = (torch.arange(count, device=uv.device) + 0.5) / count
    uv = low[:, None] + torch.cartesian_prod(shares, shares) * (high - low)[:, None]
    directions = cameras.unproject(uv)
    origins = cameras.positions[:, None]
    slabs = torch.stack([(box.low - origins) / directions, (box.high - origins) / directions])
    t_near, t_far = slabs.amin(0).amax(2).clamp(min=0), slabs.amax(0).amin(2)
    hit = t_far > t_near
    depth = (t_near + t_far) / 2
    clearance = silhouettes.distances_at(uv) * silhouettes.pixel_at_unit_depth[:, None] * depth
    views = torch.arange(len(cameras), device=uv.device)[:, None].expand_as(hit)
    ends = [(origins + t[..., None] * directions)[hit] for t in (t_near, t_far)]
    return _ClippedRays(ends[0], ends[1], clearance[hit], views[hit])
