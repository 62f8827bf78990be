"""From 3D files to training batches.

Objects are chosen, normalised, rendered from many views and checked; `open_dataset` reads what lies on disk, in our
layout or in the published ones, and `batches` draws augmented training batches from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshwright.curate.check import CheckSummary, check_dataset
    from meshwright.curate.dataset import Batch, ObjectSource, Samples, batches
    from meshwright.curate.drawn_on_demand import DrawnOnDemand
    from meshwright.curate.inputs import find_objects
    from meshwright.curate.layouts import convert, open_dataset, split_of
    from meshwright.curate.object_files import ObjectRecord, RenderedObject
    from meshwright.curate.options import (
        VIEW_SETS,
        CurateCheckOptions,
        CurateConvertOptions,
        CuratePackOptions,
        CuratePreviewOptions,
        CurateRenderOptions,
        CurateSelectOptions,
        DrawOptions,
        Limits,
        SampleOptions,
        ViewSetOptions,
    )
    from meshwright.curate.preview import preview_dataset
    from meshwright.curate.render import draw
    from meshwright.curate.rendered_folder import RenderedFolder
    from meshwright.curate.run import RunSummary, dataset_digest, render_objects
    from meshwright.curate.selection import Selection, select_objects
    from meshwright.curate.shards import Shards, pack
    from meshwright.curate.true_meshes import true_mesh
    from meshwright.curate.view_sets import view_set_cameras

_NAMES_OF_MODULE = {
    "check": ("CheckSummary", "check_dataset"),
    "dataset": ("Batch", "ObjectSource", "Samples", "batches"),
    "drawn_on_demand": ("DrawnOnDemand",),
    "inputs": ("find_objects",),
    "layouts": ("convert", "open_dataset", "split_of"),
    "object_files": ("ObjectRecord", "RenderedObject"),
    "options": (
        "VIEW_SETS",
        "CurateCheckOptions",
        "CurateConvertOptions",
        "CuratePackOptions",
        "CuratePreviewOptions",
        "CurateRenderOptions",
        "CurateSelectOptions",
        "DrawOptions",
        "Limits",
        "SampleOptions",
        "ViewSetOptions",
    ),
    "preview": ("preview_dataset",),
    "render": ("draw",),
    "rendered_folder": ("RenderedFolder",),
    "run": ("RunSummary", "dataset_digest", "render_objects"),
    "selection": ("Selection", "select_objects"),
    "shards": ("Shards", "pack"),
    "true_meshes": ("true_mesh",),
    "view_sets": ("view_set_cameras",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}

__all__ = [
    "VIEW_SETS",
    "Batch",
    "CheckSummary",
    "CurateCheckOptions",
    "CurateConvertOptions",
    "CuratePackOptions",
    "CuratePreviewOptions",
    "CurateRenderOptions",
    "CurateSelectOptions",
    "DrawOptions",
    "DrawnOnDemand",
    "Limits",
    "ObjectRecord",
    "ObjectSource",
    "RenderedFolder",
    "RenderedObject",
    "RunSummary",
    "SampleOptions",
    "Samples",
    "Selection",
    "Shards",
    "ViewSetOptions",
    "batches",
    "check_dataset",
    "convert",
    "dataset_digest",
    "draw",
    "find_objects",
    "open_dataset",
    "pack",
    "preview_dataset",
    "render_objects",
    "select_objects",
    "split_of",
    "true_mesh",
    "view_set_cameras",
]

if not TYPE_CHECKING:  # looked up on first use: the command line's --help needs the options alone, without torch

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'meshwright.curate' has no attribute {name!r}")
        value = getattr(import_module(f"meshwright.curate.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
