"""The estimate of an orbit on drawn scenes whose cameras are known."""

import math

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.capture.orbit import estimate_orbit, estimate_path
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


def posed_as(views: Views, cameras: Cameras) -> Views:
    return Views(views.images, views.alpha, cameras, views.sizes_px, views.names, views.rig)


@pytest.mark.parametrize(("elevation_deg", "clockwise"), [(0.0, True), (25.0, True), (-9.0, False)])
def test_direction_and_elevation_are_found(elevation_deg, clockwise):
    true = Cameras.sv3d(15, elevation_deg, clockwise)
    found = estimate_orbit(posed_as(draw(true), Cameras.sv3d(15)))
    assert angles_deg(found.cameras, true).max() < 2.5
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


def uneven(count: int) -> Cameras:
    """An orbit that hurries, dawdles and bobs."""
    turn = torch.arange(count) * 2 * math.pi / count
    azimuths_deg = torch.rad2deg(turn) + 14 * (turn + 0.6).sin()
    elevations_deg = 5 + 12 * (turn - 0.4).sin() + 4 * (2 * turn).cos()
    even = Cameras.sv3d(count)
    radius = even.positions[0].norm().item()
    return Cameras(
        Cameras.spherical(azimuths_deg.tolist(), elevations_deg.tolist(), radius, 30.0).T_world_camera, even.intrinsics
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [21, 40])
def test_an_uneven_path_is_found(count):
    true = uneven(count)
    views = posed_as(draw(true), Cameras.sv3d(count))
    found = estimate_path(views)
    before_deg = angles_deg(turned_to(views.cameras, true), true)
    after_deg = angles_deg(turned_to(found.cameras, true), true)
    assert after_deg.mean() < before_deg.mean() / 3
    assert after_deg.max() < 6
    assert "uneven" in found.assumptions[-1]


def turned_to(cameras: Cameras, true: Cameras) -> Cameras:
    """The cameras in the world turned so that they agree best with ``true``: balls do not show which way is up."""
    left, _, right = torch.linalg.svd(true.positions.T @ cameras.positions)
    R = torch.eye(4)
    R[:3, :3] = left @ right
    return Cameras(R @ cameras.T_world_camera, cameras.intrinsics)


@pytest.mark.slow
def test_an_even_orbit_stays_even():
    views = draw(Cameras.sv3d(21, 10.0))
    assert estimate_path(views).cameras is views.cameras
