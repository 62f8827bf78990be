"""Colours for a surface out of posed pictures: `color_vertices` for vertices, `bake_texture` for a texture.

Views are made to agree in exposure, each point takes its colour from the views that see it best, and what no view
sees is filled in from what is seen around it or from a field of colours (a model's, or an old mesh's).
"""

from meshwright.color.fields import ColorField, query_colors, surface_field
from meshwright.color.shading import delight
from meshwright.color.texture import bake_field, bake_texture
from meshwright.color.unseen import spread_colors
from meshwright.color.vertex_colors import color_vertices
from meshwright.color.visibility import VisibleSurface

__all__ = [
    "ColorField",
    "VisibleSurface",
    "bake_field",
    "bake_texture",
    "color_vertices",
    "delight",
    "query_colors",
    "spread_colors",
    "surface_field",
]
