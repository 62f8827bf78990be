"""What came out, to look at: preview.png and turntable.mp4."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.evaluate.scores import VIEWS_AT_ONCE, Scored, square_tile
from meshwright.images import write_video
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.raster import render


def preview(results: Sequence[Scored], columns: int = 7, most: int = 21) -> Float[Tensor, "3 height width"]:
    """Groups of rows: the input pictures, and right below each every result, seen by its own camera of that picture.

    More than ``most`` views are thinned out evenly.
    """
    views = results[0].views
    stacks = []
    for i in torch.linspace(0, len(views) - 1, min(len(views), most)).round().long().tolist():
        height, width = (int(side) for side in views.sizes_px[i])
        stacks.append([square_tile(views.images[i, :, :height, :width]), *(result.tiles[i] for result in results)])
    columns = min(columns, len(stacks))
    blank = torch.ones_like(stacks[0][0])
    stacks += [[blank] * len(stacks[0])] * (-len(stacks) % columns)
    rows = [
        torch.cat([stack[row] for stack in stacks[start : start + columns]], dim=2)
        for start in range(0, len(stacks), columns)
        for row in range(len(stacks[0]))
    ]
    return torch.cat(rows, dim=1)


def turntable(
    mesh: Mesh, path: str | os.PathLike[str], frames: int = 90, size_px: int = 384, progress: Progress = silent
) -> None:
    """Write an mp4 of the mesh turning once, seen from 15 degrees above its middle."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    fov_deg = 30.0
    # The bounding sphere touches the picture's edge at this distance; a little more leaves a margin.
    radius = 1.1 * float((high - low).norm()) / 2 / float(np.sin(np.radians(fov_deg / 2)))
    cameras = Cameras.orbit(frames, 15.0, radius, fov_deg)
    T_world_camera = cameras.T_world_camera.clone()
    T_world_camera[:, :3, 3] += (low + high).cpu() / 2
    cameras = Cameras(T_world_camera, cameras.intrinsics)

    def pictures() -> Iterator[Float[Tensor, "3 height width"]]:
        for start in range(0, frames, VIEWS_AT_ONCE):
            yield from render(mesh, cameras[start : start + VIEWS_AT_ONCE], size_px, size_px).rgb
            progress("turntable", min(1.0, (start + VIEWS_AT_ONCE) / frames))

    write_video(pictures(), path, fps=30.0)
