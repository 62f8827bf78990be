"""Carving: what the colours of posed pictures say about the space inside a visual hull, whatever its topology.

Depths are swept for along the rays of each picture (`sweep`), density and colour fitted by volume rendering (`fit`),
and a surface taken out that fills the silhouettes (`surface`). The result is a start for `meshwright.shape.refine`.
"""

import dataclasses
import math

import numpy as np
import torch

from meshwright.progress import Progress, silent
from meshwright.shape.carve.evidence import keep_uncontradicted
from meshwright.shape.carve.fit import fit_density
from meshwright.shape.carve.grid import Scene, resample
from meshwright.shape.carve.surface import surface_field
from meshwright.shape.carve.sweep import sweep
from meshwright.shape.hull import VisualHull
from meshwright.views import Views

__all__ = ["LEAST_VIEWS", "carve"]

LEAST_VIEWS = 3  # a depth is found by two other pictures that agree

_RESOLUTION = 96  # cells cubed; 128 dig a third more of what is solid, and take twice as long
_WORTH = 1.1  # times as many cells along a side from which the hull is taken to that grid

_MOST_VIEWS = 24  # more views say little more and cost as much as the first


def carve(views: Views, hull: VisualHull, progress: Progress = silent) -> VisualHull:
    """The hull without what the pictures look through: gaps between parts, hollows, what lies between limbs.

    Found on a grid of at most about 96 ** 3 cells, as pictures are compared at 160 px, and taken from the hull on its
    own grid: where nothing is removed the hull stays what it is. The long steps are done on the hull's device
    (`on_device`), the others on the CPU. The field returned is roughly a distance near its surface only. With fewer
    than three views it is the hull.
    """
    kept = [i for i in range(len(views)) if i not in hull.rejected_views]
    if len(kept) < LEAST_VIEWS:
        return hull
    kept = [kept[i * len(kept) // _MOST_VIEWS] for i in range(_MOST_VIEWS)] if len(kept) > _MOST_VIEWS else kept
    used = views[kept].to("cpu")
    coarse = _coarser(hull)
    scene = Scene.of(used, coarse)
    device = hull.values.device
    rough = sweep(scene, used, progress, device)
    logits = fit_density(scene, used, rough, progress, device)
    field = keep_uncontradicted(scene, used, surface_field(scene, used, logits))
    progress("carve", 1.0)
    ratio = hull.cell_size / coarse.cell_size
    removed = resample((field - scene.hull) * coarse.cell_size, [np.arange(n) * ratio for n in hull.values.shape])
    return dataclasses.replace(hull, values=hull.values + torch.from_numpy(removed).to(hull.values))


def _coarser(hull: VisualHull) -> VisualHull:
    """The hull on a grid of `_RESOLUTION` cubed cells, from the same origin; as it is if it has no more."""
    ratio = (math.prod(n - 1 for n in hull.values.shape) ** (1 / 3)) / _RESOLUTION
    if ratio < _WORTH:
        return hull
    nodes = [np.arange(math.ceil((n - 1) / ratio) + 1) * ratio for n in hull.values.shape]
    values = torch.from_numpy(resample(hull.values.cpu().numpy(), nodes)).to(hull.values)
    return dataclasses.replace(hull, values=values, cell_size=hull.cell_size * ratio)
