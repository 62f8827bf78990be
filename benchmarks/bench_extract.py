"""Planes -> coloured mesh at instant-mesh-large sizes, beside the plain twin in the same run.

``python -m benchmarks.bench_extract [--grid 128] [--plain-grid 64] [--repeats 5]``, in the root of the repository.

The object is a ball of radius 0.7, so that the surface has a realistic size; all other weights and the planes are
random. The twin gathers 3 x 80 features at every grid point and 8 x 240 at every cube; at grid 128 that is 16 GB, so
that it runs at grid 64 unless told otherwise, and its rows are compared with ours at the same grid. The parts of one
extraction come after its row. Every row is measured in a process of its own, so that its peak memory is its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from tests import plain_model as plain
from tests.small_models import ball
from torch import Tensor

from benchmarks.measure import Measurement, in_child, measure, print_measurement
from meshwright.mesh import Mesh
from meshwright.model import PRESETS, InstantMesh, InstantNeRF, Triplane, build_model
from meshwright.model.field import HIDDEN
from meshwright.shape.flexicubes import extract, flexicubes, grid, grid_axes, repair_empty, surface_cubes

PLAIN_ROWS = {
    "plain": "plain twin",
    "sparse": "sparse heads alone, features gathered",
    "factorised": "factorised decoding alone, heads everywhere",
    "ours": "ours",
}
SDF_PART = "sdf at every grid point"
NERF_ROWS = {"plain-density": "plain twin: density grid", "density": "ours: density grid"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--plain-grid", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest is reported")
    parser.add_argument("--row", choices=[*PLAIN_ROWS, *NERF_ROWS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print_measurement(_measure(arguments.row, arguments.grid, arguments.repeats))
        return
    print(f"instant-mesh-large and instant-nerf-large, {torch.get_num_threads()} threads")
    print(f"{'':45} {'grid':>5} {'first s':>8} {'s':>7} {'CPU s':>7} {'ratio':>6} {'MiB more':>9} {'peak MiB':>9}")
    for rows, grids in (
        (PLAIN_ROWS, [arguments.plain_grid] * 4),
        ({"ours": "ours"}, [arguments.grid]),
        (NERF_ROWS, [2 * arguments.plain_grid] * 2),
        ({"density": "ours: density grid"}, [2 * arguments.grid]),
    ):
        slowest = None
        for (row, name), resolution in zip(rows.items(), grids, strict=True):
            options = ["--row", row, "--grid", resolution, "--repeats", arguments.repeats]
            measured = in_child("benchmarks.bench_extract", options)
            slowest = slowest or measured.seconds
            print(
                f"{name:45} {resolution:5} {measured.first_seconds:8.2f} {measured.seconds:7.2f}"
                f" {measured.cpu_seconds:7.2f} {slowest / measured.seconds:6.1f}"
                f" {measured.peak_mib - measured.before_mib:9.0f} {measured.peak_mib:9.0f}",
                flush=True,
            )
    _print_parts(arguments.grid, arguments.repeats)


@torch.inference_mode()
def _measure(row: str, resolution: int, repeats: int) -> Measurement:
    if row in NERF_ROWS:
        return _measure_density(row, resolution, repeats)
    model, planes = _ball(resolution)
    weights = model.state_dict()
    work: dict[str, Callable[[], Mesh]] = {
        "ours": lambda: model.extract_mesh(Triplane(planes[None]))[0],
        "plain": lambda: _plain_mesh(model, weights, planes),
        "sparse": lambda: _sparse_mesh(model, weights, planes),
        "factorised": lambda: _factorised_mesh(model, planes),
    }
    measured, mesh = measure(work[row], repeats)
    difference = (mesh.vertices.norm(dim=1) - 0.7).abs().max().item()
    assert difference < 0.02, f"{row}: the mesh is not the ball, {difference} off"
    return measured


def _ball(resolution: int) -> tuple[InstantMesh, Tensor]:
    return ball(replace(PRESETS["instant-mesh-large"], grid_res=resolution), (0.0, 0.0, 0.0), radius=0.7)


def _plain_mesh(model: InstantMesh, weights: plain.Weights, planes: Tensor) -> Mesh:
    vertices, faces, _, _ = plain.surface(weights, model.config, planes)
    return Mesh(vertices, faces, plain.color(weights, planes, vertices).clamp(0, 1))


def _sparse_mesh(model: InstantMesh, weights: plain.Weights, planes: Tensor) -> Mesh:
    """The twin's gathered features, but deformation and weights at the surface only."""
    resolution, size = model.config.grid_res, model.config.grid_scale
    points = grid(resolution, size, published_rounding=True)
    features = plain.features(planes, points)
    surface = surface_cubes(plain.head(weights, "synthesizer.decoder.net_sdf", features)[:, 0], resolution)
    at_points = features[surface.points]
    at_corners = at_points[surface.corners].flatten(1)
    moved = plain.head(weights, "synthesizer.decoder.net_deformation", at_points).tanh() / (4 * resolution)
    cubes = plain.head(weights, "synthesizer.decoder.net_weight", at_corners) * 0.1
    beta, alpha, gamma = cubes.split([12, 8, 1], dim=1)
    vertices, faces, _ = extract(surface, points[surface.points] + moved, beta, alpha, gamma[:, 0])
    return Mesh(vertices, faces, plain.color(weights, planes, vertices).clamp(0, 1))


