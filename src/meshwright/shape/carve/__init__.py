"""Carving: what the colours of posed pictures say about the space inside a visual hull, whatever its topology.

Depths are swept for along the rays of each picture (`sweep`), density and colour fitted by volume rendering (`fit`),
and a surface taken out that fills the silhouettes (`surface`). The result is a start for `meshwright.shape.refine`.
"""

import dataclasses

import torch

from meshwright.progress import Progress, silent
from meshwright.shape.carve.evidence import keep_uncontradicted
from meshwright.shape.carve.fit import fit_density
from meshwright.shape.carve.grid import Scene
from meshwright.shape.carve.surface import surface_field
from meshwright.shape.carve.sweep import sweep
from meshwright.shape.hull import VisualHull
from meshwright.views import Views

__all__ = ["LEAST_VIEWS", "carve"]

LEAST_VIEWS = 3  # a depth is found by two other pictures that agree

_MOST_VIEWS = 24  # more views say little more and cost as much as the first


def carve(views: Views, hull: VisualHull, progress: Progress = silent) -> VisualHull:
    """The hull without what the pictures look through: gaps between parts, hollows, what lies between limbs.

    Works on the hull's own grid, the long steps on the hull's device (`on_device`), the others on the CPU. About 96
    cells along the longest side are enough for pictures of 160 px. The field returned is roughly a distance near its
    surface only. With fewer than three views it is the hull.
    """
    kept = [i for i in range(len(views)) if i not in hull.rejected_views]
    if len(kept) < LEAST_VIEWS:
        return hull
    kept = [kept[i * len(kept) // _MOST_VIEWS] for i in range(_MOST_VIEWS)] if len(kept) > _MOST_VIEWS else kept
    used = views[kept].to("cpu")
    scene = Scene.of(used, hull)
    device = hull.values.device
    rough = sweep(scene, used, progress, device)
    logits = fit_density(scene, used, rough, progress, device)
    field = keep_uncontradicted(scene, used, surface_field(scene, used, logits))
    progress("carve", 1.0)
    values = torch.from_numpy(field * hull.cell_size).to(hull.values)
    return dataclasses.replace(hull, values=values)
