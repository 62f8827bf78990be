"""Pictures without their lens's distortion: what every format's pictures go through once, at the door.

Everything inside works with pinhole cameras. `pinhole_of` finds the picture that a pinhole camera in the same place
would have taken, as large as it can be while the lens shows all of it: a margin that nobody photographed would pass for
background and cut the object off. `undistort` resamples a picture, a mask or depths.
"""

import functools
import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from meshwright.capture.lens import Lens
from meshwright.errors import InputError

_WIDEST = math.tan(math.radians(60.0))  # beyond 60 degrees off the axis a pinhole picture is stretched out of all use
_SAMPLES = 180  # from the principal point to each side; the rectangle is found to a part of that
_LEAST_SHARE = 0.1  # of the picture's sides that has to be left
_LARGEST = 2.0  # times the sides of the picture


@functools.lru_cache(maxsize=512)
def pinhole_of(lens: Lens) -> Lens:
    """The pinhole camera whose picture is the largest that this lens shows all of; of the same scale in the middle.

    A pinhole lens is its own.

    Raises:
        InputError: next to nothing is left: the coefficients are wrong. The message says what, not where.
    """
    if lens.is_pinhole:
        return lens
    sides = np.full(4, _WIDEST)  # left, top, right, bottom
    for _ in range(2):  # over everything that a pinhole camera may see, then over what the lens shows of it
        xs = np.concatenate([np.linspace(-sides[0], 0, _SAMPLES + 1), np.linspace(0, sides[2], _SAMPLES + 1)[1:]])
        ys = np.concatenate([np.linspace(-sides[1], 0, _SAMPLES + 1), np.linspace(0, sides[3], _SAMPLES + 1)[1:]])
        shown = _shown(lens, xs, ys)
        if not shown[_SAMPLES, _SAMPLES]:
            raise InputError("the lens does not show its own axis; correct its principal point or coefficients")
        rows, columns = shown[:, _SAMPLES], shown[_SAMPLES]
        reach = [_run(columns[_SAMPLES::-1]), _run(rows[_SAMPLES::-1]), _run(columns[_SAMPLES:]), _run(rows[_SAMPLES:])]
        steps = np.array([sides[i] / _SAMPLES for i in range(4)])
        rectangle = np.array(_largest_rectangle(shown, xs, ys))
        # Along the axes the lens may show less than in its corners (a cushion), so leave room for the second look.
        sides = np.minimum(_WIDEST, np.maximum(2.0 * np.array(reach) * steps, 4 * steps))
    left, top, right, bottom = rectangle.tolist()
    width_px, height_px = (right - left) * lens.fx_px, (bottom - top) * lens.fy_px
    if width_px < _LEAST_SHARE * lens.width_px or height_px < _LEAST_SHARE * lens.height_px:
        raise InputError("the lens's distortion leaves next to nothing of the picture; correct its coefficients")
    shrink = min(1.0, _LARGEST * lens.width_px / width_px, _LARGEST * lens.height_px / height_px)
    fx_px, fy_px = lens.fx_px * shrink, lens.fy_px * shrink
    width_px, height_px = max(1, math.floor(width_px * shrink)), max(1, math.floor(height_px * shrink))
    return Lens(float(width_px), float(height_px), fx_px, fy_px, -left * fx_px, -top * fy_px)


def undistort(
    image: Float[Tensor, "channels height width"],
    lens: Lens,
    mode: Literal["bicubic", "bilinear", "nearest"] = "bicubic",
) -> Float[Tensor, "channels _height _width"]:
    """What ``pinhole_of(lens)`` sees, of a picture of any size that the lens took; at the scale of the picture.

    Raises:
        InputError: as ``pinhole_of``.
    """
    if lens.is_pinhole:
        return image
    height, width = image.shape[1:]
    pinhole = pinhole_of(lens)
    height_out = max(1, round(pinhole.height_px * height / lens.height_px))
    width_out = max(1, round(pinhole.width_px * width / lens.width_px))
    grid = _sampling_grid(
        lens.resized(float(width), float(height)),
        pinhole.resized(float(width_out), float(height_out)),
        height_out,
        width_out,
    )
    return torch.nn.functional.grid_sample(image[None], grid, mode=mode, padding_mode="border", align_corners=False)[0]


