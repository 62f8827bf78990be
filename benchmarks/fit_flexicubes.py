"""Refinement on the FlexiCubes grid or on the mesh: ``python -m benchmarks.fit_flexicubes SCAN.glb ...``.

Each scan is photographed by the six cameras of the Zero123++ rig and by 21 of an orbit; depth is not given. Compared,
from the same hull on, are

- mesh: `meshwright.shape.refine.refine`, level fast;
- grid: field, deformation and weights of a FlexiCubes grid as parameters, by the same measures of error (silhouettes,
  photo-consistency, roughness of normals, area) and the grid's own (L_dev, entropy of the field's signs). The topology
  may change;
- grid, mesh: the second's result as the start of the first.

The grid grows finer with the pictures, and in each stage the field is its start plus corrections on a pyramid of grids,
each half as fine as the last: what moves a coarse sample moves the surface around it as a whole, as the smooth steps of
`refine` do. ``--levels 1`` is the plain grid.

Judged by 20 views from other cameras (vertex colours by `color_vertices`, the mesh subdivided to 25 000 vertices) and
by the shape.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.scans import colored, load_scan, render_scan_views
from meshwright.cameras import Cameras
from meshwright.evaluate import SurfaceSamples, compare_shapes, psnr, silhouette_iou
from meshwright.losses import normal_roughness, sdf_entropy, silhouette_error
from meshwright.mesh import Mesh
from meshwright.raster import rasterize, render
from meshwright.shape import extract, grid_axes, refine, surface_cubes, visual_hull
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import (
    Topology,
    comparable_pixels,
    compare_with_neighbors,
    draw_rows,
    nearest_views,
    render_geometry,
)
from meshwright.shape.refine.terms import photo_error
from meshwright.views import Views

RIGS = {"6": Cameras.zero123plus(), "21": Cameras.orbit(21, 20.0)}
NOVEL = Cameras.spherical(
    [i * 137.508 % 360 for i in range(20)], [-20 + 70 * (i * 7 % 20) / 19 for i in range(20)], 4.0, 30.0
)
NOVEL_PX = 256
SURFACE_POINTS = 100_000

VIEWS_A_STEP, PARTNERS, POINTS, LOOK_AROUND = 6, 4, 20_000, 10  # as in refine
CRUMB = 0.01  # parts with a smaller share of the faces are dropped
REACH = 0.45  # of a cell, how far a grid point may move: neighbours stay apart


@dataclass(frozen=True)
class Stage:
    """``resolution``: cells along the longest side. Weights are those of the same names in `refine`."""

    resolution: int
    size_px: int
    roughness: float
    crease: float
    area: float


STAGES = (Stage(24, 80, 100.0, 1.0, 1.0), Stage(40, 160, 20.0, 0.5, 1.0), Stage(64, 320, 10.0, 0.1, 0.5))


@dataclass(frozen=True)
class Recipe:
    """``sdf_step``: first step of Adam in cells of the field, ``form_step`` of deformation and weights."""

    steps: int = 80
    levels: int = 3
    sdf_step: float = 0.1
    form_step: float = 0.02
    step_fall: float = 0.7
    photo: float = 400.0
    deviation: float = 0.5
    entropy: float = 0.1


class GridShape:
    """A field with its grid, as parameters: about the distance to the surface in cells, negative inside."""

    def __init__(self, values: Tensor, middle: Tensor, longest_side: float, stage: Stage, levels: int) -> None:
        """``values``: a field in world units on any grid over the box with this middle and longest side."""
        cells = torch.tensor(values.shape) - 1
        cell_size = longest_side / stage.resolution
        nx, ny, nz = (max(4, round(stage.resolution * n / int(cells.max()))) for n in cells.tolist())
        sides = tuple(longest_side * n / int(cells.max()) for n in cells.tolist())
        self.cell_size, self.size = cell_size, math.hypot(*sides) / 2
        self._resolution = nx, ny, nz
        self._start = finer(values[None, None], (nx + 1, ny + 1, nz + 1)) / cell_size
        self._axes = tuple(axis + at for axis, at in zip(grid_axes((nx, ny, nz), sides), middle, strict=True))
        self.corrections = [
            torch.zeros(1, 1, *(-(-n // 2**level) + 1 for n in (nx, ny, nz)), requires_grad=True)
            for level in range(levels)
        ]
        self.offsets = torch.zeros(self._start.numel(), 3, requires_grad=True)
        self.beta, self.alpha, self.gamma = (
            torch.zeros(nx * ny * nz, *width, requires_grad=True) for width in ((12,), (8,), ())
        )

    def field(self) -> Tensor:
        total = self._start
        for correction in self.corrections:
            total = total + finer(correction, self._start.shape)
        border = torch.ones_like(total, dtype=torch.bool)
        border[1:-1, 1:-1, 1:-1] = False
        return torch.where(border, total.abs(), total)  # outside at the border: the surface ends in the grid

    def surface(self, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vertices, faces, mean L_dev in cells and the entropy of the field's signs."""
        field = self.field()
        surface = surface_cubes(field, self._resolution)
        positions = surface.positions(self._axes) + REACH * self.cell_size * self.offsets[surface.points].tanh()
        beta, alpha, gamma = (weight[surface.cubes] for weight in (self.beta, self.alpha, self.gamma))
        vertices, faces, deviation = extract(surface, positions, beta, alpha, gamma, training)
        return vertices, faces, deviation.mean() / self.cell_size, sdf_entropy(field)

    @torch.no_grad()
    def mesh(self) -> Mesh:
        vertices, faces, *_ = self.surface(training=False)
        mesh = Mesh(vertices, faces)
        part = mesh.components()
        return mesh.keep_faces((torch.bincount(part) >= CRUMB * len(part))[part])


