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

_EIGHT = np.ones((3, 3), bool)  # neighbours across corners count
# Differences of colours below are of sRGB in [0, 1]; noise is the background's own spread in that measure.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601: the weights films and JPEG are coded with
_CHROMA = 0.5  # weight of differences of colour against those of brightness: films halve the resolution of colour
_LEAST_SIDE_PX = 8  # smaller pictures have no border to speak of
_HAIRLINE = 4 / 255  # a line at the edge that differs by more from the next, which is even, is no part of the picture
_SAME_BACKGROUND = 0.08  # difference up to which border pixels are of one background
_BACKGROUND_SHARE = 0.4  # of the border that must be of that background
_NOISES = 4.0  # a pixel that differs by so many times the noise is not background
_RINGING = 0.07  # of an edge's height; measured on JPEG sheets and re-encoded films
_RINGING_PX = 9  # side of the square around an edge in which it rings: a JPEG block and a pixel
_PALE = 16 / 255  # differences up to which an object is pale
_COHERENT = 0.4  # share of the object in the 3 x 3 pixels around a pale one: less is ringing
_SHADOW_HUE = 8 / 255  # a shadow changes the hue by less
_SHADOW_LIGHT = 0.7  # share of the light that a shadow leaves at least
_SHADOW_SLOPE = 7 / 255  # of the light, in a pixel, at most
_STEP = 0.4  # of the darkness, in a pixel: steeper is an edge, not a shadow
_STEP_PX = 3  # as far as an edge is felt
_GAP = 0.025  # of the picture's side: gaps in a pale part's outline that are closed
_OUTLINE = 0.27  # share of thin walls around an outlined part; around background between limbs below 0.2
_OUTLINED = 0.003  # of the picture: the largest outlined part
_HOLE_PX = 6  # pixels: smaller holes are filled whatever they show
_SHARP = 0.98  # share of the object in pixels next to the outermost; 0.96 on pictures blurred by a pixel
_SPECK = 0.01  # of the largest piece
_LEAST_SPECK_PX = 4  # pixels: smaller pieces go even where all are small


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
    if min(pixels.shape[:2]) < _LEAST_SIDE_PX:
        return None
    pixels = _without_hairlines(pixels)
    estimate = _background(pixels)
    if estimate is None:
        return None
    background, noise = estimate
    object_mask = _object_mask(pixels, background, noise)
    if not object_mask.any():
        return None
    alpha, colour = matte(pixels, background, noise, object_mask)
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
            even = np.median(np.abs(line[depth + 1] - line[depth + 2])) < _HAIRLINE
            if np.median(step) > _HAIRLINE and even:
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
    near = border[np.abs(border - mode).max(axis=1) < _SAME_BACKGROUND]
    if len(near) < _BACKGROUND_SHARE * len(border):
        return None
    background = np.median(near, axis=0)
    spread = np.abs(near - background).max(axis=1)
    noise = max(1.0 / 255, 1.5 * float(np.median(spread)), float(np.quantile(spread, 0.9)) / 2)
    return background.astype(np.float32), noise


def _object_mask(
    pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"], noise: float
) -> Bool[ndarray, "height width"]:
    """The object without its partly covered outline: unlike the background, no shadow on it, no hole in the object."""
    difference = _difference(pixels, background)
    unlike = _unlike_background(difference, noise)
    outside = _reached_from_border(~unlike)
    mask = without_specks(~outside & unlike, _SPECK, _LEAST_SPECK_PX, _EIGHT)
    outlined = _outlined_parts(mask, difference, noise)
    # A shadow that touches an outlined part may not take its outline away.
    shadow = _shadow(pixels, background, noise, outside) & ~ndimage.binary_dilation(outlined, _EIGHT, iterations=2)
    mask = _without_ringing((mask & ~shadow) | outlined, difference)
    return without_specks(_with_pale_parts(mask, difference, noise), _SPECK, _LEAST_SPECK_PX, _EIGHT)


def _unlike_background(difference: Float[ndarray, "height width"], noise: float) -> Bool[ndarray, "height width"]:
    """Pixels that neither the background's noise explains nor the rings that compression draws around edges."""
    ringing = _RINGING * ndimage.maximum_filter(difference, size=_RINGING_PX)
    return difference > np.maximum(_NOISES * noise, ringing)


def _without_ringing(
    mask: Bool[ndarray, "height width"], difference: Float[ndarray, "height width"]
) -> Bool[ndarray, "height width"]:
    """Single pale pixels along the outline are ringing; pale parts of the object hold together."""
    holds_together = ndimage.uniform_filter(mask.astype(np.float32), 3) > _COHERENT
    return mask & ((difference > 3 * _PALE) | holds_together)


def _difference(
    pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"] | Float[ndarray, "height width 3"]
) -> Float[ndarray, "height width"]:
    """How unlike the background: brightness in full, colour by less, for films blur and bend it more."""
    offset = pixels - background
    brightness = offset @ _LUMA
    return np.maximum(np.abs(brightness), _CHROMA * np.abs(offset - brightness[..., None]).max(axis=2))


