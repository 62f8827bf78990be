"""From density to a signed field: where light stops coming from every camera, inside the hull, silhouettes filled."""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from meshwright.compiled import compiled
from meshwright.shape.carve.fit import best_transmittance, optical_depth
from meshwright.shape.carve.grid import Scene
from meshwright.shape.carve.rays import RaySamples, corner_offsets
from meshwright.views import Views

_LEVEL = 0.5  # transmittance at the surface
_SMOOTH_CELLS = 0.7  # of the transmittance
_FILL_PX = 224  # pictures whose rays must meet the surface
_FILL_STEP = 0.5  # cells between samples of these rays
_FILL_ROUNDS = 3
_MISSED = -0.02  # cells: a ray that gets no deeper than this meets nothing
_FILLED = -0.4  # cells: how deep inside nodes come to lie that are filled


def surface_field(scene: Scene, views: Views, logits: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, "nx ny nz"]:
    """A signed field in cells, negative inside. What no camera sees stays solid; nothing lies outside the hull."""
    light = best_transmittance(optical_depth(logits), scene)
    field = 2 * gaussian_filter(light - _LEVEL, _SMOOTH_CELLS)
    # As exact as the hull where the hull is the surface.
    near = (scene.hull > -1.5) & (field < 0)
    field = np.maximum(np.where(near, np.minimum(field, scene.hull), field), scene.hull)
    return fill_silhouettes(scene, views, field.astype(np.float32))


def fill_silhouettes(scene: Scene, views: Views, field: Float[np.ndarray, "nx ny nz"]) -> Float[np.ndarray, "nx ny nz"]:
    """The field in which every ray through the object's pixels meets something: its most nearly inside sample."""
    samples = RaySamples.of(scene, views, _FILL_PX, _FILL_STEP)
    offsets = corner_offsets(field.shape)
    field = field.copy()
    for _ in range(_FILL_ROUNDS):
        pushed = np.zeros(field.size, bool)
        if _push_in(samples.starts, samples.nodes, samples.fractions, field.reshape(-1), offsets, pushed) == 0:
            break
        chosen = pushed.reshape(field.shape)
        field[chosen] = np.maximum(np.minimum(field[chosen], _FILLED), scene.hull[chosen])
    return field


@compiled
@no_type_check
def _push_in(starts, nodes, fractions, field, offsets, pushed):
    """Mark the corners around the deepest sample of each ray that meets nothing; returns how many rays do.

    ``starts`` int64 (rays + 1); ``nodes`` int32 (samples); ``fractions`` float32 (samples, 3); ``field`` float32
    (nodes); ``offsets`` int64 (8); ``pushed`` bool (nodes).
    """
    missed = 0
    for ray in range(len(starts) - 1):
        deepest, at = np.inf, -1
        for sample in range(starts[ray], starts[ray + 1]):
            value = 0.0
            for corner in range(8):
                share = fractions[sample, 0] if corner & 4 else 1 - fractions[sample, 0]
                share *= fractions[sample, 1] if corner & 2 else 1 - fractions[sample, 1]
                share *= fractions[sample, 2] if corner & 1 else 1 - fractions[sample, 2]
                value += share * field[nodes[sample] + offsets[corner]]
            if value < deepest:
                deepest, at = value, sample
        if at >= 0 and deepest > _MISSED:
            missed += 1
            for corner in range(8):
                pushed[nodes[at] + offsets[corner]] = True
    return missed
