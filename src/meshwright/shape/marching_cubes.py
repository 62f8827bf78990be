"""Marching cubes (Lorensen and Cline 1987) by PyMCubes: the plain surface of a field, without gradients."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.mesh import Mesh


def marching_cubes(
    values: Float[Tensor, "x y z"], level: float = 0.0, scale: float | tuple[float, float, float] = 2.0
) -> Mesh:
    """The surface where ``values`` are ``level``, not differentiable; inside is where values are below ``level``.

    The samples fill a box of side ``scale`` around the origin, borders included.  Faces look outward (a density
    is passed negated, with its level).  Open where the surface leaves the box.
    """
    import mcubes

    # PyMCubes turns its faces away from high values.
    vertices, faces = mcubes.marching_cubes(-values.detach().cpu().numpy(), -level)
    last = np.array(values.shape) - 1
    vertices = (vertices / last - 0.5) * np.array(scale)
    return Mesh(
        torch.from_numpy(vertices).float().to(values.device),
        torch.from_numpy(faces.astype(np.int64)).to(values.device),
    )
