"""Volume rendering as the published model defines it: one full tensor a step, every sample evaluated, no shortcuts.

The twin of ``meshwright.volume``: slow and large, equal in value and gradient.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F


class PlainRendering(NamedTuple):
    rgb: torch.Tensor
    depth: torch.Tensor
    weight: torch.Tensor


def plain_render(field, origins, directions, jitter, u):
    """Rays (n, 3), jitter and u (n, samples_per_ray / 2) to the picture on white."""
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


def near_and_far(origins, directions):
    """Slab test axis by axis; rays that miss get the least and greatest near of those that hit."""
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


def evaluate_in_box(field, origins, directions, depths):
    points = origins[:, None] + depths[:, :, None] * directions[:, None]
    raw, rgb = field(points.reshape(-1, 3))
    raw, rgb = raw.reshape(depths.shape), rgb.reshape(points.shape)
    outside = (points.abs() > 1).any(dim=2)
    raw = torch.where(outside, torch.full_like(raw, -torch.finfo(torch.float32).max / 3), raw)
    return raw, torch.where(outside[:, :, None], torch.zeros_like(rgb), rgb)


def march(raw, rgb, depths):
    """Weight, colour and middle of each interval of sorted samples."""
    delta = depths[:, 1:] - depths[:, :-1]
    density = F.softplus((raw[:, :-1] + raw[:, 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-density * delta)
    arriving, weights = torch.ones_like(alpha[:, 0]), []
    for k in range(alpha.shape[1]):
        weights.append(alpha[:, k] * arriving)
        arriving = arriving * (1 - alpha[:, k] + 1e-10)
    return torch.stack(weights, dim=1), (rgb[:, :-1] + rgb[:, 1:]) / 2, (depths[:, :-1] + depths[:, 1:]) / 2


def draw_fine(depths, weights, u):
    """Inverse of the piecewise linear cumulative distribution, ray by ray and draw by draw."""
    fine = torch.empty_like(u)
    middles = (depths[:, :-1] + depths[:, 1:]) / 2
    for ray, w in enumerate(weights.tolist()):
        widest = [max(w[max(k - 1, 0) : k + 1]) for k in range(len(w) + 1)]
        blurred = [(a + b) / 2 + 0.01 for a, b in itertools.pairwise(widest)]
        mass = [value + 1e-5 for value in blurred[1:-1]]
        cdf = [0.0]
        for value in mass:
            cdf.append(cdf[-1] + value / sum(mass))
        bins = middles[ray].tolist()
        for j, draw in enumerate(u[ray].tolist()):
            index = sum(value <= draw for value in cdf)
            below, above = max(index - 1, 0), min(index, len(cdf) - 1)
            rise = cdf[above] - cdf[below]
            fraction = (draw - cdf[below]) / (rise if rise >= 1e-5 else 1.0)
            fine[ray, j] = bins[below] + fraction * (bins[above] - bins[below])
    return fine
