"""Fit a mesh, and if asked its cameras, to the pictures: best on withheld pixels, never worse than the start."""

from meshwright.shape.refine.fit import Refined, refine

__all__ = ["Refined", "refine"]
