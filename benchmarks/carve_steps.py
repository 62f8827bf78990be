"""Starts with a step of carving left out, and controls, for `eval_shapes`: what does each step give?

The steps are replaced from here, so that the package has no switches for it.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np

from meshwright.options import ShapeOptions
from meshwright.reconstruct import StartShape
from meshwright.shape import VisualHull, carve, visual_hull
from meshwright.shape.carve.grid import Scene
from meshwright.shape.carve.surface import fill_silhouettes
from meshwright.views import Views

FINE_RESOLUTION = 192  # cells cubed, of the hull and of carving

CARVE = sys.modules["meshwright.shape.carve"]
FIT = sys.modules["meshwright.shape.carve.fit"]
SURFACE = sys.modules["meshwright.shape.carve.surface"]
EVIDENCE = sys.modules["meshwright.shape.carve.evidence"]


def as_it_is(scene: Scene, views: Views, field: np.ndarray, *_: object) -> np.ndarray:
    return field


FINE, ERODED = "carve-fine-grid", "eroded"

# For each start the functions of the package that are replaced.
WITHOUT: dict[str, dict[tuple[object, str], Callable | int]] = {
    "carve-sweep-only": {(CARVE, "fit_density"): as_it_is, (CARVE, "surface_field"): fill_silhouettes},
    "carve-fit-only": {(CARVE, "sweep"): lambda scene, *_: scene.hull},
    "carve-no-volume-prior": {(FIT, "_color_spread"): lambda scene, *_: np.zeros(scene.hull.size, np.float32)},
    "carve-no-color-gate": {(FIT, "_color_spread"): lambda scene, *_: np.ones(scene.hull.size, np.float32)},
    "carve-unfilled": {(SURFACE, "fill_silhouettes"): as_it_is},
    "carve-all-removed": {(CARVE, "keep_uncontradicted"): as_it_is},
    FINE: {(CARVE, "_RESOLUTION"): FINE_RESOLUTION},
    "carve-with-slivers": {(EVIDENCE, "_without_slivers"): lambda field, kept: kept},
}
ABLATED = (*WITHOUT, ERODED)


@contextmanager
def without(replaced: dict[tuple[object, str], Callable | int]) -> Iterator[None]:
    with ExitStack() as stack:
        for (module, name), instead in replaced.items():
            stack.enter_context(patch.object(module, name, instead))
        yield


def start_named(name: str, views: Views) -> StartShape:
    """A start of the list above; ``eroded``: the hull drawn in to the carved one's volume, outlines filled."""
    hull = visual_hull(views, FINE_RESOLUTION if name == FINE else ShapeOptions.resolution)
    if name == ERODED:
        shape = eroded(hull, carve(views, hull), views)
    else:
        with without(WITHOUT[name]):
            shape = carve(views, hull)
    return StartShape(shape.mesh(), rejected_views=hull.rejected_views, unknown=hull.unknown)


def eroded(hull: VisualHull, carved: VisualHull, views: Views) -> VisualHull:
    count = int((carved.values < 0).sum())
    depth = float(hull.values.flatten().kthvalue(count).values)
    scene = Scene.of(views, hull)
    field = fill_silhouettes(scene, views, (scene.hull - depth / hull.cell_size).astype(np.float32))
    return dataclasses.replace(hull, values=hull.values.new_tensor(field * hull.cell_size))
