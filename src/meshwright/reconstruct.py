"""The road: posed pictures in, a coloured mesh out, readable top to bottom."""

from typing import Literal

import torch

from meshwright.device import resolve_device
from meshwright.hull import hull_mesh
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.texture import color_vertices
from meshwright.views import Views


def reconstruct(
    views: Views,
    *,
    resolution: int = 128,
    surface: Literal["flexicubes", "marching-cubes"] = "flexicubes",
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Mesh:
    """Turn posed pictures of one object into a coloured mesh, in the world frame of ``views.cameras``.

    The shape is the visual hull of the silhouettes on a grid of ``resolution`` cells along its longest side;
    the colours are the pictures', seen where each vertex is seen best. The mesh comes back on the CPU.

    Raises:
        InputError: the views see nothing, contradict each other wholly, or ``device`` is not present.
    """
    views = views.to(resolve_device(device))
    mesh = hull_mesh(views, resolution=resolution, surface=surface, progress=progress)
    mesh = color_vertices(mesh, views, progress=progress)
    return mesh.to("cpu")
