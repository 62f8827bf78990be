"""Rays through the pictures, cut to the box of the object: what hulls and silhouettes are compared along."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshwright.shape.hull.bounds import Box
from meshwright.shape.hull.cones import SAMPLES_AT_ONCE, Silhouettes

STEPS = 48  # samples along a ray
CLEAR = 0.01  # of the object's size: a ray so far inside its own silhouette must meet the hull


@dataclass(frozen=True, eq=False)
class ClippedRays:
    """Rays through the pictures, cut to the box of the object.

    ``near`` and ``far``: the ends inside the box. ``clearance``: distance of the ray inside (negative) or outside
    of its own view's silhouette, in world units at the object. ``views``: the view each ray belongs to. ``cells``:
    column and row of the ray among those of its view.
    """

    near: Float[Tensor, "rays 3"]
    far: Float[Tensor, "rays 3"]
    clearance: Float[Tensor, " rays"]
    views: Int[Tensor, " rays"]
    cells: Int[Tensor, "rays 2"]

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, chosen: Tensor) -> "ClippedRays":
        fields = (self.near, self.far, self.clearance, self.views, self.cells)
        return ClippedRays(*(field[chosen] for field in fields))

    def of_views(self, numbers: list[int]) -> "ClippedRays":
        return self[torch.isin(self.views, torch.tensor(numbers, device=self.views.device))]

    def points(
        self, low: Float[Tensor, " rays"], high: Float[Tensor, " rays"], steps: int
    ) -> Float[Tensor, "rays steps 3"]:
        """Points from ``low`` to ``high``, as fractions of the way from ``near`` to ``far``."""
        t = torch.linspace(0, 1, steps, device=self.near.device)
        t = low[:, None] + (high - low)[:, None] * t
        return self.near[:, None] + t[..., None] * (self.far - self.near)[:, None]

    def whole(self) -> Float[Tensor, "rays steps 3"]:
        """`STEPS` points on each, from end to end."""
        return self.points(torch.zeros_like(self.clearance), torch.ones_like(self.clearance), STEPS)


def windows(silhouettes: Silhouettes, box: Box) -> tuple[Float[Tensor, "views 2"], Float[Tensor, "views 2"]]:
    """Where each picture shows the box: its least and largest picture coordinates."""
    corners = torch.cartesian_prod(*torch.stack([box.low, box.high], dim=1))
    uv, depth_z = silhouettes.cameras.project(corners)
    height, width = silhouettes.distances_px.shape[2:]
    last = silhouettes.sizes_px.flip(1) / torch.tensor([width, height], device=uv.device)
    uv = torch.where((depth_z > 0)[..., None], uv, uv.new_tensor(0.5))
    return uv.amin(1).clamp(min=0), torch.minimum(uv.amax(1), last)


def rays_through(silhouettes: Silhouettes, box: Box, count: int) -> ClippedRays:
    """``count`` squared rays, evenly spread over where each picture shows the box, but for those that miss it."""
    cameras = silhouettes.cameras
    low, high = windows(silhouettes, box)
    cells = torch.cartesian_prod(*[torch.arange(count, device=low.device)] * 2)
    uv = low[:, None] + (cells + 0.5) / count * (high - low)[:, None]
    directions = cameras.unproject(uv)
    origins = cameras.positions[:, None]
    slabs = torch.stack([(box.low - origins) / directions, (box.high - origins) / directions])
    t_near, t_far = slabs.amin(0).amax(2).clamp(min=0), slabs.amax(0).amin(2)
    hit = t_far > t_near
    depth = (t_near + t_far) / 2
    clearance = silhouettes.distances_at(uv) * silhouettes.pixel_at_unit_depth[:, None] * depth
    views = torch.arange(len(cameras), device=uv.device)[:, None].expand_as(hit)
    ends = [(origins + t[..., None] * directions)[hit] for t in (t_near, t_far)]
    return ClippedRays(ends[0], ends[1], clearance[hit], views[hit], cells.expand(len(cameras), -1, -1)[hit])


def rays_a_side(about: int, views: int) -> int:
    """So many rays along a picture's side make ``about`` so many in all."""
    return math.ceil(math.sqrt(about / views))


def kept_out_by_one(silhouettes: Silhouettes, rays: ClippedRays) -> Bool[Tensor, "views rays"]:
    """Which view, alone, keeps a ray from meeting the hull: without that view it would."""
    found = torch.zeros(len(silhouettes), len(rays), dtype=torch.bool, device=rays.views.device)
    for part, distances in _distances_along(silhouettes, rays):
        largest, farthest = distances.max(dim=0)
        second = distances.scatter(0, farthest[None], -math.inf).amax(0)
        missed = largest.amin(1) > 0
        for view in range(len(silhouettes)):
            without = torch.where(farthest == view, second, largest).amin(1)
            found[view, part] = missed & (without <= 0)
    return found


def misses(silhouettes: Silhouettes, rays: ClippedRays) -> Bool[Tensor, " rays"]:
    """Whether a ray does not meet the hull."""
    found = [distances.amax(0).amin(1) > 0 for _, distances in _distances_along(silhouettes, rays)]
    return torch.cat(found) if found else rays.clearance > 0


def _distances_along(
    silhouettes: Silhouettes, rays: ClippedRays
) -> Iterator[tuple[Int[Tensor, " part"], Float[Tensor, "views part steps"]]]:
    """Numbers of some of the rays, and the distances of their points to the cones, until all had their turn."""
    chunk = max(1, SAMPLES_AT_ONCE // (len(silhouettes) * STEPS))
    for part in torch.arange(len(rays), device=rays.views.device).split(chunk):
        points = rays[part].whole()
        yield part, silhouettes.distances_to_cones(points.flatten(0, 1)).unflatten(1, points.shape[:2])
