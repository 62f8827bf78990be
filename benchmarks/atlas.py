"""Our atlas against xatlas on real scans: charts, length of the seams, use of the texture, CPU seconds.

    pip install xatlas
    python benchmarks/atlas.py FOLDER [FOLDER ...] --count 12

Seams are given in units of the square root of the surface's area. Chart area is bounded at 1 % for xatlas, as without
a bound it takes ten times as long. CPU seconds, not wall time, so that a busy machine matters little.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xatlas

from benchmarks.scans import find_scans
from meshwright import Mesh
from meshwright.color.atlas import unwrap
from meshwright.color.atlas.charts import covered_samples, face_neighbors
from meshwright.mesh_files import load_mesh

TEXTURE_PX = 2048
GUTTER_PX = 8


def unwrap_by_xatlas(mesh: Mesh) -> Mesh:
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_chart_area = 0.01 * float(mesh.area())
    packing.resolution, packing.padding = TEXTURE_PX, GUTTER_PX
    atlas.generate(charts, packing)
    _, uv_faces, uv = atlas[0]
    return mesh.replace(uv=torch.from_numpy(uv), uv_faces=torch.from_numpy(uv_faces.astype(np.int64)))


def seam_length(mesh: Mesh) -> float:
    """Length of the edges at which the texture coordinates of two faces part, over the root of the area."""
    assert mesh.uv_faces is not None
    faces, uv_faces = mesh.faces.numpy(), mesh.uv_faces.numpy()
    parted = face_neighbors(uv_faces) < 0
    ends = mesh.vertices[mesh.faces].numpy()
    lengths = np.linalg.norm(np.roll(ends, -1, axis=1) - ends, axis=2)
    return float(lengths[parted & (face_neighbors(faces) >= 0)].sum() / 2 / np.sqrt(float(mesh.area())))


def chart_count(mesh: Mesh) -> int:
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    return int(Mesh(torch.zeros(len(mesh.uv), 3), mesh.uv_faces).components().max()) + 1


def texture_use(mesh: Mesh) -> float:
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    corners = mesh.uv[mesh.uv_faces].double().numpy() * TEXTURE_PX
    mirrored = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    _, row, column = covered_samples(np.where(mirrored[:, None, None], corners[:, ::-1], corners))
    return len(np.unique(row * TEXTURE_PX + column)) / TEXTURE_PX**2


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our atlas with that of xatlas.")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=12)
    arguments = parser.parse_args()
    paths = find_scans(arguments.folders)
    paths = paths[:: max(1, len(paths) // arguments.count)][: arguments.count]
    print(f"{'object':28} {'faces':>6}   {'charts':>11}  {'seams':>12}  {'used':>11}  {'CPU s':>11}   (ours, xatlas)")
    for path in paths:
        mesh = load_mesh(path)
        columns = []
        for method in (lambda m: unwrap(m, TEXTURE_PX, GUTTER_PX), unwrap_by_xatlas):
            start = time.process_time()
            result = method(mesh)
            seconds = time.process_time() - start
            columns.append((chart_count(result), seam_length(result), texture_use(result), seconds))
        cells = (
            f"{form.format(ours)} {form.format(theirs)}"
            for form, ours, theirs in zip(("{:5d}", "{:6.1f}", "{:5.2f}", "{:5.2f}"), *columns, strict=True)
        )
        print(f"{path.stem:28} {len(mesh.faces):6}   {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
