"""The estimate of an orbit on drawn scenes whose cameras are known."""

import math

import pytest
import torch

from drawn_orbits import angles_deg, draw
from meshwright.cameras import Cameras
from meshwright.capture import path
from meshwright.capture.orbit import estimate_orbit
from meshwright.capture.path import estimate_path
from meshwright.progress import silent
from meshwright.views import Views


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


def ball() -> Views:
    """Nine pictures that are alike: no path explains them better than another."""
    return draw(Cameras.sv3d(9, 10.0), (((0.0, 0.0, 0.0), 0.6, (0.5, 0.5, 0.5)),))


def test_a_path_is_held_to_an_even_orbit_and_turns_the_world_not_at_all(monkeypatch):
    views = posed_as(draw(uneven(9)), Cameras.sv3d(9))
    monkeypatch.setattr(path, "_STEPS", 12)
    offsets_deg = path._descend_path(views, False, silent)
    assert offsets_deg.abs().max() > 1
    assert offsets_deg[:, 0].mean().abs() < 1e-4
    monkeypatch.setattr(path, "_ENERGY_WEIGHT", 10.0)
    held_deg = path._descend_path(views, False, silent)
    assert held_deg.norm() < 0.6 * offsets_deg.norm()
    kept_deg = path._descend_path(views, True, silent)
    assert not kept_deg[:, 1].any()


def test_cameras_stay_where_a_path_gains_nothing(monkeypatch):
    views = ball()
    monkeypatch.setattr(path, "_STEPS", 2)
    assert estimate_path(views).cameras is views.cameras


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
