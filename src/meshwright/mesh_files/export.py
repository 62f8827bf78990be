"""Mesh files: GLB, OBJ with MTL and PNG, PLY, STL, both ways.

Every format is right-handed with y up, as glTF demands: the world's (x, y, z) is written as (x, z, -y), a rotation
that Blender undoes when it imports, so a mesh stands there exactly as it stands before the cameras here.
"""

import contextlib
import io
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.mesh import Mesh

MAX_FILE_BYTES = 512 << 20
MAX_FACES = 20_000_000
MAX_NODES = 4096
MAX_NODE_DEPTH = 64  # trimesh walks from every node to the root: in a long chain time grows with the square
MAX_TEXTURE_PX = 8192
ATLAS_GUTTER_PX = 8


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
        ".glb": _write_glb,
        ".obj": _write_obj,
        ".ply": _write_with_trimesh,
        ".stl": _write_with_trimesh,
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: meshes are written as {', '.join(writers)}; choose one of these suffixes")
    if len(mesh.faces) == 0:
        raise InputError(f"{path}: the mesh has no faces, so there is nothing to write; check the pictures' alpha")
    if not bool(torch.isfinite(mesh.vertices).all()):
        raise InputError(f"{path}: the mesh has vertices that are not numbers; it cannot be written")
    writers[path.suffix.lower()](mesh.to("cpu"), path)


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
        names_texture = is_gltf and _check_gltf(path)
        parts = _read_parts(path, is_gltf)
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


# ---------------------------------------------------------------------------------------------- writing


def _to_file(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """World z up to the files' y up: (x, y, z) -> (x, z, -y)."""
    return np.stack([points[:, 0], points[:, 2], 0 - points[:, 1]], axis=1)


def _to_world(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """The inverse of ``_to_file``: (x, y, z) -> (x, -z, y)."""
    return np.stack([points[:, 0], 0 - points[:, 2], points[:, 1]], axis=1)


def _write_glb(mesh: Mesh, path: Path) -> None:
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
        "POSITION": glb.add_accessor(_to_file(vertices), bounds=True),
        "NORMAL": glb.add_accessor(_to_file(normals)),
    }
    if mesh.texture is not None:
        assert mesh.uv is not None
        uv = mesh.uv.float().numpy()[corners.uv]
        attributes["TEXCOORD_0"] = glb.add_accessor(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))  # glTF's v runs down
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": glb.add_texture(_png(mesh.texture))}
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
    linear[:, :3] = _linear_from_srgb(srgb.clip(0, 1))
    return np.round(linear * 65535).astype(np.uint16)


