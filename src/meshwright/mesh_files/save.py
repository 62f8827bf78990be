"""Writing a mesh in the format that a path's suffix names."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files.gltf import write_glb
from meshwright.mesh_files.obj import write_obj
from meshwright.mesh_files.ply import write_ply
from meshwright.mesh_files.stl import write_stl


def save_mesh(mesh: Mesh, path: str | os.PathLike[str]) -> None:
    """Write ``mesh`` in the format that the suffix of ``path`` names: .glb, .obj, .ply or .stl.

    A texture goes into the GLB, or beside the OBJ as NAME.mtl and NAME.png; PLY holds vertex colours (a texture is
    sampled at the vertices), STL the shape alone. Files appear whole or not at all.

    Raises:
        InputError: unknown suffix, a mesh without faces or with vertices that are not numbers, or a place that
            cannot be written.
    """
    path = Path(path)
    writers: dict[str, Callable[[Mesh, Path], None]] = {
        ".glb": write_glb,
        ".obj": write_obj,
        ".ply": write_ply,
        ".stl": write_stl,
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: meshes are written as {', '.join(writers)}; choose one of these suffixes")
    if len(mesh.faces) == 0:
        raise InputError(f"{path}: the mesh has no faces, so there is nothing to write; check the pictures' alpha")
    if not bool(torch.isfinite(mesh.vertices).all()):
        raise InputError(f"{path}: the mesh has vertices that are not numbers; it cannot be written")
    writers[path.suffix.lower()](mesh.to("cpu"), path)
