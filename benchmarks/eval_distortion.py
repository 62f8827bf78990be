"""What it costs to ignore a lens's distortion: a scan photographed through one, read with its coefficients and without.

    python -m benchmarks.eval_distortion MESH [MESH ...]

Twelve pictures of 384 px with alpha, k1 = -0.25, k2 = 0.08, p1 = 0.004, p2 = -0.003; hull and a fast fit; scored by
eight views that were not given.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meshwright import Cameras, load_views
from meshwright.capture.lens import Brown, Lens
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.options import ShapeOptions
from meshwright.raster import render
from meshwright.reconstruct import reconstruct

SIDE_PX, VIEWS, FOV_DEG, RADIUS = 384, 12, 45.0, 3.2
WIDER = 1.5  # the pinhole pictures that the lens's are resampled from reach beyond these
COEFFICIENTS = {"k1": -0.25, "k2": 0.08, "p1": 0.004, "p2": -0.003}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("meshes", nargs="+", type=Path)
    for path in parser.parse_args().meshes:
        mesh = in_unit_ball(load_mesh(path))
        cameras = Cameras.spherical([i * 137.5 for i in range(VIEWS)], [20.0, -15.0, 45.0, 5.0] * 3, RADIUS, FOV_DEG)
        pictures = photographed(mesh, cameras)
        unseen = Cameras.spherical([i * 77.0 + 11 for i in range(8)], [30.0, 0.0, -20.0, 60.0] * 2, RADIUS, FOV_DEG)
        truth = render(mesh, unseen, 256, 256, samples=2)
        for name, coefficients in (("read", COEFFICIENTS), ("ignored", {})):
            with tempfile.TemporaryDirectory() as folder:
                write_capture(Path(folder), pictures, cameras, coefficients)
                found = reconstruct(load_views(folder), shape=ShapeOptions(start="hull"))
            drawn = render(found, unseen, 256, 256, samples=2)
            psnr_db = float((-10 * ((drawn.rgb - truth.rgb) ** 2).mean(dim=(1, 2, 3)).log10()).mean())
            iou = float((drawn.alpha * truth.alpha).sum() / torch.maximum(drawn.alpha, truth.alpha).sum())
            print(f"{path.stem}: distortion {name}, {psnr_db:.2f} dB, silhouette IoU {iou:.4f}", flush=True)


def in_unit_ball(mesh: Mesh) -> Mesh:
    center = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
    return mesh.replace(vertices=(mesh.vertices - center) / (mesh.vertices - center).norm(dim=1).max())


def photographed(mesh: Mesh, cameras: Cameras) -> Tensor:
    """RGBA as the distorting lens sees the mesh, from wider pinhole pictures of twice the resolution."""
    focal_px = float(cameras.intrinsics[0, 0]) * SIDE_PX
    k1, k2, p1, p2 = COEFFICIENTS.values()
    middle = SIDE_PX / 2
    brown = Brown((k1, k2), tangential=(p1, p2))
    lens = Lens(float(SIDE_PX), float(SIDE_PX), focal_px, focal_px, middle, middle, brown)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
    pixels = np.stack([columns, rows], axis=-1)
    directions = (pixels - middle) / focal_px
    for _ in range(100):  # the direction that each pixel shows
        directions = directions + (pixels - lens.project(directions)) / focal_px
    wide = Cameras(cameras.T_world_camera, cameras.intrinsics * torch.tensor([1 / WIDER, 1 / WIDER, 1, 1]))
    wide_px = int(SIDE_PX * 2 * WIDER)
    drawn = render(mesh, wide, wide_px, wide_px, samples=1)
    grid = torch.from_numpy(directions * focal_px / middle / WIDER).float()[None].expand(len(cameras), -1, -1, -1)
    premultiplied = torch.cat([drawn.rgb * drawn.alpha, drawn.alpha], dim=1)
    seen = torch.nn.functional.grid_sample(premultiplied, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.cat([(seen[:, :3] / seen[:, 3:].clamp(min=1e-3)).clamp(0, 1), seen[:, 3:]], dim=1)


def write_capture(folder: Path, pictures: Tensor, cameras: Cameras, coefficients: dict[str, float]) -> None:
    frames = []
    for i, picture in enumerate(pictures):
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": cameras.T_world_camera[i].tolist()})
    focal_px = float(cameras.intrinsics[0, 0]) * SIDE_PX
    content = {"fl_x": focal_px, "w": SIDE_PX, "h": SIDE_PX, **coefficients, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
