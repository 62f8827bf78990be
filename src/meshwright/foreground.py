"""Which part of a picture is the object: alpha from a flat background, and colours without that background.

The background B is one colour plus noise (video compression, palette dithering). Pixels like B that are connected
to the picture's border are background; the alpha of the pixels along the outline follows from the compositing
equation C = alpha F + (1 - alpha) B (Porter & Duff 1984) with F taken from the object close by.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage
from torch import Tensor

from meshwright.errors import InputError

_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class Cutout:
    """The object alone: straight sRGB ``rgb`` (meaningless where ``alpha`` is 0) and its coverage."""

    rgb: Float[Tensor, "3 height width"]
    alpha: Float[Tensor, "1 height width"]


def cut_from_background(rgb: Float[Tensor, "3 height width"]) -> Cutout | None:
    """Separate an object from the flat background around it; None where there is no flat background or no object.

    The outline is accurate to a fraction of a pixel, and its colours hold no background.
    """
    pixels = rgb.permute(1, 2, 0).numpy()
    if min(pixels.shape[:2]) < 8:
        return None
    pixels = _without_hairlines(pixels)
    estimate = _background(pixels)
    if estimate is None:
        return None
    background, noise = estimate
    object_mask = _object_mask(pixels, background, noise)
    if not object_mask.any():
        return None
    alpha, colour = _matte(pixels, background, noise, object_mask)
    return Cutout(torch.from_numpy(colour).permute(2, 0, 1).contiguous(), torch.from_numpy(alpha)[None])


def cut_with_rembg(rgb: Float[Tensor, "3 height width"]) -> Cutout:
    """Separate the object with the neural network of the ``rembg`` package (downloads weights on first use).

    Raises:
        InputError: the package is not installed.
    """
    try:
        import rembg
    except ImportError:
        raise InputError("background 'rembg': the package is missing; pip install 'meshwright[rembg]'") from None
    pixels = (rgb.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    cut = np.asarray(rembg.remove(pixels, post_process_mask=False), dtype=np.float32) / 255
    straight = torch.from_numpy(cut).permute(2, 0, 1)
    return Cutout(straight[:3].contiguous(), straight[3:].contiguous())


def _without_hairlines(pixels: Float[ndarray, "height width 3"]) -> Float[ndarray, "height width 3"]:
    """Cropped films often keep a line of something else along an edge: replace it by its neighbour inside."""
    pixels = pixels.copy()
    for line in (pixels, pixels[::-1], pixels.swapaxes(0, 1), pixels.swapaxes(0, 1)[::-1]):
        for depth in (2, 1, 0):
            step = np.abs(line[depth].astype(np.float32) - line[depth + 1]).max(axis=1)
            if np.median(step) > 4 / 255 and np.median(np.abs(line[depth + 1] - line[depth + 2])) < 4 / 255:
                line[: depth + 1] = line[depth + 1]
                break
    return pixels


def _background(pixels: Float[ndarray, "height width 3"]) -> tuple[Float[ndarray, "3"], float] | None:
    """The commonest colour along the border and the spread of its noise; None when the border has no such colour."""
    depth = max(2, min(pixels.shape[:2]) // 50)
    inner = np.zeros(pixels.shape[:2], bool)
    inner[depth:-depth, depth:-depth] = True
    border = pixels[~inner]
    coarse = np.round(border * 16).astype(np.int32)
    values, counts = np.unique(coarse, axis=0, return_counts=True)
    mode = values[counts.argmax()] / 16
    near = border[np.abs(border - mode).max(axis=1) < 0.08]
    if len(near) < 0.4 * len(border):
        return None
    background = np.median(near, axis=0)
    spread = np.abs(near - background).max(axis=1)
    noise = max(1.0 / 255, 1.5 * float(np.median(spread)), float(np.quantile(spread, 0.9)) / 2)
    return background.astype(np.float32), noise


def _object_mask(
    pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"], noise: float
) -> Bool[ndarray, "height width"]:
    difference = np.abs(pixels - background).max(axis=2)
    unlike = difference > max(4 * noise, 14 / 255)
    like, _ = ndimage.label(~unlike)
    rim = np.unique(np.concatenate([like[0], like[-1], like[:, 0], like[:, -1]]))
    outside = np.isin(like, rim[rim > 0])
    mask = ~outside & ~_holes(like, outside, difference, noise)
    mask = _without_specks(mask)
    return mask


def _holes(
    like: ndarray, outside: Bool[ndarray, "height width"], difference: Float[ndarray, "height width"], noise: float
) -> Bool[ndarray, "height width"]:
    """Enclosed pieces of background: as flat as the background itself, unlike a white part of the object."""
    holes = np.zeros(like.shape, bool)
    for label, place in enumerate(ndimage.find_objects(like), start=1):
        if place is None:
            continue
        piece = like[place] == label
        if outside[place][piece].any() or piece.sum() < 12:
            continue
        core = ndimage.binary_erosion(piece, _EIGHT) if piece.sum() > 40 else piece
        if core.any() and np.quantile(difference[place][core], 0.9) <= 2 * noise:
            holes[place] |= piece
    return holes


def _without_specks(mask: Bool[ndarray, "height width"]) -> Bool[ndarray, "height width"]:
    pieces, count = ndimage.label(mask, _EIGHT)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return sizes[pieces] >= max(4, 0.002 * sizes.max())


def _matte(
    pixels: Float[ndarray, "height width 3"],
    background: Float[ndarray, "3"],
    noise: float,
    object_mask: Bool[ndarray, "height width"],
) -> tuple[Float[ndarray, "height width"], Float[ndarray, "height width 3"]]:
    """Alpha and unmixed colour: exact mixing along the outline, 0 and 1 away from it."""
    core = ndimage.binary_erosion(object_mask, _EIGHT, border_value=1)
    core |= object_mask & ~ndimage.binary_dilation(core, _EIGHT, iterations=2)  # thin parts have no core
    band = ndimage.binary_dilation(object_mask, _EIGHT) & ~core
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    solid = pixels[nearest[0], nearest[1]]
    towards = solid - background
    contrast = (towards**2).sum(axis=2)
    share = ((pixels - background) * towards).sum(axis=2) / np.maximum(contrast, 1e-6)
    # Where the object is nearly as bright as the background the share is all noise: trust the mask there.
    trust = contrast / (contrast + (6 * noise) ** 2)
    mixed = trust * share.clip(0, 1) + (1 - trust) * object_mask
    alpha = np.where(core, 1.0, np.where(band, mixed, 0.0)).astype(np.float32)
    alpha[alpha < 2 / 255] = 0
    unmixed = background + (pixels - background) / np.maximum(alpha, 0.1)[..., None]
    certain = alpha[..., None] ** 2
    colour = np.where(core[..., None], pixels, certain * unmixed.clip(0, 1) + (1 - certain) * solid)
    return alpha, colour.astype(np.float32)
