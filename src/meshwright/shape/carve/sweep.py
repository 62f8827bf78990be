"""Depths of each picture, found inside the hull by comparing colours, and what they say about space.

Plane sweeping (Collins 1996) along the rays of every picture, within the hull only; semi-global aggregation of costs
(Hirschmuller 2008, "Stereo processing by semiglobal matching and mutual information") in four directions; then every
picture votes at every node: empty where it sees through to a depth behind, full where its depth lies near. Averaging
truncated distances instead of voting destroys objects: one wrong picture in six moves every mean.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from meshwright.compiled import compiled
from meshwright.progress import Progress, silent
from meshwright.shape.carve.grid import Scene, project
from meshwright.shape.carve.matching import (
    COVERED,
    FRONT,
    UNKNOWN,
    aggregate,
    depth_range,
    matching_costs,
    partners_of,
    pictures_to_match,
)
from meshwright.shape.carve.on_device import CPU, depths_of_view
from meshwright.views import Views

_VOTES_NEAR = 1.5  # weight of a picture that puts its surface near a node, against one that looks through it
_VOTES_NEEDED = 0.5
_NEAR_CELLS = 2.0  # a depth so far in front of a node, or one cell behind, is the surface at the node
_SMOOTH_CELLS = 0.8  # of the votes


def sweep(
    scene: Scene, views: Views, progress: Progress = silent, device: torch.device = CPU
) -> Float[np.ndarray, "nx ny nz"]:
    """A rough signed field in cells, negative inside: the hull without what the pictures look through.

    ``device``: where pictures are compared.
    """
    depths = sweep_depths(scene, views, progress, device)
    votes = np.empty(scene.hull.shape, np.float32)
    _vote(scene.hull, scene.projections, depths, votes)
    field = gaussian_filter(votes, _SMOOTH_CELLS) * _NEAR_CELLS
    # Within a cell and a half of the hull its own distances are more exact than votes.
    near = (scene.hull > -1.5) & (field < 0)
    return np.maximum(np.where(near, np.minimum(field, scene.hull), field), scene.hull).astype(np.float32)


def sweep_depths(
    scene: Scene, views: Views, progress: Progress = silent, device: torch.device = CPU
) -> Float[np.ndarray, "views height width"]:
    """Depth along the viewing axis in cells of what each pixel shows; 0 where it shows nothing or nothing fits."""
    pictures = pictures_to_match(views)
    partners = partners_of(scene)
    depths = np.zeros(pictures.shape[:3])

    def find(view: int) -> None:
        given = scene, pictures, view, partners[view], *depth_range(scene, view)
        depths[view] = _depths_of_view(*given) if device.type == "cpu" else depths_of_view(*given, device)

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    with ThreadPoolExecutor(max_workers=threads) as pool:  # the kernels let go of the interpreter
        for done, _ in enumerate(pool.map(find, range(len(views)))):
            progress("carve", 0.3 * (done + 1) / len(views), "depths")
    return depths


def _depths_of_view(
    scene: Scene,
    pictures: Float[np.ndarray, "views height width 4"],
    view: int,
    partners: Int[np.ndarray, " others"],
    first: float,
    count: int,
) -> Float[np.ndarray, "height width"]:
    mask = pictures[view, ..., 3] > COVERED
    cost = np.full((*mask.shape, count), np.float32(UNKNOWN))
    matching_costs(view, partners, first, scene.hull, scene.projections, pictures, mask, cost)
    cost += np.float32(FRONT) * (np.arange(count, dtype=np.float32) / count)
    total = np.zeros_like(cost)
    aggregate(cost, mask, total)
    best = total.argmin(axis=2)
    known = mask & (np.take_along_axis(cost, best[..., None], axis=2)[..., 0] < 0.75 * UNKNOWN)
    return np.where(known, first + best, 0)


@compiled
@no_type_check
def _vote(hull, projections, depths, votes):
    """Which nodes the pictures look through: ``votes`` (float32, as ``hull``) from -1, full, to 1, empty.

    ``depths`` float64 (views, height, width), 0 where unknown.
    """
    height, width = depths.shape[1:]
    for i in range(hull.shape[0]):
        for j in range(hull.shape[1]):
            for k in range(hull.shape[2]):
                if hull[i, j, k] > 0:
                    votes[i, j, k] = 1
                    continue
                through, near = 0, 0
                for view in range(len(projections)):
                    u, v, depth = project(projections[view], i, j, k)
                    if depth <= 0 or not (0 <= u < 1 and 0 <= v < 1):
                        continue
                    seen = depths[view, int(v * height), int(u * width)]
                    if seen <= 0:
                        continue
                    if seen - depth > 1:
                        through += 1
                    elif seen - depth > -_NEAR_CELLS:
                        near += 1
                votes[i, j, k] = max(-1.0, min(1.0, through - _VOTES_NEAR * near - _VOTES_NEEDED))
