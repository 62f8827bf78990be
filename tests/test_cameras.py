"""Cameras against the published rig's numbers, and against their own laws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.cameras import SV3D_FOV_DEG, Cameras, focal_from_fov, framing_radius

GOLDEN = np.load(Path(__file__).parent / "golden" / "utils.npz")


def test_zero123plus_embedding_is_the_published_one():
    golden = torch.from_numpy(GOLDEN["zero123plus_cameras_r4"][0])
    torch.testing.assert_close(Cameras.zero123plus().embedding(), golden, atol=1e-6, rtol=0)
    golden = torch.from_numpy(GOLDEN["zero123plus_cameras_r3"][0])
    torch.testing.assert_close(Cameras.zero123plus(radius=3.0).embedding(), golden, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("count", "radius"), [(8, 4.0), (120, 4.5)])
def test_orbit_is_the_published_one(count, radius):
    golden = GOLDEN["orbit_c2w_M8_r4_el20" if count == 8 else "orbit_c2w_M120_r4p5_el20"]
    cameras = Cameras.orbit(count, 20.0, radius)
    torch.testing.assert_close(cameras.T_world_camera, torch.from_numpy(golden), atol=2e-6, rtol=0)
    if count == 8:
        w2c = torch.from_numpy(GOLDEN["orbit_w2c_M8_r4_el20"])
        torch.testing.assert_close(cameras.T_camera_world, w2c, atol=2e-6, rtol=0)


def test_look_at_is_the_published_one():
    cameras = Cameras.look_at(torch.from_numpy(GOLDEN["lookat_positions"]), 30.0)
    torch.testing.assert_close(cameras.T_world_camera, torch.from_numpy(GOLDEN["lookat_c2w"]), atol=1e-6, rtol=0)


def test_focal_length():
    assert focal_from_fov(30.0) == pytest.approx(GOLDEN["K_fov30"][0, 0], abs=1e-12)
    assert focal_from_fov(50.0) == pytest.approx(GOLDEN["K_fov50"][0, 0], abs=1e-12)


@pytest.mark.parametrize("z", [3.0, -3.0])
def test_looking_along_the_up_axis_is_a_rotation(z):
    R = Cameras.look_at(torch.tensor([[0.0, 0.0, z]]), 40.0).T_world_camera[0, :3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3))
    assert torch.linalg.det(R).item() == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(-89, 89),
    st.floats(2, 8),
    st.floats(15, 80),
    st.integers(2, 9),
    st.integers(2, 9),
)
def test_projection_inverts_rays(azimuth, elevation, radius, fov, height, width):
    cameras = Cameras.spherical([azimuth], [elevation], radius, fov, aspect=width / height)
    rays = cameras.rays(height, width)
    distance = torch.linspace(0.5, 4, height * width)[:, None]
    points = rays.origins.reshape(-1, 3) + distance * rays.directions.reshape(-1, 3)
    uv, depth_z = cameras.project(points)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    expected = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=2).reshape(-1, 2)
    torch.testing.assert_close(uv[0], expected, atol=2e-5, rtol=0)
    assert (depth_z > 0).all()


def test_up_is_up_and_plus_y_is_right_from_plus_x():
    """The camera on +x sees +z above the centre and +y on its right: fixes handedness once and for all."""
    uv, _ = Cameras.orbit(1).project(torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.5, 0.0]]))
    above, beside = uv[0]
    assert above[1] < 0.5
    assert above[0].item() == pytest.approx(0.5)
    assert beside[0] > 0.5
    assert beside[1].item() == pytest.approx(0.5)


def test_clockwise_orbit_is_the_mirrored_list():
    forward, backward = Cameras.orbit(7, 12.0), Cameras.orbit(7, 12.0, clockwise=True)
    torch.testing.assert_close(
        forward.T_world_camera[[0, 6, 5, 4, 3, 2, 1]], backward.T_world_camera, atol=1e-6, rtol=0
    )


def test_opencv_door_flips_two_axes():
    cameras = Cameras.zero123plus()
    opencv = cameras.T_world_camera @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    torch.testing.assert_close(Cameras.from_opencv(opencv, cameras.intrinsics).T_world_camera, cameras.T_world_camera)


def test_selection_and_cat_are_inverse():
    cameras = Cameras.zero123plus()
    both = Cameras.cat([cameras[:2], cameras[[2, 3, 4, 5]]])
    assert torch.equal(both.T_world_camera, cameras.T_world_camera)


def test_views_are_chosen_by_slice_list_and_mask():
    cameras = Cameras.zero123plus()
    for chosen in (slice(0, None, 2), [0, 2, 4], torch.tensor([True, False] * 3)):
        assert torch.equal(cameras[chosen].T_world_camera, cameras.T_world_camera[::2])
        assert torch.equal(cameras[chosen].intrinsics, cameras.intrinsics[::2])


def test_sv3d_frames_the_object_as_zero123plus_does():
    """A point on the plane through the origin that faces the camera lies at the same place of both pictures."""
    above = torch.tensor([[0.0, 0.0, 0.7]])
    uv, _ = Cameras.sv3d(21).project(above)
    reference, _ = Cameras.orbit(21).project(above)
    torch.testing.assert_close(uv, reference)
    assert framing_radius(SV3D_FOV_DEG) == pytest.approx(3.528, abs=5e-4)
    assert framing_radius(30.0) == pytest.approx(4.0)


def test_sv3d_walks_around_the_object_in_even_steps():
    positions = Cameras.sv3d(21, 12.0).positions
    azimuth_deg = torch.rad2deg(torch.atan2(positions[:, 1], positions[:, 0])) % 360
    torch.testing.assert_close(azimuth_deg, torch.arange(21) * 360 / 21, atol=1e-3, rtol=0)
    elevation_deg = torch.rad2deg(torch.asin(positions[:, 2] / positions.norm(dim=1)))
    torch.testing.assert_close(elevation_deg, torch.full((21,), 12.0), atol=1e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.2, 2), st.floats(0.2, 2), st.integers(0, 5))
def test_a_crop_sees_what_the_picture_sees_there(left, top, width, height, view):
    cameras, points = Cameras.zero123plus(), torch.tensor([[0.2, -0.3, 0.4], [-0.5, 0.1, 0.0]])
    uv, depth_z = cameras.project(points)
    cropped_uv, cropped_depth_z = cameras.cropped(left, top, width, height).project(points)
    expected = (uv[view] - torch.tensor([left, top])) / torch.tensor([width, height])
    torch.testing.assert_close(cropped_uv[view], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(depth_z, cropped_depth_z)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64])
def test_an_orbit_takes_numpys_numbers(number):
    torch.testing.assert_close(Cameras.orbit(5, number(20)).T_world_camera, Cameras.orbit(5, 20.0).T_world_camera)


def test_a_wide_picture_has_square_pixels():
    """The vertical field of view stays; the picture's right edge is ``aspect`` times as far out as its top."""
    cameras = Cameras.look_at(torch.tensor([[4.0, 0.0, 0.0]]), fov_deg=40.0, aspect=2.5)
    top, right = (
        cameras.unproject(torch.tensor([[[0.5, 0.0], [1.0, 0.5]]]))[0]
        - cameras.unproject(torch.tensor([[[0.5, 0.5]]]))[0]
    )
    assert float(top.norm()) == pytest.approx(math.tan(math.radians(20.0)), rel=1e-5)
    assert float(right.norm()) == pytest.approx(2.5 * float(top.norm()), rel=1e-5)
