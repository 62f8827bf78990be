"""Real orbit clips: frames withheld, and drawn from what the others say: ``python -m benchmarks.eval_clips CLIP ...``.

A clip is a film or a folder of frames of one turn around an object, as SV3D makes them; nothing is known of the true
shape. The cameras are read off all frames (by `load_views`); then every
third frame is put aside. Start, refinement and colours are made of the rest. The frames put aside are compared with the
mesh drawn from their cameras: PSNR of the whole picture on white, and IoU of the coverage, means over the frames.

With refined cameras those of withheld frames are corrected too, by the mean of the corrections of the two frames beside
them (turn, shift and lens; the orbit is closed): from their own pictures nothing is taken.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation
from torch import Tensor

from benchmarks.scans import colored
from meshwright.cameras import Cameras
from meshwright.capture import load_views
from meshwright.evaluate import psnr, silhouette_iou
from meshwright.mesh import Mesh
from meshwright.options import ShapeOptions, Start, ViewOptions
from meshwright.raster import render
from meshwright.reconstruct import start_shape
from meshwright.shape import refine_best
from meshwright.views import Views


@dataclass(frozen=True)
class Attempt:
    """``mesh``: with colours. ``cameras``: where the withheld frames are taken to have been seen from."""

    name: str
    mesh: Mesh
    cameras: Cameras
    seconds: float


def attempts(
    clip: Views, kept: list[int], withheld: list[int], level: Literal["fast", "full"], start: Start
) -> Iterator[Attempt]:
    views, cameras = clip[kept], clip.cameras[withheld]
    began = perf_counter()
    first = start_shape(views, shape=ShapeOptions(start=start))
    meshes = [first.mesh] if first.carved is None else [first.mesh, first.carved]
    yield Attempt(start, colored(first.mesh, views), cameras, perf_counter() - began)
    for name, refine_cameras in (("refined", False), ("refined with cameras", True)):
        began = perf_counter()
        refined = refine_best(meshes, views, level=level, refine_cameras=refine_cameras)
        seconds = perf_counter() - began
        if len(meshes) > 1:
            name = f"{name}, from {('hull', 'carve')[refined.start]}"
        corrected = interpolated(cameras, views.cameras, refined.views.cameras, kept, withheld, len(clip))
        yield Attempt(name, colored(refined.mesh, refined.views), corrected, seconds)


def interpolated(
    cameras: Cameras, before: Cameras, after: Cameras, kept: list[int], withheld: list[int], frames: int
) -> Cameras:
    """The withheld ``cameras`` moved by the mean of what took their neighbours among the kept from before to after."""
    moves = after.T_world_camera.double() @ torch.linalg.inv(before.T_world_camera.double())
    turns = torch.from_numpy(Rotation.from_matrix(moves[:, :3, :3].numpy()).as_rotvec())
    zooms = after.intrinsics / before.intrinsics
    number = {frame: place for place, frame in enumerate(kept)}
    beside = torch.tensor([[number[(i - 1) % frames], number[(i + 1) % frames]] for i in withheld])
    move = torch.eye(4, dtype=torch.float64).repeat(len(withheld), 1, 1)
    move[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec(turns[beside].mean(1).numpy()).as_matrix())
    move[:, :3, 3] = moves[beside, :3, 3].mean(1)
    T_world_camera = (move @ cameras.T_world_camera.double()).float()
    return Cameras(T_world_camera, cameras.intrinsics * zooms[beside].mean(1))


def judge(attempt: Attempt, wanted: Views) -> tuple[float, float, Tensor]:
    height, width = wanted.images.shape[2:]
    drawn = render(attempt.mesh, attempt.cameras, height, width)
    iou = silhouette_iou(drawn.alpha, wanted.alpha)
    return float(psnr(drawn.rgb, wanted.images).mean()), float(iou.mean()), drawn.rgb


def save_rows(rows: list[Tensor], path: Path) -> None:
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)
    Image.fromarray((picture.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--level", choices=("fast", "full"), default="fast")
    parser.add_argument("--start", choices=("hull", "carve", "auto"), default="hull")
    parser.add_argument("--out", type=Path, help="folder for pictures: withheld frames above, what was drawn below")
    options = parser.parse_args()
    table = Table("clip", "shape", "PSNR dB", "IoU", "s")
    for path in options.clips:
        clip = load_views(path, ViewOptions(rig="sv3d"))
        withheld = list(range(1, len(clip) - 1, 3))
        kept = [i for i in range(len(clip)) if i not in withheld]
        wanted = clip[withheld]
        rows = [wanted.images]
        for attempt in attempts(clip, kept, withheld, options.level, options.start):
            psnr_db, iou, drawn = judge(attempt, wanted)
            row = (path.stem, attempt.name, f"{psnr_db:.2f}", f"{iou:.4f}", f"{attempt.seconds:.0f}")
            print(*row, flush=True)
            table.add_row(*row)
            clay = replace(attempt.mesh, vertex_colors=None)
            rows += [drawn, render(clay, attempt.cameras, *wanted.images.shape[2:]).rgb]
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            save_rows(rows, options.out / f"{path.stem}.png")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
