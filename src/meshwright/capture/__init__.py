"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them.

`load_views` is the way in, `write_colmap` and `write_transforms` the way out; `pose` finds cameras for other programs;
`read_training_cameras` and `unpickle_numbers` read tables of published data sets.
"""

from meshwright.capture.camera_files import read_colmap_points, read_training_cameras, unpickle_numbers
from meshwright.capture.export_cameras import with_reported_cameras, write_colmap, write_transforms
from meshwright.capture.load import load_views
from meshwright.capture.photos import PosedPhotos, pose

__all__ = [
    "PosedPhotos",
    "load_views",
    "pose",
    "read_colmap_points",
    "read_training_cameras",
    "unpickle_numbers",
    "with_reported_cameras",
    "write_colmap",
    "write_transforms",
]
