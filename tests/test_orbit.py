"""The estimate of an orbit on drawn scenes whose cameras are known."""

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.orbit import estimate_orbit
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


def posed_as(views: Views, cameras: Cameras) -> Views:
    return Views(views.images, views.alpha, cameras, views.sizes_px, views.names, views.rig)


@pytest.mark.parametrize(("elevation_deg", "clockwise"), [(0.0, True), (25.0, True), (-9.0, False)])
def test_direction_and_elevation_are_found(elevation_deg, clockwise):
    true = Cameras.sv3d(15, elevation_deg, clockwise)
    found = estimate_orbit(posed_as(draw(true), Cameras.sv3d(15)))
    apart = (found.cameras.positions - true.positions).norm(dim=1) / true.positions.norm(dim=1)
    angle_deg = torch.rad2deg(2 * torch.asin(apart / 2))
    assert angle_deg.max() < 2.5
    assert ("clockwise" if clockwise else "counter-clockwise") in found.assumptions[-1]
    torch.testing.assert_close(found.cameras.intrinsics, true.intrinsics)


def test_true_cameras_stay():
    true = Cameras.sv3d(15, 10.0)
    views = draw(true)
    assert estimate_orbit(views).cameras is views.cameras


def test_a_ball_says_nothing():
    views = draw(Cameras.sv3d(12, 30.0), (((0.0, 0.0, 0.0), 0.6, (0.5, 0.5, 0.5)),))
    views = posed_as(
        Views(views.alpha.expand(-1, 3, -1, -1) * 0.5, views.alpha, views.cameras, views.sizes_px, views.names),
        Cameras.sv3d(12),
    )
    found = estimate_orbit(views)
    assert found.cameras is views.cameras
    assert "as well as any other" in found.assumptions[-1]
