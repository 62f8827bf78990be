"""Rasteriser: meshes and cameras to pictures, on the CPU (compiled with Numba) and any torch device."""

from meshwright.raster.coverage import Fragments, rasterize
from meshwright.raster.pictures import Rendered, render
from meshwright.raster.shading import interpolate
from meshwright.raster.textures import mip_levels, sample_texture

__all__ = ["Fragments", "Rendered", "interpolate", "mip_levels", "rasterize", "render", "sample_texture"]