def _beside(
    mask: Bool[ndarray, "height width"],
    outside: Bool[ndarray, "height width"],
    difference: Float[ndarray, "height width"],
) -> float:
    """How unlike the background the background itself is close to the object, where compression disturbs it."""
    distance_px = ndimage.distance_transform_edt(~mask)
    beside = difference[outside & (distance_px > 2) & (distance_px < 3 * _gap_px(mask))]
    return float(np.quantile(beside, 0.75)) if beside.size else 0.0


def _reached_from_border(free: Bool[ndarray, "height width"]) -> Bool[ndarray, "height width"]:
    pieces, _ = ndimage.label(free)
    rim = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    return np.isin(pieces, rim[rim > 0])


def _shadow(
    pixels: Float[ndarray, "height width 3"],
    background: Float[ndarray, "3"],
    noise: float,
    outside: Bool[ndarray, "height width"],
) -> Bool[ndarray, "height width"]:
    """Darkened background that can be reached from ``outside`` without crossing an edge.

    A shadow keeps the hue of what it falls on and fades slowly; an object begins with a step, be it ever so low.
    """
    smooth = ndimage.gaussian_filter(pixels, (1.0, 1.0, 0.0))
    light = _light(smooth, background)
    hue = _hue(smooth, background)
    slope = ndimage.gaussian_gradient_magnitude(light, 1.0)
    like = (hue < _SHADOW_HUE) & (light > _SHADOW_LIGHT) & (slope < _SHADOW_SLOPE)
    like &= ~_steps(pixels, background, noise)
    # What lies among parts of the object is a pale part of it.
    solid = _closed(~(outside | like), _gap_px(like))
    like &= _reached_from_border(~solid)
    shadow = _reached_from_border(outside | like) & like
    # The step to the object hides the last pixels of a shadow: they are no darker than those beside them.
    dark = 1 - _light(pixels, background)
    beside = ndimage.maximum_filter(np.where(shadow & ~outside, dark, -np.inf), size=2 * _STEP_PX + 1)
    hidden = (dark > -2 * noise) & (dark < beside + 2 * noise)
    return shadow | (hidden & (_hue(pixels, background) < _SHADOW_HUE + 2 * noise))


