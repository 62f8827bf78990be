"""Reading PLY: ASCII and both binary forms; vertex or face colours, or a picture that a comment names."""

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from meshwright.errors import InputError
from meshwright.mesh_files.parts import MAX_FACES, MAX_FILE_BYTES, Part, Pictures, blocks, fans, numbers
from meshwright.untrusted import read_untrusted

_KINDS = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
_FORMATS = {b"ascii": "", b"binary_little_endian": "<", b"binary_big_endian": ">"}
_LARGEST_HEADER = 1 << 16
_MOST_PROPERTIES = 256
_LONGEST_LIST = 4096  # corners of a face


@dataclass
class _Element:
    """``properties``: name, type, and the type of its length where it is a list."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)


def read_ply(path: Path) -> list[Part]:
    """The faces, of any number of corners, as triangles.

    Raises:
        InputError: no PLY, or it claims more than it has bytes. A damaged file raises whatever the parser trips over.
    """
    content = read_untrusted(path, MAX_FILE_BYTES, "a mesh")
    order, elements, picture_name, body = _header(content, path)
    reader = _Text(content[body:], path) if order == "" else _Binary(memoryview(content)[body:], path, order)
    tables = {}
    for element in elements:
        tables[element.name] = reader.table(element)
        if {"vertex", "face"} <= tables.keys():
            break  # what follows is of no use here
    if "vertex" not in tables or "face" not in tables:
        return []
    return _parts(path, tables["vertex"], tables["face"], picture_name)


def _header(content: bytes, path: Path) -> tuple[str, list[_Element], str | None, int]:
    """Byte order ("" for ASCII), elements, the name of a picture, and where the numbers begin."""
    end = content[:_LARGEST_HEADER].find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise InputError(f"{path}: is not a PLY file; export it again")
    order, picture_name = None, None
    elements: list[_Element] = []
    for line in content[:end].splitlines():
        match line.split():
            case [b"format", form, b"1.0"]:
                order = _FORMATS.get(form)
            case [b"comment", b"TextureFile", *_]:
                picture_name = line.split(None, 2)[2].strip().decode("utf-8", "surrogateescape")
            case [b"element", name, count]:
                elements.append(_Element(name.decode(), int(count)))
            case [b"property", b"list", length, kind, name]:
                elements[-1].properties.append((name.decode(), _KINDS[kind.decode()], _KINDS[length.decode()]))
            case [b"property", kind, name]:
                elements[-1].properties.append((name.decode(), _KINDS[kind.decode()], None))
    if order is None:
        raise InputError(f"{path}: has an unknown format; export it as ASCII or binary PLY 1.0")
    if any(not 0 <= element.count <= 8 * MAX_FACES for element in elements) or len(elements) > _MOST_PROPERTIES:
        raise InputError(f"{path}: describes more than {MAX_FACES:,} triangles; simplify the mesh first")
    for element in elements:
        names = [name for name, _, _ in element.properties]
        if len(set(names)) < len(names) or not 0 < len(names) <= _MOST_PROPERTIES:
            raise InputError(f"{path}: has properties without or of one name; export it again")
    newline = content.index(b"\n", end)
    return order, elements, picture_name, newline + 1


Table = dict[str, Any]  # of a scalar property an array, of a list a list of lists or an array with one row a list


class _Binary:
    def __init__(self, data: memoryview, path: Path, order: str) -> None:
        self._data, self._path, self._order, self._at = data, path, order, 0

    def table(self, element: _Element) -> Table:
        if element.count == 0:
            return {name: [] if length else np.zeros(0) for name, _, length in element.properties}
        if all(length is None for _, _, length in element.properties):
            return self._rows(element, [(name, self._order + kind) for name, kind, _ in element.properties])
        return self._even_lists(element) or self._lists(element)

    def _rows(self, element: _Element, fields: list[Any]) -> Table:
        dtype = np.dtype(fields)
        if element.count * dtype.itemsize > len(self._data) - self._at:
            raise InputError(f"{self._path}: claims more {element.name} rows than it has bytes; export it again")
        rows = np.frombuffer(self._data, dtype, element.count, self._at)
        self._at += element.count * dtype.itemsize
        return {name: rows[name] for name in dtype.names or ()}

    def _even_lists(self, element: _Element) -> Table | None:
        """The table, if all lists are as long as those of the first row: then it is read at once."""
        fields: list[Any] = []
        at = self._at
        for name, kind, length in element.properties:
            if length is None:
                fields.append((name, self._order + kind))
                at += np.dtype(kind).itemsize
                continue
            (size,) = struct.unpack_from(self._order + np.dtype(length).char, self._data, at)
            if not 0 < size <= _LONGEST_LIST:
                return None
            fields += [(f"#{name}", self._order + length), (name, self._order + kind, (int(size),))]
            at += np.dtype(length).itemsize + int(size) * np.dtype(kind).itemsize
        began = self._at
        if element.count * np.dtype(fields).itemsize > len(self._data) - self._at:
            return None
        table = self._rows(element, fields)
        lengths = [name for name in table if name.startswith("#")]
        if all((table[name] == table[name[1:]].shape[1]).all() for name in lengths):
            return {name: values for name, values in table.items() if name not in lengths}
        self._at = began
        return None

    def _lists(self, element: _Element) -> Table:
        table: Table = {name: [] for name, _, _ in element.properties}
        readers = [
            (table[name].append, struct.Struct(self._order + np.dtype(kind).char), np.dtype(kind).char, length)
            for name, kind, length in element.properties
        ]
        for _ in range(element.count):
            for append, scalar, code, length in readers:
                if length is None:
                    append(scalar.unpack_from(self._data, self._at)[0])
                    self._at += scalar.size
                    continue
                counter = struct.Struct(self._order + np.dtype(length).char)
                (size,) = counter.unpack_from(self._data, self._at)
                self._at += counter.size
                if not 0 <= size <= _LONGEST_LIST:
                    raise InputError(f"{self._path}: a face has {size} corners; export it again")
                append(struct.unpack_from(f"{self._order}{int(size)}{code}", self._data, self._at))
                self._at += int(size) * scalar.size
        return table


class _Text:
    def __init__(self, content: bytes, path: Path) -> None:
        self._lines = io.BytesIO(content)
        self._path, self._bytes = path, len(content)

    def table(self, element: _Element) -> Table:
        if element.count * (2 * len(element.properties) - 1) > self._bytes:
            raise InputError(f"{self._path}: claims more {element.name} rows than it has bytes; export it again")
        lines = (line for _ in range(element.count) if (line := self._lines.readline()))
        if any(length is not None for _, _, length in element.properties):
            return self._lists(element, lines)
        found = [numbers(block) for block in blocks(lines)]
        rows = np.concatenate(found) if found else np.zeros((0, len(element.properties)))
        if len(rows) != element.count:
            raise InputError(f"{self._path}: breaks off; export it again")
        return {name: rows[:, i] for i, (name, _, _) in enumerate(element.properties)}

    def _lists(self, element: _Element, lines: Any) -> Table:
        table: Table = {name: [] for name, _, _ in element.properties}
        count = 0
        for block in blocks(lines):
            for line in block:
                words = line.split()
                at = 0
                for name, kind, length in element.properties:
                    size = 1
                    if length is not None:
                        size, at = int(words[at]), at + 1
                    if not 0 <= size <= len(words) - at:
                        raise InputError(f"{self._path}: breaks off; export it again")
                    convert = float if kind.startswith("f") else int
                    values = [convert(word) for word in words[at : at + size]]
                    table[name].append(values if length is not None else values[0])
                    at += size
                count += 1
        if count != element.count:
            raise InputError(f"{self._path}: breaks off; export it again")
        return table


def _parts(path: Path, vertex: Table, face: Table, picture_name: str | None) -> list[Part]:
    name = next((name for name in ("vertex_indices", "vertex_index") if name in face), None)
    if name is None or not all(axis in vertex for axis in "xyz"):
        return []
    vertices = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    faces, owners = _triangulated(face[name])
    if len(faces) == 0:
        return []
    if len(faces) > MAX_FACES:
        raise InputError(f"{path}: describes more than {MAX_FACES:,} triangles; simplify the mesh first")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{path}: a face names a vertex that is not there; export it again")
    if picture_name is not None:
        textured = _textured(path, vertices, faces, owners, vertex, face, picture_name)
        if textured is not None:
            return [textured]
    colors = _colors(vertex)
    if colors is None and (of_faces := _colors(face)) is not None:
        sums, counts = np.zeros((len(vertices), 3)), np.zeros((len(vertices), 1))
        np.add.at(sums, faces.reshape(-1), np.repeat(of_faces[owners], 3, axis=0))
        np.add.at(counts, faces.reshape(-1), 1)
        colors = sums / counts.clip(min=1)
    return [Part(vertices, faces, colors)]


def _triangulated(lists: Any) -> tuple[Int[np.ndarray, "faces 3"], Int[np.ndarray, " faces"]]:
    """Triangles, and the number of the face that each is a piece of."""
    if isinstance(lists, np.ndarray) and lists.ndim == 2 and lists.shape[1] >= 3:
        corners = lists.astype(np.int64)
        pieces = [corners[:, [0, i, i + 1]] for i in range(1, corners.shape[1] - 1)]
        return np.stack(pieces, axis=1).reshape(-1, 3), np.repeat(np.arange(len(corners)), len(pieces))
    plain = [list(corners) for corners in lists]
    owners = np.repeat(np.arange(len(plain)), [max(len(corners) - 2, 0) for corners in plain])
    return fans(plain), owners


def _textured(
    path: Path,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    owners: Int[np.ndarray, " faces"],
    vertex: Table,
    face: Table,
    picture_name: str,
) -> Part | None:
    """With texture coordinates one a vertex, or a list of six numbers a triangle, as MeshLab writes them."""
    names = next((n for n in (("s", "t"), ("u", "v"), ("texture_u", "texture_v")) if set(n) <= vertex.keys()), None)
    if names is not None:
        uv = np.stack([np.asarray(vertex[name], dtype=np.float64) for name in names], axis=1)
        return Part(vertices, faces, None, uv, Pictures(path).beside(picture_name))
    if "texcoord" not in face or len(owners) != len(face["texcoord"]):
        return None
    corners = np.array([list(values) for values in face["texcoord"]], dtype=np.float64)
    if corners.shape != (len(faces), 6):
        return None
    soup = np.arange(3 * len(faces)).reshape(-1, 3)
    uv = corners.reshape(-1, 2)
    return Part(vertices[faces.reshape(-1)], soup, None, uv, Pictures(path).beside(picture_name))


def _colors(table: Table) -> Float[np.ndarray, "rows 3"] | None:
    """sRGB: bytes, or floats from 0 to 1."""
    for names in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if all(name in table for name in names):
            columns: list[npt.NDArray[Any]] = [np.asarray(table[name]) for name in names]
            values = np.stack(columns, axis=1).astype(np.float64)
            if not np.isfinite(values).all():
                raise ValueError("vertex colours are not numbers")
            is_bytes = columns[0].dtype.kind in "iu" or values.max(initial=0) > 1
            return (values / (255 if is_bytes else 1)).clip(0, 1)
    return None
