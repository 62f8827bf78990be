"""Texture coordinates: a mesh falls into flat charts, which are packed into a square without overlaps."""

from meshwright.color.atlas.unwrapping import unwrap

__all__ = ["unwrap"]
