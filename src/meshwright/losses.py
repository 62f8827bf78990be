"""What fitting a surface to pictures minimises."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from meshwright.mesh import Mesh


def charbonnier(squared: Float[Tensor, "*items"], scale: float) -> Float[Tensor, "*items"]:
    """Squares that grow only linearly beyond ``scale``: r^2 for small r, 2 scale |r| for large ones.

    Charbonnier et al. 1997, "Deterministic edge-preserving regularization in computed imaging", up to a factor.
    """
    return 2 * scale**2 * ((1 + squared / scale**2).sqrt() - 1)


def geman_mcclure_weight(error: Float[Tensor, "*items"], scale: float | Tensor) -> Float[Tensor, "*items"]:
    """How far to trust an item with this error: 1 at 0, 1/4 at ``scale``, then as scale^4 / error^4.

    The weights of iteratively reweighted least squares for Geman and McClure's error (1987).
    """
    return (1 + (error / scale).square()).pow(-2)


def silhouette_error(
    coverage: Float[Tensor, "views height width"],
    alpha: Float[Tensor, "views height width"],
    kept: Float[Tensor, "views height width"],
) -> Float[Tensor, " views"]:
    """Squared differences of coverages over the pixels ``kept`` (0 or 1), as a share of a silhouette's outline.

    Divided by the square root of its area in pixels, so that it is about the mean distance between the outlines in
    pixels and does not shrink where pixels do.
    """
    outline_px = (alpha * kept).sum(dim=(1, 2)).clamp(min=1).sqrt()
    return ((coverage - alpha).square() * kept).sum(dim=(1, 2)) / outline_px


def normal_roughness(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    pairs: Int[Tensor, "pairs 2"],
    scale: float,
) -> Float[Tensor, ""]:
    """Mean `charbonnier` of the difference between the normals of the neighbouring faces ``pairs``.

    Differences below ``scale`` are smoothed away, sharper creases are let be.
    """
    normals = normalize(Mesh(vertices, faces).face_normals(), dim=1)
    return charbonnier(
        (normals.index_select(0, pairs[:, 0]) - normals.index_select(0, pairs[:, 1])).square().sum(1), scale
    ).mean()


def sdf_entropy(sdf: Float[Tensor, "*batch x y z"]) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of each end of a grid edge against the sign of the other, where the signs differ.

    It pulls stray pieces of surface off the field (the regulariser of the published mesh model).
    0 when there is no such edge.
    """
    starts, ends = [], []
    for axis in (-3, -2, -1):
        cells = sdf.shape[axis] - 1
        start, end = sdf.narrow(axis, 0, cells), sdf.narrow(axis, 1, cells)
        differ = start.detach().sign() != end.detach().sign()
        starts.append(start[differ])
        ends.append(end[differ])
    start, end = torch.cat(starts), torch.cat(ends)
    total = binary_cross_entropy_with_logits(start, (end > 0).to(sdf), reduction="sum")
    total = total + binary_cross_entropy_with_logits(end, (start > 0).to(sdf), reduction="sum")
    return total / max(len(start), 1)
