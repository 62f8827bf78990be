"""Loss terms of training: exact values on simple pictures, and what each one sees and does not see."""

import pytest
import torch

from meshwright.train.losses import color_error, depth_error, mask_error, normal_error, opacity_from_sdf


def picture(channels: int, seed: int) -> torch.Tensor:
    return torch.rand(2, 3, channels, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_colours_are_compared_in_minus_one_to_one():
    a, b = picture(3, 0), picture(3, 1)
    assert float(color_error(a, b)) == pytest.approx(float((2 * a - 1 - (2 * b - 1)).square().mean()))
    assert float(mask_error(picture(1, 0) * 0 + 0.25, picture(1, 0) * 0 + 0.75)) == 0.25


def test_depth_counts_where_the_truth_is_not_empty_and_views_count_alike():
    alpha = torch.zeros(1, 2, 1, 4, 4)
    alpha[0, 0, 0, 0, 0] = 0.1  # one pixel in view 0, eight in view 1
    alpha[0, 1, 0, :2] = 1.0
    truth = torch.full((1, 2, 1, 4, 4), 2.0)
    found = truth + torch.where(alpha > 0, 0.0, 100.0)
    assert float(depth_error(found, truth, alpha)) == 0.0
    found[0, 0, 0, 0, 0] += 1.0
    assert float(depth_error(found, truth, alpha)) == pytest.approx(0.5)
    assert float(depth_error(found, truth, torch.zeros_like(alpha))) == 0.0


@pytest.mark.parametrize(("unsigned", "flipped"), [(False, 2.0), (True, 0.0)])
def test_flipped_normals_are_the_worst_unless_signs_do_not_count(unsigned, flipped):
    normals = torch.nn.functional.normalize(picture(3, 2) - 0.5, dim=2)
    alpha = torch.ones(2, 3, 1, 6, 5)
    assert float(normal_error(normals, normals, alpha, unsigned)) == pytest.approx(0.0, abs=1e-6)
    assert float(normal_error(-normals, normals, alpha, unsigned)) == pytest.approx(flipped, abs=1e-6)


def test_opacity_falls_from_inside_to_outside_and_grows_with_the_stretch():
    sdf = torch.tensor([-20.0, 0.0, 9.0, 30.0], dtype=torch.float64)
    opacity = opacity_from_sdf(sdf, 10.0, 0.1)
    assert (opacity.diff() < 0).all()
    assert float(opacity[3]) < 1e-9
    assert float(opacity[1]) == pytest.approx(1 - torch.exp(-torch.nn.functional.softplus(torch.tensor(9.0)) * 0.1))
    # Two stretches let through what one of both lengths does.
    half, whole = 1 - opacity_from_sdf(sdf, 10.0, 0.05), 1 - opacity
    torch.testing.assert_close(half.square(), whole)
