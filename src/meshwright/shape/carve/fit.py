"""Density and colour of the space inside the hull, fitted to the pictures by volume rendering.

Every ray through an object's pixel is rendered as in NeRF (Mildenhall et al. 2020, equation 3) and should show the
pixel's colour, at each sample and in sum, and end inside. Colours are the weighted means of what the rays through them
show (expectation maximisation); the logit of density is moved by Adam, held by total variation and a prior on volume.

That prior decides: 0.002 leaves floaters, 0.02 erodes. It acts only where about one picture looks and where the
pictures' colours differ, or objects of even colour would be hollowed out.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from meshwright.compiled import compiled
from meshwright.progress import Progress, silent
from meshwright.shape.carve.grid import Scene, reduced, resample, trilinear
from meshwright.shape.carve.rays import RaySamples, corner_offsets
from meshwright.views import Views

DENSITY_PER_CELL = 4.0  # times softplus of the logit: optical depth of one cell
_STEP = 0.7  # cells between samples
_COLOR_SCALE = 0.03  # differences of colour above this count linearly
_START, _START_SWEEP = -2.5, 1.5  # logits: of the hull, and how much the sweep's field moves them, full or empty
_RATE, _RATE_FALL = 0.25, 0.7  # of Adam, and the share of it that is lost until a level ends
_FAST_DECAY, _SLOW_DECAY, _LEAST = 0.9, 0.99, 1e-3  # of Adam
_LOWEST, _HIGHEST = -6.0, 4.0  # logits
_TOTAL_VARIATION, _TV_SCALE = 0.01, 0.5  # weight; differences of logits above the scale count linearly
_VOLUME = 0.005  # weight of the prior on volume
_SAME_COLOR, _OTHER_COLOR = 0.02, 0.12  # spread of the pictures' colours where that prior begins and is whole
_LOOK_EVERY = 15  # iterations, for how many pictures see each node
_FORGET = 0.02  # weight of a node's colour so far, in samples
_PARTS = 4  # of the rays, each with sums of its own, so that results do not depend on the number of threads
_MOST_SAMPLES = 1024  # of a ray


@dataclass(frozen=True)
class _Level:
    """``side_px``: of the pictures that are fitted."""

    side_px: int
    iterations: int


_COARSENESS = 2.0  # cells of the scene that a cell of the coarse grid is long
_COARSE = _Level(side_px=80, iterations=100)
_FINE = _Level(side_px=160, iterations=60)


def fit_density(
    scene: Scene, views: Views, rough: Float[np.ndarray, "nx ny nz"], progress: Progress = silent
) -> Float[np.ndarray, "nx ny nz"]:
    """Logits of density at the nodes of ``scene``; optical depth a cell is `DENSITY_PER_CELL` times their softplus.

    ``rough``: a signed field in cells to start from, as `sweep` gives.
    """
    coarse = scene.coarser(_COARSENESS)
    # The coarser grid has one more layer around it.
    nodes = [(np.arange(n) - 1) * _COARSENESS for n in coarse.hull.shape]
    fields = _Fields.start(_START - _START_SWEEP * resample(rough, nodes).clip(-1, 1))
    fields.take_colors_from(coarse, views, _COARSE.side_px)
    fields.fit(coarse, views, _COARSE, lambda done: progress("carve", 0.3 + 0.3 * done, "density"))
    fields = fields.resampled([np.arange(n) / _COARSENESS + 1 for n in scene.hull.shape])
    fields.fit(scene, views, _FINE, lambda done: progress("carve", 0.6 + 0.3 * done, "density"))
    return fields.logits


@dataclass(frozen=True, eq=False)
class _Fields:
    logits: Float[np.ndarray, "nx ny nz"]
    colors: Float[np.ndarray, "nx ny nz 3"]

    @classmethod
    def start(cls, logits: Float[np.ndarray, "nx ny nz"]) -> "_Fields":
        return cls(np.ascontiguousarray(logits, np.float32), np.full((*logits.shape, 3), 0.5, np.float32))

    def resampled(self, nodes: list[Float[np.ndarray, " _n"]]) -> "_Fields":
        colors = np.stack([resample(self.colors[..., c], nodes) for c in range(3)], axis=3)
        return _Fields(np.ascontiguousarray(resample(self.logits, nodes), np.float32), np.ascontiguousarray(colors))

    def take_colors_from(self, scene: Scene, views: Views, side_px: int) -> None:
        """The mean colours of the rays through each node: density cannot be judged by colours nobody has measured."""
        rendering = _Rendering(RaySamples.of(scene, views, side_px, _STEP), self)
        rendering.run()
        _take_mean_colors(_near_hull(scene), rendering.sums, np.float32(1e-6), self.colors.reshape(-1, 3))

    def fit(self, scene: Scene, views: Views, level: _Level, progress: Callable[[float], None]) -> None:
        """Change logits and colours, in place, until the pictures are rendered."""
        samples = RaySamples.of(scene, views, level.side_px, _STEP)
        rendering = _Rendering(samples, self)
        logits, colors = self.logits.reshape(-1), self.colors.reshape(-1, 3)
        active, offsets = _near_hull(scene), corner_offsets(scene.hull.shape)
        differ = volume_weight = _color_spread(scene, active, views, level.side_px)
        mean, square = np.zeros_like(logits), np.zeros_like(logits)
        for iteration in range(level.iterations):
            if iteration % _LOOK_EVERY == _LOOK_EVERY - 1:
                seen = count_seeing(optical_depth(self.logits), scene)
                volume_weight = ((1 - np.abs(seen - 1)).clip(0, 1).reshape(-1) * differ).astype(np.float32)
            rendering.run()
            _take_mean_colors(active, rendering.sums, np.float32(_FORGET), colors)
            rate = np.float32(_RATE * (1 - _RATE_FALL * iteration / level.iterations))
            _move_logits(active, rendering.gradients, volume_weight, offsets, rate, iteration, logits, mean, square)
            progress((iteration + 1) / level.iterations)


class _Rendering:
    """Gradients and weighted colours of all rays, added up in a fixed order whatever the number of threads."""

    def __init__(self, samples: RaySamples, fields: _Fields) -> None:
        self._samples, self._fields = samples, fields
        count = fields.logits.size
        self.gradients = np.zeros((_PARTS, count), np.float32)
        self.sums = np.zeros((_PARTS, count, 4), np.float32)

    def run(self) -> float:
        """Render every ray once; ``gradients`` and ``sums`` are added to. Returns the loss."""
        return sum(_in_parts(self._render))

    def _render(self, part: int) -> float:
        samples, fields = self._samples, self._fields
        return render_and_differentiate(
            part,
            _PARTS,
            samples.starts,
            samples.nodes,
            samples.fractions,
            samples.colors,
            np.float32(samples.step),
            corner_offsets(fields.logits.shape),
            fields.logits.reshape(-1),
            fields.colors.reshape(-1, 3),
            self.gradients[part],
            self.sums[part],
        )


def _in_parts(work: Callable[[int], float]) -> list[float]:
    """``work`` for each of `_PARTS`, on as many threads as torch may use: compiled code lets go of the interpreter."""
    with ThreadPoolExecutor(max_workers=min(_PARTS, torch.get_num_threads())) as pool:
        return list(pool.map(work, range(_PARTS)))


def optical_depth(logits: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, "nx ny nz"]:
    """Of one cell: the light that passes it is exp of minus this."""
    return (np.logaddexp(0, logits) * DENSITY_PER_CELL).astype(np.float32)


def _near_hull(scene: Scene) -> Int[np.ndarray, " some"]:
    """Flat indices of the nodes that samples inside the hull can read; none on the grid's border."""
    near = scene.hull < 1.8
    for axis in range(3):
        np.moveaxis(near, axis, 0)[[0, -1]] = False
    return np.flatnonzero(near)


