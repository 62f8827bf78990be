"""Rasteriser: meshes and cameras to pictures, on the CPU (compiled with Numba) and any torch device.

`render` draws finished pictures. The parts are for fitting a mesh to pictures, and differentiable::

    fragments = rasterize(vertices, faces, cameras, height, width)
    seen = (fragments.face_ids >= 0).float()[..., None]
    normals = interpolate(fragments, faces, vertex_normals)
    mask, normals = antialias(torch.cat([seen, normals], dim=3), fragments, faces).split([1, 3], dim=3)
"""

from meshwright.raster.coverage import Fragments, rasterize
from meshwright.raster.pictures import Rendered, render
from meshwright.raster.shading import interpolate
from meshwright.raster.silhouettes import antialias, edge_partners
from meshwright.raster.textures import mip_levels, sample_texture
from meshwright.raster.visibility import depth_tolerance

__all__ = [
    "Fragments",
    "Rendered",
    "antialias",
    "depth_tolerance",
    "edge_partners",
    "interpolate",
    "mip_levels",
    "rasterize",
    "render",
    "sample_texture",
]
