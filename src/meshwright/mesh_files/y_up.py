"""The frame of mesh files: right-handed with y up, as glTF demands.

The world's (x, y, z) is written as (x, z, -y), a rotation that Blender undoes when it imports, so a mesh stands there
exactly as it stands before the cameras here.
"""

import numpy as np
from jaxtyping import Float


def to_file(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """World z up to the files' y up: (x, y, z) -> (x, z, -y)."""
    return np.stack([points[:, 0], points[:, 2], 0 - points[:, 1]], axis=1)


def to_world(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """The inverse of ``to_file``: (x, y, z) -> (x, -z, y)."""
    return np.stack([points[:, 0], 0 - points[:, 2], points[:, 1]], axis=1)
