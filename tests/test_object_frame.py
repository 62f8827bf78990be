"""The object's frame: equivariant, the world itself for the rigs of the world's convention, and the way back."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright import Cameras, Mesh, Views
from meshwright.views import ObjectFrame

RIGS = {
    "zero123plus": Cameras.zero123plus(),
    "sv3d": Cameras.sv3d(),
    "orbit": Cameras.orbit(5, 20.0, aspect=16 / 9),
    "two opposite": Cameras.orbit(2),
    "one": Cameras.spherical([40.0], [10.0], 4.0, 30.0),
}


def posed(cameras: Cameras, center=(0.0, 0.0, 0.0), radius: float = 0.7, size_px: int = 32) -> Views:
    """Pictures of a ball."""
    rays = cameras.rays(size_px, size_px)
    to_center = torch.tensor(center).to(rays.origins) - rays.origins
    along = (to_center * rays.directions).sum(3)
    alpha = ((to_center.square().sum(3) - along.square() < radius**2) & (along > 0)).float()[:, None]
    sizes_px = torch.full((len(cameras), 2), size_px)
    images = 1 - 0.5 * alpha.expand(-1, 3, -1, -1)
    return Views(images, alpha, cameras, sizes_px, tuple(map(str, range(len(cameras)))))


def moved(views: Views, scale: float, turn_deg: float, shift: torch.Tensor) -> Views:
    """The same pictures in a world that was turned about z, scaled and shifted; cameras in float64."""
    angle = math.radians(turn_deg)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    T = turn @ views.cameras.T_world_camera.double()
    T[:, :3, 3] = T[:, :3, 3] * scale + shift
    depth_z = None if views.depth_z is None else views.depth_z * scale
    cameras = Cameras(T, views.cameras.intrinsics.double())
    return dataclasses.replace(views, cameras=cameras, depth_z=depth_z)


@pytest.mark.parametrize("rig", RIGS)
def test_cameras_that_look_at_the_origin_as_rigs_do_have_the_world_for_a_frame(rig):
    views = posed(RIGS[rig])
    normalized, frame = views.normalized()
    assert frame.is_identity
    assert normalized is views


def small_and_elsewhere() -> Views:
    """Long-focus cameras whose axes meet at the origin; the object is a speck far beside it."""
    return posed(
        Cameras.spherical([0.0, 70.0, 160.0, 250.0], [10.0, 30.0, -20.0, 5.0], 9.0, 60.0), (2.5, -1.0, 0.5), 0.4
    )


def aside() -> Views:
    target = torch.tensor([0.4, 0.1, -0.2])
    positions = target + torch.tensor([[3.0, 0.0, 1.0], [0.0, 5.0, 0.5], [-4.0, 1.0, -1.0]])
    return posed(Cameras.look_at(positions, 35.0, target), tuple(target.tolist()))


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([small_and_elsewhere, aside, lambda: posed(RIGS["sv3d"])]),
    st.floats(-3, 3),
    st.floats(0, 360),
    st.floats(-1000, 1000),
)
def test_scaling_turning_and_shifting_the_world_takes_the_frame_along(case, log_scale, turn_deg, sizes):
    views, scale = case(), 10**log_scale
    shift = sizes * scale * torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    turned = moved(views, 1.0, turn_deg, torch.zeros(3, dtype=torch.float64))
    before, after = ObjectFrame.of(turned), ObjectFrame.of(moved(views, scale, turn_deg, shift))
    assert after.unit / scale == pytest.approx(before.unit, rel=3e-5)  # the world itself is taken within 1e-5
    torch.testing.assert_close((after.center - shift) / scale, before.center, atol=3e-5, rtol=0)
    there, back = ObjectFrame.of(views), ObjectFrame.of(moved(turned, 1.0, -turn_deg, torch.zeros(3)))
    torch.testing.assert_close(there.center, back.center, atol=3e-5, rtol=0)
    normalized, _ = moved(views, scale, turn_deg, shift).normalized()
    expected, _ = turned.normalized()
    torch.testing.assert_close(normalized.cameras.T_world_camera, expected.cameras.T_world_camera, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("case", [small_and_elsewhere, aside])
def test_a_normalised_object_is_at_the_origin_about_one_unit_large_and_normalising_again_changes_no_bit(case):
    views, frame = case().normalized()
    assert not frame.is_identity
    again, identity = views.normalized()
    assert identity.is_identity
    assert again is views
    middle, _ = views.cameras.project(torch.zeros(1, 3))
    rows, columns = (views.alpha[:, 0] > 0.5).any(2).double(), (views.alpha[:, 0] > 0.5).any(1).double()
    grid = (torch.arange(32) + 0.5) / 32
    seen = torch.stack([(columns * grid).sum(1) / columns.sum(1), (rows * grid).sum(1) / rows.sum(1)], dim=1)
    assert (middle[:, 0] - seen).abs().max() < 0.05
    depth_z = views.cameras.positions.norm(dim=1)
    radius = (columns.sum(1) / 64 / views.cameras.intrinsics[:, 0] * depth_z).median()
    assert 0.3 < radius < 1.2


def test_a_silhouette_that_is_wrong_or_empty_does_not_move_the_frame_of_good_cameras():
    views = posed(RIGS["zero123plus"])
    views.alpha[2] = 0
    views.alpha[4] = 1
    assert ObjectFrame.of(views).is_identity
    views.alpha[:] = 0
    assert ObjectFrame.of(views).is_identity


def test_one_view_without_depth_has_the_object_beside_the_origin_and_depth_says_better():
    view = posed(RIGS["one"])
    assert ObjectFrame.of(moved(view, 1000.0, 77.0, torch.zeros(3))).unit == pytest.approx(1000, rel=1e-5)
    # Turned by half about itself, the camera looks away from the origin: nothing is known.
    away = view.cameras.T_world_camera * torch.tensor([-1.0, 1, -1, 1])
    assert ObjectFrame.of(dataclasses.replace(view, cameras=Cameras(away, view.cameras.intrinsics))).is_identity
    ball = dataclasses.replace(view, depth_z=4.0 * view.alpha)
    shift = torch.tensor([7.0, -300.0, 40.0], dtype=torch.float64)
    frame = ObjectFrame.of(moved(ball, 20.0, 0.0, shift))
    assert frame.unit == pytest.approx(20, rel=1e-5)
    torch.testing.assert_close(frame.center, shift, rtol=0, atol=1e-3)


def test_mesh_cameras_and_depth_come_back_in_the_precision_of_the_cameras():
    views = dataclasses.replace(aside(), depth_z=torch.ones(3, 1, 32, 32))
    views = moved(views, 50.0, 30.0, torch.tensor([5e4, 1e4, -2e4], dtype=torch.float64))
    normalized, frame = views.normalized()
    assert normalized.cameras.T_world_camera.dtype == torch.float32
    back = frame.restore_cameras(normalized.cameras)
    torch.testing.assert_close(back.T_world_camera, views.cameras.T_world_camera, rtol=0, atol=50 * 1e-6)
    torch.testing.assert_close(normalized.depth_z * frame.unit, views.depth_z)
    mesh = Mesh(torch.rand(20, 3), torch.arange(18).view(6, 3))
    there = frame.restore_mesh(mesh)
    assert there.vertices.dtype == torch.float64
    torch.testing.assert_close(frame.normalize_mesh(there).vertices, mesh.vertices, rtol=0, atol=1e-6)
    # A point falls into the same places of the pictures in both frames, at depths that differ by the unit.
    uv, depth_z = views.cameras.project(there.vertices)
    uv_normalized, depth_normalized = normalized.cameras.project(mesh.vertices)
    torch.testing.assert_close(uv.float(), uv_normalized, rtol=0, atol=1e-5)
    torch.testing.assert_close(depth_z.float(), depth_normalized * frame.unit, rtol=1e-5, atol=0)
