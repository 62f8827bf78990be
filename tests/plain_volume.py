"""Volume rendering as the published model has it: one full tensor a step, every sample evaluated, no shortcuts.

Twin of `meshwright.model.volume`: slow, large and obvious, equal in value and gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Field = Callable[[Tensor], tuple[Tensor, Tensor]]


class PlainRendering(NamedTuple):
    rgb: Tensor
    depth: Tensor
    weight: Tensor


def plain_render(field: Field, origins: Tensor, directions: Tensor, jitter: Tensor, u: Tensor) -> PlainRendering:
    """Origins and directions (rays, 3), jitter and u (rays, samples_per_ray / 2) -> what the rays see on white."""
    half = jitter.shape[1]
    near, far = near_and_far(origins, directions)

    step = (far - near) / (half - 1)
    coarse = torch.stack([near + k / (half - 1) * (far - near) + jitter[:, k] * step for k in range(half)], dim=1)
    coarse_raw, coarse_rgb = evaluate_in_box(field, origins, directions, coarse)
    with torch.no_grad():
        fine = draw_fine(coarse, march(coarse_raw, coarse_rgb, coarse)[0], u)
    fine_raw, fine_rgb = evaluate_in_box(field, origins, directions, fine)

    depths, order = torch.cat([coarse, fine], dim=1).sort(dim=1)
    raw = torch.cat([coarse_raw, fine_raw], dim=1).gather(1, order)
    rgb = torch.cat([coarse_rgb, fine_rgb], dim=1).gather(1, order[:, :, None].expand(-1, -1, 3))
    weights, interval_rgb, middles = march(raw, rgb, depths)
    weight = weights.sum(1)
    picture = (weights[:, :, None] * interval_rgb).sum(1) + 1 - weight[:, None]
    depth = (weights * middles).sum(1).clamp(depths.min(), depths.max())
    return PlainRendering(picture, depth, weight)


def near_and_far(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Slab test axis by axis; rays that miss get the least and the greatest near of those that hit."""
    near, far = torch.full_like(origins[:, 0], -torch.inf), torch.full_like(origins[:, 0], torch.inf)
    for axis in range(3):
        a = (-1 - origins[:, axis]) / directions[:, axis]
        b = (1 - origins[:, axis]) / directions[:, axis]
        near, far = torch.maximum(near, torch.minimum(a, b)), torch.minimum(far, torch.maximum(a, b))
    misses = near > far
    near, far = torch.where(misses, -1.0, near), torch.where(misses, -2.0, far)
    if misses.all():
        return near, far
    entries = near[~misses]
    return torch.where(misses, entries.min(), near), torch.where(misses, entries.max(), far)


def evaluate_in_box(field: Field, origins: Tensor, directions: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    points = origins[:, None] + depths[:, :, None] * directions[:, None]
    raw, rgb = field(points.reshape(-1, 3))
    raw, rgb = raw.reshape(depths.shape), rgb.reshape(points.shape)
    outside = (points.abs() > 1).any(dim=2)
    raw = torch.where(outside, torch.full_like(raw, -torch.finfo(torch.float32).max / 3), raw)
    return raw, torch.where(outside[:, :, None], torch.zeros_like(rgb), rgb)


def march(raw: Tensor, rgb: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, colour and middle of each interval of sorted samples."""
    density = F.softplus((raw[:, :-1] + raw[:, 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-density * (depths[:, 1:] - depths[:, :-1]))
    arriving, weights = torch.ones_like(alpha[:, 0]), []
    for k in range(alpha.shape[1]):
        weights.append(alpha[:, k] * arriving)
        arriving = arriving * (1 - alpha[:, k] + 1e-10)
    return torch.stack(weights, dim=1), (rgb[:, :-1] + rgb[:, 1:]) / 2, (depths[:, :-1] + depths[:, 1:]) / 2


def draw_fine(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse of the piecewise linear cumulative distribution, each draw compared with each step of it."""
    widest = F.max_pool1d(weights[:, None], kernel_size=2, stride=1, padding=1)
    mass = (F.avg_pool1d(widest, kernel_size=2, stride=1)[:, 0] + 0.01)[:, 1:-1] + 1e-5
    bins = (depths[:, :-1] + depths[:, 1:]) / 2
    cdf = torch.cat([torch.zeros_like(mass[:, :1]), (mass / mass.sum(1, keepdim=True)).cumsum(1)], dim=1)
    index = (cdf[:, None, :] <= u[:, :, None]).sum(2)
    below, above = (index - 1).clamp(min=0), index.clamp(max=cdf.shape[1] - 1)
    rise = cdf.gather(1, above) - cdf.gather(1, below)
    fraction = (u - cdf.gather(1, below)) / torch.where(rise < 1e-5, torch.ones_like(rise), rise)
    return bins.gather(1, below) + fraction * (bins.gather(1, above) - bins.gather(1, below))
