"""Files of strangers decoded in a process of its own, with limits: whatever they do to their reader, they do to that.

`file_readers` gives the functions that read pictures, meshes and weights, in this process or in a child. What comes
back from a child is data: tensors and JSON, looked at before they are used, never a pickle.
"""

from meshwright.isolated.parcel import Parcel
from meshwright.isolated.readers import Readers, file_readers

__all__ = ["Parcel", "Readers", "file_readers"]
