"""From views to a surface: carve a visual hull, take its surface off the grid, fit that to the pictures.

`visual_hull` needs the silhouettes alone; `flexicubes` and `marching_cubes` mesh any field; `refine` moves a mesh until
it shows what the pictures show; `remesh` and `decimate` change its triangles, not its shape.
"""

from meshwright.shape.carve import LEAST_VIEWS, carve
from meshwright.shape.flexicubes import (
    SurfaceCubes,
    extract,
    flexicubes,
    grid,
    grid_axes,
    grid_index,
    repair_empty,
    surface_cubes,
)
from meshwright.shape.hull import VisualHull, outline_distances_px, visual_hull
from meshwright.shape.marching_cubes import marching_cubes
from meshwright.shape.refine import Refined, refine, refine_best
from meshwright.shape.remesh import edge_length_for, remesh
from meshwright.shape.simplify import decimate

__all__ = [
    "LEAST_VIEWS",
    "Refined",
    "SurfaceCubes",
    "VisualHull",
    "carve",
    "decimate",
    "edge_length_for",
    "extract",
    "flexicubes",
    "grid",
    "grid_axes",
    "grid_index",
    "marching_cubes",
    "outline_distances_px",
    "refine",
    "refine_best",
    "remesh",
    "repair_empty",
    "surface_cubes",
    "visual_hull",
]