def finer(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return interpolate(values, shape, mode="trilinear", align_corners=True)[0, 0]


def fit_grid(views: Views, recipe: Recipe, stages: tuple[Stage, ...] = STAGES, seed: int = 0) -> Mesh:
    """The shape on a FlexiCubes grid, from the hull of the views on, that shows what the pictures show."""
    random = torch.Generator().manual_seed(seed)
    hull = visual_hull(views)
    cells = torch.tensor(hull.values.shape) - 1
    values, middle = hull.values, hull.origin + cells * hull.cell_size / 2
    for number, stage in enumerate(stages):
        shape = GridShape(values, middle, int(cells.max()) * hull.cell_size, stage, recipe.levels)
        fit_stage(shape, views, recipe, stage, recipe.step_fall**number, random, seed)
        values = shape.field().detach() * shape.cell_size
    return shape.mesh()


def fit_stage(
    shape: GridShape, views: Views, recipe: Recipe, stage: Stage, fall: float, random: torch.Generator, seed: int
) -> None:
    pictures = Pictures.of(views, stage.size_px, seed)
    optimizer = torch.optim.Adam(
        [
            {"params": shape.corrections, "lr": recipe.sdf_step * fall},
            {"params": [shape.offsets, shape.beta, shape.alpha, shape.gamma], "lr": recipe.form_step * fall},
        ],
        betas=(0.9, 0.99),
    )
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.3, recipe.steps)
    for step in range(recipe.steps):
        vertices, faces, deviation, entropy = shape.surface(training=True)
        topology = Topology.of(faces)
        if step % LOOK_AROUND == 0:
            with torch.no_grad():
                depth_z = rasterize(vertices, faces, views.cameras, *pictures.alpha.shape[1:]).depth_z
        loss = picture_error(vertices, topology, views.cameras, pictures, depth_z, step, recipe, random)
        loss = loss + stage.roughness * normal_roughness(vertices, faces, topology.pairs, stage.crease)
        loss = loss + stage.area * Mesh(vertices, faces).area() / shape.size**2
        loss = loss + recipe.deviation * deviation + recipe.entropy * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()


