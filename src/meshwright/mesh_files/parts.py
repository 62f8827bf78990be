"""What trimesh reads out of a file: its geometries, placed in the world, with their colours or pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, UInt8
from PIL import Image

from meshwright.errors import InputError
from meshwright.mesh_files.srgb import linear_from_srgb, srgb_from_linear
from meshwright.mesh_files.y_up import to_world

MAX_TEXTURE_PX = 8192


@dataclass(frozen=True, eq=False)
class Part:
    """One geometry of a file, in the world: colours sRGB, ``uv`` one a vertex with v upwards, picture row 0 on top."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    colors: Float[np.ndarray, "vertices 3"] | None
    uv: Float[np.ndarray, "vertices 2"] | None
    picture: UInt8[np.ndarray, "texture_height texture_width 3"] | None


def read_parts(path: Path, is_gltf: bool) -> list[Part]:
    import trimesh

    scene = trimesh.load_scene(path, process=False)
    parts = []
    for node in scene.graph.nodes_geometry:
        T_file_node, name = scene.graph[node]
        solid = scene.geometry[name]
        if not isinstance(solid, trimesh.Trimesh) or len(solid.faces) == 0:
            continue
        image = _image(solid.visual)
        if image is not None and max(image.size) > MAX_TEXTURE_PX:  # only its header has been read so far
            raise InputError(f"{path}: its texture is larger than {MAX_TEXTURE_PX} pixels; shrink it first")
        parts.append(_part(solid, T_file_node, is_gltf))
    return parts


def _part(solid: Any, T_file_node: npt.NDArray[np.float64], is_gltf: bool) -> Part:
    vertices = np.asarray(solid.vertices) @ T_file_node[:3, :3].T + T_file_node[:3, 3]
    faces = np.asarray(solid.faces, dtype=np.int64)
    if np.linalg.det(T_file_node[:3, :3]) < 0:
        faces = faces[:, ::-1]  # a mirroring node turns the surface inside out
    if not np.isfinite(vertices).all() or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("vertices or indices out of range")
    world = np.ascontiguousarray(to_world(vertices), dtype=np.float32)
    uv, picture = _picture(solid.visual, is_gltf)
    colors = None if picture is not None else _colors(solid.visual, len(vertices), is_gltf)
    return Part(world, np.ascontiguousarray(faces), colors, uv, picture)


def _image(visual: Any) -> Image.Image | None:
    """The base colour picture of a trimesh visual that has texture coordinates for it."""
    material = getattr(visual, "material", None)
    image = getattr(material, "baseColorTexture", getattr(material, "image", None))
    # A picture without a format was made up by trimesh in place of a material that is not there.
    if image is None or image.format is None or getattr(visual, "uv", None) is None:
        return None
    return image


def _picture(
    visual: Any, is_gltf: bool
) -> tuple[Float[np.ndarray, "vertices 2"] | None, UInt8[np.ndarray, "texture_height texture_width 3"] | None]:
    """Texture coordinates and base colour picture of a trimesh visual, a glTF material's factor worked in.

    An MTL's Kd is not: exporters leave 0.8 or even 0 there beside a picture, and importers pass over it.
    """
    image = _image(visual)
    if image is None:
        return None, None
    picture = np.asarray(image.convert("RGB"))
    factor = _factor(visual.material, is_gltf) if is_gltf else None
    if factor is not None and (factor < 1).any():
        tinted = linear_from_srgb(picture.astype(np.float32) / np.float32(255)) * factor
        picture = np.round(srgb_from_linear(tinted) * 255).astype(np.uint8)
    return np.asarray(visual.uv, dtype=np.float32), picture


def _factor(material: Any, is_gltf: bool) -> npt.NDArray[np.float32] | None:
    """A glTF material's base colour or an MTL's diffuse colour, linear; None where not stated."""
    if is_gltf:
        stated = getattr(material, "baseColorFactor", None)
        return None if stated is None else np.asarray(stated[:3], dtype=np.float32) / np.float32(255)
    stated = getattr(material, "kwargs", {}).get("kd")
    return None if stated is None else linear_from_srgb(np.asarray(stated[:3], dtype=np.float32))


def _colors(visual: Any, count: int, is_gltf: bool) -> Float[np.ndarray, "vertices 3"] | None:
    """sRGB vertex colours of a trimesh visual, or its material's one colour for all vertices."""
    stated = getattr(visual, "vertex_attributes", {}).get("color")
    if stated is None and visual.kind in ("vertex", "face"):
        stated = visual.vertex_colors
    factor = _factor(getattr(visual, "material", None), is_gltf)
    if stated is None:
        return None if factor is None else np.tile(srgb_from_linear(factor), (count, 1))
    scale = 1.0 if stated.dtype.kind == "f" else np.iinfo(stated.dtype).max
    colors = (np.asarray(stated[:, :3], dtype=np.float32) / np.float32(scale)).clip(0, 1)
    if not np.isfinite(colors).all():
        raise ValueError("vertex colours are not numbers")
    return srgb_from_linear(colors if factor is None else colors * factor) if is_gltf else colors
