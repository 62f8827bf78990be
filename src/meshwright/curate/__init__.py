"""From 3D files to training batches.

Objects are chosen, normalised, rendered from many views and checked; `open_dataset` reads what lies on disk, in our
layout or in the published ones, and `batches` draws augmented training batches from it.
"""

from meshwright.curate.check import CheckSummary, CurateCheckOptions, check_dataset
from meshwright.curate.dataset import Batch, ObjectSource, SampleOptions, Samples, batches
from meshwright.curate.isolate import Limits
from meshwright.curate.layouts import CurateConvertOptions, convert, open_dataset, split_of
from meshwright.curate.object_files import ObjectRecord, RenderedObject
from meshwright.curate.preview import CuratePreviewOptions, preview_dataset
from meshwright.curate.render import DrawOptions, draw
from meshwright.curate.rendered_folder import RenderedFolder
from meshwright.curate.run import CurateRenderOptions, RunSummary, dataset_digest, render_objects
from meshwright.curate.select import CurateSelectOptions, Selection, select_objects
from meshwright.curate.shards import CuratePackOptions, Shards, pack
from meshwright.curate.view_sets import VIEW_SETS, ViewOptions

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
    "ViewOptions",
    "batches",
    "check_dataset",
    "convert",
    "dataset_digest",
    "draw",
    "open_dataset",
    "pack",
    "preview_dataset",
    "render_objects",
    "select_objects",
    "split_of",
]