def _linear_from_srgb(srgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _srgb_from_linear(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _png(texture: Float[torch.Tensor, "3 texture_height texture_width"]) -> bytes:
    pixels = (texture.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)  # level 6 takes three times as long for 10 % less
    return stream.getvalue()


def _write_obj(mesh: Mesh, path: Path) -> None:
    """``v x y z`` with sRGB ``r g b`` behind them, or ``vt`` with an unlit material and its picture beside the file."""
    vertices = _to_file(mesh.vertices.float().numpy())
    corners = mesh.faces.numpy() + 1
    with contextlib.ExitStack() as stack:
        # Left in reverse order: the OBJ takes its place last, when all that it names is there.
        obj = stack.enter_context(stack.enter_context(atomic_path(path)).open("w", encoding="utf-8", newline="\n"))
        if mesh.texture is None:
            if mesh.vertex_colors is not None:
                vertices = np.hstack([vertices, mesh.vertex_colors.float().numpy().clip(0, 1)])
            _write_rows(obj, "v %.9g %.9g %.9g" + " %.5f" * (vertices.shape[1] - 3), vertices)
            _write_rows(obj, "f %d %d %d", corners)
            return
        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        mtl, png = (stack.enter_context(atomic_path(path.with_suffix(suffix))) for suffix in (".mtl", ".png"))
        png.write_bytes(_png(mesh.texture))
        mtl.write_text(
            f"newmtl baked\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {path.stem}.png\n", encoding="utf-8"
        )
        obj.write(f"mtllib {path.stem}.mtl\nusemtl baked\n")
        _write_rows(obj, "v %.9g %.9g %.9g", vertices)
        _write_rows(obj, "vt %.9g %.9g", mesh.uv.float().numpy())
        both = np.stack([corners, mesh.uv_faces.numpy() + 1], axis=2).reshape(-1, 6)
        _write_rows(obj, "f %d/%d %d/%d %d/%d", both)


def _write_rows(file: io.TextIOBase | Any, line: str, rows: npt.NDArray[Any]) -> None:
    """One formatted line a row; formatting many rows at once is several times faster than row by row."""
    block = 1 << 16
    for start in range(0, len(rows), block):
        chunk = rows[start : start + block]
        file.write((line + "\n") * len(chunk) % tuple(chunk.reshape(-1).tolist()))


def _write_with_trimesh(mesh: Mesh, path: Path) -> None:
    """Binary PLY (little endian, sRGB in bytes) and binary STL."""
    import trimesh

    colors = _colors_at_vertices(mesh) if path.suffix.lower() == ".ply" else None
    solid = trimesh.Trimesh(
        vertices=_to_file(mesh.vertices.float().numpy()),
        faces=mesh.faces.numpy(),
        vertex_colors=None if colors is None else (colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        process=False,
    )
    with atomic_path(path) as temporary:
        solid.export(temporary)


def _colors_at_vertices(mesh: Mesh) -> Float[torch.Tensor, "vertices 3"] | None:
    """Vertex colours, or the texture seen at each vertex (at one of its uv where it lies on a seam)."""
    if mesh.texture is None:
        return mesh.vertex_colors
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    uv = mesh.vertices.new_zeros(len(mesh.vertices), 2)
    uv[mesh.faces.reshape(-1)] = mesh.uv[mesh.uv_faces.reshape(-1)]
    grid = (uv * 2 - 1) * uv.new_tensor([1.0, -1.0])  # grid_sample's rows run down
    sampled = torch.nn.functional.grid_sample(
        mesh.texture[None].to(uv), grid[None, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, :, 0].T


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class _Part:
    """One geometry of a file, in the world: colours sRGB, ``uv`` one a vertex with v upwards, picture row 0 on top."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    colors: Float[np.ndarray, "vertices 3"] | None
    uv: Float[np.ndarray, "vertices 2"] | None
    picture: UInt8[np.ndarray, "texture_height texture_width 3"] | None


# Extensions that change geometry, texture coordinates or pictures in ways that trimesh passes over in silence.
_UNREADABLE_EXTENSIONS = {
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_texture_basisu",
}


def _check_gltf(path: Path) -> bool:
    """Refuse what trimesh would read wrongly, or blow up, before it does; True if the file names a texture.

    trimesh drops a picture that it cannot read without a word, hence the answer.
    """
    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        magic, version, _, json_length, kind = struct.unpack("<4sIII4s", data[:20])
        if magic != b"glTF" or version != 2 or kind != b"JSON":
            raise InputError(f"{path}: not a binary glTF 2.0 file; export it again")
        data = data[20 : 20 + json_length]
    tree = json.loads(data)
    unreadable = _UNREADABLE_EXTENSIONS & {*tree.get("extensionsUsed", []), *tree.get("extensionsRequired", [])}
    if unreadable:
        raise InputError(f"{path}: uses {', '.join(sorted(unreadable))}; export it again without compression")
    nodes = tree.get("nodes", [])
    if len(nodes) > MAX_NODES or _is_deep(nodes):
        raise InputError(
            f"{path}: has more than {MAX_NODES} nodes or nests them more than {MAX_NODE_DEPTH} deep; "
            "join the objects into one mesh first"
        )
    accessors = tree.get("accessors", [])
    corners_of_mesh = []
    for mesh in tree.get("meshes", []):
        corners = 0
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            for name in attributes.keys() & {"POSITION", "NORMAL", "TEXCOORD_0"}:
                if accessors[attributes[name]]["componentType"] != 5126 or "sparse" in accessors[attributes[name]]:
                    raise InputError(f"{path}: {name} is packed; export it again with plain float attributes")
            corners += accessors[primitive.get("indices", attributes["POSITION"])]["count"]
            corners += accessors[attributes["POSITION"]]["count"]
        corners_of_mesh.append(corners)
    placed = sum(corners_of_mesh[node["mesh"]] for node in nodes if "mesh" in node)
    if max(placed, sum(corners_of_mesh), sum(a["count"] for a in accessors)) > 4 * MAX_FACES:
        raise InputError(f"{path}: describes more than {MAX_FACES:,} triangles; simplify the mesh first")
    textures = [
        material["pbrMetallicRoughness"]["baseColorTexture"]
        for material in tree.get("materials", [])
        if "baseColorTexture" in material.get("pbrMetallicRoughness", {})
    ]
    if any(texture.get("texCoord", 0) != 0 for texture in textures):
        raise InputError(f"{path}: its texture uses a second set of coordinates; export it again with only one")
    return bool(textures)


def _is_deep(nodes: list[dict[str, Any]]) -> bool:
    """Whether some node has more than MAX_NODE_DEPTH ancestors, or is its own."""
    parents = {child: number for number, node in enumerate(nodes) for child in node.get("children", [])}
    for ancestor in range(len(nodes)):
        depth = 0
        while ancestor in parents:
            ancestor, depth = parents[ancestor], depth + 1
            if depth > MAX_NODE_DEPTH:
                return True
    return False


def _read_parts(path: Path, is_gltf: bool) -> list[_Part]:
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


def _part(solid: Any, T_file_node: npt.NDArray[np.float64], is_gltf: bool) -> _Part:
    vertices = np.asarray(solid.vertices) @ T_file_node[:3, :3].T + T_file_node[:3, 3]
    faces = np.asarray(solid.faces, dtype=np.int64)
    if np.linalg.det(T_file_node[:3, :3]) < 0:
        faces = faces[:, ::-1]  # a mirroring node turns the surface inside out
    if not np.isfinite(vertices).all() or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("vertices or indices out of range")
    world = np.ascontiguousarray(_to_world(vertices), dtype=np.float32)
    uv, picture = _picture(solid.visual, is_gltf)
    colors = None if picture is not None else _colors(solid.visual, len(vertices), is_gltf)
    return _Part(world, np.ascontiguousarray(faces), colors, uv, picture)


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
        tinted = _linear_from_srgb(picture.astype(np.float32) / np.float32(255)) * factor
        picture = np.round(_srgb_from_linear(tinted) * 255).astype(np.uint8)
    return np.asarray(visual.uv, dtype=np.float32), picture


def _factor(material: Any, is_gltf: bool) -> npt.NDArray[np.float32] | None:
    """A glTF material's base colour or an MTL's diffuse colour, linear; None where not stated."""
    if is_gltf:
        stated = getattr(material, "baseColorFactor", None)
        return None if stated is None else np.asarray(stated[:3], dtype=np.float32) / np.float32(255)
    stated = getattr(material, "kwargs", {}).get("kd")
    return None if stated is None else _linear_from_srgb(np.asarray(stated[:3], dtype=np.float32))


def _colors(visual: Any, count: int, is_gltf: bool) -> Float[np.ndarray, "vertices 3"] | None:
    """sRGB vertex colours of a trimesh visual, or its material's one colour for all vertices."""
    stated = getattr(visual, "vertex_attributes", {}).get("color")
    if stated is None and visual.kind in ("vertex", "face"):
        stated = visual.vertex_colors
    factor = _factor(getattr(visual, "material", None), is_gltf)
    if stated is None:
        return None if factor is None else np.tile(_srgb_from_linear(factor), (count, 1))
    scale = 1.0 if stated.dtype.kind == "f" else np.iinfo(stated.dtype).max
    colors = (np.asarray(stated[:, :3], dtype=np.float32) / np.float32(scale)).clip(0, 1)
    if not np.isfinite(colors).all():
        raise ValueError("vertex colours are not numbers")
    return _srgb_from_linear(colors if factor is None else colors * factor) if is_gltf else colors


def _merge(parts: list[_Part]) -> Mesh:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    if any(part.picture is not None for part in parts):
        uv, uv_faces, texture = _merge_textures(parts)
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


def _merge_textures(
    parts: list[_Part],
) -> tuple[Float[np.ndarray, "uv_points 2"], Int[np.ndarray, "faces 3"], UInt8[np.ndarray, "height width 3"]]:
    """One texture and uv in [0, 1] for all parts: each distinct picture gets a cell of a grid, repeated where its
    texture coordinates run over its border (glTF's and OBJ's default is to repeat)."""
    cells: list[npt.NDArray[np.uint8]] = []
    cell_of_picture: dict[bytes, int] = {}
    uv_of_part, cell_of_part = [], []
    for part in parts:
        uv, picture = _one_turn(part)
        uv_of_part.append(uv)
        key = repr(picture.shape).encode() + picture.tobytes()
        if key not in cell_of_picture:
            cell_of_picture[key] = len(cells)
            cells.append(picture)
        cell_of_part.append(cell_of_picture[key])
    texture, corner, extent = _grid_of_pictures(cells)
    uv_all = np.concatenate(
        [corner[cell] + uv * extent[cell] for uv, cell in zip(uv_of_part, cell_of_part, strict=True)]
    )
    uv, uv_faces = np.unique(uv_all.astype(np.float32), axis=0, return_inverse=True)
    return uv, uv_faces.reshape(-1, 3), texture


def _one_turn(
    part: _Part,
) -> tuple[Float[np.ndarray, "corners 2"], UInt8[np.ndarray, "texture_height texture_width 3"]]:
    """Texture coordinates of all face corners in [0, 1] and the picture they look into, repeated if need be."""
    if part.picture is None or part.uv is None:
        mean = np.ones(3) if part.colors is None else part.colors.mean(axis=0)
        return np.full((3 * len(part.faces), 2), 0.5), np.full((2, 2, 3), np.round(mean * 255), dtype=np.uint8)
    slack = 1e-4  # coordinates a rounding error outside do not ask for another copy of the picture
    uv = part.uv[part.faces].astype(np.float64)
    uv = (uv - np.floor(uv.min(axis=1, keepdims=True) + slack)).reshape(-1, 2)
    turns = np.ceil(uv.max(axis=0) - slack).clip(1, 1 << 20).astype(int)
    height, width = (
        max(1, min(side, MAX_TEXTURE_PX // turn))
        for side, turn in zip(part.picture.shape[:2], turns[::-1], strict=True)
    )
    repeats = np.minimum(turns, MAX_TEXTURE_PX)
    picture = np.tile(_resized(part.picture, height, width), (repeats[1], repeats[0], 1))
    return (uv / turns).clip(0, 1), picture


def _grid_of_pictures(
    pictures: list[npt.NDArray[np.uint8]],
) -> tuple[
    UInt8[np.ndarray, "texture_height texture_width 3"],
    Float[np.ndarray, "pictures 2"],
    Float[np.ndarray, "pictures 2"],
]:
    """All pictures in one, each with a gutter of its own border pixels; uv of their lower left corners and extents."""
    if len(pictures) == 1:
        return pictures[0], np.zeros((1, 2)), np.ones((1, 2))
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    gutter = ATLAS_GUTTER_PX
    room = MAX_TEXTURE_PX // columns - 2 * gutter
    shrink = min(1.0, room / max(max(picture.shape[:2]) for picture in pictures))
    pictures = [_resized(p, max(1, int(p.shape[0] * shrink)), max(1, int(p.shape[1] * shrink))) for p in pictures]
    cell_height, cell_width = (max(p.shape[axis] for p in pictures) + 2 * gutter for axis in (0, 1))
    canvas = np.zeros((rows * cell_height, columns * cell_width, 3), dtype=np.uint8)
    size = np.array([canvas.shape[1], canvas.shape[0]])
    corner, extent = np.empty((len(pictures), 2)), np.empty((len(pictures), 2))
    for number, picture in enumerate(pictures):
        top, left = number // columns * cell_height, number % columns * cell_width
        height, width = picture.shape[:2]
        padded = np.pad(picture, ((gutter, gutter), (gutter, gutter), (0, 0)), mode="edge")
        canvas[top : top + height + 2 * gutter, left : left + width + 2 * gutter] = padded
        corner[number] = (left + gutter) / size[0], 1 - (top + gutter + height) / size[1]
        extent[number] = np.array([width, height]) / size
    return canvas, corner, extent


def _resized(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
