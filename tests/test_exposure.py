"""Exposures found where views see the same points, and their gauge."""

import torch

from meshwright.color.exposure import _exposures


def seen_by_all(views=6, points=4000, noise=0.0):
    """The same colours in each view, through a gain and an offset of its own: colours, gains, offsets."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(points, 3, generator=generator)
    gain = 0.8 + 0.4 * torch.rand(views, 3, generator=generator)
    offset = 0.1 * torch.rand(views, 3, generator=generator) - 0.05
    colors = truth * gain[:, None] + offset[:, None] + noise * torch.randn(views, points, 3, generator=generator)
    return colors, gain, offset


def test_pictures_gains_keep_the_mean_one_and_their_offsets_the_mean_zero_also_under_noise():
    """Least squares alone would make every picture flat: noise is smallest at a gain of 0."""
    colors, _, _ = seen_by_all(noise=0.1)
    gain, offset, _ = _exposures(colors, torch.ones(colors.shape[:2]))
    torch.testing.assert_close((1 / gain).mean(0), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close((offset / gain).mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_exposures_are_found_up_to_the_gauge():
    colors, gain, _ = seen_by_all()
    found_gain, found_offset, agreement = _exposures(colors, torch.ones(colors.shape[:2]))
    assert (gain / gain.mean(0) - 1).abs().max() > 0.1
    torch.testing.assert_close(1 / found_gain, gain / gain.mean(0), atol=0.01, rtol=0)
    levelled = colors * found_gain[:, None] + found_offset[:, None]
    assert levelled.std(0).max() < 0.01
    assert agreement.min() > 0.95


def test_a_view_that_disagrees_everywhere_loses_its_weight_and_does_not_move_the_others():
    colors, gain, _ = seen_by_all()
    generator = torch.Generator().manual_seed(1)
    colors[2] = torch.rand(colors[2].shape, generator=generator)
    found_gain, _, agreement = _exposures(colors, torch.ones(colors.shape[:2]))
    others = [0, 1, 3, 4, 5]
    assert agreement[2].mean() < 0.1
    assert agreement[others].mean() > 0.8
    ratio = gain[others] * found_gain[others]
    assert (ratio / ratio.mean(0) - 1).abs().max() < 0.05
