"""What a fit of density repeats: rendering all rays, taking mean colours, and a step of Adam, in compiled loops."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int

from meshwright.compiled import compiled
from meshwright.shape.carve.rays import RaySamples

DENSITY_PER_CELL = 4.0  # times softplus of the logit: optical depth of one cell
COLOR_SCALE = 0.03  # differences of colour above this count linearly
FAST_DECAY, SLOW_DECAY, LEAST = 0.9, 0.99, 1e-3  # of Adam
LOWEST, HIGHEST = -6.0, 4.0  # logits
TOTAL_VARIATION, TV_SCALE = 0.01, 0.5  # weight; differences of logits above the scale count linearly
VOLUME = 0.005  # weight of the prior on volume
PARTS = 4  # of the rays, each with sums of its own, so that results do not depend on the number of threads
_MOST_SAMPLES = 1024  # of a ray
LEAST_LIGHT = 2e-3  # transmittance at which a ray ends


class CompiledSteps:
    """What is repeated in a level of the fit, on the CPU; sums in a fixed order whatever the number of threads."""

    def __init__(
        self,
        samples: RaySamples,
        active: Int[np.ndarray, " some"],
        offsets: Int[np.ndarray, "8"],
        logits: Float[np.ndarray, " nodes"],
        colors: Float[np.ndarray, "nodes 3"],
    ) -> None:
        self._samples, self._active, self._offsets = samples, active, offsets
        self.logits, self.colors = logits.copy(), colors.copy()
        self._gradients = np.zeros((PARTS, len(logits)), np.float32)
        self._sums = np.zeros((PARTS, len(logits), 4), np.float32)
        self._mean, self._square = np.zeros_like(logits), np.zeros_like(logits)

    def render(self) -> float:
        """Render every ray once, for `take_mean_colors` and `move_logits`. Returns the loss."""
        return sum(in_parts(self._render))

    def _render(self, part: int) -> float:
        samples = self._samples
        return render_and_differentiate(
            part,
            PARTS,
            samples.starts,
            samples.nodes,
            samples.fractions,
            samples.colors,
            np.float32(samples.step),
            self._offsets,
            self.logits,
            self.colors,
            self._gradients[part],
            self._sums[part],
        )

    def take_mean_colors(self, forget: float) -> None:
        """Each node's colour becomes the mean of what its rays show; its own counts ``forget`` samples."""
        _take_mean_colors(self._active, self._sums, np.float32(forget), self.colors)

    def move_logits(self, volume_weight: Float[np.ndarray, " nodes"], rate: float, iteration: int) -> None:
        """One step of Adam against the loss, total variation and the prior on volume, times its weight at each node."""
        _move_logits(
            self._active,
            self._gradients,
            volume_weight,
            self._offsets,
            np.float32(rate),
            iteration,
            self.logits,
            self._mean,
            self._square,
        )


def in_parts(work: Callable[[int], float]) -> list[float]:
    """``work`` for each of `PARTS`, on as many threads as torch may use: compiled code lets go of the interpreter."""
    with ThreadPoolExecutor(max_workers=min(PARTS, torch.get_num_threads())) as pool:
        return list(pool.map(work, range(PARTS)))


