"""From a bare mesh to one that a texture can be painted on: fewer faces, then texture coordinates."""

from meshwright.atlas.simplify import decimate
from meshwright.atlas.unwrapping import unwrap

__all__ = ["decimate", "unwrap"]
