"""Exposure and white balance of each picture, from points of the scene that several pictures show.

A camera multiplies the light by a number for each channel. Where pictures show the same points, the logarithms of
what they show differ by a number for each picture; these are found by robust least squares, with the points' own
brightness eliminated. Saturated and nearly black pixels tell nothing. Highlights, which differ from place to place,
are outliers to it.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from meshwright.cameras import Cameras
from meshwright.srgb import linear_from_srgb, srgb_from_linear

_DARK, _BRIGHT = 0.06, 0.97  # sRGB: what is measured lies between
_ROUNDS = 8
_TOLERANCE = 0.1  # of the light: points that differ by so much count a quarter (Geman & McClure)
_PRIOR = 1.0  # observations' worth of belief that a picture is exposed like the others
_MOST = 3.0  # times brighter or darker; more is a failure


def exposure_gains(
    images: Float[Tensor, "views 3 height width"],
    uv: Float[Tensor, "observations 2"],
    view: Int[ndarray, " observations"],
    point: Int[ndarray, " observations"],
) -> Float[Tensor, "views 3"]:
    """What each picture's linear light is to be multiplied with, so that all look exposed alike.

    Observation k is that picture ``view[k]`` shows the point number ``point[k]`` at picture coordinates ``uv[k]``. The
    geometric mean of the gains is 1. Where nothing tells, a gain is 1.
    """
    count = len(images)
    soft = avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    colors = torch.empty(len(uv), 3)
    for i in range(count):
        mine = torch.from_numpy(view == i)
        at = (uv[mine] * 2 - 1).to(images)[None, None]
        colors[mine] = grid_sample(soft[i : i + 1], at, align_corners=False, padding_mode="border")[0, :, 0].T
    srgb = colors.numpy().astype(np.float64)
    usable = ((srgb > _DARK) & (srgb < _BRIGHT)).all(axis=1)
    if not usable.any():
        return torch.ones(count, 3)
    _, number = np.unique(point[usable], return_inverse=True)
    light = linear_from_srgb(torch.from_numpy(srgb[usable])).log().numpy()
    logs = np.stack([_view_offsets(light[:, c], view[usable], number, count) for c in range(3)], axis=1)
    logs -= logs.mean(axis=0)
    return torch.from_numpy(np.exp(-logs).clip(1 / _MOST, _MOST)).float()


def observations_of_plane(
    cameras: Cameras, points: Float[ndarray, "points 3"]
) -> tuple[Float[Tensor, "observations 2"], Int[ndarray, " observations"], Int[ndarray, " observations"]]:
    """(uv, view, point) of points that every camera is taken to see if its picture reaches there."""
    uv, depth_z = cameras.project(torch.from_numpy(points).to(cameras.intrinsics))
    shown = (depth_z > 0) & (uv > 0).all(dim=2) & (uv < 1).all(dim=2)
    view, point = shown.nonzero(as_tuple=True)
    return uv[view, point].float(), view.numpy(), point.numpy()


def apply_gains(
    images: Float[Tensor, "views 3 height width"], gains: Float[Tensor, "views 3"]
) -> Float[Tensor, "views 3 height width"]:
    """Pictures with their linear light multiplied; what was saturated stays so."""
    return srgb_from_linear(linear_from_srgb(images) * gains[:, :, None, None].to(images)).clamp(0, 1)


def _view_offsets(
    values: Float[ndarray, " seen"], view: Int[ndarray, " seen"], point: Int[ndarray, " seen"], count: int
) -> Float[ndarray, "{count}"]:
    """Offsets of the views in values = offset[view] + height[point], by reweighted least squares."""
    points = int(point.max()) + 1
    weight = np.ones(len(values))
    offsets = np.zeros(count)
    for _ in range(_ROUNDS):
        total = np.bincount(point, weight, points).clip(min=1e-12)
        shared = np.zeros((count, points))
        np.add.at(shared, (view, point), weight)
        normal = np.diag(np.bincount(view, weight, count) + _PRIOR) - (shared / total) @ shared.T
        mean = np.bincount(point, weight * values, points) / total
        right = np.bincount(view, weight * (values - mean[point]), count)
        offsets = np.linalg.solve(normal, right)
        height = np.bincount(point, weight * (values - offsets[view]), points) / total
        residual = values - offsets[view] - height[point]
        weight = (1 + (residual / _TOLERANCE) ** 2) ** -2
    return offsets
