"""The smallest boundary between object and background: a graph cut without a graph.

Minimises sum w |grad u| + sum cost u over u in [0, 1]; wherever u > 0.5 is the best object of all (Chan, Esedoglu &
Nikolova 2006: the relaxation is exact). Solved by the primal-dual steps of Chambolle & Pock (2011), which unlike max
flow measure lengths of slanted boundaries as they are, and need no library.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from meshwright.compiled import compiled

_MOST_STEPS = 240
_CHECK_EVERY = 20
_SETTLED = 2e-4  # share of pixels that change sides between checks


def smallest_cut(
    cost: Float[ndarray, "height width"],
    edge_weight: Float[ndarray, "height width"],
    start: Bool[ndarray, "height width"],
) -> Float[ndarray, "height width"]:
    """u in [0, 1], above 0.5 on the object.

    ``cost``: of calling a pixel object, negative where that is likely. ``edge_weight``: of a pixel's side of boundary
    there. ``start``: a first guess, which changes nothing but the time.
    """
    u = start.astype(np.float32)
    dual = np.zeros((2, *u.shape), np.float32)
    lead = u.copy()
    before = u > 0.5
    for _ in range(_MOST_STEPS // _CHECK_EVERY):
        _steps(u, lead, dual, cost.astype(np.float32), edge_weight.astype(np.float32), _CHECK_EVERY)
        now = u > 0.5
        if (now != before).mean() < _SETTLED and (np.abs(u - 0.5) < 0.3).mean() < 0.02:
            break
        before = now
    return u


def contrast_weight(
    image: Float[ndarray, "height width 3"], strength: float, least: float
) -> Float[ndarray, "height width"]:
    """``strength`` in even areas, down to ``least`` of it where colours change, as in GrabCut (Rother et al. 2004)."""
    down = np.zeros(image.shape[:2], np.float32)
    right = np.zeros_like(down)
    down[:-1] = ((image[1:] - image[:-1]) ** 2).sum(axis=2)
    right[:, :-1] = ((image[:, 1:] - image[:, :-1]) ** 2).sum(axis=2)
    change = np.maximum(down, right)
    beta = 1 / (2 * max(float(change.mean()), 1e-6))
    return (strength * np.maximum(np.exp(-beta * change), least)).astype(np.float32)


@compiled
@no_type_check
def _steps(u, lead, dual, cost, weight, count):
    """``count`` steps in place; all are float32 (height, width), ``dual`` (2, height, width)."""
    height, width = u.shape
    step = np.float32(0.35)  # both steps: 0.35 * 0.35 * 8 < 1, the bound for convergence
    for _ in range(count):
        for i in range(height):
            for j in range(width):
                gy = lead[i + 1, j] - lead[i, j] if i + 1 < height else np.float32(0)
                gx = lead[i, j + 1] - lead[i, j] if j + 1 < width else np.float32(0)
                py = dual[0, i, j] + step * gy
                px = dual[1, i, j] + step * gx
                length = np.sqrt(py * py + px * px)
                if length > weight[i, j]:
                    shrink = weight[i, j] / length
                    py *= shrink
                    px *= shrink
                dual[0, i, j] = py
                dual[1, i, j] = px
        for i in range(height):
            for j in range(width):
                divergence = dual[0, i, j] + dual[1, i, j]
                if i > 0:
                    divergence -= dual[0, i - 1, j]
                if j > 0:
                    divergence -= dual[1, i, j - 1]
                value = u[i, j] + step * (divergence - cost[i, j])
                value = min(max(value, np.float32(0)), np.float32(1))
                lead[i, j] = 2 * value - u[i, j]
                u[i, j] = value
