"""Whether a point of the surface is what a view shows there."""

from jaxtyping import Float
from torch import Tensor

LEAST_COS = 0.1
"""Surface is never counted as steeper than this cosine with the line of sight: nobody can tell depths there."""


def depth_tolerance(
    depth_z: Float[Tensor, " points"],
    cos: Float[Tensor, " points"],
    focal_px: Float[Tensor, ""] | Float[Tensor, " points"],
) -> Float[Tensor, " points"]:
    """How far depths one pixel side apart differ on a smooth surface, in world units; for depth maps' comparisons.

    ``cos``: between the surface's normal and the line of sight. ``focal_px``: focal length in pixels of the depth map.
    One pixel side at that depth, and as much again as the surface recedes over it.
    """
    slope = (1 - cos * cos).clamp(min=0).sqrt() / cos.clamp(min=LEAST_COS)
    return depth_z / focal_px * (1 + slope)
