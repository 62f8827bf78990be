"""Colours for a mesh's vertices, out of the pictures."""

import torch

from meshwright.color.fields import ColorField, query_colors
from meshwright.color.unseen import fill_unseen
from meshwright.color.visibility import SHARPNESS, VisibleSurface
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.views import ObjectFrame, Views


@torch.no_grad()
def color_vertices(mesh: Mesh, views: Views, field: ColorField | None = None, progress: Progress = silent) -> Mesh:
    """The mesh with ``vertex_colors`` (sRGB) taken from the views that see each vertex.

    A view counts by the cosine between the surface and the line of sight and by how large it shows the surface, less
    at outlines and where something stands in front, and by how well the mesh fills its silhouette. Vertices that no
    view sees are filled in from their neighbours over the surface, or from ``field``; see `fill_unseen`. Colours are
    blended as they are encoded: one view dominates nearly everywhere, so linear light would change little (measured
    on scans: at most 0.1 dB, mostly worse). ``view_counts`` says how many views see each vertex.
    """
    frame = ObjectFrame.of(views)
    normalized, views = frame.normalize_mesh(mesh), frame.normalize_views(views)
    vertices, normals = normalized.vertices, normalized.vertex_normals()
    total = torch.zeros_like(vertices)
    weight = torch.zeros_like(vertices[:, :1])
    view_counts = torch.zeros_like(vertices[:, 0], dtype=torch.long)
    for i in range(len(views)):
        colors, quality = VisibleSurface.of(normalized, views[[i]]).sample_view(vertices, normals)
        share = quality[:, None] ** SHARPNESS
        total += share * colors
        weight += share
        view_counts += quality > 0
        progress("colour", (i + 1) / len(views))
    seen = weight[:, 0] > 0
    colors = torch.where(seen[:, None], total / weight.clamp(min=torch.finfo(weight.dtype).tiny), 0)
    filled = fill_unseen(mesh, colors, seen, query_colors(field, mesh.vertices))
    return Mesh(mesh.vertices, mesh.faces, filled.clamp(0, 1), view_counts=view_counts)
