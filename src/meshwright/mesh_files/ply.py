"""PLY files: binary, little endian, with sRGB vertex colours in bytes, and how many pictures see each vertex."""

from pathlib import Path

import torch

from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files.textures import colors_at_vertices
from meshwright.mesh_files.y_up import to_file


def write_ply(mesh: Mesh, path: Path) -> None:
    """Shape, vertex colours (a texture is sampled at the vertices) and the property ``view_count`` where known."""
    import trimesh

    colors, counts = colors_at_vertices(mesh), mesh.view_counts
    solid = trimesh.Trimesh(
        vertices=to_file(mesh.vertices.float().numpy()),
        faces=mesh.faces.numpy(),
        vertex_colors=None if colors is None else (colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        vertex_attributes=None if counts is None else {"view_count": counts.to(torch.int32).numpy()},
        process=False,
    )
    with atomic_path(path) as temporary:
        solid.export(temporary)
