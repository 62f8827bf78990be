"""Density and colour of the space inside the hull, fitted to the pictures by volume rendering.

Every ray through an object's pixel is rendered as in NeRF (Mildenhall et al. 2020, equation 3) and should show the
pixel's colour, at each sample and in sum, and end inside. Colours are the weighted means of what the rays through them
show (expectation maximisation); the logit of density is moved by Adam, held by total variation and a prior on volume.

That prior decides: 0.002 leaves floaters, 0.02 erodes. It acts only where about one picture looks and where the
pictures' colours differ, or objects of even colour would be hollowed out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from meshwright.compiled import compiled
from meshwright.progress import Progress, silent
from meshwright.shape.carve.grid import Scene, reduced, resample, trilinear
from meshwright.shape.carve.on_device import CPU, TensorSteps
from meshwright.shape.carve.rays import RaySamples, corner_offsets
from meshwright.shape.carve.steps import DENSITY_PER_CELL, PARTS, CompiledSteps, in_parts
from meshwright.views import Views

_STEP = 0.7  # cells between samples
_START, _START_SWEEP = -2.5, 1.5  # logits: of the hull, and how much the sweep's field moves them, full or empty
_RATE, _RATE_FALL = 0.25, 0.7  # of Adam, and the share of it that is lost until a level ends
_SAME_COLOR, _OTHER_COLOR = 0.02, 0.12  # spread of the pictures' colours where that prior begins and is whole
_LOOK_EVERY = 15  # iterations, for how many pictures see each node
_FORGET = 0.02  # weight of a node's colour so far, in samples


@dataclass(frozen=True)
class _Level:
    """``side_px``: of the pictures that are fitted."""

    side_px: int
    iterations: int


_COARSENESS = 2.0  # cells of the scene that a cell of the coarse grid is long
_COARSE = _Level(side_px=80, iterations=100)
_FINE = _Level(side_px=160, iterations=8)  # after 60, three times as much of what is solid was dug away


def fit_density(
    scene: Scene,
    views: Views,
    rough: Float[np.ndarray, "nx ny nz"],
    progress: Progress = silent,
    device: torch.device = CPU,
) -> Float[np.ndarray, "nx ny nz"]:
    """Logits of density at the nodes of ``scene``; optical depth a cell is `DENSITY_PER_CELL` times their softplus.

    ``rough``: a signed field in cells to start from, as `sweep` gives. ``device``: where rays are rendered.
    """
    coarse = scene.coarser(_COARSENESS)
    # The coarser grid has one more layer around it.
    nodes = [(np.arange(n) - 1) * _COARSENESS for n in coarse.hull.shape]
    fields = _Fields.start(_START - _START_SWEEP * resample(rough, nodes).clip(-1, 1))
    fields.take_colors_from(coarse, views, _COARSE.side_px, device)
    fields.fit(coarse, views, _COARSE, device, lambda done: progress("carve", 0.3 + 0.3 * done, "density"))
    fields = fields.resampled([np.arange(n) / _COARSENESS + 1 for n in scene.hull.shape])
    fields.fit(scene, views, _FINE, device, lambda done: progress("carve", 0.6 + 0.3 * done, "density"))
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

    def take_colors_from(self, scene: Scene, views: Views, side_px: int, device: torch.device) -> None:
        """The mean colours of the rays through each node: density cannot be judged by colours nobody has measured."""
        steps = _steps(RaySamples.of(scene, views, side_px, _STEP), _near_hull(scene), self, device)
        steps.render()
        steps.take_mean_colors(1e-6)
        self.colors[...] = steps.colors.reshape(self.colors.shape)

    def fit(
        self, scene: Scene, views: Views, level: _Level, device: torch.device, progress: Callable[[float], None]
    ) -> None:
        """Change logits and colours, in place, until the pictures are rendered."""
        active = _near_hull(scene)
        steps = _steps(RaySamples.of(scene, views, level.side_px, _STEP), active, self, device)
        differ = volume_weight = _color_spread(scene, active, views, level.side_px)
        for iteration in range(level.iterations):
            if iteration % _LOOK_EVERY == _LOOK_EVERY - 1:
                seen = count_seeing(optical_depth(steps.logits.reshape(self.logits.shape)), scene)
                volume_weight = ((1 - np.abs(seen - 1)).clip(0, 1).reshape(-1) * differ).astype(np.float32)
            steps.render()
            steps.take_mean_colors(_FORGET)
            rate = _RATE * (1 - _RATE_FALL * iteration / level.iterations)
            steps.move_logits(volume_weight, rate, iteration)
            progress((iteration + 1) / level.iterations)
        self.logits[...] = steps.logits.reshape(self.logits.shape)
        self.colors[...] = steps.colors.reshape(self.colors.shape)


def _steps(
    samples: RaySamples, active: Int[np.ndarray, " some"], fields: _Fields, device: torch.device
) -> "CompiledSteps | TensorSteps":
    given = (
        samples,
        active,
        corner_offsets(fields.logits.shape),
        fields.logits.reshape(-1),
        fields.colors.reshape(-1, 3),
    )
    return CompiledSteps(*given) if device.type == "cpu" else TensorSteps(*given, device)


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
        return _march_to_cameras(density, scene.hull, scene.centres, largest, part, PARTS, out)

    in_parts(layers)
    return out


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