def _color_spread(
    scene: Scene, chosen: Int[np.ndarray, " some"], views: Views, side_px: int
) -> Float[np.ndarray, " nodes"]:
    """From 0 to 1, how much the colours differ that the pictures show at each chosen node, hidden or not; else 0."""
    premultiplied, alpha = reduced(views, side_px)
    height, width = alpha.shape[1:]
    nodes = np.stack(np.unravel_index(chosen, scene.hull.shape), axis=1)
    count = np.zeros(len(nodes))
    total, squares = np.zeros((len(nodes), 3)), np.zeros((len(nodes), 3))
    for view, projection in enumerate(scene.projections):
        picture = np.concatenate([premultiplied[view], alpha[view, ..., None]], axis=2)
        picture = gaussian_filter(picture, (1, 1, 0))
        at = nodes @ projection[:, :3].T + projection[:, 3]
        depth = np.where(np.abs(at[:, 2]) < 1e-9, 1e-9, at[:, 2])
        column = (at[:, 0] / depth * width).clip(0, width - 1).astype(int)
        row = (at[:, 1] / depth * height).clip(0, height - 1).astype(int)
        shown = picture[row, column]
        weight = shown[:, 3] > 0.3
        color = shown[:, :3] / shown[:, 3:].clip(min=0.05) * weight[:, None]
        count += weight
        total += color
        squares += color**2
    count = count.clip(min=1)[:, None]
    spread = np.sqrt((squares / count - (total / count) ** 2).clip(min=0).sum(axis=1))
    all_nodes = np.zeros(scene.hull.size, np.float32)
    all_nodes[chosen] = ((spread - _SAME_COLOR) / (_OTHER_COLOR - _SAME_COLOR)).clip(0, 1)
    return all_nodes


