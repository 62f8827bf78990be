"""Colours of points in space: a model's, or those of a mesh's surface carried on."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.mesh import Mesh
from meshwright.raster import sample_texture

ColorField = Callable[[Tensor], Tensor]
"""Colours (sRGB) of points in the world, both (points, 3)."""

_SURFACE_SAMPLES = 400_000  # points of a mesh that stand for its colours
_POINTS_AT_ONCE = 1 << 18  # of one call of a field


@torch.no_grad()
def query_colors(field: ColorField | None, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """A field's colours in bounded memory, without gradients; grey without a field."""
    if field is None:
        return torch.full_like(points, 0.5)
    return torch.cat([field(part) for part in points.split(_POINTS_AT_ONCE)])


def surface_field(mesh: Mesh) -> ColorField | None:
    """The colours of a mesh's surface, carried on into space from the nearest point; None if it has none."""
    if not mesh.has_colors:
        return None
    from scipy.spatial import cKDTree

    points, face, weights = mesh.sample_surface(_SURFACE_SAMPLES)
    if mesh.texture is not None:
        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        colors = sample_texture(mesh.texture, (mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1))
    else:
        assert mesh.vertex_colors is not None
        colors = (mesh.vertex_colors[mesh.faces[face]] * weights[:, :, None]).sum(1)
    tree = cKDTree(points.cpu().numpy())
    return lambda points: colors[torch.from_numpy(tree.query(points.cpu().numpy())[1]).to(colors.device)]
