"""The road: posed pictures in, a coloured mesh out, readable top to bottom."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.device import resolve_device
from meshwright.errors import InputError
from meshwright.hull import hull_mesh
from meshwright.images import resize
from meshwright.mesh import Mesh
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.progress import Progress, silent
from meshwright.texture import color_vertices
from meshwright.views import Views

_MODEL_PICTURE_PX = 320  # the size the published weights were trained on


def reconstruct(
    views: Views,
    *,
    model: InstantNeRF | InstantMesh | None = None,
    resolution: int = 128,
    surface: Literal["flexicubes", "marching-cubes"] = "flexicubes",
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> Mesh:
    """Turn posed pictures of one object into a coloured mesh, in the world frame of ``views.cameras``.

    Without a model the shape is the visual hull of the silhouettes on a grid of about ``resolution`` cubed cells
    that fits the object, and the colours are the pictures', seen where each vertex is seen best. A model (see
    `meshwright.weights.load_model`) gives shape and colours by its own, on its own grid. The mesh comes back on the
    CPU.

    Raises:
        InputError: the views see nothing, contradict each other wholly, or ``device`` is not present.
    """
    views = views.to(resolve_device(device))
    if model is None:
        mesh = hull_mesh(views, resolution=resolution, surface=surface, progress=progress)
        mesh = color_vertices(mesh, views, progress=progress)
    else:
        mesh = model_mesh(model.to(views.images.device), views, surface, progress)
    return mesh.to("cpu")


@torch.no_grad()
def model_mesh(
    model: InstantNeRF | InstantMesh,
    views: Views,
    surface: Literal["flexicubes", "marching-cubes"] = "flexicubes",
    progress: Progress = silent,
) -> Mesh:
    """What the model sees in the views, with the colours of its colour head; model and views on one device.

    Raises:
        InputError: the density of a NeRF model nowhere reaches its threshold.
    """
    images, embedding = _model_input(views)
    triplane = model.planes(images[None], embedding[None], progress)
    progress("mesh", 0.0)
    if isinstance(model, InstantMesh):
        method: Literal["flexicubes", "marching_cubes"] = "flexicubes" if surface == "flexicubes" else "marching_cubes"
        (mesh,) = model.extract_mesh(triplane, method)
    else:
        (mesh,) = model.extract_mesh(triplane)
    if len(mesh.faces) == 0:
        raise InputError(
            "the model sees no object in these views; check the pictures and their cameras, or use --model none"
        )
    progress("mesh", 1.0)
    return mesh


def _model_input(views: Views) -> tuple[Float[Tensor, "views 3 side side"], Float[Tensor, "views 16"]]:
    """Square pictures of the size the model knows, and the cameras of these squares, as the model reads them."""
    height, width = views.images.shape[2:]
    side = max(height, width)
    squares = torch.nn.functional.pad(views.images, (0, side - width, 0, side - height), value=1.0)
    embedding = views.cameras.embedding()
    # Intrinsics count in picture widths and heights, and the square is wider or higher than the picture was.
    stretch = torch.tensor([width / side, height / side] * 2).to(embedding)
    embedding = torch.cat([embedding[:, :12], embedding[:, 12:] * stretch], dim=1)
    return resize(squares, _MODEL_PICTURE_PX, _MODEL_PICTURE_PX), embedding
