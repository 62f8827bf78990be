"""What fitting minimises: exact values on simple shapes, and the laws that the fit relies on."""

import pytest
import torch

from meshwright.losses import (
    charbonnier,
    geman_mcclure_weight,
    normal_roughness,
    silhouette_error,
)
from meshwright.mesh import Mesh

SQUARE = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
TWO_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
PAIR = torch.tensor([[0, 1]])


def test_charbonnier_is_a_square_near_zero_and_a_line_far_away():
    scale = 0.1
    r = torch.tensor([1e-3, 50.0, 51.0], dtype=torch.float64)
    near, far, farther = charbonnier(r.square(), scale)
    assert float(near) == pytest.approx(1e-6, rel=1e-4)
    assert float(farther - far) == pytest.approx(2 * scale, rel=1e-4)


def test_a_weight_is_a_whole_at_no_error_a_quarter_at_the_scale_and_falls_with_the_fourth_power():
    weights = geman_mcclure_weight(torch.tensor([0.0, 0.5, 500.0], dtype=torch.float64), 0.5)
    assert weights[:2].tolist() == [1.0, 0.25]
    assert float(weights[2]) == pytest.approx(1e-12, rel=1e-5)


def disc(size_px: int, radius: float) -> torch.Tensor:
    """Coverage of a disc whose radius is given as a share of the picture."""
    fine = 8
    at = (torch.arange(size_px * fine) + 0.5) / (size_px * fine) - 0.5
    inside = (at[:, None].square() + at.square() < radius**2).float()
    return torch.nn.functional.avg_pool2d(inside[None], fine)


def test_silhouettes_twice_as_far_apart_have_twice_the_error():
    alpha = disc(128, 0.25)
    kept = torch.ones_like(alpha)
    near, far = (float(silhouette_error(disc(128, 0.25 + px / 128), alpha, kept)) for px in (4, 8))
    assert far / near == pytest.approx(2 * (0.5 + 8 / 256) / (0.5 + 4 / 256), rel=0.1)
    assert float(silhouette_error(alpha, alpha, kept)) == 0


def test_silhouettes_are_compared_in_pixels():
    errors = [
        float(silhouette_error(disc(size, 0.3), disc(size, 0.25), torch.ones(1, size, size))) for size in (64, 128)
    ]
    assert errors[1] / errors[0] == pytest.approx(2.0, rel=0.1)


def test_pixels_that_are_not_kept_say_nothing_about_silhouettes():
    alpha, wrong = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    alpha[:, :, :4] = 1
    wrong[:, :, :6] = 1
    kept = torch.ones(1, 8, 8)
    kept[:, :, 4:6] = 0
    assert float(silhouette_error(wrong, alpha, kept)) == 0


def test_where_there_is_no_silhouette_each_pixel_counts_whole():
    nothing, kept = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert float(silhouette_error(nothing, nothing, kept)) == 0.0
    assert float(silhouette_error(torch.ones(1, 4, 4), nothing, kept)) == 16.0


def test_a_plane_is_not_rough_and_a_sharper_fold_is_rougher():
    def fold(height: float) -> torch.Tensor:
        vertices = SQUARE.clone()
        vertices[3, 2] = height
        return normal_roughness(vertices, TWO_FACES, PAIR, 0.1)

    assert float(fold(0.0)) == 0
    assert 0 < float(fold(0.2)) < float(fold(0.4))


def test_the_area_of_a_square_is_exact_and_its_gradient_pulls_the_corners_inwards():
    vertices = SQUARE.double().requires_grad_(True)
    area = Mesh(vertices, TWO_FACES).area()
    area.backward()
    assert float(area.detach()) == 1.0
    # The corners 0 and 2 of the square: both coordinates change the area by half a side; z does not.
    assert vertices.grad is not None
    torch.testing.assert_close(vertices.grad[2], torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(vertices.grad.sum(0), torch.zeros(3, dtype=torch.float64))
    assert float(Mesh(SQUARE, TWO_FACES[:0]).area()) == 0
