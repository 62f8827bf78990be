"""What a mesh file holds: its geometries, placed in the file's world, with their colours or pictures.

Readers check what they read before they make room for it: counts against the bytes that are there, numbers against
what a mesh can be. Whatever they trip over becomes one line in `load_mesh`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, UInt8

from meshwright.errors import InputError
from meshwright.images import decode_picture
from meshwright.untrusted import MIB, neighbour, read_untrusted

MAX_FILE_BYTES = 512 * MIB
MAX_FACES = 20_000_000
MAX_MATERIALS = 4096
MAX_TEXTURE_PX = 8192
_MAX_TEXTURE_BYTES = 256 * MIB
_MAX_TEXTURE_PIXELS = 2 * MAX_TEXTURE_PX**2  # of all textures together
_LARGEST_LINE = MIB  # bytes
_BLOCK = 1 << 16  # lines that are parsed at once
_LARGEST_COORDINATE = 1e12  # squares and areas of it are still float32
_FARTHEST = 1e6  # from the middle, in sizes of the object


@dataclass(frozen=True, eq=False)
class Part:
    """One geometry of a file, y up: colours sRGB, ``uv`` one a vertex with v upwards, picture row 0 on top."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    colors: Float[np.ndarray, "vertices 3"] | None = None
    uv: Float[np.ndarray, "vertices 2"] | None = None
    picture: UInt8[np.ndarray, "texture_height texture_width 3"] | None = None


def check_parts(parts: list[Part], path: Path) -> None:
    """Refuse what no mesh can be.

    Raises:
        InputError: indices without a vertex, coordinates or colours that are not numbers or beyond all measure, a
            vertex a million times farther from the middle than the others.
    """
    for part in parts:
        if part.faces.min() < 0 or part.faces.max() >= len(part.vertices):
            raise InputError(f"{path}: a face names a vertex that is not there; export it again")
        for values in (part.vertices, part.uv, part.colors):
            if values is not None and not np.isfinite(values).all():
                raise InputError(f"{path}: holds NaN or infinity; export it again")
        if part.uv is not None and np.abs(part.uv).max(initial=0) > _FARTHEST:
            raise InputError(f"{path}: has texture coordinates beyond {_FARTHEST:g}; export it again")
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts]).astype(np.float64)
    if np.abs(used).max() > _LARGEST_COORDINATE:
        raise InputError(f"{path}: has coordinates beyond {_LARGEST_COORDINATE:g}; scale it down")
    distances = np.linalg.norm(used - np.median(used, axis=0), axis=1)
    if distances.max() > _FARTHEST * np.median(distances) > 0:
        raise InputError(f"{path}: a vertex lies {_FARTHEST:g} times farther out than the others; remove it")


class Pictures:
    """Decodes the textures of one file, each once, all together of bounded size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoded: dict[object, UInt8[np.ndarray, "texture_height texture_width 3"]] = {}

    def beside(self, name: object) -> UInt8[np.ndarray, "texture_height texture_width 3"]:
        """The picture of that name in the folder of the file."""
        place = neighbour(self._path.parent, name, f"{self._path}: its texture")
        if place not in self._decoded:
            content = read_untrusted(place, _MAX_TEXTURE_BYTES, f"a texture of {self._path.name}")
            self._add(place, content)
        return self._decoded[place]

    def inside(self, key: object, content: bytes) -> UInt8[np.ndarray, "texture_height texture_width 3"]:
        """The picture with those bytes, which came from the place ``key`` of the file."""
        if key not in self._decoded:
            self._add(key, content)
        return self._decoded[key]

    def _add(self, key: object, content: bytes) -> None:
        self._decoded[key] = decode_picture(content, f"{self._path}: its texture", MAX_TEXTURE_PX)
        if sum(picture.shape[0] * picture.shape[1] for picture in self._decoded.values()) > _MAX_TEXTURE_PIXELS:
            raise InputError(f"{self._path}: its textures have too many pixels together; shrink them first")


def blocks(lines: Iterator[bytes] | list[bytes]) -> Iterator[list[bytes]]:
    """Lists of lines, so that large texts are parsed in bounded memory.

    Raises:
        InputError: a line has more than a million bytes.
    """
    block: list[bytes] = []
    for line in lines:
        if len(line) > _LARGEST_LINE:
            raise InputError(f"has a line of more than {_LARGEST_LINE} bytes; export it again")
        block.append(line)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def numbers(rows: list[bytes]) -> npt.NDArray[np.float64]:
    """A table of the numbers in lines that all have as many.

    Raises:
        ValueError: they have not, or hold something else.
    """
    columns = len(rows[0].split()) if rows else 0
    if any(len(row.split()) != columns for row in rows):
        raise ValueError("rows of different lengths")
    return np.array(b" ".join(rows).split(), dtype=np.float64).reshape(len(rows), columns)


def fans(corners: list[list[int]]) -> Int[np.ndarray, "faces 3"]:
    """Triangles of polygons, each a fan around its first corner; what has fewer than three corners is left out."""
    triangles = [(face[0], face[i], face[i + 1]) for face in corners for i in range(1, len(face) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)
