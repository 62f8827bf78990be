"""Reading a mesh file as one mesh."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files.parts import Part, check_parts
from meshwright.mesh_files.read_gltf import read_gltf
from meshwright.mesh_files.read_obj import read_obj
from meshwright.mesh_files.read_ply import read_ply
from meshwright.mesh_files.read_stl import read_stl
from meshwright.mesh_files.textures import merge_textures
from meshwright.mesh_files.y_up import to_world

_READERS = {".glb": read_gltf, ".gltf": read_gltf, ".obj": read_obj, ".ply": read_ply, ".stl": read_stl}


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a .glb, .gltf, .obj, .ply or .stl file as one mesh in the world frame, which is the file's y up turned z up.

    All nodes of a scene are merged with their transforms; several textures become one atlas, and a part without a
    texture then has its mean colour there. A texture wins over vertex colours. Vertices that a format had to split
    (equal place and colour) are welded, so a closed surface is watertight again; faces that collapse are dropped.

    Raises:
        InputError: the file is missing, damaged, too large, holds no triangles or needs an unsupported extension.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(f"{path}: not a mesh file this program reads; convert it to .glb, .obj, .ply or .stl")
    with _as_input_error(path):
        parts = _READERS[suffix](path)
        if not parts:
            raise InputError(f"{path}: holds no triangles; export the object as a triangle mesh")
        check_parts(parts, path)
        return _merge([replace(part, vertices=to_world(part.vertices).astype(np.float32)) for part in parts])


@contextlib.contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Whatever a parser raises on a damaged file becomes one line."""
    try:
        yield
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:
        raise InputError(
            f"{path}: damaged or not what its suffix says ({type(error).__name__}); export it again"
        ) from (error)


def _merge(parts: list[Part]) -> Mesh:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    if any(part.picture is not None for part in parts):
        uv, uv_faces, texture = merge_textures(parts)
        vertices, faces, uv_faces, _ = _weld(vertices, faces, uv_faces, None)
        return Mesh(
            torch.from_numpy(vertices),
            torch.from_numpy(faces),
            uv=torch.from_numpy(uv),
            uv_faces=torch.from_numpy(uv_faces),
            texture=torch.from_numpy(texture).permute(2, 0, 1).contiguous().float() / 255,
        )
    colors = None
    if any(part.colors is not None for part in parts):
        colors = np.concatenate([np.ones_like(p.vertices) if p.colors is None else p.colors for p in parts])
    vertices, faces, _, colors = _weld(vertices, faces, faces, colors)
    return Mesh(
        torch.from_numpy(vertices), torch.from_numpy(faces), None if colors is None else torch.from_numpy(colors)
    )


def _weld(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    uv_faces: Int[np.ndarray, "faces 3"],
    colors: Float[np.ndarray, "vertices 3"] | None,
) -> tuple[
    Float[np.ndarray, "welded 3"],
    Int[np.ndarray, "left 3"],
    Int[np.ndarray, "left 3"],
    Float[np.ndarray, "welded 3"] | None,
]:
    """One vertex where several are exactly equal, in the order of their first appearance; no collapsed faces."""
    rows = vertices if colors is None else np.hstack([vertices, colors])
    order = np.lexsort(rows.T)
    differs = np.ones(len(rows), dtype=bool)
    differs[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    # lexsort is stable, so each group begins with its first appearance.
    first_of_vertex = np.empty(len(rows), dtype=np.int64)
    first_of_vertex[order] = order[differs][np.cumsum(differs) - 1]
    kept, faces = np.unique(first_of_vertex, return_inverse=True)[0], first_of_vertex[faces]
    faces = np.searchsorted(kept, faces)
    sound = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return vertices[kept], faces[sound], uv_faces[sound], None if colors is None else colors[kept]
