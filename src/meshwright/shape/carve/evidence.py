"""What the pictures do not contradict stays: removed volume is put back where what lay in front explains them as well.

Where colours are even, or a print repeats itself, a surface further in shows the same pictures, and fitting a volume
digs pits there that each picture fills with its own colours. So for every ray that passes removed volume the cost of
`matching` other pictures is compared at the hull's surface and at the carved one. The mean of these differences over a
neighbourhood decides: volume stays away only where what lies behind explains the pictures better by a margin.

What would be put back as a free-standing sliver stays away as well: few pictures make a hull of wedges and wings where
their cones cross, and even colours contradict these no more than they do the object. Filled pits are no such slivers.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from meshwright.compiled import compiled
from meshwright.shape.carve.grid import Scene, trilinear
from meshwright.shape.carve.matching import (
    COST_LIMIT,
    COVERED,
    INSIDE,
    depth_range,
    matching_cost,
    partners_of,
    pictures_to_match,
    point_at,
    rays_of,
)
from meshwright.views import Views

_MARGIN = 0.01  # difference of colours by which what lies behind must fit better
_NEIGHBORHOOD_CELLS = 4.0  # standard deviation of the mean over rays
_LEAST_REMOVED = 2  # cells along a ray; less is no other surface, but the same one found more exactly
_SLACK = 1  # cells by which either surface may be off
_BLEND = 0.01  # difference of costs that counts as one cell of distance, where kept and removed volume meet
_SLIVER_CELLS = 4.0  # half the thickness up to which put back volume is a sliver, if no other volume thickens it
_FILLED = -0.5  # cells: how deep inside nodes come to lie that were enclosed


def keep_uncontradicted(
    scene: Scene, views: Views, field: Float[np.ndarray, "nx ny nz"]
) -> Float[np.ndarray, "nx ny nz"]:
    """The signed field, in cells, with the volume put back whose removal the pictures do not ask for."""
    gains = removal_gains(scene, views, field)
    kept = np.maximum(np.minimum(field, (gains - _MARGIN) / _BLEND), scene.hull)
    kept = _without_slivers(field, kept)
    # Hollows that have lost their openings.
    numbers, _ = label(kept > 0)
    border = np.ones(kept.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    open_numbers = np.unique(numbers[border])
    enclosed = (kept > 0) & ~np.isin(numbers, open_numbers)
    return np.where(enclosed, np.maximum(_FILLED, scene.hull), kept).astype(np.float32)


def _without_slivers(
    field: Float[np.ndarray, "nx ny nz"], kept: Float[np.ndarray, "nx ny nz"]
) -> Float[np.ndarray, "nx ny nz"]:
    """``kept`` without what no ball inside it reaches (its opening, in morphology) but ``field`` did not remove."""
    middles = distance_transform_edt(kept < 0) > _SLIVER_CELLS
    beyond = distance_transform_edt(~middles) - (_SLIVER_CELLS + 0.5)  # the surface lies half a cell behind its nodes
    return np.where(beyond < 0, kept, np.minimum(field, np.maximum(kept, beyond)))


def removal_gains(scene: Scene, views: Views, field: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, "nx ny nz"]:
    """By how much the carved surface matches other pictures better than the hull's, mean over the rays nearby.

    Differences of colours; 0 far from all removed volume.
    """
    pictures, partners = pictures_to_match(views), partners_of(scene)
    gains, rays = np.zeros(field.shape, np.float32), np.zeros(field.shape, np.float32)
    for view in range(len(pictures)):
        first, count = depth_range(scene, view)
        mask = pictures[view, ..., 3] > COVERED
        _compare_surfaces(
            view, partners[view], first, count, scene.hull, field, scene.projections, pictures, mask, gains, rays
        )
    weight = gaussian_filter(rays, _NEIGHBORHOOD_CELLS)
    return gaussian_filter(gains, _NEIGHBORHOOD_CELLS) / np.maximum(weight, np.float32(1e-4))


@compiled
@no_type_check
def _compare_surfaces(view, partners, first, count, hull, field, projections, pictures, mask, gains, rays):
    """Add to each removed node what rays through it gain by its removal, and their number.

    Arguments as those of `meshwright.shape.carve.matching.matching_costs`; ``field``, ``gains`` and ``rays`` float32
    as ``hull``.
    """
    height, width = mask.shape
    axes, centre = rays_of(projections[view])
    for row in range(height):
        for column in range(width):
            if not mask[row, column]:
                continue
            u, v = (column + 0.5) / width, (row + 0.5) / height
            front, behind = -1, -1
            for k in range(count):
                x, y, z = point_at(axes, centre, u, v, first + k)
                if trilinear(hull, x, y, z, 3.0) >= 0:
                    continue
                if front < 0:
                    front = k
                if trilinear(field, x, y, z, 3.0) < 0:
                    behind = k
                    break
            if behind - front < _LEAST_REMOVED or behind < 0:
                continue
            costs = np.empty(2)
            for which in range(2):
                costs[which] = COST_LIMIT
                middle = front if which == 0 else behind
                for k in range(middle - _SLACK, middle + _SLACK + 1):
                    x, y, z = point_at(axes, centre, u, v, first + k)
                    if trilinear(hull, x, y, z, 3.0) <= INSIDE:
                        found = matching_cost(
                            view, row, column, first + k, axes, centre, partners, projections, pictures, mask
                        )
                        costs[which] = min(costs[which], found)
            for k in range(front, behind):
                x, y, z = point_at(axes, centre, u, v, first + k)
                i, j, n = int(x + 0.5), int(y + 0.5), int(z + 0.5)
                gains[i, j, n] += costs[0] - costs[1]
                rays[i, j, n] += 1
