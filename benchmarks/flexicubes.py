"""Seconds and memory of FlexiCubes on a sphere at 128^3: ``python -m benchmarks.flexicubes [device]``."""

import resource
import sys
import time
from itertools import pairwise

import torch

from meshwright.shape.flexicubes import extract, grid, grid_axes, surface_cubes


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    resolution, scale = 128, 2.1
    sdf = (grid(resolution, scale, device=device).norm(dim=1) - 0.7).requires_grad_()
    axes = grid_axes(resolution, scale, device=device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in range(5):
        seconds = [time.perf_counter()]
        surface = surface_cubes(sdf, resolution)
        _wait(device, seconds)
        cubes = len(surface.cubes)
        weights = [torch.zeros(cubes, n, device=device, requires_grad=True) for n in (12, 8, 1)]
        positions = surface.positions(axes)
        vertices, faces, L_dev = extract(surface, positions, weights[0], weights[1], weights[2][:, 0], training=True)
        _wait(device, seconds)
        (vertices.square().sum() + L_dev.mean()).backward()
        _wait(device, seconds)
        find, build, back = (f"{b - a:.3f} s" for a, b in pairwise(seconds))
        print(f"run {run}: {cubes} cubes, {len(faces)} faces: find {find}, extract {build}, backward {back}")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory beyond the field: {(after - before) / 1024:.0f} MiB")


def _wait(device: torch.device, seconds: list[float]) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.append(time.perf_counter())


if __name__ == "__main__":
    main()