def undistort_picture(
    picture: UInt8[Tensor, "channels height width"], lens: Lens
) -> UInt8[Tensor, "channels _height _width"]:
    """`undistort` for a decoded picture; colours of invisible pixels do not bleed into the object.

    Raises:
        InputError: as ``pinhole_of``.
    """
    if lens.is_pinhole:
        return picture
    values = picture.float() / 255
    if len(values) == 4:
        values = torch.cat([values[:3] * values[3:], values[3:]])
    moved = undistort(values, lens).clamp(0, 1)
    if len(moved) == 4:
        moved = torch.cat([(moved[:3] / moved[3:].clamp(min=1e-3)).clamp(max=1), moved[3:]])
    return (moved * 255).round().to(torch.uint8)


@functools.lru_cache(maxsize=2)  # most captures have one lens, or a few in turn; a grid takes 8 bytes a pixel
def _sampling_grid(lens: Lens, pinhole: Lens, height: int, width: int) -> Float[Tensor, "1 {height} {width} 2"]:
    x = (np.arange(width) + 0.5 - pinhole.cx_px) / pinhole.fx_px
    y = (np.arange(height) + 0.5 - pinhole.cy_px) / pinhole.fy_px
    grid = np.empty((1, height, width, 2), np.float32)
    for top in range(0, height, 256):  # in bands: a distortion needs several numbers a pixel
        rows = y[top : top + 256]
        directions = np.stack(np.broadcast_arrays(x[None, :], rows[:, None]), axis=-1)
        grid[0, top : top + 256] = lens.project(directions) / (lens.width_px / 2, lens.height_px / 2) - 1
    return torch.from_numpy(grid)


def _shown(lens: Lens, xs: Float[ndarray, " columns"], ys: Float[ndarray, " rows"]) -> Bool[ndarray, "rows columns"]:
    """Which directions of a grid the picture shows; where the map turns over, a polynomial has left its validity."""
    directions = np.stack(np.broadcast_arrays(xs[None, :], ys[:, None]), axis=-1)
    with np.errstate(all="ignore"):
        u, v = np.moveaxis(lens.project(directions), -1, 0)
        inside = (u >= 0) & (u <= lens.width_px) & (v >= 0) & (v <= lens.height_px)
        (u_y, u_x), (v_y, v_x) = np.gradient(u, ys, xs), np.gradient(v, ys, xs)
        return inside & (u_x * v_y - u_y * v_x > 0)


def _run(flags: Bool[ndarray, " steps"]) -> int:
    """How many steps beyond the first it goes on."""
    return int(np.logical_and.accumulate(flags).sum()) - 1


def _largest_rectangle(
    shown: Bool[ndarray, "rows columns"], xs: Float[ndarray, " columns"], ys: Float[ndarray, " rows"]
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest rectangle around the axis in what is shown."""
    middle = _SAMPLES
    left = np.logical_and.accumulate(shown[:, middle::-1], axis=1).sum(axis=1)  # samples from the middle column on
    right = np.logical_and.accumulate(shown[:, middle:], axis=1).sum(axis=1)
    above = slice(middle, None, -1)
    lefts = np.minimum(np.minimum.accumulate(left[above])[:, None], np.minimum.accumulate(left[middle:])[None, :])
    rights = np.minimum(np.minimum.accumulate(right[above])[:, None], np.minimum.accumulate(right[middle:])[None, :])
    widths = np.where(lefts > 0, xs[middle + np.maximum(rights, 1) - 1] - xs[middle - np.maximum(lefts, 1) + 1], 0)
    heights = ys[middle:][None, :] - ys[above][:, None]
    up, down = np.unravel_index(np.argmax(widths * heights), widths.shape)
    x0, x1 = xs[middle - max(int(lefts[up, down]), 1) + 1], xs[middle + max(int(rights[up, down]), 1) - 1]
    return float(x0), float(ys[middle - up]), float(x1), float(ys[middle + down])
