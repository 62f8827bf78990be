"""Where the intersection of viewing cones lies: a box around it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.errors import InputError
from meshwright.shape.hull.cones import Silhouettes, ViewingCones

_SEARCH_CELLS = 40  # along a side of a region that is searched for the hull
_LEAST_PARALLAX = 1e-4  # smallest mean squared sine between rays that still tells where they meet
_SEARCH_ROUNDS = 12  # of searching the smaller region that the last round found
_SHARES = (0.125, 0.25, 0.5, 1.0)  # of the space between the cameras, for a close search
_HALVINGS = 3  # of cells, in a close search
_MOST_NEAR = 50_000  # cells that are still halved


@dataclass(frozen=True, eq=False)
class Box:
    """Axes-parallel, from its ``low`` corner to its ``high`` one."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @property
    def side(self) -> float:
        return float((self.high - self.low).max())

    def shrunk(self, share: float) -> "Box":
        """About the same middle, of ``share`` times its sides."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2 * share
        return Box(middle - half, middle + half)

    def grid(self, cell_size: float) -> tuple[Float[Tensor, "points 3"], tuple[int, int, int]]:
        """Points of a grid of cubic cells that covers the box, and their number along each axis."""
        nx, ny, nz = (((self.high - self.low) / cell_size).ceil().long() + 1).tolist()
        x, y, z = (torch.arange(n, device=self.low.device) * cell_size for n in (nx, ny, nz))
        return torch.cartesian_prod(x, y, z) + self.low, (nx, ny, nz)


def _cube(center: Float[Tensor, "3"], half: float) -> Box:
    return Box(center - half, center + half)


def bounding_box(cones: ViewingCones) -> Box:
    """A box around the hull in the object's frame, a little too large.

    Looks in [-1, 1]^3 and, if the hull is not all in there, in the space between the cameras, at last closely; a hull
    that ends nowhere (as a single view's) is cut off at the border of the first.

    Raises:
        InputError: the hull is empty.
    """
    origin = torch.zeros(3).to(cones.silhouettes.cameras.intrinsics)
    box = None
    between = _between_cameras(cones.silhouettes)
    closely = [] if between is None else [(between.shrunk(share), _HALVINGS) for share in _SHARES]
    for region, halvings in ((_cube(origin, 1.0), 0), (between, 0), *closely):
        found = None if region is None else _occupied(cones, region, halvings)
        if region is None or found is None:
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


def _between_cameras(silhouettes: Silhouettes) -> Box | None:
    """The cube around the point nearest to the rays through the silhouettes' centroids, up to the nearest camera.

    None if the rays are parallel.
    """
    cameras = silhouettes.cameras
    height, width = silhouettes.distances_px.shape[2:]
    canvas_px = torch.tensor([width, height], device=silhouettes.distances_px.device)
    centroids = [((d < 0).nonzero().flip(1) + 0.5).mean(0) / canvas_px for d in silhouettes.distances_px[:, 0]]
    d = normalize(cameras.unproject(torch.stack(centroids)[:, None])[:, 0], dim=1)
    across = torch.eye(3).to(d) - d[:, :, None] * d[:, None, :]  # projects onto the plane across each ray
    total = across.mean(0)
    if torch.linalg.eigvalsh(total)[0] < _LEAST_PARALLAX:
        return None
    center = torch.linalg.solve(total, (across @ cameras.positions[:, :, None]).mean(0)[:, 0])
    return _cube(center, float((cameras.positions - center).norm(dim=1).min()))


def views_contradict() -> InputError:
    return InputError(
        "the views contradict each other, no point of space is object in all of them; "
        "check the rig, the order of the pictures, the direction of rotation and the masks"
    )


def _occupied(cones: ViewingCones, region: Box, halvings: int = 0) -> Box | None:
    """The part of a region outside which the field is surely positive, found in cells that are halved so many times.

    Beyond a picture's border the field is what it is there. Where an object nearly fills its pictures, as with long
    lenses, that is too little for large cells to be sure of.
    """
    cell = region.side / _SEARCH_CELLS
    points, _ = region.grid(cell)
    near = points[cones(points) <= cones.lipschitz * cell * math.sqrt(3) / 2]
    for _ in range(halvings):
        if len(near) > _MOST_NEAR:  # a hull without end, or nearly
            break
        cell /= 2
        corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3).to(near) * cell
        points = (near[:, None] + corners).flatten(0, 1)
        near = points[cones(points) <= cones.lipschitz * cell * math.sqrt(3) / 2]
    if len(near) == 0:
        return None
    low, high = near.amin(0) - cell, near.amax(0) + cell
    return Box(torch.maximum(low, region.low), torch.minimum(high, region.high))
