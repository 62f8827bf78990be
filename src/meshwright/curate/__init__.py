"""From 3D files to training batches.

Objects are chosen, normalised, rendered from many views and checked; `open_dataset` reads what lies on disk, in our
layout or in the published ones, and `batches` draws augmented training batches from it.
"""

from meshwright.curate.dataset import Batch, ObjectSource, SampleOptions, Samples, batches
from meshwright.curate.layouts import RenderedFolder, open_dataset
from meshwright.curate.object_files import ObjectRecord, RenderedObject

__all__ = [
    "Batch",
    "ObjectRecord",
    "ObjectSource",
    "RenderedFolder",
    "RenderedObject",
    "SampleOptions",
    "Samples",
    "batches",
    "open_dataset",
]