@compiled
@no_type_check
def render_and_differentiate(
    part, parts, starts, nodes, fractions, targets, step, offsets, logits, colors, gradient, sums
):
    """Render every ``parts``-th ray and add the loss's gradient by logits, and colours times their weights, to sums.

    For a ray with samples i of weight w_i = T_i a_i, colour c_i, last transmittance T, and picture colour C the loss is
    sum_i w_i rho(c_i - C) + rho(sum_i w_i c_i - (1 - T) C) + T, rho(x) = sqrt(|x|^2 + s^2) - s, s = `COLOR_SCALE`.
    The derivative by density follows from what lies behind each sample, so that one walk back gives all of them.

    ``starts`` int64 (rays + 1); ``nodes`` int32 (samples); ``fractions`` float32 (samples, 3); ``targets`` float32
    (rays, 3); ``offsets`` int64 (8); ``logits`` float32 (nodes); ``colors`` float32 (nodes, 3); ``gradient`` float32
    (nodes) and ``sums`` float32 (nodes, 4), of weights and weighted colours, are added to. Returns the loss.
    """
    scale = np.float32(COLOR_SCALE)
    one = np.float32(1)
    share = np.empty(8, np.float32)
    weight, after = np.empty(_MOST_SAMPLES, np.float32), np.empty(_MOST_SAMPLES, np.float32)
    error, closeness = np.empty(_MOST_SAMPLES, np.float32), np.empty(_MOST_SAMPLES, np.float32)
    slope, shade = np.empty(_MOST_SAMPLES, np.float32), np.empty((_MOST_SAMPLES, 3), np.float32)
    loss = 0.0
    for ray in range(part, len(targets), parts):
        begin = starts[ray]
        count = min(starts[ray + 1] - begin, _MOST_SAMPLES)
        red, green, blue = targets[ray, 0], targets[ray, 1], targets[ray, 2]
        transmittance = one
        sum_r, sum_g, sum_b = np.float32(0), np.float32(0), np.float32(0)
        used = 0
        for i in range(count):
            _corner_shares(fractions, begin + i, share)
            logit, r, g, b = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for corner in range(8):
                node = nodes[begin + i] + offsets[corner]
                logit += share[corner] * logits[node]
                r += share[corner] * colors[node, 0]
                g += share[corner] * colors[node, 1]
                b += share[corner] * colors[node, 2]
            grown = math.exp(logit)
            density = np.float32(math.log(one + grown) * DENSITY_PER_CELL)
            opacity = np.float32(one - math.exp(-density * step))
            weight[i] = transmittance * opacity
            transmittance *= one - opacity
            after[i] = transmittance
            slope[i] = grown / (one + grown) * DENSITY_PER_CELL
            length = np.float32(math.sqrt((r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2 + scale * scale))
            error[i] = length - scale
            closeness[i] = one / length
            shade[i, 0], shade[i, 1], shade[i, 2] = r, g, b
            sum_r += weight[i] * r
            sum_g += weight[i] * g
            sum_b += weight[i] * b
            used += 1
            if transmittance < LEAST_LIGHT:
                break
        opaque = one - transmittance
        dr, dg, db = sum_r - opaque * red, sum_g - opaque * green, sum_b - opaque * blue
        length = np.float32(math.sqrt(dr * dr + dg * dg + db * db + scale * scale))
        loss += length - scale + transmittance
        by_r, by_g, by_b = dr / length, dg / length, db / length
        behind = transmittance  # derivative of the loss by the logarithm of the light that passes this sample
        for i in range(used - 1, -1, -1):
            own = error[i] + by_r * (shade[i, 0] - red) + by_g * (shade[i, 1] - green) + by_b * (shade[i, 2] - blue)
            change = step * (after[i] * own - behind) * slope[i]
            behind += weight[i] * own
            loss += weight[i] * error[i]
            _corner_shares(fractions, begin + i, share)
            belief = weight[i] * closeness[i]
            for corner in range(8):
                node = nodes[begin + i] + offsets[corner]
                gradient[node] += share[corner] * change
                counted = share[corner] * belief
                sums[node, 0] += counted
                sums[node, 1] += counted * red
                sums[node, 2] += counted * green
                sums[node, 3] += counted * blue
    return loss


@compiled
@no_type_check
def _corner_shares(fractions, at, share):
    """Trilinear weights (float32, 8) of sample ``at`` in the order of `corner_offsets`."""
    fx, fy, fz = fractions[at, 0], fractions[at, 1], fractions[at, 2]
    gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
    share[0], share[1], share[2], share[3] = gx * gy * gz, gx * gy * fz, gx * fy * gz, gx * fy * fz
    share[4], share[5], share[6], share[7] = fx * gy * gz, fx * gy * fz, fx * fy * gz, fx * fy * fz


@compiled
@no_type_check
def _take_mean_colors(active, sums, forget, colors):
    """Colours (float32, nodes x 3) become the means in ``sums`` (float32, parts x nodes x 4), which is emptied."""
    for node in active:
        weight, r, g, b = forget, forget * colors[node, 0], forget * colors[node, 1], forget * colors[node, 2]
        for part in range(len(sums)):
            weight += sums[part, node, 0]
            r += sums[part, node, 1]
            g += sums[part, node, 2]
            b += sums[part, node, 3]
            sums[part, node] = 0
        colors[node, 0], colors[node, 1], colors[node, 2] = r / weight, g / weight, b / weight


@compiled
@no_type_check
def _move_logits(active, gradients, volume_weight, offsets, rate, iteration, logits, mean, square):
    """One step of Adam; ``gradients`` (float32, parts x nodes) are added up, priors included, and emptied.

    ``active`` int64 (some nodes); ``volume_weight``, ``logits``, ``mean``, ``square`` float32 (nodes).
    """
    along = (offsets[4], offsets[2], offsets[1])
    before = logits.copy()
    fast, slow = 1 - FAST_DECAY ** (iteration + 1), 1 - SLOW_DECAY ** (iteration + 1)
    for node in active:
        total = 0.0
        for part in range(len(gradients)):
            total += gradients[part, node]
            gradients[part, node] = 0
        bend = 0.0
        for offset in along:
            for neighbour in (node + offset, node - offset):
                difference = before[node] - before[neighbour]
                bend += difference / math.sqrt(difference * difference + TV_SCALE**2)
        total += TOTAL_VARIATION * bend + VOLUME * volume_weight[node]
        mean[node] = FAST_DECAY * mean[node] + (1 - FAST_DECAY) * total
        square[node] = SLOW_DECAY * square[node] + (1 - SLOW_DECAY) * total * total
        step = rate * (mean[node] / fast) / (math.sqrt(square[node] / slow) + LEAST)
        logits[node] = min(max(before[node] - step, LOWEST), HIGHEST)
