"""Cameras of a turn, refined on the points of a patterned object."""

import dataclasses
import math

import pytest
import torch

from meshwright.cameras import Cameras, framing_radius
from meshwright.capture import turn
from meshwright.capture.turn import refine_turn
from meshwright.evaluate import photograph
from meshwright.mesh import Mesh
from meshwright.views import Views
from small_objects import colored_ball

FOV_DEG = 33.8


def speckled(shift_z: float = 0.0) -> Mesh:
    """An egg with a pattern of all sizes, so that corners can be told apart."""
    ball = colored_ball(rounds=6)
    vertices = ball.vertices * torch.tensor([0.55, 0.75, 0.7])
    random = torch.Generator().manual_seed(3)
    waves = torch.randn(40, 3, generator=random) * 14
    phases = torch.rand(40, generator=random) * 2 * math.pi
    colors = (vertices @ waves.T + phases).sin() @ torch.randn(40, 3, generator=random) / 12
    return Mesh(vertices + torch.tensor([0.0, 0.0, shift_z]), ball.faces, (0.5 + colors).clamp(0, 1))


def filmed(elevation_deg: float, fov_deg: float, roll_deg: float, uneven_deg: float, count: int = 21) -> Cameras:
    share = torch.arange(count) / count
    azimuths = 360 * share + uneven_deg * (2 * math.pi * share).sin()
    cameras = Cameras.spherical(azimuths.tolist(), [elevation_deg] * count, framing_radius(fov_deg), fov_deg)
    roll = math.radians(roll_deg)
    turned = torch.eye(4)
    turned[:2, :2] = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return Cameras(cameras.T_world_camera @ turned, cameras.intrinsics)


def guessed(true: Cameras, elevation_deg: float, mesh: Mesh | None = None) -> Views:
    """Pictures from the true cameras that are taken for an even turn as SV3D makes it."""
    pictures = photograph(speckled() if mesh is None else mesh, true, 256, samples=2)
    return dataclasses.replace(pictures, cameras=Cameras.sv3d(len(true), elevation_deg), depth_z=None)


def elevations_deg(cameras: Cameras) -> torch.Tensor:
    return torch.rad2deg(torch.asin(cameras.positions[:, 2] / cameras.positions.norm(dim=1)))


def azimuth_errors_deg(found: Cameras, true: Cameras) -> torch.Tensor:
    apart = torch.atan2(found.positions[:, 1], found.positions[:, 0]) - torch.atan2(
        true.positions[:, 1], true.positions[:, 0]
    )
    apart = torch.rad2deg(torch.atan2(apart.sin(), apart.cos()))
    return apart - apart.mean()


def roll_deg(cameras: Cameras) -> torch.Tensor:
    """Of the cameras' x axis out of the horizon."""
    return torch.rad2deg(torch.asin(cameras.T_world_camera[:, 2, 0] / elevations_deg(cameras).deg2rad().cos()))


def test_elevation_lens_roll_and_uneven_speed_are_found():
    true = filmed(14.0, 45.0, 2.0, 4.0)
    found = refine_turn(guessed(true, 8.0))
    assert (elevations_deg(found.cameras).mean() - 14).abs() < 0.4
    fov_deg = torch.rad2deg(2 * torch.atan(0.5 / found.cameras.intrinsics[0, 1]))
    assert (fov_deg - 45).abs() < 2.0
    assert (roll_deg(found.cameras) - roll_deg(true)).abs().max() < 0.3
    assert azimuth_errors_deg(found.cameras, true).abs().max() < 1.0
    assert "turn uneven by up to" in found.assumptions[-1]
    assert found.cameras_fitted
    assert found[[0, 1]].to("cpu").cameras_fitted
    # The object keeps its size: the distance goes along with the lens.
    size = found.cameras.intrinsics[:, 1] / found.cameras.positions.norm(dim=1)
    torch.testing.assert_close(size, true.intrinsics[:, 1] / true.positions.norm(dim=1), rtol=0.02, atol=0)


def test_an_object_above_the_middle_has_the_same_elevation():
    # A camera that looks past the object from farther up sees the same pictures: the angle to the axis is what counts.
    found = refine_turn(guessed(filmed(12.0, FOV_DEG, 0.0, 0.0), 4.0, speckled(0.15)))
    assert (elevations_deg(found.cameras).mean() - 12).abs() < 0.4


def test_what_is_given_is_kept():
    views = guessed(filmed(14.0, 45.0, 0.0, 4.0), 10.0)
    found = refine_turn(views, keep_elevation=True, keep_focal=True)
    assert found.cameras is not views.cameras
    torch.testing.assert_close(elevations_deg(found.cameras), elevations_deg(views.cameras), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.cameras.intrinsics, views.cameras.intrinsics)


def test_many_frames_are_refined_by_some(monkeypatch):
    monkeypatch.setattr(turn, "_MOST_VIEWS", 21)
    true = filmed(12.0, FOV_DEG, 0.0, 4.0, count=36)
    found = refine_turn(guessed(true, 8.0))
    assert (elevations_deg(found.cameras) - 12).abs().max() < 0.6
    assert azimuth_errors_deg(found.cameras, true).abs().max() < 1.0


@pytest.mark.parametrize("pattern", ["none", "noise"])
def test_cameras_stay_where_no_points_hold_the_pictures_together(pattern):
    views = guessed(filmed(12.0, FOV_DEG, 0.0, 0.0), 8.0)
    random = torch.rand(views.images.shape, generator=torch.Generator().manual_seed(0))
    paint = torch.full_like(views.images, 0.5) if pattern == "none" else random
    views = dataclasses.replace(views, images=paint * views.alpha + 1 - views.alpha)
    assert refine_turn(views) is views


def test_an_even_turn_stays_even():
    true = filmed(12.0, FOV_DEG, 0.0, 0.0)
    found = refine_turn(guessed(true, 8.0))
    assert azimuth_errors_deg(found.cameras, true).abs().max() < 1e-3
    assert (elevations_deg(found.cameras) - 12).abs().max() < 0.3
    assert "uneven by up to 0.0 deg" in found.assumptions[-1]


def test_true_cameras_stay():
    views = photograph(speckled(), filmed(12.0, FOV_DEG, 0.0, 0.0), 256, samples=2)
    found = refine_turn(views)
    assert "points of the object" in found.assumptions[-1]
    turned, moved = found.cameras.difference(views.cameras)
    assert turned.max() < 1e-3
    assert moved.max() < 1e-4
