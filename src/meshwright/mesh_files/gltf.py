"""Writing GLB files (glTF 2.0)."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int

from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files.srgb import linear_from_srgb
from meshwright.mesh_files.textures import png_bytes
from meshwright.mesh_files.y_up import to_file


def write_glb(mesh: Mesh, path: Path) -> None:
    """glTF 2.0 specification, sections 3.7 (geometry), 3.9 (materials), 4.4 (GLB).

    The pictures' shading is part of the colours, so the material is unlit (KHR_materials_unlit; viewers without it
    see a rough dielectric). A mesh without colours is lit, or else nothing but its outline would show.
    """
    vertices, faces = mesh.vertices.float().numpy(), mesh.faces.numpy()
    normals = mesh.vertex_normals().float().numpy()
    glb = _Glb()
    material: dict[str, Any] = {
        # Open meshes are seen from both sides, as the package's own pictures show them.
        "doubleSided": True,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    # glTF knows one index a corner: a vertex that lies on a seam of the texture is written once for each uv.
    if mesh.texture is not None:
        corners = _unit_corners(mesh)
        vertices, normals, faces = vertices[corners.vertex], normals[corners.vertex], corners.faces
    attributes = {
        "POSITION": glb.add_accessor(to_file(vertices), bounds=True),
        "NORMAL": glb.add_accessor(to_file(normals)),
    }
    if mesh.texture is not None:
        assert mesh.uv is not None
        uv = mesh.uv.float().numpy()[corners.uv]
        attributes["TEXCOORD_0"] = glb.add_accessor(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))  # glTF's v runs down
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": glb.add_texture(png_bytes(mesh.texture))}
    elif mesh.vertex_colors is not None:
        attributes["COLOR_0"] = glb.add_accessor(_linear_rgba16(mesh.vertex_colors.float().numpy()))
    if mesh.texture is not None or mesh.vertex_colors is not None:
        material["extensions"] = {"KHR_materials_unlit": {}}
        glb.tree["extensionsUsed"] = ["KHR_materials_unlit"]
    collapsed = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    indices = glb.add_accessor(faces[~collapsed].astype(np.uint32).reshape(-1), indices=True)
    glb.tree["materials"] = [material]
    glb.tree["meshes"] = [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}]
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb.to_bytes())


class _Glb:
    """A glTF tree with one mesh and the binary buffer its accessors look into."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "meshwright"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "bufferViews": [],
            "accessors": [],
        }
        self.buffer = bytearray()

    def add_view(self, data: bytes, **properties: int) -> int:
        self.tree["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data), **properties}
        )
        self.buffer += data + b"\0" * (-len(data) % 4)
        return len(self.tree["bufferViews"]) - 1

    def add_accessor(self, values: npt.NDArray[Any], bounds: bool = False, indices: bool = False) -> int:
        component = {"float32": 5126, "uint32": 5125, "uint16": 5123}[values.dtype.name]
        accessor: dict[str, Any] = {
            "bufferView": self.add_view(
                np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes(),
                target=34963 if indices else 34962,
            ),
            "componentType": component,
            "count": len(values),
            "type": "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}",
        }
        if component == 5123:
            accessor["normalized"] = True
        if bounds:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.tree["accessors"].append(accessor)
        return len(self.tree["accessors"]) - 1

    def add_texture(self, png: bytes) -> int:
        self.tree["images"] = [{"bufferView": self.add_view(png), "mimeType": "image/png"}]
        # Linear with mip levels, clamped at the border.
        self.tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        self.tree["textures"] = [{"source": 0, "sampler": 0}]
        return 0

    def to_bytes(self) -> bytes:
        self.tree["buffers"] = [{"byteLength": len(self.buffer)}]
        text = json.dumps(self.tree, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.buffer)
        header = struct.pack("<4sII", b"glTF", 2, length) + struct.pack("<I4s", len(text), b"JSON")
        return b"".join([header, text, struct.pack("<I4s", len(self.buffer), b"BIN\0"), self.buffer])


@dataclass(frozen=True, eq=False)
class _UnitCorners:
    """The distinct (vertex, uv) pairs of a mesh and its faces in terms of them."""

    vertex: Int[np.ndarray, " corners"]
    uv: Int[np.ndarray, " corners"]
    faces: Int[np.ndarray, "faces 3"]


def _unit_corners(mesh: Mesh) -> _UnitCorners:
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    pairs = mesh.faces.long() * len(mesh.uv) + mesh.uv_faces.long()
    unique, faces = torch.unique(pairs, return_inverse=True)
    return _UnitCorners((unique // len(mesh.uv)).numpy(), (unique % len(mesh.uv)).numpy(), faces.reshape(-1, 3).numpy())


def _linear_rgba16(srgb: Float[np.ndarray, "vertices 3"]) -> npt.NDArray[np.uint16]:
    """COLOR_0 is linear by specification. In 8 linear bits the 13 darkest sRGB levels become two (visible bands);
    16 bits keep all apart in 8 bytes a vertex, where floats take 16."""
    linear = np.ones((len(srgb), 4), dtype=np.float32)
    linear[:, :3] = linear_from_srgb(srgb.clip(0, 1))
    return np.round(linear * 65535).astype(np.uint16)
