"""Time and memory of hull and colours: ``python -m benchmarks.bench_hull SCAN.glb [--resolution 128]``.

21 views at 512 x 512 pixels; seconds are of the fastest of the repeats, CPU seconds of all threads together.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.eval_hull import SIZE_PX, orbit
from benchmarks.measure import measure
from benchmarks.scans import load_scan, render_scan_views
from meshwright.color import color_vertices
from meshwright.device import resolve_device
from meshwright.shape import outline_distances_px, visual_hull


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = resolve_device(options.device)
    views = render_scan_views(load_scan(options.scan), orbit(21), SIZE_PX).to(device)
    hull = visual_hull(views, options.resolution)
    mesh = hull.mesh()
    stages: dict[str, Callable[[], object]] = {
        "outlines (part of the hull)": lambda: outline_distances_px(views.alpha, views.sizes_px),
        "hull": lambda: visual_hull(views, options.resolution),
        f"FlexiCubes, {len(mesh.faces)} faces": lambda: hull.mesh("flexicubes"),
        "marching cubes": lambda: hull.mesh("marching-cubes"),
        f"colour, {len(mesh.vertices)} vertices": lambda: color_vertices(mesh, views),
    }
    table = Table("stage", "s", "CPU s", "peak MiB", title=f"{torch.get_num_threads()} threads, {device}")
    for name, work in stages.items():
        measured, _ = measure(work, options.repeats)
        table.add_row(name, f"{measured.seconds:.2f}", f"{measured.cpu_seconds:.2f}", f"{measured.peak_mib:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
