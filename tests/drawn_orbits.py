"""Turns around drawn balls, whose cameras are known."""

import torch

from meshwright.cameras import Cameras
from meshwright.views import Views

BALLS = (  # centre, radius, colour: no two sides alike
    ((0.0, 0.0, -0.1), 0.45, (0.8, 0.2, 0.1)),
    ((0.5, 0.1, 0.2), 0.25, (0.1, 0.6, 0.2)),
    ((-0.2, 0.45, 0.45), 0.2, (0.2, 0.2, 0.8)),
    ((-0.35, -0.3, -0.5), 0.22, (0.9, 0.8, 0.1)),
)


def draw(cameras: Cameras, balls=BALLS, size: int = 64) -> Views:
    """Ray-cast shaded balls on white."""
    rays = cameras.rays(size, size)
    nearest = torch.full(rays.origins.shape[:-1], torch.inf)
    images = torch.ones(*nearest.shape, 3)
    for centre, radius, colour in balls:
        to_centre = torch.tensor(centre) - rays.origins
        along = (to_centre * rays.directions).sum(dim=-1)
        inside = radius**2 - (to_centre**2).sum(dim=-1) + along**2
        distance = torch.where(inside > 0, along - inside.clamp(min=0).sqrt(), torch.inf)
        normal = (rays.origins + distance[..., None] * rays.directions - torch.tensor(centre)) / radius
        shade = 0.7 + 0.3 * (normal * torch.tensor([0.0, 0.6, 0.8])).sum(dim=-1, keepdim=True)
        hit = distance < nearest
        images = torch.where(hit[..., None], shade * torch.tensor(colour), images)
        nearest = torch.where(hit, distance, nearest)
    alpha = (nearest < torch.inf).float()[:, None]
    sizes_px = torch.tensor([[size, size]] * len(cameras))
    return Views(images.permute(0, 3, 1, 2), alpha, cameras, sizes_px, tuple(map(str, range(len(cameras)))), "sv3d")


def angles_deg(found: Cameras, true: Cameras) -> torch.Tensor:
    apart = (found.positions - true.positions).norm(dim=1) / true.positions.norm(dim=1)
    return torch.rad2deg(2 * torch.asin(apart / 2))
