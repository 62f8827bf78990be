"""Where the intersection of viewing cones lies: a box around it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.errors import InputError
from meshwright.shape.hull.cones import ViewingCones

_SEARCH_CELLS = 40  # along a side of a region that is searched for the hull
_SEARCH_ROUNDS = 12  # of searching the smaller region that the last round found


@dataclass(frozen=True, eq=False)
class Box:
    """Axes-parallel, from its ``low`` corner to its ``high`` one."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @property
    def side(self) -> float:
        return float((self.high - self.low).max())

    def grid(self, cell_size: float) -> tuple[Float[Tensor, "points 3"], tuple[int, int, int]]:
        """Points of a grid of cubic cells that covers the box, and their number along each axis."""
        nx, ny, nz = (((self.high - self.low) / cell_size).ceil().long() + 1).tolist()
        x, y, z = (torch.arange(n, device=self.low.device) * cell_size for n in (nx, ny, nz))
        return torch.cartesian_prod(x, y, z) + self.low, (nx, ny, nz)


def _cube(center: Float[Tensor, "3"], half: float) -> Box:
    return Box(center - half, center + half)


def bounding_box(cones: ViewingCones) -> Box:
    """A box around the hull in the object's frame, a little too large.

    Looks in [-1, 1]^3 and, if the hull is not all in there, as far around as to the nearest camera; a hull that ends in
    neither (as a single view's) is cut off at the border of the first.

    Raises:
        InputError: the hull is empty.
    """
    origin = torch.zeros(3).to(cones.silhouettes.cameras.intrinsics)
    box = None
    for half in (1.0, float(cones.silhouettes.cameras.positions.norm(dim=1).min())):
        region = _cube(origin, half)
        found = _occupied(cones, region)
        if found is None:
            continue
        box = box or found
        if bool((found.low > region.low).all() and (found.high < region.high).all()):
            box = found
            break
    for _ in range(_SEARCH_ROUNDS):
        if box is None:
            raise views_contradict()
        larger, box = box, _occupied(cones, box)
        if box is not None and box.side > 0.7 * larger.side:
            return box
    raise views_contradict()  # the hull is no larger than a rounding error


def views_contradict() -> InputError:
    return InputError(
        "the views contradict each other, no point of space is object in all of them; "
        "check the rig, the order of the pictures, the direction of rotation and the masks"
    )


def _occupied(cones: ViewingCones, region: Box) -> Box | None:
    """The part of a region outside which the field is surely positive."""
    cell = region.side / _SEARCH_CELLS
    points, _ = region.grid(cell)
    near = points[cones(points) <= cones.lipschitz * cell * math.sqrt(3) / 2]
    if len(near) == 0:
        return None
    low, high = near.amin(0) - cell, near.amax(0) + cell
    return Box(torch.maximum(low, region.low), torch.minimum(high, region.high))
