"""Reading GLB and glTF 2.0: triangles, their colours and base colour pictures (specification, sections 3.4 to 3.9)."""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, UInt8

from meshwright.errors import InputError
from meshwright.mesh_files.parts import MAX_FACES, MAX_FILE_BYTES, Part, Pictures
from meshwright.mesh_files.srgb import linear_from_srgb, srgb_from_linear
from meshwright.untrusted import MIB, finite, neighbour, parse_json, read_untrusted

MAX_NODES = 4096
MAX_NODE_DEPTH = 64
_MAX_TREE_BYTES = 16 * MIB  # the JSON
_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
# Extensions that change geometry, texture coordinates or pictures and are not read.
_UNREADABLE_EXTENSIONS = {
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_texture_basisu",
}


def read_gltf(path: Path) -> list[Part]:
    """All triangles that the file's scene places.

    Raises:
        InputError: damaged, too large, compressed, or it names something that is not there. What is damaged in
            unforeseen ways raises whatever the parser trips over.
    """
    content = read_untrusted(path, MAX_FILE_BYTES, "a mesh")
    binary = None
    if path.suffix.lower() == ".glb":
        content, binary = _chunks(content, path)
    if len(content) > _MAX_TREE_BYTES:
        raise InputError(f"{path}: has a tree of more than {_MAX_TREE_BYTES // MIB} MiB; join its objects first")
    tree = parse_json(content, path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: is not a glTF file; export it again")
    unreadable = _UNREADABLE_EXTENSIONS & {*tree.get("extensionsUsed", []), *tree.get("extensionsRequired", [])}
    if unreadable:
        raise InputError(f"{path}: uses {', '.join(sorted(unreadable))}; export it again without compression")
    return _Gltf(path, tree, binary).parts()


def _chunks(content: bytes, path: Path) -> tuple[bytes, memoryview | None]:
    """The JSON and the binary chunk of a GLB."""
    if len(content) < 20:
        raise InputError(f"{path}: not a binary glTF 2.0 file; export it again")
    magic, version, length, json_length, kind = struct.unpack_from("<4sIII4s", content)
    if magic != b"glTF" or version != 2 or kind != b"JSON" or not 20 + json_length <= length <= len(content):
        raise InputError(f"{path}: not a whole binary glTF 2.0 file; export it again")
    at = 20 + json_length
    if at + 8 > length:
        return content[20:at], None
    binary_length, kind = struct.unpack_from("<I4s", content, at)
    if kind != b"BIN\0" or at + 8 + binary_length > length:
        raise InputError(f"{path}: its binary part breaks off; export it again")
    return content[20:at], memoryview(content)[at + 8 : at + 8 + binary_length]


class _Gltf:
    """A tree and the buffers it looks into; every index and size in it is checked where it is used."""

    def __init__(self, path: Path, tree: dict[str, Any], binary: memoryview | None) -> None:
        self._path, self._tree, self._binary = path, tree, binary
        self._buffers: dict[int, memoryview] = {}
        self._buffered = 0
        self._pictures = Pictures(path)

    def parts(self) -> list[Part]:
        placed = list(self._placed())
        self._check_counts([mesh for mesh, _ in placed])
        return [
            part
            for mesh, T_file_node in placed
            for primitive in self._entry("meshes", mesh)["primitives"]
            if (part := self._part(primitive, T_file_node)) is not None
        ]

    def _entry(self, kind: str, index: object) -> dict[str, Any]:
        entries = self._tree.get(kind, [])
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise InputError(f"{self._path}: names {kind} {str(index)[:20]}, which is not there; export it again")
        return entries[index]

    # --- places ------------------------------------------------------------------------------------------------------

    def _placed(self) -> list[tuple[int, Float[np.ndarray, "4 4"]]]:
        """Meshes of the scene with the transforms of all nodes above them."""
        nodes = self._tree.get("nodes", [])
        if len(nodes) > MAX_NODES:
            raise InputError(f"{self._path}: has more than {MAX_NODES} nodes; join the objects into one mesh first")
        if self._tree.get("scenes"):
            roots = self._entry("scenes", self._tree.get("scene", 0)).get("nodes", [])
        else:
            roots = sorted({*range(len(nodes))} - {child for node in nodes for child in node.get("children", [])})
        placed, seen = [], set()
        waiting = [(root, np.eye(4), 0) for root in reversed(roots)]
        while waiting:
            number, T_file_parent, depth = waiting.pop()
            node = self._entry("nodes", number)
            if number in seen or depth > MAX_NODE_DEPTH:
                raise InputError(
                    f"{self._path}: nests nodes in themselves or more than {MAX_NODE_DEPTH} deep; "
                    "join the objects into one mesh first"
                )
            seen.add(number)
            T_file_node = T_file_parent @ self._transform(node)
            if "mesh" in node:
                placed.append((node["mesh"], T_file_node))
            waiting += [(child, T_file_node, depth + 1) for child in reversed(node.get("children", []))]
        return placed

    def _transform(self, node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
        if "matrix" in node:
            return self._vector(node, "matrix", 16, ()).reshape(4, 4).T
        x, y, z, w = self._vector(node, "rotation", 4, (0.0, 0.0, 0.0, 1.0))
        norm = x * x + y * y + z * z + w * w
        if not norm > 0:
            raise InputError(f"{self._path}: a node has no rotation; export it again")
        s = 2 / norm
        T = np.eye(4)
        T[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
        T[:3, :3] *= self._vector(node, "scale", 3, (1.0, 1.0, 1.0))
        T[:3, 3] = self._vector(node, "translation", 3, (0.0, 0.0, 0.0))
        return T

    def _vector(
        self, owner: dict[str, Any], key: str, length: int, default: Sequence[float]
    ) -> Float[np.ndarray, " n"]:
        values = owner.get(key, default)
        if not isinstance(values, (list, tuple)) or len(values) != length:
            raise InputError(f"{self._path}: {key} is not {length} numbers; export it again")
        return np.array([finite(value, f"{self._path}: a number of {key}", -1e30, 1e30) for value in values])

    # --- geometry ----------------------------------------------------------------------------------------------------

    def _check_counts(self, meshes: list[int]) -> None:
        """What a small file asks for many times can be large."""
        corners = 0
        for mesh in meshes:
            for primitive in self._entry("meshes", mesh)["primitives"]:
                position = self._entry("accessors", primitive["attributes"]["POSITION"])
                indices = self._entry("accessors", primitive["indices"]) if "indices" in primitive else position
                corners += self._size(position, "count") + self._size(indices, "count")
        if corners > 4 * MAX_FACES:
            raise InputError(f"{self._path}: describes more than {MAX_FACES:,} triangles; simplify the mesh first")

    def _part(self, primitive: dict[str, Any], T_file_node: Float[np.ndarray, "4 4"]) -> Part | None:
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_TRIANGLES, _STRIP, _FAN):
            return None  # points and lines
        attributes = primitive["attributes"]
        local = self._accessor(attributes["POSITION"], "VEC3", ("<f4",)).astype(np.float64)
        if "indices" in primitive:
            corners = self._accessor(primitive["indices"], "SCALAR", ("u1", "<u2", "<u4"))[:, 0].astype(np.int64)
        else:
            corners = np.arange(len(local))
        faces = _triangles(corners, mode)
        if len(faces) == 0:
            return None
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused with all that is not finite
            vertices = local @ T_file_node[:3, :3].T + T_file_node[:3, 3]
            if np.linalg.det(T_file_node[:3, :3]) < 0:
                faces = faces[:, ::-1]  # a mirroring node turns the surface inside out
        factor, picture, uv = self._material(primitive, len(vertices))
        colors = None
        if picture is None:
            colors = self._colors(attributes, len(vertices), factor)
        return Part(vertices, np.ascontiguousarray(faces), colors, uv, picture)

    def _colors(
        self, attributes: dict[str, Any], count: int, factor: Float[np.ndarray, "3"] | None
    ) -> Float[np.ndarray, "vertices 3"] | None:
        """COLOR_0 times the material's colour, both linear, as sRGB."""
        if "COLOR_0" not in attributes:
            return None if factor is None else np.tile(srgb_from_linear(factor), (count, 1))
        width = self._entry("accessors", attributes["COLOR_0"]).get("type")
        linear = self._normalized(attributes["COLOR_0"], "VEC4" if width == "VEC4" else "VEC3", count)[:, :3]
        if not np.isfinite(linear).all():
            raise InputError(f"{self._path}: has vertex colours that are not numbers; export it again")
        return srgb_from_linear((linear if factor is None else linear * factor).clip(0, 1))

    def _normalized(self, index: object, width: str, count: int) -> npt.NDArray[np.float32]:
        values = self._accessor(index, width, ("<f4", "u1", "<u2"))
        if len(values) != count:
            raise InputError(f"{self._path}: has attributes of different lengths; export it again")
        scale = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        return values.astype(np.float32) / np.float32(scale)

    def _accessor(self, index: object, width: str, kinds: tuple[str, ...]) -> npt.NDArray[Any]:
        """The (count, width) numbers of an accessor, looked at in place."""
        accessor = self._entry("accessors", index)
        kind = _KINDS.get(self._size(accessor, "componentType"))
        if accessor.get("type") != width or kind not in kinds or "sparse" in accessor or "bufferView" not in accessor:
            raise InputError(f"{self._path}: an attribute is packed, sparse or empty; export it with plain floats")
        columns, dtype, count = _WIDTHS[width], np.dtype(kind), self._size(accessor, "count")
        view, stride = self._view(accessor["bufferView"])
        stride = stride or columns * dtype.itemsize
        offset = self._size(accessor, "byteOffset", 0)
        if count and offset + (count - 1) * stride + columns * dtype.itemsize > len(view):
            raise InputError(f"{self._path}: claims more numbers than it has bytes; export it again")
        return np.ndarray((count, columns), dtype, view, offset, (stride, dtype.itemsize))

    def _view(self, index: object) -> tuple[memoryview, int]:
        view = self._entry("bufferViews", index)
        buffer = self._buffer(view.get("buffer"))
        offset, length = self._size(view, "byteOffset", 0), self._size(view, "byteLength")
        if offset + length > len(buffer):
            raise InputError(f"{self._path}: claims more bytes than it has; export it again")
        return buffer[offset : offset + length], self._size(view, "byteStride", 0)

    def _buffer(self, index: object) -> memoryview:
        buffer = self._entry("buffers", index)
        assert isinstance(index, int)
        if index not in self._buffers:
            if "uri" in buffer:
                self._buffers[index] = memoryview(self._fetched(buffer["uri"], "a buffer"))
            elif index == 0 and self._binary is not None:
                self._buffers[index] = self._binary
            else:
                raise InputError(f"{self._path}: a buffer has no bytes; export it again")
            self._buffered += len(self._buffers[index])
            if self._buffered > MAX_FILE_BYTES:
                raise InputError(f"{self._path}: larger than {MAX_FILE_BYTES // MIB} MiB; simplify the mesh first")
        return self._buffers[index]

    def _fetched(self, uri: object, what: str) -> bytes:
        """The bytes of a data: URI or of a file in the same folder."""
        if isinstance(uri, str) and uri.startswith("data:"):
            head, _, content = uri.partition(",")
            return base64.b64decode(content) if head.endswith(";base64") else unquote(content).encode("latin-1")
        place = neighbour(self._path.parent, unquote(uri) if isinstance(uri, str) else uri, f"{self._path}: {what}")
        return read_untrusted(place, MAX_FILE_BYTES, f"{what} of {self._path.name}")

    def _size(self, owner: dict[str, Any], key: str, default: int | None = None) -> int:
        size = owner.get(key, default)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"{self._path}: {key} is {str(size)[:20]}, no size; export it again")
        return size

    # --- materials ---------------------------------------------------------------------------------------------------

    def _material(
        self, primitive: dict[str, Any], count: int
    ) -> tuple[
        Float[np.ndarray, "3"] | None,
        UInt8[np.ndarray, "texture_height texture_width 3"] | None,
        Float[np.ndarray, "vertices 2"] | None,
    ]:
        """Base colour (linear; None where not stated), base colour picture tinted by it, texture coordinates."""
        if "material" not in primitive:
            return None, None, None
        shading = self._entry("materials", primitive["material"]).get("pbrMetallicRoughness", {})
        factor = None
        if "baseColorFactor" in shading:
            factor = self._vector(shading, "baseColorFactor", 4, ())[:3].clip(0, 1).astype(np.float32)
        if "baseColorTexture" not in shading:
            return factor, None, None
        stated = shading["baseColorTexture"]
        uv_set = self._size(stated, "texCoord", 0)
        attributes = primitive["attributes"]
        if f"TEXCOORD_{uv_set}" not in attributes:
            raise InputError(f"{self._path}: has a texture but not its coordinates {uv_set}; export it again")
        uv = self._normalized(attributes[f"TEXCOORD_{uv_set}"], "VEC2", count).astype(np.float64)
        uv[:, 1] = 1 - uv[:, 1]  # glTF's v runs down
        picture = self._picture(stated.get("index"))
        if factor is not None and (factor < 1).any():
            levels = linear_from_srgb(np.arange(256, dtype=np.float32)[:, None] / np.float32(255)) * factor
            table = np.round(srgb_from_linear(levels) * 255).astype(np.uint8)
            picture = np.stack([table[picture[..., channel], channel] for channel in range(3)], axis=2)
        return factor, picture, uv

    def _picture(self, index: object) -> UInt8[np.ndarray, "texture_height texture_width 3"]:
        texture = self._entry("textures", index)
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        source = texture.get("source", webp.get("source"))
        image = self._entry("images", source)
        if "bufferView" in image:
            view = image["bufferView"]
            return self._pictures.inside(("view", view), bytes(self._view(view)[0]))
        uri = image.get("uri")
        if isinstance(uri, str) and uri.startswith("data:"):
            return self._pictures.inside(("image", source), self._fetched(uri, "its texture"))
        return self._pictures.beside(unquote(uri) if isinstance(uri, str) else uri)


def _triangles(corners: Int[np.ndarray, " corners"], mode: int) -> Int[np.ndarray, "faces 3"]:
    if mode == _TRIANGLES:
        if len(corners) % 3:
            raise ValueError("corners that make no triangles")
        return corners.reshape(-1, 3)
    if len(corners) < 3:
        return np.empty((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]], axis=1)
    strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]  # every second triangle of a strip turns the other way
    return strip
