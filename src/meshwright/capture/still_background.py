"""An object that turns before a camera that stands still: what does not move is background.

Structure from motion would take the background for the scene, for most features are on it and it tells of a camera that
never moved. Here it is recognised by the fine detail at the pictures' border, which is the same in all of them; each
place gets the colour that it shows most steadily, and what differs from that is the object, in each picture.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from scipy import ndimage
from torch import Tensor

from meshwright.images import Picture, shrink_picture

_LEAST_PICTURES = 6
_LOOK_PX, _LONGEST_PX = 256, 640  # of the pictures: to see whether the background stands still, and what moves
_MOST_COMPARED = 32  # pictures among which steady colours are looked for
_BORDER = 0.12  # of the shorter side: there the background is
_DETAIL_PX = 2.0  # what is finer than this, in brightness, is detail
_SAME_DETAIL = 0.6  # correlation of a picture's border with the median's, in the median picture
_MOVES = (0.003, 0.7)  # share of the picture in which something moves
_NOISES, _LEAST_DIFFERENCE = 4.0, 10 / 255
_STEADY_SHARE = 0.15  # of the pictures that must show a colour for it to be the background's
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
    values = np.stack([_exposed_like(picture, median, border) for picture in values])
    difference = np.abs(values[:, border] - median[border]).max(axis=2)
    noise = 1.5 * float(np.median(difference))
    tolerated = max(_NOISES * noise, _LEAST_DIFFERENCE)
    background, _ = _steady_colors(values[_some(len(values))], tolerated)
    masks = [_moved(picture, background, tolerated) for picture in values]
    share = np.mean(masks, axis=0)
    moves = (share > 0.05).mean()
    if not _MOVES[0] < moves < _MOVES[1]:
        return None
    # What never changes amid what does is always the object: a turning body of one colour.
    gap_px = max(1, round(_GAP * min(border.shape)))
    ever = ndimage.binary_closing(np.pad(share > 0.05, gap_px), iterations=gap_px)[gap_px:-gap_px, gap_px:-gap_px]
    core = ndimage.binary_fill_holes(ever) & (share <= 0.05)
    height, width = next(iter(shapes))
    full = [_whole(mask | core, gap_px) for mask in masks]
    if not all(mask.any() for mask in full):
        return None
    return [_enlarged(mask, height, width) for mask in full]


def _values(pictures: Sequence[Picture], longest_px: int) -> Float[ndarray, "views height width 3"]:
    small = torch.stack([shrink_picture(picture[:3], longest_px) for picture in pictures])
    return small.permute(0, 2, 3, 1).numpy().astype(np.float32) / 255


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


def _exposed_like(
    picture: Float[ndarray, "height width 3"],
    median: Float[ndarray, "height width 3"],
    border: Bool[ndarray, "height width"],
) -> Float[ndarray, "height width 3"]:
    """A picture whose border is as bright as the median's, by one factor a channel."""
    useful = border & (median > 0.1).all(axis=2) & (median < 0.95).all(axis=2)
    if useful.sum() < 100:
        return picture
    return picture * np.median(median[useful] / np.maximum(picture[useful], 1 / 255), axis=0)


def _steady_colors(
    values: Float[ndarray, "views height width 3"], tolerated: float
) -> tuple[Float[ndarray, "height width 3"], Float[ndarray, "height width"]]:
    """The colour that each place shows in the most pictures, and in which share of them.

    A background comes back as it was; a surface that turns shows the same colour twice by chance only.
    """
    count = len(values)
    alike = np.ones(values.shape[:3], np.uint8)
    for i in range(count):
        for j in range(i):
            same = (np.abs(values[i] - values[j]) < tolerated / 2).all(axis=2)
            alike[i] += same
            alike[j] += same
    best = alike.argmax(axis=0)[None, ..., None]
    return np.take_along_axis(values, best, axis=0)[0], alike.max(axis=0) / count


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
    filled = ndimage.binary_fill_holes(closed | mask)
    pieces, number = ndimage.label(filled)
    if not number:
        return filled
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.flatnonzero(sizes >= _SPECK * sizes.max()))


def _enlarged(mask: Bool[ndarray, "height width"], height: int, width: int) -> UInt8[Tensor, "1 {height} {width}"]:
    """To the size of the picture, its edge soft by a pixel."""
    soft = torch.from_numpy(ndimage.gaussian_filter(mask.astype(np.float32), 0.6))[None, None]
    grown = torch.nn.functional.interpolate(soft, size=(height, width), mode="bilinear", align_corners=False)
    return (grown[0].clamp(0, 1) * 255).round().to(torch.uint8)
