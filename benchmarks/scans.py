"""True textured objects as test scenes: a GLB into the world, and its pictures from any cameras.

    python benchmarks/scans.py FOLDER [FOLDER ...] --out contact_sheet.png

draws every object of the folders once, for looking at.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from meshwright import Cameras, Mesh, Views
from meshwright.color import color_vertices
from meshwright.evaluate import load_scan, photograph
from meshwright.mesh import subdivide

__all__ = ["chosen_scans", "colored", "contact_sheet", "find_scans", "load_scan", "render_scan_views"]

COLORED_VERTICES = 25_000
WHOLE_FOLDER, EVERY = 12, 3
render_scan_views = photograph


def colored(mesh: Mesh, views: Views) -> Mesh:
    """A mesh with the views' colours at vertices, subdivided until these show most of what the pictures do."""
    vertices, faces = mesh.vertices, mesh.faces
    while len(vertices) < COLORED_VERTICES:
        vertices, faces = subdivide(vertices, faces)
    return color_vertices(Mesh(vertices, faces), views)


def find_scans(folders: list[Path]) -> list[Path]:
    """All GLB files of the folders, in the order of their names."""
    return sorted(path for folder in folders for path in folder.glob("*.glb"))


def chosen_scans(given: list[Path]) -> list[Path]:
    """Files, and folders of scans: one of up to 12 whole, of a larger one every third by name, from the first on."""
    chosen = []
    for path in given:
        found = find_scans([path]) if path.is_dir() else [path]
        chosen += found if len(found) <= WHOLE_FOLDER else found[::EVERY]
    return chosen


def contact_sheet(paths: list[Path], size_px: int, columns: int) -> Image.Image:
    cameras = Cameras.spherical([30.0], [20.0], radius=4.0, fov_deg=30.0)
    rows = -(-len(paths) // columns)
    sheet = np.full((rows * size_px, columns * size_px, 3), 255, dtype=np.uint8)
    for number, path in enumerate(paths):
        image = render_scan_views(load_scan(path), cameras, size_px).images[0]
        top, left = number // columns * size_px, number % columns * size_px
        pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        sheet[top : top + size_px, left : left + size_px] = pixels
    return Image.fromarray(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw every object of some folders once.")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"))
    parser.add_argument("--size-px", type=int, default=192)
    parser.add_argument("--columns", type=int, default=8)
    arguments = parser.parse_args()
    paths = find_scans(arguments.folders)
    contact_sheet(paths, arguments.size_px, arguments.columns).save(arguments.out)
    print(f"{len(paths)} objects -> {arguments.out}")


if __name__ == "__main__":
    main()
