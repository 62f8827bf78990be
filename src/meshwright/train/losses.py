"""Loss terms of training: predicted against true pictures, all plain functions without weights of their own.

Each is a mean over the pixels of a view, then over views and objects, so that it does not matter to the result over how
many processes the objects of a batch are spread.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def color_error(
    rgb: Float[Tensor, "*views 3 height width"], target: Float[Tensor, "*views 3 height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of colours taken from [0, 1] to [-1, 1], which makes it four times that in [0, 1]."""
    return 4 * (rgb - target).square().mean()


def mask_error(
    alpha: Float[Tensor, "*views 1 height width"], target: Float[Tensor, "*views 1 height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of opacity."""
    return (alpha - target).square().mean()


def depth_error(
    depth_z: Float[Tensor, "*views 1 height width"],
    target: Float[Tensor, "*views 1 height width"],
    alpha: Float[Tensor, "*views 1 height width"],
) -> Float[Tensor, ""]:
    """Mean absolute error where the target's ``alpha`` is above 0, in world units; 0 for views without such pixels."""
    return _mean_where(alpha > 0, (depth_z - target).abs())


def normal_error(
    normals: Float[Tensor, "*views 3 height width"],
    target: Float[Tensor, "*views 3 height width"],
    alpha: Float[Tensor, "*views 1 height width"],
    unsigned: bool = False,
) -> Float[Tensor, ""]:
    """Mean of one minus the cosine between unit normals where ``alpha`` is above 0.

    ``unsigned`` takes the cosine's absolute value, as the published loss does: it does not see flipped faces.
    """
    cosine = (normals * target).sum(-3, keepdim=True)
    return _mean_where(alpha > 0, 1 - (cosine.abs() if unsigned else cosine))


def opacity_from_sdf(sdf: Float[Tensor, " points"], surface_density: float, length: float) -> Float[Tensor, " points"]:
    """Opacity of a stretch of ``length`` world units through a medium as dense as the sdf says.

    The density is that of the radiance field from which the sdf was started: softplus(surface_density - sdf - 1).
    """
    return -torch.expm1(-softplus(surface_density - sdf - 1) * length)


def _mean_where(kept: Tensor, values: Float[Tensor, "*views channels height width"]) -> Float[Tensor, ""]:
    kept = kept.to(values.dtype)
    per_view = (values * kept).sum(dim=(-3, -2, -1)) / kept.sum(dim=(-3, -2, -1)).clamp(min=1)
    return per_view.mean()
