"""The scene of carving in the units of its grid: one cell is 1, node (0, 0, 0) the origin. So no step depends on units.

Arrays of this wing are NumPy's: their loops are compiled (`meshwright.compiled`).
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from meshwright.compiled import compiled
from meshwright.shape.hull import VisualHull
from meshwright.views import Views


@dataclass(frozen=True, eq=False)
class Scene:
    """The hull and the cameras in grid units.

    ``hull``: signed distance in cells at the nodes, negative inside. ``projections`` take a point (x, y, z, 1) to
    (u * depth, v * depth, depth), ``uv`` in picture widths and heights, depth in cells. ``centres``: of the cameras.
    ``backward``: the cameras' axes, away from what they look at.
    """

    hull: Float[np.ndarray, "nx ny nz"]
    projections: Float[np.ndarray, "views 3 4"]
    centres: Float[np.ndarray, "views 3"]
    backward: Float[np.ndarray, "views 3"]

    @classmethod
    def of(cls, views: Views, hull: VisualHull) -> "Scene":
        origin, cell = hull.origin.cpu().double().numpy(), hull.cell_size
        T = views.cameras.T_world_camera.cpu().double().numpy()
        fx, fy, cx, cy = views.cameras.intrinsics.cpu().double().numpy().T
        zero, one = np.zeros_like(fx), np.ones_like(fx)
        picture_axes = np.array([[fx, zero, -cx], [zero, -fy, -cy], [zero, zero, -one]]).transpose(2, 0, 1)
        R_camera_world = T[:, :3, :3].transpose(0, 2, 1)
        centres = (T[:, :3, 3] - origin) / cell
        linear = picture_axes @ R_camera_world
        offset = -np.einsum("vij,vj->vi", linear, centres)
        values = np.ascontiguousarray(hull.values.cpu().numpy() / cell, np.float32)
        projections = np.ascontiguousarray(np.concatenate([linear, offset[:, :, None]], axis=2))
        return cls(values, projections, np.ascontiguousarray(centres), np.ascontiguousarray(T[:, :3, 2]))

    def coarser(self, factor: float) -> "Scene":
        """The same scene with cells ``factor`` times as long, and a layer of cells around it that is outside."""
        counts = [int(np.ceil((n - 1) / factor)) + 3 for n in self.hull.shape]
        hull = resample(self.hull, [(np.arange(n) - 1) * factor for n in counts]) / factor
        for axis in range(3):
            border = np.moveaxis(hull, axis, 0)
            border[[0, -1]] = np.maximum(border[[0, -1]], 1)
        projections = self.projections.copy()
        projections[..., 3] += -factor * projections[..., :3].sum(axis=2)  # old = factor * (new - 1)
        projections[..., :3] *= factor
        projections /= factor
        centres = self.centres / factor + 1
        return Scene(np.ascontiguousarray(hull, np.float32), projections, centres, self.backward)


def resample(
    values: Float[np.ndarray, "nx ny nz"], nodes: list[Float[np.ndarray, " _n"]]
) -> Float[np.ndarray, "x y z"]:
    """Trilinear interpolation of a grid at the nodes of another, given along each axis in units of the first."""
    return map_coordinates(values, np.meshgrid(*nodes, indexing="ij"), order=1, mode="nearest")


def reduced(
    views: Views, side_px: int
) -> tuple[Float[np.ndarray, "views height width 3"], Float[np.ndarray, "views height width"]]:
    """Premultiplied colours on black, and coverage, in pictures of about ``side_px`` on the longer side."""
    height, width = views.images.shape[2:]
    scale = min(1.0, side_px / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    premultiplied = views.images - (1 - views.alpha)
    both = torch.nn.functional.interpolate(torch.cat([premultiplied, views.alpha], dim=1), size, mode="area")
    pictures = both.permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(pictures[..., :3]), np.ascontiguousarray(pictures[..., 3])


@compiled
@no_type_check
def trilinear(values, x, y, z, outside):
    """``values`` float32 (nx, ny, nz) at the point (x, y, z) in cells, or ``outside`` beyond the grid."""
    nx, ny, nz = values.shape
    i, j, k = int(x), int(y), int(z)
    if x < 0 or y < 0 or z < 0 or i >= nx - 1 or j >= ny - 1 or k >= nz - 1:
        return outside
    fx, fy, fz = x - i, y - j, z - k
    low = (1 - fy) * ((1 - fz) * values[i, j, k] + fz * values[i, j, k + 1])
    low += fy * ((1 - fz) * values[i, j + 1, k] + fz * values[i, j + 1, k + 1])
    high = (1 - fy) * ((1 - fz) * values[i + 1, j, k] + fz * values[i + 1, j, k + 1])
    high += fy * ((1 - fz) * values[i + 1, j + 1, k] + fz * values[i + 1, j + 1, k + 1])
    return (1 - fx) * low + fx * high


@compiled
@no_type_check
def project(projection, x, y, z):
    """(u, v, depth) of the point (x, y, z) in cells; ``projection`` float64 (3, 4)."""
    depth = projection[2, 0] * x + projection[2, 1] * y + projection[2, 2] * z + projection[2, 3]
    u = projection[0, 0] * x + projection[0, 1] * y + projection[0, 2] * z + projection[0, 3]
    v = projection[1, 0] * x + projection[1, 1] * y + projection[1, 2] * z + projection[1, 3]
    return u / depth, v / depth, depth
