"""An object that turns before a camera that stands still: what does not move is background.

Structure from motion would take the background for the scene, for most features are on it and it tells of a camera that
never moved. Here it is recognised by the fine detail at the pictures' border, which is the same in all of them; each
place gets the colour of what is behind the object, and what differs from that is the object, in each picture.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy import ndimage
from torch import Tensor

from meshwright.capture.foreground import matte, without_specks
from meshwright.images import Picture, shrink_picture
from meshwright.raster import render
from meshwright.shape import visual_hull
from meshwright.views import Views

_LEAST_PICTURES = 6
_LOOK_PX, _LONGEST_PX = 256, 640  # of the pictures: to see whether the background stands still, and what moves
_MOST_COMPARED = 32  # pictures among which steady colours are looked for
_BORDER = 0.12  # of the shorter side: there the background is
_DETAIL_PX = 2.0  # what is finer than this, in brightness, is detail
_SAME_DETAIL = 0.6  # correlation of a picture's border with the median's, in the median picture
_MOVES = (0.003, 0.7)  # share of the picture in which something moves
_NOISES, _LEAST_DIFFERENCE = 4.0, 10 / 255
_ALWAYS = 0.95  # of the pictures: where nothing moves
_REMEMBERED = 3  # pixels beside a place that say which pictures show background
_HULL_CELLS = 64
_ROOM = 0.012  # of the shorter side, that the object may reach beyond its hull
_SEEN_SHARE = 0.08  # of the pictures that must see a place uncovered
_GAP, _SPECK = 0.012, 0.05  # of the shorter side; of the largest piece
_SHADOW_LIGHT, _SHADOW_HUE = 0.55, 10 / 255  # a shadow leaves so much light at least, and changes the hue by less
_SHADOW_STEP = 14 / 255  # of its light from a pixel to the next, at most: it is soft


def find_moving(pictures: Sequence[Picture]) -> list[UInt8[Tensor, "1 _height _width"]] | None:
    """What moves before a background that stands still, in each picture; None where the camera moved, or nothing did.

    A shadow that moves with the object on an even plate is none of it.
    """
    shapes = {tuple(picture.shape[1:]) for picture in pictures}
    if len(pictures) < _LEAST_PICTURES or len(shapes) != 1:
        return None
    if not _stands_still(_values(pictures, _LOOK_PX)):
        return None
    values = _values(pictures, _LONGEST_PX)
    border = _border(values.shape[1:3])
    median = np.median(values[_some(len(values))], axis=0)
    values *= np.stack([_exposure(picture[border], median[border]) for picture in values])[:, None, None]
    difference = np.abs(values[:, border] - median[border]).max(axis=2)
    noise = 1.5 * float(np.median(difference))
    tolerated = max(_NOISES * noise, _LEAST_DIFFERENCE)
    background, known = _behind(values[_some(len(values))], tolerated)
    masks = [_moved(picture, background, tolerated) | ~known for picture in values]
    share = np.mean(masks, axis=0)
    moves = (share > 0.05).mean()
    if not _MOVES[0] < moves < _MOVES[1]:
        return None
    gap_px = max(1, round(_GAP * min(border.shape)))
    height, width = next(iter(shapes))
    full = [_whole(mask, gap_px) for mask in masks]
    if not all(mask.any() for mask in full):
        return None
    return [_enlarged(mask, height, width) for mask in full]


def _values(pictures: Sequence[Picture], longest_px: int) -> Float[ndarray, "views height width 3"]:
    small = torch.stack([shrink_picture(picture[:3], longest_px) for picture in pictures])
    return small.permute(0, 2, 3, 1).numpy().astype(np.float32) / 255


def cut_out_moving(views: Views) -> Views:
    """The object of `find_moving`, once the cameras are known: all pictures tell together what is behind it.

    ``views.images`` are the pictures with their background, of one size; ``views.alpha`` is what was found to move. The
    hull of that says in which pictures a place is not covered by the object, and these have the background's colour
    there. Returned are colours and coverage of the object alone, exposures as the background says. A place that the
    object always covers is object.
    """
    images = views.images.permute(0, 2, 3, 1).numpy()
    border = _border(images.shape[1:3])
    border &= (views.alpha[:, 0] < 0.5).all(dim=0).numpy()
    median = np.median(images[_some(len(images))][:, border], axis=0)
    factors = [_exposure(picture[border], median) for picture in images]
    images = np.stack([picture * factor for picture, factor in zip(images, factors, strict=True)]).clip(0, 1)
    noise = 1.5 * float(np.median([np.abs(picture[border] - median).max(axis=1) for picture in images]))
    tolerated = max(_NOISES * noise, _LEAST_DIFFERENCE)
    side = min(border.shape)
    gap_px, room_px = max(1, round(_GAP * side)), max(2, round(_ROOM * side))
    hull = visual_hull(views, _HULL_CELLS).mesh()
    silhouettes = render(hull, views.cameras, *border.shape).alpha[:, 0].numpy() > 0.5
    covered = np.stack([ndimage.binary_dilation(mask, iterations=room_px) for mask in silhouettes])
    background, known = _uncovered(images, covered)
    masks = [
        _whole(np.where(known, _moved(picture, background, tolerated), inside) & around, gap_px)
        for picture, inside, around in zip(images, silhouettes, covered, strict=True)
    ]
    cut = [matte(picture, background, tolerated / _NOISES, mask) for picture, mask in zip(images, masks, strict=True)]
    alpha = torch.from_numpy(np.stack([coverage for coverage, _ in cut]))[:, None]
    colors = torch.from_numpy(np.stack([color for _, color in cut])).permute(0, 3, 1, 2)
    return replace(views, images=colors.contiguous(), alpha=alpha)


def _uncovered(
    images: Float[ndarray, "views height width 3"], covered: Bool[ndarray, "views height width"]
) -> tuple[Float[ndarray, "height width 3"], Bool[ndarray, "height width"]]:
    """Mean colours where the object is not, those far from the first mean left out; and where there are enough."""
    weight = (~covered)[..., None].astype(np.float32)
    known = weight[..., 0].sum(axis=0) >= max(2, _SEEN_SHARE * len(images))
    mean = (images * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
    weight *= (np.abs(images - mean).max(axis=3, keepdims=True) < 2 * _LEAST_DIFFERENCE) + 1e-3
    return ((images * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-6)).astype(np.float32), known


def _exposure(shown: Float[ndarray, "n 3"], wanted: Float[ndarray, "n 3"]) -> Float[ndarray, "3"]:
    """One factor a channel that makes colours as bright as those wanted."""
    useful = (wanted > 0.1).all(axis=1) & (wanted < 0.95).all(axis=1)
    if useful.sum() < 100:
        return np.ones(3, np.float32)
    return np.median(wanted[useful] / np.maximum(shown[useful], 1 / 255), axis=0).astype(np.float32)


def _some(count: int) -> Int[ndarray, " chosen"]:
    return np.arange(min(count, _MOST_COMPARED)) * count // min(count, _MOST_COMPARED)


def _border(shape: tuple[int, int]) -> Bool[ndarray, "height width"]:
    depth = max(2, round(_BORDER * min(shape)))
    border = np.ones(shape, bool)
    border[depth:-depth, depth:-depth] = False
    return border


def _stands_still(values: Float[ndarray, "views height width 3"]) -> bool:
    """Whether the detail at the border is that of the median picture, in most pictures."""
    border = _border(values.shape[1:3])
    wanted = _detail(np.median(values[_some(len(values))], axis=0))[border]
    alike = []
    for picture in values:
        shown = _detail(picture)[border]
        alike.append(float((shown * wanted).sum() / max(np.linalg.norm(shown) * np.linalg.norm(wanted), 1e-9)))
    return float(np.median(alike)) > _SAME_DETAIL


def _detail(picture: Float[ndarray, "height width 3"]) -> Float[ndarray, "height width"]:
    grey = picture.mean(axis=2)
    fine = ndimage.gaussian_filter(grey, 0.7)
    return fine - ndimage.gaussian_filter(grey, _DETAIL_PX)


def _behind(
    values: Float[ndarray, "views height width 3"], tolerated: float
) -> tuple[Float[ndarray, "height width 3"], Bool[ndarray, "height width"]]:
    """The background's colour at each place, and where it is known; elsewhere the object covers it always.

    From the sides inwards, row by row: where nothing ever moves, all pictures show the background. A step further in
    it is shown by nearly the same pictures, less those that the object covers now. So each place takes the colour that
    the most of those pictures show that showed background beside it: not the commonest of all, which may be the
    object's. Not from above: where an object ends at one height all around, it begins to cover in all pictures at once.
    """
    background = np.median(values, axis=0)
    uncovered = (np.abs(values - background) < tolerated).all(axis=3)
    still = uncovered.mean(axis=0) > _ALWAYS
    still = ndimage.binary_opening(still, iterations=1, border_value=1)
    pieces, _ = ndimage.label(still)
    rim = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    known = np.isin(pieces, rim[rim > 0])
    uncovered |= known
    moving = ~known
    columns = np.flatnonzero(moving.any(axis=0))
    if not len(columns):
        return background, known
    low, high = int(columns[0]), int(columns[-1]) + 1
    # Each row's moving part is worked through from both sides to its middle.
    x = np.arange(values.shape[2])
    middle = np.where(moving.any(axis=1), (moving.argmax(axis=1) + x[-1] - moving[:, ::-1].argmax(axis=1)) // 2, 0)
    for step in (1, -1):
        for column in range(low, high) if step == 1 else range(high - 1, low - 1, -1):
            rows = np.flatnonzero(moving[:, column] & ((column <= middle) if step == 1 else (column > middle)))
            if not len(rows):
                continue
            behind = [min(max(column - step * k, 0), len(x) - 1) for k in range(1, _REMEMBERED + 1)]
            beside = np.any([uncovered[:, rows, c] for c in behind], axis=0)
            shown = values[:, rows, column]
            same = (np.abs(shown[:, None] - shown[None]) < tolerated / 2).all(axis=3) & beside[None] & beside[:, None]
            votes = same.sum(axis=1)
            color = shown[votes.argmax(axis=0), np.arange(len(rows))]
            found = votes.max(axis=0) >= max(2, _SEEN_SHARE * len(values))
            background[rows, column] = color
            known[rows, column] = found
            uncovered[:, rows, column] = (np.abs(shown - color) < tolerated).all(axis=2) & found & beside
    return background, known


def _moved(
    picture: Float[ndarray, "height width 3"], background: Float[ndarray, "height width 3"], tolerated: float
) -> Bool[ndarray, "height width"]:
    """Where a picture is neither the background nor a soft shadow on it."""
    differs = np.abs(picture - background).max(axis=2) > tolerated
    light = (picture * background).sum(axis=2) / np.maximum((background**2).sum(axis=2), 1e-4)
    hue = np.abs(picture - light[..., None] * background).max(axis=2)
    smooth = ndimage.gaussian_filter(light, 1.0)
    step = np.maximum(np.abs(ndimage.sobel(smooth, 0)), np.abs(ndimage.sobel(smooth, 1))) / 8
    shadow = (light > _SHADOW_LIGHT) & (light < 1) & (hue < _SHADOW_HUE) & (step < _SHADOW_STEP)
    return ndimage.binary_opening(differs & ~shadow, np.ones((2, 2), bool))


def _whole(mask: Bool[ndarray, "height width"], gap_px: int) -> Bool[ndarray, "height width"]:
    """Without gaps, holes and specks."""
    padded = np.pad(mask, 2 * gap_px)
    closed = ndimage.binary_closing(padded, iterations=gap_px)[2 * gap_px : -2 * gap_px, 2 * gap_px : -2 * gap_px]
    return without_specks(ndimage.binary_fill_holes(closed | mask), _SPECK)


def _enlarged(mask: Bool[ndarray, "height width"], height: int, width: int) -> UInt8[Tensor, "1 {height} {width}"]:
    """To the size of the picture, its edge soft by a pixel."""
    soft = torch.from_numpy(ndimage.gaussian_filter(mask.astype(np.float32), 0.6))[None, None]
    grown = torch.nn.functional.interpolate(soft, size=(height, width), mode="bilinear", align_corners=False)
    return (grown[0].clamp(0, 1) * 255).round().to(torch.uint8)
