"""Fit a mesh, and if asked its cameras, to the pictures: best on withheld pixels, never worse than the start."""

from meshwright.refine.fit import Refined, refine
from meshwright.refine.remesh import edge_length_for, remesh

__all__ = ["Refined", "edge_length_for", "refine", "remesh"]
