"""A texture for a mesh, out of the pictures.

Once the pictures agree with each other (`meshwright.color.exposure`), each texel is taken from the view that sees it
best and no border between views shows: fine detail comes from one picture, the slow parts of the colour from all of
them (the two bands of Burt and Adelson 1983, "A multiresolution spline", on the surface instead of in the plane).
At last the texture is fitted to the pictures (`meshwright.color.texture_fit`).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from meshwright.color.atlas import unwrap
from meshwright.color.exposure import even_exposures
from meshwright.color.fields import ColorField, query_colors
from meshwright.color.texels import Texels
from meshwright.color.texture_fit import fit_texture
from meshwright.color.unseen import fill_unseen
from meshwright.color.visibility import SHARPNESS, VisibleSurface
from meshwright.mesh import Mesh, subdivide
from meshwright.options import ColorOptions
from meshwright.progress import Progress, silent
from meshwright.views import ObjectFrame, Views

_GUTTER_PX = 8
_FINE_FACES = 10_000  # what is found at vertices needs at least about that many


@torch.no_grad()
def bake_texture(
    mesh: Mesh,
    views: Views,
    *,
    texture_size_px: int = ColorOptions.texture_size_px,
    field: ColorField | None = None,
    optimise: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Mesh:
    """The mesh with ``uv``, a square ``texture`` (sRGB) taken from the views, and ``view_counts``; on its device.

    ``field``: colours (sRGB) of points where no view looks; without it they come over the surface from what is seen.
    ``optimise`` fits the texture to the pictures at the end if that clearly improves pixels kept apart, which ``seed``
    chooses. Mesh and views are on one device.

    Raises:
        InputError: the mesh has no area, or falls into too many pieces for the texture.
    """
    progress("atlas", 0.0)
    mesh = unwrap(mesh, texture_size_px, _GUTTER_PX)
    progress("atlas", 1.0)
    frame = ObjectFrame.of(views)
    normalized, views = frame.normalize_mesh(mesh), frame.normalize_views(views)
    fine = _refined(normalized)
    surfaces = even_exposures([VisibleSurface.of(normalized, views[[i]]) for i in range(len(views))], fine)
    texels = Texels.of(fine, texture_size_px)
    colors, view_counts = _blended(surfaces, texels, fine, _in_frame(field, frame), progress)
    if optimise:
        colors = fit_texture(colors, surfaces, texels, normalized, seed, progress)
    view_counts = view_counts[: len(mesh.vertices)]  # those of the finer mesh begin with them
    return mesh.replace(texture=texels.texture(colors.clamp(0, 1)), vertex_colors=None, view_counts=view_counts)


@torch.no_grad()
def bake_field(
    mesh: Mesh, field: ColorField, *, texture_size_px: int = ColorOptions.texture_size_px, progress: Progress = silent
) -> Mesh:
    """The mesh with ``uv`` and a square ``texture`` that shows a field's colours (sRGB) on its surface.

    Raises:
        InputError: the mesh has no area, or falls into too many pieces for the texture.
    """
    progress("atlas", 0.0)
    mesh = unwrap(mesh, texture_size_px, _GUTTER_PX)
    progress("atlas", 1.0)
    texels = Texels.of(mesh, texture_size_px)
    colors = query_colors(field, texels.interpolate(mesh.faces, mesh.vertices))
    progress("bake", 1.0)
    return mesh.replace(texture=texels.texture(colors.clamp(0, 1)), vertex_colors=None)


def _in_frame(field: ColorField | None, frame: ObjectFrame) -> ColorField | None:
    """A field of the world for points of the object's frame."""
    return None if field is None else lambda points: field(frame.restore_points(points))


def _refined(mesh: Mesh) -> Mesh:
    """The same surface with every face cut in four until its vertices are dense enough to carry slow colour."""
    assert mesh.uv is not None
    assert mesh.uv_faces is not None
    while len(mesh.faces) < _FINE_FACES:
        vertices, faces = subdivide(mesh.vertices, mesh.faces)
        uv, uv_faces = subdivide(mesh.uv, mesh.uv_faces)
        mesh = Mesh(vertices, faces, uv=uv, uv_faces=uv_faces)
    return mesh


def _blended(
    surfaces: list[VisibleSurface],
    texels: Texels,
    mesh: Mesh,
    field: ColorField | None,
    progress: Progress,
) -> tuple[Float[Tensor, "texels 3"], Int[Tensor, " vertices"]]:
    """Each texel from the views that see it best; the others from the field or from what is seen around them.

    Also how many views see each vertex.
    """
    vertex_normals = mesh.vertex_normals()
    points = texels.interpolate(mesh.faces, mesh.vertices)
    normals = normalize(texels.interpolate(mesh.faces, vertex_normals), dim=1)
    total, weight = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    at_vertices, weight_at_vertices = torch.zeros_like(mesh.vertices), torch.zeros_like(mesh.vertices[:, :1])
    view_counts = torch.zeros_like(mesh.vertices[:, 0], dtype=torch.long)
    for i, surface in enumerate(surfaces):
        towards = ((surface.view.cameras.positions - points) * normals).sum(1) > 0
        facing = towards.nonzero()[:, 0]
        colors, quality = surface.sample_view(points[facing], normals[facing])
        share = quality[:, None] ** SHARPNESS
        total.index_add_(0, facing, share * colors)
        weight.index_add_(0, facing, share)
        colors, quality = surface.sample_view(mesh.vertices, vertex_normals)
        at_vertices += quality[:, None] ** SHARPNESS * colors
        weight_at_vertices += quality[:, None] ** SHARPNESS
        view_counts += quality > 0
        progress("bake", (i + 1) / len(surfaces))
    known = at_vertices / weight_at_vertices.clamp(min=1e-30)
    filling = _filling(mesh, known, weight_at_vertices[:, 0] > 0, points, texels, field)
    return torch.where(weight > 0, total / weight.clamp(min=1e-30), filling), view_counts


def _filling(
    mesh: Mesh,
    known: Float[Tensor, "vertices 3"],
    seen: Bool[Tensor, " vertices"],
    points: Float[Tensor, "texels 3"],
    texels: Texels,
    field: ColorField | None,
) -> Float[Tensor, "texels 3"]:
    """Colours for texels that no view sees: the field's, moved towards what the views show around them.

    Without a field it is what is known at vertices, carried on over the surface.
    """
    at_vertices = query_colors(field, mesh.vertices)
    moved = fill_unseen(mesh, known, seen, at_vertices) - at_vertices
    return query_colors(field, points) + texels.interpolate(mesh.faces, moved)