def count_seeing(density: Float[np.ndarray, "nx ny nz"], scene: Scene) -> Float[np.ndarray, "nx ny nz"]:
    """The transmittance from every camera to each node, added up: about how many pictures see it."""
    return _transmittances(density, scene, False)


def best_transmittance(density: Float[np.ndarray, "nx ny nz"], scene: Scene) -> Float[np.ndarray, "nx ny nz"]:
    """The largest transmittance from any camera to each node."""
    return _transmittances(density, scene, True)


def _transmittances(density: np.ndarray, scene: Scene, largest: bool) -> np.ndarray:
    density = np.where(scene.hull > 0.5, 0, density).astype(np.float32)
    out = np.ones(density.shape, np.float32)

    def layers(part: int) -> float:
        return _march_to_cameras(density, scene.hull, scene.centres, largest, part, _PARTS, out)

    _in_parts(layers)
    return out


@compiled
@no_type_check
def render_and_differentiate(
    part, parts, starts, nodes, fractions, targets, step, offsets, logits, colors, gradient, sums
):
    """Render every ``parts``-th ray and add the loss's gradient by logits, and colours times their weights, to sums.

    For a ray with samples i of weight w_i = T_i a_i, colour c_i, last transmittance T, and picture colour C the loss is
    sum_i w_i rho(c_i - C) + rho(sum_i w_i c_i - (1 - T) C) + T, rho(x) = sqrt(|x|^2 + s^2) - s, s = `_COLOR_SCALE`.
    The derivative by density follows from what lies behind each sample, so that one walk back gives all of them.

    ``starts`` int64 (rays + 1); ``nodes`` int32 (samples); ``fractions`` float32 (samples, 3); ``targets`` float32
    (rays, 3); ``offsets`` int64 (8); ``logits`` float32 (nodes); ``colors`` float32 (nodes, 3); ``gradient`` float32
    (nodes) and ``sums`` float32 (nodes, 4), of weights and weighted colours, are added to. Returns the loss.
    """
    scale = np.float32(_COLOR_SCALE)
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
            if transmittance < 2e-3:
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
    fast, slow = 1 - _FAST_DECAY ** (iteration + 1), 1 - _SLOW_DECAY ** (iteration + 1)
    for node in active:
        total = 0.0
        for part in range(len(gradients)):
            total += gradients[part, node]
            gradients[part, node] = 0
        bend = 0.0
        for offset in along:
            for neighbour in (node + offset, node - offset):
                difference = before[node] - before[neighbour]
                bend += difference / math.sqrt(difference * difference + _TV_SCALE**2)
        total += _TOTAL_VARIATION * bend + _VOLUME * volume_weight[node]
        mean[node] = _FAST_DECAY * mean[node] + (1 - _FAST_DECAY) * total
        square[node] = _SLOW_DECAY * square[node] + (1 - _SLOW_DECAY) * total * total
        step = rate * (mean[node] / fast) / (math.sqrt(square[node] / slow) + _LEAST)
        logits[node] = min(max(before[node] - step, _LOWEST), _HIGHEST)


@compiled
@no_type_check
def _march_to_cameras(density, hull, centres, largest, part, parts, out):
    """Transmittance from the cameras to every node of every ``parts``-th layer inside the hull: the largest or the sum.

    ``density`` float32 (nx, ny, nz), optical depth a cell; ``hull`` float32 likewise; ``centres`` float64 (views, 3);
    ``out`` float32 (nx, ny, nz).
    """
    nx, ny, nz = density.shape
    for i in range(part, nx, parts):
        for j in range(ny):
            for k in range(nz):
                if hull[i, j, k] >= (0 if largest else 1):
                    continue
                total = 0.0
                for view in range(len(centres)):
                    dx, dy, dz = centres[view, 0] - i, centres[view, 1] - j, centres[view, 2] - k
                    shrink = _STEP / math.sqrt(dx * dx + dy * dy + dz * dz)
                    dx, dy, dz = dx * shrink, dy * shrink, dz * shrink
                    # Half a step of its own density would hide every node from all cameras: begin beside it.
                    x, y, z = i + dx, j + dy, k + dz
                    depth = 0.5 * density[i, j, k] * _STEP if largest else 0.0
                    while depth < 6 and x >= 0 and y >= 0 and z >= 0 and x < nx - 1 and y < ny - 1 and z < nz - 1:
                        if largest:
                            depth += _STEP * trilinear(density, x, y, z, 0.0)
                        else:
                            depth += _STEP * density[int(x + 0.5), int(y + 0.5), int(z + 0.5)]
                        x, y, z = x + dx, y + dy, z + dz
                    passed = math.exp(-depth)
                    total = max(total, passed) if largest else total + passed
                out[i, j, k] = total
    return 0.0
