"""Reading a mesh file as one mesh."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.mesh_files.gltf import check_gltf
from meshwright.mesh_files.parts import Part, read_parts
from meshwright.mesh_files.textures import merge_textures

MAX_FILE_BYTES = 512 << 20


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a .glb, .gltf, .obj, .ply or .stl file as one mesh in the world frame, which is the file's y up turned z up.

    All nodes of a scene are merged with their transforms; several textures become one atlas, and a part without a
    texture then has its mean colour there. A texture wins over vertex colours. Vertices that a format had to split
    (equal place and colour) are welded, so a closed surface is watertight again; faces that collapse are dropped.

    Raises:
        InputError: the file is missing, damaged, too large, holds no triangles or needs an unsupported extension.
    """
    path = Path(path)
    if path.suffix.lower() not in (".glb", ".gltf", ".obj", ".ply", ".stl"):
        raise InputError(f"{path}: not a mesh file this program reads; convert it to .glb, .obj, .ply or .stl")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; simplify the mesh first")
    with _as_input_error(path):
        is_gltf = path.suffix.lower() in (".glb", ".gltf")
        names_texture = is_gltf and check_gltf(path)
        parts = read_parts(path, is_gltf)
        if not parts:
            raise InputError(f"{path}: holds no triangles; export the object as a triangle mesh")
        if names_texture and all(part.picture is None for part in parts):
            raise InputError(f"{path}: its texture is missing or damaged; put it beside the file or export it again")
        return _merge(parts)


@contextlib.contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Whatever a parser raises on a damaged file becomes one line."""
    try:
        yield
    except InputError:
        raise
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
