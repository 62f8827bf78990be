"""How good visual hulls and their colours are, on scans: ``python -m benchmarks.eval_hull SCAN.glb ...``.

Each scan is scaled into the unit ball and photographed 21 times at 512 x 512. The hull's mesh is compared with

- the silhouettes: IoU over the views, mean and worst;
- the true visual hull, found without this package's field: a point is in it when the line to every camera meets the
  scan (ray casting, exact). From 1000 points on the mesh the nearest border of that set is searched along the normal,
  up to two cells away; reported is the mean distance, in cells of the hull's grid and in pixels;
- the pictures: PSNR of the mesh with vertex colours, on the object, in those views and in 8 views between them.

Then the same with one silhouette replaced by a wrong one, judged by the other 20.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trimesh.ray.ray_pyembree import RayMeshIntersector

from benchmarks.scans import load_scan, render_scan_views
from meshwright.cameras import Cameras
from meshwright.color import color_vertices
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.shape import VisualHull, visual_hull
from meshwright.views import Views

SIZE_PX = 512
POINTS = 1000
REACH_CELLS = 2.0
WRONG_VIEW = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--wrong", action="store_true", help="also with one wrong silhouette")
    options = parser.parse_args()
    columns = (
        "case",
        "watertight",
        "faces",
        "s",
        "IoU",
        "worst",
        "to hull, cells",
        "px",
        "PSNR",
        "between",
        "rejected",
    )
    table = Table(*columns)
    for path in options.scans:
        scan = load_scan(path)
        views = render_scan_views(scan, orbit(21), SIZE_PX)
        cases = {path.stem: views}
        if options.wrong:
            cases |= {f"  {name}": wrong for name, wrong in wrong_silhouettes(views).items()}
        between = render_scan_views(scan, orbit(8, first_deg=11.0), SIZE_PX)
        for name, given in cases.items():
            table.add_row(name, *judge(scan, views, between, given, options.resolution))
    Console(width=140).print(table)


def judge(scan: Mesh, views: Views, between: Views, given: Views, resolution: int) -> list[str]:
    right = [i for i in range(len(views)) if torch.equal(views.alpha[i], given.alpha[i])]
    start = time.perf_counter()
    hull = visual_hull(given, resolution)
    mesh = hull.mesh()
    seconds = time.perf_counter() - start
    mesh = color_vertices(mesh, given)
    drawn = render(mesh, views.cameras[right], SIZE_PX, SIZE_PX, samples=1)
    iou = silhouette_iou(drawn.alpha, views.alpha[right])
    cells = distance_to_true_hull(mesh, hull, scan, views.cameras[right])
    pixels_a_cell = hull.cell_size * float(views.cameras.intrinsics[0, 1]) * SIZE_PX / 4
    redrawn = render(mesh, between.cameras, SIZE_PX, SIZE_PX, samples=1)
    return [
        "yes" if mesh.is_watertight() else "NO",
        str(len(mesh.faces)),
        f"{seconds:.1f}",
        f"{iou.mean():.4f}",
        f"{iou.min():.4f}",
        f"{cells:.3f}",
        f"{cells * pixels_a_cell:.2f}",
        f"{psnr(drawn.rgb, views.images[right], views.alpha[right]):.2f}",
        f"{psnr(redrawn.rgb, between.images, between.alpha):.2f}",
        " ".join(map(str, hull.rejected_views)) + f" +{hull.ignored_per_point}" * (hull.ignored_per_point > 0),
    ]


def orbit(count: int, first_deg: float = 0.0) -> Cameras:
    azimuths_deg = [first_deg + i * 360 / count for i in range(count)]
    return Cameras.spherical(azimuths_deg, [(-15.0, 15.0, 45.0)[i % 3] for i in range(count)], 4.0, 30.0)


def wrong_silhouettes(views: Views) -> dict[str, Views]:
    """One view shifted by 40 pixels, empty, filled with noise, or exchanged for the one 4 pictures on."""
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.nn.functional.interpolate(noise, (SIZE_PX, SIZE_PX), mode="bicubic").clamp(0, 1)[0]
    right = views.alpha[WRONG_VIEW]
    wrong = {
        "shifted 10 px": right.roll(10, 2),
        "shifted 40 px": right.roll(40, 2),
        "empty": torch.zeros_like(right),
        "noise": noise,
        "of another view": views.alpha[WRONG_VIEW + 4],
    }
    return {
        name: replace(views, alpha=torch.cat([views.alpha[:WRONG_VIEW], alpha[None], views.alpha[WRONG_VIEW + 1 :]]))
        for name, alpha in wrong.items()
    }


def silhouette_iou(a: Tensor, b: Tensor) -> Tensor:
    a, b = a >= 0.5, b >= 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3))


def psnr(drawn: Tensor, pictures: Tensor, alpha: Tensor) -> float:
    """On pixels that the object covers wholly."""
    on_object = (alpha > 0.999).expand_as(pictures)
    return float(-10 * (drawn - pictures)[on_object].square().mean().log10())


def distance_to_true_hull(mesh: Mesh, hull: VisualHull, scan: Mesh, cameras: Cameras) -> float:
    """Mean distance in cells along the normal from the mesh to the nearest border of the true hull."""
    points, face, _ = mesh.sample_surface(POINTS)
    step = hull.cell_size * torch.nn.functional.normalize(mesh.face_normals()[face], dim=1)
    intersector = RayMeshIntersector(trimesh.Trimesh(scan.vertices.numpy(), scan.faces.numpy(), process=False))

    def inside(t: Tensor) -> Tensor:
        at = points[:, None] + t[..., None] * step[:, None]
        return in_true_hull(intersector, at.reshape(-1, 3), cameras).reshape(at.shape[:2])

    t = torch.linspace(-REACH_CELLS, REACH_CELLS, 17).expand(POINTS, -1)
    within = inside(t)
    changes = within[:, :-1] != within[:, 1:]
    middle = (t[:, :-1] + t[:, 1:]) / 2
    nearest = torch.where(changes, middle.abs(), torch.inf).argmin(1, keepdim=True)
    low, high = t.gather(1, nearest), t.gather(1, nearest + 1)
    inside_low = inside(low)
    for _ in range(6):
        half = (low + high) / 2
        same = inside(half) == inside_low
        low, high = torch.where(same, half, low), torch.where(same, high, half)
    found = changes.any(1, keepdim=True)
    return float(torch.where(found, ((low + high) / 2).abs(), REACH_CELLS).mean())


def in_true_hull(intersector: RayMeshIntersector, points: Tensor, cameras: Cameras) -> Tensor:
    inside = torch.ones(len(points), dtype=torch.bool)
    for position in cameras.positions:
        left = inside.nonzero()[:, 0]
        directions = (points[left] - position).numpy()
        origins = np.broadcast_to(position.numpy(), directions.shape)
        inside[left] = torch.from_numpy(intersector.intersects_any(origins, directions))
    return inside


if __name__ == "__main__":
    main()