def picture_error(
    vertices: Tensor,
    topology: Topology,
    cameras: Cameras,
    pictures: Pictures,
    depth_z: Tensor,
    step: int,
    recipe: Recipe,
    random: torch.Generator,
) -> Tensor:
    """Silhouettes and photo-consistency over some of the views, as in `refine`; all views are trusted."""
    turns = math.ceil(len(cameras) / VIEWS_A_STEP)
    chosen = torch.arange(step % turns, len(cameras), turns)
    rendered = render_geometry(vertices, topology, cameras[chosen], *depth_z.shape[1:])
    wanted = pictures[chosen]
    loss = silhouette_error(rendered.coverage, wanted.alpha, wanted.kept.to(vertices.dtype)).mean()
    pixels = draw_rows(comparable_pixels(rendered, wanted), POINTS, random)
    neighbors = nearest_views(cameras, PARTNERS)
    comparison = compare_with_neighbors(rendered, chosen, pixels, neighbors, cameras, pictures, depth_z, random)
    return loss + recipe.photo * photo_error(comparison, torch.ones(len(cameras)))


@dataclass(frozen=True)
class Scores:
    psnr_db: float
    iou: float
    f_score: float
    chamfer_percent: float

    @classmethod
    def of(cls, mesh: Mesh, views: Views, scan: Mesh, novel: Views) -> "Scores":
        drawn = render(colored(mesh, views), NOVEL, NOVEL_PX, NOVEL_PX, samples=2)
        diagonal = float((scan.vertices.amax(0) - scan.vertices.amin(0)).norm())
        samples, truth = SurfaceSamples.of(mesh, SURFACE_POINTS), SurfaceSamples.of(scan, SURFACE_POINTS)
        shape = compare_shapes(samples, truth, [0.01 * diagonal])
        return cls(
            float(psnr(drawn.rgb, novel.images).mean()),
            float(silhouette_iou(drawn.alpha, novel.alpha).mean()),
            shape.f_scores[0],
            100 * shape.chamfer / diagonal,
        )

    def said(self) -> tuple[str, str, str, str]:
        return f"{self.psnr_db:.2f}", f"{self.iou:.4f}", f"{self.f_score:.3f}", f"{self.chamfer_percent:.3f}"


def timed(make: Callable[[], Mesh]) -> tuple[Mesh, float]:
    began = time.perf_counter()
    return make(), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--rig", choices=RIGS, nargs="+", default=list(RIGS))
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of each stage on the grid")
    parser.add_argument("--levels", type=int, default=Recipe.levels, help="of the pyramid of corrections")
    options = parser.parse_args()
    recipe = Recipe(steps=options.steps, levels=options.levels)
    torch.optim.Adam([torch.zeros(1)])  # imports for seconds on first use, which is not the fit's time
    table = Table("scan", "views", "route", "PSNR dB", "IoU", "F@1 %", "Chamfer %", "s", "vertices", "genus")
    for path in options.scans:
        scan = load_scan(path)
        novel = render_scan_views(scan, NOVEL, NOVEL_PX, samples=2)
        for rig in options.rig:
            views = replace(render_scan_views(scan, RIGS[rig], options.size_px, samples=3), depth_z=None)
            for route, mesh, seconds in routes(views, recipe):
                scores = Scores.of(mesh, views, scan, novel)
                row = (path.stem, rig, route, *scores.said(), f"{seconds:.0f}", str(len(mesh.vertices)))
                genus = str(mesh.genus()) if mesh.is_watertight() else "open"
                print(*row, genus, flush=True)
                table.add_row(*row, genus)
    Console(width=140).print(table)


def routes(views: Views, recipe: Recipe) -> Iterator[tuple[str, Mesh, float]]:
    """Each with the seconds from the pictures on."""
    hull, hull_s = timed(lambda: visual_hull(views).mesh())
    yield "hull", hull, hull_s
    on_mesh, mesh_s = timed(lambda: refine(hull, views).mesh)
    yield "mesh", on_mesh, hull_s + mesh_s
    on_grid, grid_s = timed(lambda: fit_grid(views, recipe))
    yield "grid", on_grid, grid_s
    on_both, both_s = timed(lambda: refine(on_grid, views).mesh)
    yield "grid, mesh", on_both, grid_s + both_s


if __name__ == "__main__":
    main()
