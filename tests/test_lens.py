"""Lenses and undistortion: COLMAP's own formulas, and pictures whose straight lines become straight."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.capture.lens import Brown, Division, EnhancedUnified, FieldOfView, Lens, RadTanThinPrism
from meshwright.capture.undistort import pinhole_of, undistort, undistort_picture
from meshwright.errors import InputError

K = (500.0, 510.0, 322.0, 238.0)
BROWN = (0.1, -0.05, 0.002, -0.003, 0.02, 0.03, 0.01, 0.004)
ARIA = (0.1, -0.05, 0.02, 0.03, 0.01, 0.004, 0.002, -0.003, 0.01, 0.02, -0.01, 0.015)
MODELS = {  # COLMAP's parameters after the focal lengths and the principal point
    "FULL_OPENCV": (BROWN, Brown((0.1, -0.05, 0.02), (0.03, 0.01, 0.004), (0.002, -0.003))),
    "OPENCV": (BROWN[:4], Brown((0.1, -0.05), tangential=(0.002, -0.003))),
    "OPENCV_FISHEYE": (BROWN[:4], Brown(BROWN[:4], fisheye=True)),
    "FISHEYE": ((), Brown(fisheye=True)),
    "THIN_PRISM_FISHEYE": (BROWN, Brown((0.1, -0.05, 0.02, 0.03), (), (0.002, -0.003), (0.01, 0.004), True)),
    "RAD_TAN_THIN_PRISM_FISHEYE": (ARIA, RadTanThinPrism(ARIA[:6], (0.002, -0.003), (0.01, 0.02, -0.01, 0.015))),
    "FOV": ((0.8,), FieldOfView(0.8)),
    "DIVISION": ((-0.2,), Division(-0.2)),
    "EUCM": ((0.6, 1.1), EnhancedUnified(0.6, 1.1)),
}


def lens_of(distortion, width: float = 640.0, height: float = 480.0, focal: float = 500.0, **more) -> Lens:
    return Lens(width, height, focal, focal, width / 2, height / 2, distortion, **more)


@pytest.mark.parametrize("name", MODELS)
def test_each_distortion_is_colmaps(name):
    pycolmap = pytest.importorskip("pycolmap")
    rest, distortion = MODELS[name]
    camera = pycolmap.Camera.create_from_model_name(1, name, 500, 640, 480)
    camera.params = np.array(K + rest)
    directions = np.random.default_rng(0).uniform(-0.7, 0.7, (200, 2))
    expected = camera.img_from_cam(np.c_[directions, np.ones(200)])
    found = Lens(640.0, 480.0, *K, distortion).project(directions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_opencvs_fisheye_at_45_degrees_is_its_angle_by_hand():
    k1, k2 = 0.03, -0.01
    angle = math.pi / 4
    lens = Lens(640.0, 480.0, 500.0, 500.0, 320.0, 240.0, Brown((k1, k2), fisheye=True))
    expected = 320 + 500 * angle * (1 + k1 * angle**2 + k2 * angle**4)
    np.testing.assert_allclose(lens.project(np.array([1.0, 0.0])), [expected, 240.0])


DISTORTIONS = [
    Brown((-0.12,)),
    Brown((0.15,)),
    Brown((-0.3, 0.1), tangential=(0.003, -0.004)),
    Brown((-0.02, 0.01), fisheye=True),
    Division(-0.2),
    FieldOfView(0.9),
]


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_all_of_the_pinhole_picture_was_photographed_and_little_is_lost(distortion):
    lens = lens_of(distortion)
    pinhole = pinhole_of(lens)
    assert pinhole.is_pinhole
    x = (np.linspace(0, pinhole.width_px, 41) - pinhole.cx_px) / pinhole.fx_px
    y = (np.linspace(0, pinhole.height_px, 31) - pinhole.cy_px) / pinhole.fy_px
    u, v = np.moveaxis(lens.project(np.stack(np.meshgrid(x, y), axis=-1)), -1, 0)
    assert u.min() >= -0.01
    assert v.min() >= -0.01
    assert u.max() <= 640.01
    assert v.max() <= 480.01
    # Of the largest rectangle each pair of sides, or a corner, lies at the picture's edge.
    near = np.minimum(np.minimum(u, 640 - u), np.minimum(v, 480 - v))
    assert near.min() < 4
    assert (pinhole.fx_px, pinhole.fy_px) == (lens.fx_px, lens.fy_px)  # the middle keeps its scale


@settings(deadline=None, max_examples=15)
@given(st.floats(-0.2, 0.2), st.floats(-0.05, 0.05), st.floats(-0.005, 0.005), st.floats(-0.005, 0.005), st.booleans())
def test_an_undistorted_picture_shows_each_direction_where_its_pinhole_does(k1, k2, p1, p2, fisheye):
    """A smooth picture painted by direction: through the lens and through the pinhole."""
    lens = lens_of(Brown((k1, k2), tangential=(p1, p2), fisheye=fisheye), 96.0, 72.0, 90.0)
    moved = undistort(torch.from_numpy(painted(lens))[None].float(), lens)
    pinhole = pinhole_of(lens)
    expected = painted(pinhole)
    assert moved.shape[1:] == expected.shape
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(moved[0].numpy()[inner], expected[inner], rtol=0, atol=0.01)


def painted(lens: Lens) -> np.ndarray:
    """What a lens shows of a pattern on the plane at distance 1; the directions of pixels by fixed-point iteration."""
    v, u = np.mgrid[: int(lens.height_px), : int(lens.width_px)] + 0.5
    target = np.stack([u, v], axis=-1)
    directions = (target - (lens.cx_px, lens.cy_px)) / (lens.fx_px, lens.fy_px)
    for _ in range(200):
        directions = directions + (target - lens.project(directions)) / (lens.fx_px, lens.fy_px)
    x, y = directions[..., 0], directions[..., 1]
    return 0.5 + 0.2 * np.sin(6 * x + 1) + 0.2 * np.cos(7 * y - 2 * x)


def test_skew_is_taken_out():
    lens = lens_of(Brown(), 96.0, 72.0, 90.0, skew_px=6.0)
    assert not lens.is_pinhole
    moved = undistort(torch.from_numpy(painted(lens))[None].float(), lens)
    np.testing.assert_allclose(moved[0, 4:-4, 4:-4], painted(pinhole_of(lens))[4:-4, 4:-4], rtol=0, atol=0.01)


def test_a_picture_of_another_size_is_undistorted_alike():
    lens = lens_of(Brown((-0.2,)), 96.0, 72.0, 90.0)
    large = undistort(torch.from_numpy(painted(lens.resized(192.0, 144.0)))[None].float(), lens)
    expected = painted(pinhole_of(lens).resized(float(large.shape[2]), float(large.shape[1])))
    np.testing.assert_allclose(large[0, 8:-8, 8:-8], expected[8:-8, 8:-8], rtol=0, atol=0.01)


def test_a_pinhole_picture_stays_as_it_is_to_the_bit():
    picture = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    lens = lens_of(Brown(), 30.0, 20.0)
    assert undistort_picture(picture, lens) is picture
    assert pinhole_of(lens) is lens


def test_invisible_colours_do_not_bleed_into_the_object():
    picture = torch.zeros(4, 40, 60, dtype=torch.uint8)
    picture[1] = 255  # invisible green
    picture[:, 10:30, 20:40] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)[:, None, None]
    moved = undistort_picture(picture, lens_of(Brown((-0.1,)), 60.0, 40.0, 50.0))
    visible = moved[3] > 16
    assert moved[0][visible].min() > 240
    assert moved[1][visible].max() < 16


@pytest.mark.parametrize("distortion", [Brown((-1e6,)), Brown((1e6,), tangential=(1e6, 1e6)), Division(1e6)])
def test_coefficients_that_leave_nothing_are_refused(distortion):
    with pytest.raises(InputError, match="correct its"):
        pinhole_of(lens_of(distortion))


def test_a_principal_point_outside_of_a_distorted_picture_is_refused():
    with pytest.raises(InputError, match="does not show its own axis"):
        pinhole_of(Lens(640.0, 480.0, 500.0, 500.0, -50.0, 240.0, Brown((0.1,))))


def test_a_fisheye_that_sees_behind_itself_gives_120_degrees_at_most():
    lens = lens_of(Brown(fisheye=True), 1000.0, 1000.0, 1000 / math.radians(200))
    pinhole = pinhole_of(lens)
    half = math.atan(max(pinhole.cx_px, pinhole.width_px - pinhole.cx_px) / pinhole.fx_px)
    assert math.radians(55) < half <= math.radians(60.01)
