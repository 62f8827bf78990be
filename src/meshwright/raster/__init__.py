"""Rasteriser: meshes and cameras to pictures, on the CPU (compiled with Numba) and any torch device."""

from meshwright.raster.coverage import Fragments, rasterize
from meshwright.raster.shading import interpolate

__all__ = ["Fragments", "interpolate", "rasterize"]
