"""Laying charts out in a square texture, apart from each other."""

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import maximum_filter1d

from meshwright.errors import InputError

ANGLES = 32
SEARCH_ROUNDS = 12


def turn_upright(
    corners: Float[np.ndarray, "faces 3 2"], charts: Int[np.ndarray, " faces"]
) -> tuple[Float[np.ndarray, "faces 3 2"], Float[np.ndarray, "charts 2"]]:
    """Each chart turned into the smallest box found among 32 angles, its lower left corner in the origin, no wider
    than high; and the boxes' widths and heights."""
    order = np.argsort(charts, kind="stable")
    first_face = np.flatnonzero(np.diff(charts[order], prepend=-1))
    # Corners of one chart stand together, three to a face, so that a chart's extent is one reduceat.
    x, y = corners[order].reshape(-1, 2).T
    best_area = np.full(len(first_face), np.inf)
    best_angle = np.zeros(len(first_face))
    for angle in np.arange(ANGLES) * (np.pi / 2 / ANGLES):
        width, height = (
            np.maximum.reduceat(side, 3 * first_face) - np.minimum.reduceat(side, 3 * first_face)
            for side in (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
        )
        # An upright box stays so unless turning gains something; a wide one is turned once more.
        turned = angle + np.where(width > height, np.pi / 2, 0)
        better = width * height < best_area * (1 - 1e-6)
        best_area, best_angle = np.where(better, width * height, best_area), np.where(better, turned, best_angle)
    cosine, sine = np.cos(best_angle)[charts, None], np.sin(best_angle)[charts, None]
    x, y = corners[:, :, 0], corners[:, :, 1]
    upright = np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=2)
    low, high = (
        reduce.reduceat(upright[order].reshape(-1, 2), 3 * first_face, axis=0) for reduce in (np.minimum, np.maximum)
    )
    return upright - low[charts, None], high - low


def pack(
    sizes: Float[np.ndarray, "charts 2"], texture_px: int, gutter_px: int
) -> tuple[float, Float[np.ndarray, "charts 2"]]:
    """Pixels per unit, the largest found by bisection, and where the lower left corner of each box goes, in pixels.

    Boxes are at least ``gutter_px`` apart from each other and half of it from the border.

    Raises:
        InputError: there are so many charts that their gutters alone do not fit.
    """
    low, places = 0.0, None
    if len(sizes) * (2 * gutter_px) ** 2 <= texture_px**2:  # with more charts there would be gutters and little else
        places = _place(sizes, 0.0, texture_px, gutter_px)
    if places is None:
        raise InputError(
            f"the mesh falls into {len(sizes)} charts, too many for a texture of {texture_px} px; "
            "use fewer `faces` or a larger `texture_size_px`"
        )
    high = texture_px / max(np.sqrt(sizes.prod(axis=1).sum()), sizes.max(), 1e-30)
    for _ in range(SEARCH_ROUNDS):
        middle = (low + high) / 2
        found = _place(sizes, middle, texture_px, gutter_px)
        if found is None:
            high = middle
        else:
            low, places = middle, found
    return low, places


def _place(
    sizes: Float[np.ndarray, "charts 2"], scale: float, texture_px: int, gutter_px: int
) -> Float[np.ndarray, "charts 2"] | None:
    """Boxes from the highest to the lowest, each where it comes to lie lowest on those before; None if one sticks out.

    The skyline heuristic of Jylanki 2010, "A thousand ways to pack the bin", with one height for every pixel column.
    """
    cells = np.maximum(np.ceil(sizes * scale), 1).astype(np.int64) + gutter_px
    corner = np.empty((len(sizes), 2))
    skyline = np.zeros(texture_px, dtype=np.int64)
    for number in np.lexsort((-cells[:, 0], -cells[:, 1])):
        width, height = cells[number]
        if width > texture_px:
            return None
        # The origin makes the filter's window begin, not centre, at each column.
        floor = maximum_filter1d(skyline, width, origin=-(width // 2), mode="nearest")[: texture_px - width + 1]
        left = int(floor.argmin())
        bottom = int(floor[left])
        if bottom + height > texture_px:
            return None
        skyline[left : left + width] = bottom + height
        corner[number] = left, bottom
    return corner + (cells - sizes * scale) / 2  # in the middle of its cell
