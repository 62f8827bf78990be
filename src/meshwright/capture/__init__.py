"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them.

`load_views` is the way in; `read_training_cameras` and `unpickle_numbers` read tables of published data sets.
"""

from meshwright.capture.camera_files import read_training_cameras, unpickle_numbers
from meshwright.capture.load import load_views

__all__ = ["load_views", "read_training_cameras", "unpickle_numbers"]
