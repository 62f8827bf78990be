"""OBJ files, with an MTL and a PNG beside them where the mesh has a texture."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files.textures import png_bytes
from meshwright.mesh_files.y_up import to_file


def write_obj(mesh: Mesh, path: Path) -> None:
    """``v x y z`` with sRGB ``r g b`` behind them, or ``vt`` with an unlit material and its picture beside the file."""
    vertices = to_file(mesh.vertices.float().numpy())
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
        png.write_bytes(png_bytes(mesh.texture))
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
