"""Silhouettes that lack a piece of the object, as the other views show: the background there is not believed.

A wrong mask bites the hull, which then does not fill the other silhouettes. Whose background does that is clear where
one view alone keeps their rays from the hull; where in that view, from the points of these rays that all others keep.
Nothing is taken for object instead: what is not believed is left to the other views.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.ndimage import binary_dilation, binary_propagation, label
from torch import Tensor

from meshwright.shape.hull.bounds import Box
from meshwright.shape.hull.cones import SAMPLES_AT_ONCE, Silhouettes
from meshwright.shape.hull.outlines import outline_distances_px
from meshwright.shape.hull.rays import CLEAR, STEPS, ClippedRays, kept_out_by_one, misses, rays_through, windows

_CELLS = 64  # along a side of the box as each picture shows it: rays, and places that may be wrong
_ENOUGH = 6  # views of which it is found out what they lack
_SEVERAL = 2  # other views must lack the same point, or any of them may be wrong itself
_LEAST_CELLS = 6  # places that several others lack: fewer are chance
_EXCESS = 0.02  # share of a view's own object that the others have not got: more, and the whole view is wrong
_MOST = 1.0  # of the silhouette's area that a piece may have: larger, and the whole view is wrong
_SEAM_PX = 2  # where mask and missing piece meet, pixels are of neither


@dataclass(frozen=True, eq=False)
class Mended:
    """``silhouettes``: with the piece as object in the view. ``unknown``: its pixels, not to be believed."""

    silhouettes: Silhouettes
    unknown: Bool[Tensor, "height width"]


def mend(silhouettes: Silhouettes, box: Box, view: int, lacking: list[int]) -> Mended | None:
    """The silhouettes without what ``view`` lacks, as several others agree; None if it is not as clear as that.

    ``lacking``: views that are not filled by its fault, those with the largest loss first; some of them are enough.
    """
    others = [i for i in range(len(silhouettes)) if i != view]
    rays = rays_through(silhouettes, box, _CELLS)
    own, clear = rays.of_views([view]), rays[rays.clearance < -CLEAR * box.side]
    excess = misses(silhouettes[others], clear.of_views([view]))
    if len(excess) == 0 or excess.float().mean() > _EXCESS:
        return None
    lacked = clear.of_views(lacking[:_ENOUGH])
    lacked = lacked[kept_out_by_one(silhouettes, lacked)[view]]
    counts = _lacking_views(silhouettes, box, view, own[own.clearance > 0], lacked)
    piece = binary_propagation(counts >= _SEVERAL, mask=counts > 0)
    if (counts >= _SEVERAL).sum() < _LEAST_CELLS:
        return None
    mask = (silhouettes.distances_px[view, 0] < 0).cpu().numpy()
    unknown = _enclosed(mask, _pixels_of(piece, silhouettes, box, view))
    if (unknown & ~mask).sum() > _MOST * mask.sum():
        return None
    grown = torch.from_numpy(unknown).to(silhouettes.distances_px.device)
    alpha = torch.where(grown, 1.0, (0.5 - silhouettes.distances_px[view, 0]).clamp(0, 1))
    distances_px = silhouettes.distances_px.clone()
    distances_px[view] = outline_distances_px(alpha[None, None], silhouettes.sizes_px[view : view + 1])[0]
    return Mended(Silhouettes(distances_px, silhouettes.cameras, silhouettes.sizes_px), grown)


def _lacking_views(
    silhouettes: Silhouettes, box: Box, view: int, background: ClippedRays, lacked: ClippedRays
) -> Int[np.ndarray, "rows columns"]:
    """For each place of ``view`` how many others lack, at most, one and the same point behind it that all others keep.

    ``background``: rays of the view past its object. ``lacked``: rays of the others that miss the hull by its fault.
    """
    device = silhouettes.distances_px.device
    others = [i for i in range(len(silhouettes)) if i != view]
    lacks = torch.zeros(len(silhouettes), _CELLS, _CELLS, dtype=torch.bool, device=device)
    lacks[lacked.views, lacked.cells[:, 1], lacked.cells[:, 0]] = True
    low, high = (x[others] for x in windows(silhouettes, box))
    found = torch.zeros(_CELLS, _CELLS, dtype=torch.int64, device=device)
    for part in torch.arange(len(background), device=device).split(max(1, SAMPLES_AT_ONCE // (len(others) * STEPS))):
        rays = background[part]
        points = rays.whole().flatten(0, 1)
        kept = silhouettes[others].distances_to_cones(points).amax(0) <= 0
        uv, _ = silhouettes.cameras[others].project(points)
        at = ((uv - low[:, None]) / (high - low)[:, None] * _CELLS).long()
        inside = ((at >= 0) & (at < _CELLS)).all(2) & kept
        at = at.clamp(0, _CELLS - 1)
        number = torch.tensor(others, device=device)[:, None]
        count = (lacks[number, at[..., 1], at[..., 0]] & inside).sum(0)
        found[rays.cells[:, 1], rays.cells[:, 0]] = count.view(-1, STEPS).amax(1)
    return found.cpu().numpy()


def _pixels_of(
    cells: Bool[np.ndarray, "rows columns"], silhouettes: Silhouettes, box: Box, view: int
) -> Bool[np.ndarray, "height width"]:
    """The pixels of these places and of those beside them."""
    low, high = (x[view].tolist() for x in windows(silhouettes, box))
    height, width = silhouettes.distances_px.shape[2:]
    column, row = (
        np.floor(((np.arange(n) + 0.5) / n - low[axis]) / (high[axis] - low[axis]) * _CELLS).astype(np.int64)
        for axis, n in ((0, width), (1, height))
    )
    near = binary_dilation(cells, np.ones((3, 3)))
    return near[np.ix_(row.clip(0, _CELLS - 1), column.clip(0, _CELLS - 1))]


def _enclosed(
    mask: Bool[np.ndarray, "height width"], piece: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """The background of a piece and what it encloses together with the mask, and the seam between both."""
    numbers, _ = label(~(mask | piece))
    border = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    touched = np.unique(numbers[binary_dilation(piece)])
    piece = (piece & ~mask) | np.isin(numbers, np.setdiff1d(touched, np.append(border, 0)))
    return binary_dilation(piece, iterations=_SEAM_PX) if piece.any() else piece
