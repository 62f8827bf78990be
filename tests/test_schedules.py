"""Learning rates: the exact steps at which things happen, and equality with torch's own schedules."""

import itertools
import math

import pytest
import torch

from meshwright.train.config import OptimizerOptions
from meshwright.train.schedules import ema_decay, learning_rate

WARM_RESTARTS = OptimizerOptions(learning_rate=4e-4, schedule="warm_restarts", restart_steps=3000, lowest_rate=0.1)


def test_warm_restarts_begin_anew_every_restart_steps():
    rates = [learning_rate(WARM_RESTARTS, step, 100_000) for step in range(6001)]
    assert rates[0] == rates[3000] == rates[6000] == 4e-4
    assert rates[1500] == pytest.approx(2.2e-4)
    assert all(a > b for a, b in itertools.pairwise(rates[:3000]))
    assert 4e-5 < rates[2999] < 4e-5 * 1.00001


def test_warm_restarts_are_torchs_stepped_once_a_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=4e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=7, eta_min=4e-5)
    options = OptimizerOptions(learning_rate=4e-4, schedule="warm_restarts", restart_steps=7, lowest_rate=0.1)
    for step in range(30):
        assert learning_rate(options, step, 30) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_warm_up_rises_in_a_line_and_ends_at_the_highest_rate():
    options = OptimizerOptions(learning_rate=1.0, schedule="cosine", warmup_steps=4, lowest_rate=0.0)
    rates = [learning_rate(options, step, 12) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == 0.0


def test_cosine_of_the_seed_ends_at_its_rate_and_stays_there():
    options = OptimizerOptions(learning_rate=4e-4, schedule="cosine", warmup_steps=1000, lowest_rate=1e-7 / 4e-4)
    assert learning_rate(options, 0, 7000) == pytest.approx(4e-7)
    assert learning_rate(options, 7000, 7000) == pytest.approx(1e-7)
    assert learning_rate(options, 9000, 7000) == pytest.approx(1e-7)


def test_constant_is_constant_after_its_warm_up():
    options = OptimizerOptions(learning_rate=0.5, schedule="constant", warmup_steps=2)
    assert [learning_rate(options, step, 5) for step in range(5)] == [0.25, 0.5, 0.5, 0.5, 0.5]


def test_the_running_mean_begins_at_the_weights_themselves():
    assert ema_decay(0.9999, 0) == 0.0
    assert ema_decay(0.9999, 2000) == pytest.approx(0.9999 * (1 - math.exp(-1)))
    assert ema_decay(0.9999, 10**6) == pytest.approx(0.9999)
