"""Steps against a gradient."""

import torch
from torch import Tensor

_FAST_DECAY, _SLOW_DECAY, _LEAST = 0.9, 0.999, 1e-8


class Adam:
    """Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1, over a few tensors.

    `torch.optim` has it as well, but its first optimizer in a process imports torch's compiler: six seconds.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters = parameters
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._count = 0

    @torch.no_grad()
    def step(self, size: float) -> None:
        """Move the parameters by about ``size`` against their gradients, which are then forgotten."""
        self._count += 1
        for parameter, mean, square in zip(self._parameters, self._means, self._squares, strict=True):
            if parameter.grad is None:
                continue
            mean.lerp_(parameter.grad, 1 - _FAST_DECAY)
            square.lerp_(parameter.grad.square(), 1 - _SLOW_DECAY)
            usual = (square / (1 - _SLOW_DECAY**self._count)).sqrt() + _LEAST
            parameter -= size * mean / (1 - _FAST_DECAY**self._count) / usual
            parameter.grad = None
