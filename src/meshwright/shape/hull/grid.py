"""The visual hull on a grid of cubic cells, and its surface."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.options import ShapeOptions
from meshwright.progress import Progress, silent
from meshwright.shape.flexicubes import flexicubes, grid
from meshwright.shape.hull.agreement import agreeing_views
from meshwright.shape.hull.bounds import Box, bounding_box, views_contradict
from meshwright.shape.hull.cones import Silhouettes, ViewingCones
from meshwright.shape.marching_cubes import marching_cubes
from meshwright.threads import one_torch_thread
from meshwright.views import Views

_DOUBLINGS = 3  # from the first, coarse grid to the last
_SLENDER = 4  # how many times ``resolution`` cells may lie along the longest side of a thin object
_CRUMB = 1e-3  # of the largest part's volume: what is smaller is a remain of the carving


@dataclass(frozen=True, eq=False)
class VisualHull:
    """A signed field on a grid of cubic cells, about the distance to the hull in world units, negative inside.

    ``values[i, j, k]`` is the field at ``origin + cell_size * (i, j, k)`` in the world; it is positive on the
    grid's border, so its surface is closed. ``rejected_views`` are the numbers of views that contradict the others.
    ``ignored_per_point``: how many of the others were overruled at each point, because they disagree a little.
    ``unknown``: pixels where a silhouette lacks a piece of the object, as the others show; None if there are none.
    """

    values: Float[Tensor, "nx ny nz"]
    origin: Float[Tensor, "3"]
    cell_size: float
    rejected_views: tuple[int, ...] = ()
    ignored_per_point: int = 0
    unknown: Bool[Tensor, "views 1 height width"] | None = None

    def mesh(self, surface: Literal["flexicubes", "marching-cubes"] = "flexicubes") -> Mesh:
        """The closed surface, without crumbs: parts smaller than a thousandth of the largest are dropped."""
        nx, ny, nz = (n - 1 for n in self.values.shape)
        sides = (nx * self.cell_size, ny * self.cell_size, nz * self.cell_size)
        middle = self.origin + torch.tensor(sides).to(self.origin) / 2
        if surface == "flexicubes":
            positions = grid((nx, ny, nz), sides, device=self.values.device) + middle
            vertices, faces, _ = flexicubes(positions, self.values.flatten().to(positions), (nx, ny, nz))
            mesh = Mesh(vertices, faces)
        else:
            mesh = marching_cubes(self.values, scale=sides)
            mesh = mesh.replace(vertices=mesh.vertices + middle)
        return _without_crumbs(mesh)


@one_torch_thread()
def visual_hull(views: Views, resolution: int = ShapeOptions.resolution, progress: Progress = silent) -> VisualHull:
    """The hull of all silhouettes in a grid of about ``resolution`` ** 3 cubic cells that fits the object.

    A view that contradicts the others is not believed where it lacks a piece, else left out; where many disagree a
    little, a few are overruled at each point.
    Where the views leave the object unbounded (a single picture), it ends at the [-1, 1] cube of its `ObjectFrame`.

    Raises:
        InputError: no picture shows anything, or no point of space is object in all of them.
    """
    views, frame = views.normalized()
    silhouettes = Silhouettes.from_views(views)
    useful = [i for i in range(len(views)) if bool((silhouettes.distances_px[i] < 0).any())]
    if not useful:
        raise InputError("the views show no object (alpha is below 0.5 everywhere); check the masks or background")
    progress("hull", 0.3)
    silhouettes = silhouettes[useful]
    agreement = agreeing_views(silhouettes)
    cones = ViewingCones(agreement.silhouettes[agreement.kept], agreement.ignored_per_point)
    rejected = sorted(set(range(len(views))) - {useful[i] for i in agreement.kept})
    progress("hull", 0.6)
    unknown = torch.zeros_like(views.alpha, dtype=torch.bool) if agreement.unknown else None
    for view, pixels in agreement.unknown.items():
        assert unknown is not None
        unknown[useful[view], 0] = pixels
    hull = _sample_grid(cones, bounding_box(cones), resolution)
    progress("hull", 1.0)
    return VisualHull(
        hull.values * frame.unit,
        frame.restore_points(hull.origin[None])[0],
        hull.cell_size * frame.unit,
        tuple(rejected),
        agreement.ignored_per_point,
        unknown,
    )


def _sample_grid(cones: ViewingCones, box: Box, resolution: int) -> VisualHull:
    """The field on a grid that fits the box, computed exactly near the surface and interpolated elsewhere."""
    sides = box.high - box.low
    cell = max(float(sides.prod()) ** (1 / 3) / resolution, box.side / (_SLENDER * resolution))
    spacing = cell * 2**_DOUBLINGS
    # A cell of room around the box for the surface to close.
    points, (nx, ny, nz) = Box(box.low - cell, box.high + cell).grid(spacing)
    values = cones(points).view(nx, ny, nz)
    for _ in range(_DOUBLINGS):
        spacing /= 2
        nx, ny, nz = 2 * nx - 1, 2 * ny - 1, 2 * nz - 1
        values = interpolate(values[None, None], (nx, ny, nz), mode="trilinear", align_corners=True)[0, 0]
        # Cubes of this grid that the surface crosses have all their corners nearer than this.
        near = (values.abs() < 2 * math.sqrt(3) * cones.lipschitz * spacing).nonzero()
        values[tuple(near.T)] = cones(near * spacing + points[0])
    if not bool((values < 0).any()):
        raise views_contradict()
    for axis, n in enumerate((nx, ny, nz)):
        along = points[0, axis] + torch.arange(n, device=points.device) * spacing
        beyond_box = torch.maximum(box.low[axis] - along, along - box.high[axis])
        values = torch.maximum(values, beyond_box.view([-1 if i == axis else 1 for i in range(3)]))
    return VisualHull(values, points[0], spacing)


def _without_crumbs(mesh: Mesh) -> Mesh:
    part = mesh.components()
    # On the CPU: not every device has float64.
    a, b, c = mesh.vertices[mesh.faces].cpu().double().unbind(1)
    # Signed, so that a bubble inside the object (negative) goes too.
    volume = torch.zeros(int(part.max()) + 1, dtype=torch.float64)
    volume.index_add_(0, part.cpu(), (a * torch.linalg.cross(b, c)).sum(1))
    return mesh.keep_faces((volume >= _CRUMB * volume.max()).to(part.device)[part])