def _light(pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"]) -> Float[ndarray, "height width"]:
    """How much of the background's light there is, 1 where all."""
    return (pixels * background).sum(axis=2) / max(float((background**2).sum()), 1e-6)


def _hue(pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"]) -> Float[ndarray, "height width"]:
    """How far from the background under more or less light."""
    return np.abs(pixels - _light(pixels, background)[..., None] * background).max(axis=2)


def _steps(
    pixels: Float[ndarray, "height width 3"], background: Float[ndarray, "3"], noise: float
) -> Bool[ndarray, "height width"]:
    """Where it darkens within a pixel or two, however little: at the edges of pale parts, not in soft shadows."""
    dark = 1 - _light(pixels, background)
    slope = ndimage.gaussian_gradient_magnitude(dark, 1.0)
    depth = ndimage.gaussian_filter(dark, 1.0).clip(min=0)
    return (slope > _STEP * depth) & (slope > 0.5 * noise)


def _gap_px(picture: ndarray) -> int:
    return max(1, round(_GAP * min(picture.shape)))


def _closed(mask: Bool[ndarray, "height width"], reach_px: int) -> Bool[ndarray, "height width"]:
    """Close gaps of up to ``2 * reach_px`` pixels, by distances: as fast for a wide reach as for a short one."""
    padded = np.pad(mask, reach_px + 1)
    near = ndimage.distance_transform_edt(~padded) <= reach_px
    closed = ndimage.distance_transform_edt(near) > reach_px
    inner = slice(reach_px + 1, -reach_px - 1)
    return closed[inner, inner] | mask


def _with_pale_parts(
    mask: Bool[ndarray, "height width"], difference: Float[ndarray, "height width"], noise: float
) -> Bool[ndarray, "height width"]:
    """Fill what the object encloses, unless it is as flat as the background beside the object: then it is a hole."""
    outside = _reached_from_border(~mask)
    flat = max(3 * noise, 2 * _beside(mask, outside, difference))
    enclosed, _ = ndimage.label(~mask & ~outside)
    for label, place in enumerate(ndimage.find_objects(enclosed), start=1):
        piece = enclosed[place] == label
        if piece.sum() < _HOLE_PX or np.median(difference[place][piece]) > flat:
            mask[place] |= piece
    return mask


def _outlined_parts(
    mask: Bool[ndarray, "height width"], difference: Float[ndarray, "height width"], noise: float
) -> Bool[ndarray, "height width"]:
    """Small pale parts behind a thin outline that is open by a few pixels: a white helmet before a white wall.

    Shading at grazing angles draws such outlines. Background between thick limbs has none.
    """
    reach_px = _gap_px(mask)
    closed = _closed(mask, reach_px)
    deep = ndimage.distance_transform_edt(mask) > max(1, reach_px - 1)
    thin = mask & (ndimage.distance_transform_edt(~deep) > max(1, reach_px - 1))
    flat = max(1.5 * noise, 1.5 * _beside(mask, _reached_from_border(~closed), difference))
    parts = np.zeros_like(mask)
    pieces, _ = ndimage.label((closed | ~_reached_from_border(~closed)) & ~mask)
    for label, place in enumerate(ndimage.find_objects(pieces), start=1):
        near = tuple(slice(max(0, side.start - reach_px), side.stop + reach_px) for side in place)
        piece = pieces[near] == label
        wall = mask[near] & (ndimage.distance_transform_edt(~piece) <= reach_px)
        outlined = (wall & thin[near]).sum() > _OUTLINE * wall.sum()
        if outlined and piece.sum() < _OUTLINED * mask.size and np.median(difference[near][piece]) > flat:
            parts[near] |= piece
    return parts


def without_specks(
    mask: Bool[ndarray, "height width"],
    share: float,
    least_px: int = 0,
    structure: Bool[ndarray, "3 3"] | None = None,
) -> Bool[ndarray, "height width"]:
    """Without pieces below ``share`` of the largest, or ``least_px``; ``structure``: neighbours, four if not given."""
    pieces, count = ndimage.label(mask, structure)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return sizes[pieces] >= max(least_px, share * sizes.max())


def matte(
    pixels: Float[ndarray, "height width 3"],
    background: Float[ndarray, "3"] | Float[ndarray, "height width 3"],
    noise: float,
    object_mask: Bool[ndarray, "height width"],
) -> tuple[Float[ndarray, "height width"], Float[ndarray, "height width 3"]]:
    """Alpha and unmixed colour: exact mixing along the outline, 0 and 1 away from it.

    ``background``: one colour, or that of each pixel. ``noise``: how much it differs by itself.
    """
    inner = ndimage.binary_erosion(object_mask, _EIGHT, border_value=1)
    core = ndimage.binary_erosion(inner, _EIGHT, border_value=1)
    if _sharp(pixels, background, inner, core):
        core = inner  # so a pale rim on a dark object is no mixture
    # Parts too thin to have an inside: their pixels least like the background stand for them.
    difference = _difference(pixels, background)
    thin = object_mask & ~ndimage.binary_dilation(core, _EIGHT, iterations=3)
    core |= thin & (difference > 0.8 * ndimage.maximum_filter(difference, size=5))
    band = ndimage.binary_dilation(object_mask, _EIGHT) & ~core
    solid = _spread(pixels, core)
    towards = solid - background
    contrast = (towards**2).sum(axis=2)
    share = ((pixels - background) * towards).sum(axis=2) / np.maximum(contrast, 1e-6)
    # Two pixels deep there is a mixture only in blurred pictures; a pattern on the object must not pass for one.
    residual = ((pixels - background - share[..., None] * towards) ** 2).sum(axis=2)
    share[inner & ((residual > 0.01 * contrast) | (share > 0.9))] = 1
    # Where the object is nearly as bright as the background the share is all noise: trust the mask there.
    trust = contrast / (contrast + (6 * noise) ** 2)
    mixed = (trust * share + (1 - trust) * object_mask).clip(0, 1)
    mixed[mixed * np.sqrt(contrast) < 3 * noise] = 0
    alpha = np.where(core, 1.0, np.where(band, mixed, 0.0)).astype(np.float32)
    unmixed = background + (pixels - background) / np.maximum(alpha, 0.1)[..., None]
    certain = alpha[..., None] ** 2
    colour = np.where(core[..., None], pixels, certain * unmixed.clip(0, 1) + (1 - certain) * solid)
    return alpha, colour.astype(np.float32)


def _sharp(
    pixels: Float[ndarray, "height width 3"],
    background: Float[ndarray, "3"] | Float[ndarray, "height width 3"],
    inner: Bool[ndarray, "height width"],
    core: Bool[ndarray, "height width"],
) -> bool:
    """Whether pixels next to the outermost ones hold no background: then most differ from it as much as the core."""
    towards = _spread(pixels, core) - background
    contrast = (towards**2).sum(axis=2)
    telling = inner & ~core & (contrast > (3 * _PALE) ** 2)
    share = ((pixels - background) * towards).sum(axis=2)[telling] / contrast[telling]
    return bool(share.size) and float(np.quantile(share, 0.75)) > _SHARP


def _spread(
    pixels: Float[ndarray, "height width 3"], core: Bool[ndarray, "height width"]
) -> Float[ndarray, "height width 3"]:
    """The colours of ``core`` continued outwards: averages over the core close by, else the nearest pixel of it."""
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    weight = ndimage.gaussian_filter(core.astype(np.float32), 1.5)
    total = ndimage.gaussian_filter(pixels * core[..., None], (1.5, 1.5, 0.0))
    average = total / np.maximum(weight, 1e-6)[..., None]
    return np.where((weight > 0.02)[..., None], average, pixels[nearest[0], nearest[1]])
