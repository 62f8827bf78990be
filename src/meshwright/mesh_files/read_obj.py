"""Reading OBJ with its MTL: ``v``, ``vt``, ``f``, ``usemtl``; ``newmtl``, ``Kd`` and ``map_Kd``."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from meshwright.errors import InputError
from meshwright.mesh_files.parts import (
    MAX_FACES,
    MAX_FILE_BYTES,
    MAX_MATERIALS,
    Part,
    Pictures,
    blocks,
    fans,
    numbers,
)
from meshwright.untrusted import MIB, neighbour, read_untrusted

_MAX_MTL_BYTES = 16 * MIB


@dataclass
class _Material:
    """``color``: Kd, sRGB. ``picture``: the file name behind map_Kd."""

    color: tuple[float, ...] | None = None
    picture: str | None = None


def read_obj(path: Path) -> list[Part]:
    """One part a material; vertex colours (sRGB, behind x y z) count where there is no picture.

    Raises:
        InputError: the MTL or a picture in it cannot be read. A damaged file raises whatever the parser trips over.
    """
    content = read_untrusted(path, MAX_FILE_BYTES, "a mesh")
    reader = _Reader()
    for block in blocks(iter(io.BytesIO(content.replace(b"\\\n", b" ").replace(b"\\\r\n", b" ")))):
        reader.read(block)
    return _parts(reader, path, _materials(path, reader.libraries))


class _Reader:
    def __init__(self) -> None:
        self.libraries: list[str] = []
        self.material_names: dict[str, int] = {"": 0}
        self.vertices: list[Float[np.ndarray, "rows columns"]] = []
        self.uv: list[Float[np.ndarray, "rows columns"]] = []
        self.faces: list[tuple[int, Int[np.ndarray, "faces 3 2"]]] = []
        self._vertex_count = self._uv_count = self._face_count = 0
        self._material = 0

    def read(self, lines: list[bytes]) -> None:
        vertices: list[bytes] = []
        uv: list[bytes] = []
        corners: list[list[tuple[int, int]]] = []
        for line in lines:
            match line.split(None, 1):
                case [b"v", rest]:
                    vertices.append(rest)
                    self._vertex_count += 1
                case [b"vt", rest]:
                    uv.append(rest)
                    self._uv_count += 1
                case [b"f", rest]:
                    corners.append([self._corner(corner) for corner in rest.split()])
                case [b"usemtl", rest]:
                    self._add(corners)
                    corners = []
                    name = rest.strip().decode("utf-8", "surrogateescape")
                    self._material = self.material_names.setdefault(name, len(self.material_names))
                case [b"mtllib", rest]:
                    self.libraries.append(rest.strip().decode("utf-8", "surrogateescape"))
        self._add(corners)
        if vertices:
            self.vertices.append(numbers(vertices))
        if uv:
            self.uv.append(numbers(uv))

    def _corner(self, text: bytes) -> tuple[int, int]:
        """Numbers of a corner's vertex and texture coordinates, from 0; -1 where it has none of the latter."""
        vertex, _, rest = text.partition(b"/")
        uv = rest.partition(b"/")[0]
        return _index(vertex, self._vertex_count), _index(uv, self._uv_count) if uv else -1

    def _add(self, corners: list[list[tuple[int, int]]]) -> None:
        if corners:
            table = np.array([corner for face in corners for corner in face], dtype=np.int64).reshape(-1, 2)
            ends = np.cumsum([len(face) for face in corners])
            starts = ends - [len(face) for face in corners]
            triangles = fans(
                [list(range(start, end)) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
            )
            self._face_count += len(triangles)
            if self._face_count > MAX_FACES:
                raise InputError(f"describes more than {MAX_FACES:,} triangles; simplify the mesh first")
            self.faces.append((self._material, table[triangles]))


def _index(text: bytes, count: int) -> int:
    """OBJ counts from 1, and backwards from -1, which is the last so far."""
    number = int(text)
    if number == 0 or number > 2**31 or number < -count:
        raise ValueError("an index out of range")
    return number - 1 if number > 0 else count + number


def _parts(reader: _Reader, path: Path, materials: dict[str, _Material]) -> list[Part]:
    if not reader.faces or not reader.vertices:
        return []
    table = _stacked(reader.vertices)
    colors = _vertex_colors(table)
    uv_table = _stacked(reader.uv)[:, :2] if reader.uv else np.zeros((0, 2))
    pictures = Pictures(path)
    names = list(reader.material_names)
    looks: dict[tuple[object, ...], list[Int[np.ndarray, "faces 3 2"]]] = {}
    for number, faces in reader.faces:
        material = materials.get(names[number], _Material())
        looks.setdefault((material.picture, material.color), []).append(faces)
    if len(looks) > MAX_MATERIALS:
        raise InputError(f"{path}: has more than {MAX_MATERIALS} materials; join them first")
    parts = []
    for (name, color), groups in looks.items():
        faces = np.concatenate(groups)
        if len(faces) == 0:
            continue
        picture = None
        if name is not None and (faces[..., 1] >= 0).all() and len(uv_table):
            picture = pictures.beside(name)
        if picture is None:
            shown = colors
            if shown is None and color is not None:
                shown = np.tile(np.array(color), (len(table), 1))
            parts.append(Part(table[:, :3], faces[..., 0], shown))
            continue
        if faces[..., 1].max() >= len(uv_table) or faces[..., 0].max() >= len(table):
            raise ValueError("an index out of range")
        keys, corners = np.unique(faces[..., 0] * len(uv_table) + faces[..., 1], return_inverse=True)
        vertices, uv = table[keys // len(uv_table), :3], uv_table[keys % len(uv_table)]
        parts.append(Part(vertices, corners.reshape(-1, 3), None, uv, picture))
    return parts


def _stacked(tables: list[Float[np.ndarray, "rows columns"]]) -> Float[np.ndarray, "all_rows columns"]:
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError("rows of different lengths")
    return np.concatenate(tables)


def _vertex_colors(table: Float[np.ndarray, "vertices columns"]) -> Float[np.ndarray, "vertices 3"] | None:
    if table.shape[1] < 6:
        return None
    colors = table[:, 3:6]
    if not np.isfinite(colors).all():
        raise ValueError("vertex colours are not numbers")
    return (colors / (255 if colors.max() > 1 else 1)).clip(0, 1)


def _materials(path: Path, libraries: list[str]) -> dict[str, _Material]:
    """Materials by name; a library that is not there is passed over, as other programs do."""
    materials: dict[str, _Material] = {}
    for name in dict.fromkeys(libraries[:MAX_MATERIALS]):
        place = neighbour(path.parent, name, f"{path}: its material library")
        if not place.exists():
            continue
        material = _Material()
        for line in read_untrusted(place, _MAX_MTL_BYTES, f"a material library of {path.name}").splitlines():
            match line.split(None, 1):
                case [b"newmtl", rest]:
                    material = materials.setdefault(rest.strip().decode("utf-8", "surrogateescape"), _Material())
                case [b"Kd", rest] if rest[:1] in b"0123456789.+-":
                    color = np.array(rest.split()[:3], dtype=np.float64)
                    if color.shape != (3,) or not np.isfinite(color).all():
                        raise InputError(f"{place}: holds a colour that is no number; correct it")
                    material.color = tuple(color.clip(0, 1).tolist())
                case [b"map_Kd", rest]:
                    text = rest.strip().decode("utf-8", "surrogateescape")
                    # Options (-s 1 1 1 ...) stand before the name; without them it may hold spaces.
                    material.picture = text.split()[-1] if text.startswith("-") else text
    return materials
