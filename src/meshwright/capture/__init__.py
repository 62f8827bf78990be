"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them.

Others need `load_views`; training on InstantMesh's or MindOne's renderings also reads their camera files.
"""

from meshwright.capture.camera_files.posed import read_training_cameras, unpickle_numbers
from meshwright.capture.load import load_views

__all__ = ["load_views", "read_training_cameras", "unpickle_numbers"]