def _factorised_mesh(model: InstantMesh, planes: Tensor) -> Mesh:
    """No feature is gathered, but deformation and weights are evaluated everywhere."""
    resolution, size = model.config.grid_res, model.config.grid_scale
    fields = model.decoder.on_grid(planes, grid_axes(resolution, size, published_rounding=True))
    moved = fields.deformation.at(_every_index(resolution + 1)).tanh() / (4 * resolution)
    beta, alpha, gamma = (0.1 * fields.weights.at(_every_index(resolution))).split([12, 8, 1], dim=1)
    points = grid(resolution, size, published_rounding=True)
    sdf = fields.sdf.everywhere().flatten()
    vertices, faces, _ = flexicubes(points + moved, sdf, resolution, beta, alpha, gamma[:, 0])
    return Mesh(vertices, faces, model.color_field(planes)(vertices).clamp(0, 1))


def _every_index(side: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(side)] * 3)


def _measure_density(row: str, resolution: int, repeats: int) -> Measurement:
    model = build_model(PRESETS["instant-nerf-large"])
    assert isinstance(model, InstantNeRF)
    planes = torch.randn(3, 80, 64, 64, generator=torch.Generator().manual_seed(0))
    if row == "density":
        return measure(lambda: model.density_grid(planes, resolution), repeats)[0]
    weights = model.state_dict()
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, resolution)] * 3)
    return measure(lambda: plain.radiance(weights, planes, points), repeats)[0]


@torch.inference_mode()
def _print_parts(resolution: int, repeats: int) -> None:
    model, planes = _ball(resolution)
    fastest: dict[str, float] = {}
    for _ in range(1 + repeats):
        start = time.perf_counter()
        for name in _parts(model, planes):
            now = time.perf_counter()
            fastest[name] = min(now - start, fastest.get(name, now - start))
            start = now
    print(f"\nparts of ours at grid {resolution}, fastest of {1 + repeats}")
    for name, seconds in fastest.items():
        print(f"{name:45} {seconds:.3f} s")
    flop = (resolution + 1) ** 3 * (2 * 2 * HIDDEN**2 + 2 * HIDDEN)
    print(f"{'the sdf head runs at':45} {flop / fastest[SDF_PART] / 1e9:.0f} GFLOP/s")


def _parts(model: InstantMesh, planes: Tensor) -> Iterator[str]:
    """What `InstantMesh.extract_mesh` does, step by step; the name of each step after it is done."""
    cells = model.config.grid_res
    axes = grid_axes(cells, model.config.grid_scale, published_rounding=True)
    fields = model.decoder.on_grid(planes, axes)
    yield "planes through the heads' first layers"
    sdf = fields.sdf.everywhere().flatten()
    yield SDF_PART
    repair_empty(sdf[None], cells)
    yield "look for an empty object"
    surface = surface_cubes(sdf, cells)
    yield "find the surface's cubes"
    moved = fields.deformation.at(_index(surface.points, cells + 1)).tanh() / (4 * cells)
    beta, alpha, gamma = (0.1 * fields.weights.at(_index(surface.cubes, cells))).split([12, 8, 1], dim=1)
    yield "deformation and weights at the surface"
    vertices, _, _ = extract(surface, surface.positions(axes) + moved, beta, alpha, gamma[:, 0])
    yield "FlexiCubes"
    model.color_field(planes)(vertices).clamp(0, 1)
    yield "colours"


def _index(flat: Tensor, side: int) -> Tensor:
    return torch.stack([flat // side**2, flat // side % side, flat % side], dim=1)


if __name__ == "__main__":
    main()
