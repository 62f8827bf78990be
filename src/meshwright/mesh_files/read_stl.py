"""Reading STL, binary and ASCII: triangles without colours."""

import io
from pathlib import Path

import numpy as np

from meshwright.errors import InputError
from meshwright.mesh_files.parts import MAX_FACES, MAX_FILE_BYTES, Part, blocks, numbers
from meshwright.untrusted import read_untrusted

_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEAD = 84  # bytes before the rows of the binary form


def read_stl(path: Path) -> list[Part]:
    """The triangles; equal corners are welded later.

    Raises:
        InputError: neither form, or it claims more than it has bytes.
    """
    content = read_untrusted(path, MAX_FILE_BYTES, "a mesh")
    count = int.from_bytes(content[80:_HEAD], "little")
    if len(content) >= _HEAD and len(content) == _HEAD + count * _ROW.itemsize:
        corners = np.frombuffer(content, _ROW, count, _HEAD)["corners"].reshape(-1, 3).astype(np.float64)
    elif content.lstrip()[:5].lower() == b"solid":
        lines = (line.split(None, 1)[1] for line in io.BytesIO(content) if line.lstrip().lower().startswith(b"vertex "))
        found = [numbers(block) for block in blocks(lines)]
        corners = np.concatenate(found) if found else np.zeros((0, 3))
        if corners.shape[1] != 3 or len(corners) % 3 or b"endsolid" not in content[-4096:].lower():
            raise InputError(f"{path}: breaks off or is damaged; export it again")
    else:
        raise InputError(f"{path}: is not a whole STL file; export it again")
    if len(corners) > 3 * MAX_FACES:
        raise InputError(f"{path}: describes more than {MAX_FACES:,} triangles; simplify the mesh first")
    if len(corners) == 0:
        return []
    return [Part(corners, np.arange(len(corners)).reshape(-1, 3))]
