"""Rays through the pictures as samples inside the hull."""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int

from meshwright.compiled import compiled
from meshwright.shape.carve.grid import Scene, reduced, trilinear
from meshwright.views import Views

_COVERED = 0.6  # coverage from which a pixel is the object's
_MARGIN = 0.15  # cells: samples up to so far outside the hull count, or thin parts would have none


@dataclass(frozen=True, eq=False)
class RaySamples:
    """Samples along rays, ray after ray, near to far.

    ``starts``: sample ``starts[r]`` to ``starts[r + 1]`` are ray r's. ``nodes``: the flat index of the node below each
    sample; ``fractions``: its place in that cell. ``colors``: what the pictures show along each ray.
    ``step``: between samples, in cells.
    """

    starts: Int[np.ndarray, " ends"]
    nodes: Int[np.ndarray, " samples"]
    fractions: Float[np.ndarray, "samples 3"]
    colors: Float[np.ndarray, "rays 3"]
    step: float

    @classmethod
    def of(cls, scene: Scene, views: Views, side_px: int, step: float) -> "RaySamples":
        """One ray for each pixel of the object, in pictures of ``side_px``; rays that miss the hull are left out."""
        premultiplied, alpha = reduced(views, side_px)
        height, width = alpha.shape[1:]
        view, row, column = np.nonzero(alpha > _COVERED)
        colors = premultiplied[view, row, column] / alpha[view, row, column, None]
        uv1 = np.stack([(column + 0.5) / width, (row + 0.5) / height, np.ones(len(row))], axis=1)
        directions = np.einsum("nij,nj->ni", np.linalg.inv(scene.projections[:, :, :3])[view], uv1)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = scene.centres[view]
        safe = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
        slabs = np.stack([-origins / safe, (np.array(scene.hull.shape) - 1 - origins) / safe])
        ends = np.stack([slabs.min(axis=0).max(axis=1).clip(min=0), slabs.max(axis=0).min(axis=1)], axis=1)
        counts = np.zeros(len(view), np.int64)
        nothing = np.empty(0, np.int32), np.empty((0, 3), np.float32)
        _walk_rays(origins, directions, ends, scene.hull, step, counts, counts, *nothing)
        starts = np.concatenate([[0], counts.cumsum()])
        nodes, fractions = np.empty(starts[-1], np.int32), np.empty((starts[-1], 3), np.float32)
        _walk_rays(origins, directions, ends, scene.hull, step, starts, counts, nodes, fractions)
        met = counts > 0
        starts = np.concatenate([[0], counts[met].cumsum()])
        return cls(starts, nodes, fractions, np.ascontiguousarray(colors[met], np.float32), step)


def corner_offsets(shape: tuple[int, ...]) -> Int[np.ndarray, "8"]:
    """Flat index of a cell's corners less that of its lowest: bit 4 is one along x, bit 2 along y, bit 1 along z."""
    _, ny, nz = shape
    return np.array([(corner >> 2) * ny * nz + (corner >> 1 & 1) * nz + (corner & 1) for corner in range(8)], np.int64)


@compiled
@no_type_check
def _walk_rays(origins, directions, ends, hull, step, starts, counts, nodes, fractions):
    """Count each ray's samples inside the hull; where ``nodes`` has room, also write them from ``starts`` on.

    ``origins``, ``directions`` float64 (rays, 3); ``ends`` float64 (rays, 2), where the ray enters and leaves the grid;
    ``hull`` float32 (nx, ny, nz); ``starts``, ``counts`` int64 (rays); ``nodes`` int32 (samples), ``fractions``
    float32 (samples, 3).
    """
    _, ny, nz = hull.shape
    for ray in range(len(directions)):
        found = 0
        for i in range(int((ends[ray, 1] - ends[ray, 0]) / step)):
            t = ends[ray, 0] + (i + 0.5) * step
            x = origins[ray, 0] + t * directions[ray, 0]
            y = origins[ray, 1] + t * directions[ray, 1]
            z = origins[ray, 2] + t * directions[ray, 2]
            if trilinear(hull, x, y, z, math.inf) > _MARGIN:
                continue
            if len(nodes) > 0:
                at = starts[ray] + found
                nodes[at] = (int(x) * ny + int(y)) * nz + int(z)
                fractions[at, 0], fractions[at, 1], fractions[at, 2] = x - int(x), y - int(y), z - int(z)
            found += 1
        counts[ray] = found
