"""Metrics: laws first, then a slow twin of SSIM written line by line after the paper."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright import Mesh
from meshwright.evaluate.metrics import (
    SurfaceSamples,
    chamfer,
    compare_shapes,
    f_score,
    normal_consistency,
    psnr,
    silhouette_iou,
    ssim,
)


def pictures(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def ssim_after_the_paper(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equations 12 and 13, window by window over one grey picture."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 0.01**2)
                * (2 * covariance + 0.03**2)
                / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
            )
    return float(np.mean(values))


@given(offset=st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_psnr_of_a_constant_offset_is_minus_twenty_times_its_logarithm(offset, seed):
    images = pictures(seed, 2, 3, 5, 7).double()
    assert psnr(images + offset, images).tolist() == pytest.approx([-20 * math.log10(abs(offset))] * 2, abs=1e-9)


def test_psnr_is_one_number_a_view_and_infinite_for_equal_pictures():
    images = pictures(0, 2, 3, 4, 4)
    changed = images.clone()
    changed[1, :, 0, 0] += 0.5
    first, second = psnr(changed, images).tolist()
    assert first == math.inf
    assert second == pytest.approx(10 * math.log10(16 / 0.25))


@pytest.mark.parametrize(("height", "width"), [(11, 11), (11, 30), (24, 17)])
def test_ssim_equals_its_slow_twin(height, width):
    x = pictures(1, 2, 3, height, width).double()
    y = (0.6 * x + 0.4 * pictures(2, 2, 3, height, width)).clamp(0, 1)
    expected = [
        np.mean([ssim_after_the_paper(a, b) for a, b in zip(view_x, view_y, strict=True)])
        for view_x, view_y in zip(x.numpy(), y.numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(x, y), expected, atol=1e-10)
    np.testing.assert_allclose(ssim(x.float(), y.float()), expected, atol=1e-5)


def test_ssim_agrees_with_scipys_gaussian_filter_cut_to_eleven_taps():
    x, y = pictures(3, 40, 50).double().numpy(), pictures(4, 40, 50).double().numpy()

    def blurred(picture: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(picture, 1.5, radius=5)[5:-5, 5:-5]

    mean_x, mean_y = blurred(x), blurred(y)
    covariance = blurred(x * y) - mean_x * mean_y
    squares = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    expected = (
        (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4) / ((mean_x**2 + mean_y**2 + 1e-4) * (squares + 9e-4))
    ).mean()
    found = ssim(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_ssim_is_one_for_equal_pictures_symmetric_and_blind_to_mirroring():
    x, y = pictures(5, 2, 3, 20, 31).double(), pictures(6, 2, 3, 20, 31).double()
    np.testing.assert_allclose(ssim(x, x), [1, 1], atol=1e-12)
    np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=1e-12)
    np.testing.assert_allclose(ssim(x, y), ssim(x.flip(2), y.flip(2)), atol=1e-12)
    np.testing.assert_allclose(ssim(x, y), ssim(x.mT, y.mT), atol=1e-12)


def test_ssim_of_constant_pictures_is_the_luminance_term():
    x, y = torch.full((1, 1, 12, 12), 0.2).double(), torch.full((1, 1, 12, 12), 0.7).double()
    assert float(ssim(x, y)) == pytest.approx((2 * 0.14 + 1e-4) / (0.04 + 0.49 + 1e-4), abs=1e-6)


def test_ssim_has_the_gradient_that_finite_differences_give():
    x, y, direction = (pictures(seed, 1, 1, 14, 12).double() for seed in (7, 8, 9))
    (gradient,) = torch.autograd.grad(ssim(x.requires_grad_(), y).sum(), x)
    step = 1e-5
    difference = (ssim(x + step * direction, y) - ssim(x - step * direction, y)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference.detach()), rel=1e-7)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="10x11"):
        ssim(torch.zeros(1, 3, 11, 10), torch.zeros(1, 3, 11, 10))


def test_silhouette_iou_of_two_rectangles_is_the_ratio_of_areas():
    a, b = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    a[..., 0:6, 0:5] = 1
    b[..., 3:9, 0:5] = 1
    assert float(silhouette_iou(a, b)) == pytest.approx(15 / 45)


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_silhouette_iou_is_one_for_equal_coverage_symmetric_and_at_most_one(seed):
    a, b = pictures(seed, 3, 1, 6, 5), pictures(seed + 100, 3, 1, 6, 5)
    assert silhouette_iou(a, a).tolist() == [1, 1, 1]
    assert silhouette_iou(a, b).tolist() == silhouette_iou(b, a).tolist()
    assert bool((silhouette_iou(a, b) < 1).all())
    np.testing.assert_allclose(silhouette_iou(a, a * 0.25), 0.25, rtol=1e-5)


def test_two_empty_silhouettes_agree_and_one_empty_does_not():
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert silhouette_iou(empty, empty).tolist() == [1]
    assert silhouette_iou(empty, full).tolist() == [0]


def square(z: float, size: float = 1.0) -> Mesh:
    vertices = torch.tensor([[0, 0, z], [size, 0, z], [size, size, z], [0, size, z]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))


@given(distance=st.floats(1e-3, 2))
@settings(max_examples=20, deadline=None)
def test_a_plane_moved_along_its_normal_by_d_has_chamfer_d_and_an_f_score_that_steps_at_d(distance):
    a = SurfaceSamples.of(square(0.0), 500, seed=1)
    moved = a.points + torch.tensor([0, 0, distance])
    assert chamfer(a.points, moved) == pytest.approx(distance, rel=1e-5)
    assert f_score(a.points, moved, [distance * 0.999, distance * 1.001]) == (0, 1)


def test_the_f_score_is_the_harmonic_mean_of_precision_and_recall():
    """The reference is the lower quarter of the square in area terms: all of it is found, most of ours is wrong."""
    whole, quarter = SurfaceSamples.of(square(0.0), 40_000), SurfaceSamples.of(square(0.0, 0.5), 40_000)
    threshold = 0.02
    # Ours within the threshold of the quarter: the quarter itself and a rim along two of its sides.
    precision = 0.25 + 2 * 0.5 * threshold + math.pi / 4 * threshold**2
    (found,) = f_score(whole.points, quarter.points, [threshold])
    assert found == pytest.approx(2 * precision / (precision + 1), abs=6e-3)  # two standard deviations


def test_chamfer_and_f_score_are_symmetric_and_perfect_for_equal_points():
    a, b = pictures(1, 300, 3), pictures(2, 200, 3)
    assert chamfer(a, a) == 0
    assert f_score(a, a, [1e-6]) == (1,)
    assert chamfer(a, b) == pytest.approx(chamfer(b, a))
    assert f_score(a, b, [0.05, 0.1]) == pytest.approx(f_score(b, a, [0.05, 0.1]))


def test_chamfer_equals_its_slow_twin():
    a, b = pictures(1, 300, 3), pictures(2, 200, 3)
    distances = torch.cdist(a.double(), b.double())
    expected = (distances.min(1).values.mean() + distances.min(0).values.mean()) / 2
    assert chamfer(a, b) == pytest.approx(float(expected), rel=1e-6)


@given(angle_deg=st.floats(0, 180))
@settings(max_examples=20, deadline=None)
def test_normals_turned_by_an_angle_have_the_consistency_of_its_cosine(angle_deg):
    a = SurfaceSamples.of(square(0.0), 200)
    angle = math.radians(angle_deg)
    turned = SurfaceSamples(a.points, torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).expand(200, 3))
    assert normal_consistency(a, turned) == pytest.approx(abs(math.cos(angle)), abs=1e-6)


def test_comparing_shapes_gives_the_three_metrics_at_once():
    a = SurfaceSamples.of(square(0.0), 1000, seed=1)
    b = SurfaceSamples.of(square(0.03, 0.9), 1000, seed=2)
    scores = compare_shapes(a, b, [0.02, 0.04, 0.08])
    assert scores.chamfer == chamfer(a.points, b.points)
    assert scores.f_scores == f_score(a.points, b.points, [0.02, 0.04, 0.08])
    assert scores.normal_consistency == normal_consistency(a, b)


def test_two_samplings_of_one_surface_are_as_far_apart_as_the_docstring_says():
    a, b = SurfaceSamples.of(square(0.0), 20_000, seed=1), SurfaceSamples.of(square(0.0), 20_000, seed=2)
    assert chamfer(a.points, b.points) == pytest.approx(0.5 * math.sqrt(1 / 20_000), rel=0.1)


def test_samples_are_reproducible_by_seed_and_carry_unit_normals():
    mesh = square(0.5)
    a, b, c = (SurfaceSamples.of(mesh, 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.points, b.points)
    assert not torch.equal(a.points, c.points)
    assert torch.equal(a.normals, torch.tensor([0.0, 0.0, 1.0]).expand(50, 3))
