"""Learning rates as plain functions of the step number.

The published code names the same schedules, but as shipped it moves them once an epoch (Lightning's default), so its
3000 "steps" are 3000 epochs and its rate hardly changes. Here a step is a step.
"""

import math

from meshwright.train.config import OptimizerOptions


def learning_rate(options: OptimizerOptions, step: int, steps: int) -> float:
    """The rate of step ``step`` (the first is 0) of a training of ``steps``.

    In the warm-up the rate is (step + 1) / warmup_steps of the highest, so its last step has the highest. After it,
    cosines fall to ``lowest_rate`` of the highest: one that ends with the training, or many of ``restart_steps`` that
    each begin at the highest again (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    highest, warmup = options.learning_rate, options.warmup_steps
    if step < warmup:
        return highest * (step + 1) / warmup
    if options.schedule == "constant":
        return highest
    if options.schedule == "warm_restarts":
        done = (step - warmup) % options.restart_steps / options.restart_steps
    else:
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    lowest = highest * options.lowest_rate
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * done)) / 2


def ema_decay(decay: float, step: int) -> float:
    """Decay of the running mean of weights at step ``step``: from 0 to ``decay`` with a time constant of 2000 steps."""
    return decay * (1 - math.exp(-step / _EMA_WARMUP_STEPS))


_EMA_WARMUP_STEPS = 2000  # MindOne's
