"""Texture coordinates for a mesh that has none."""

import numpy as np
import torch

from meshwright.color.atlas.charts import find_charts
from meshwright.color.atlas.packing import pack, turn_upright
from meshwright.errors import InputError
from meshwright.mesh import Mesh


def unwrap(mesh: Mesh, texture_px: int = 2048, gutter_px: int = 8) -> Mesh:
    """The mesh with ``uv`` for a square texture of ``texture_px`` pixels, and no texture yet.

    Charts are parallel projections of connected, nearly flat regions, to one scale (a texel is the same length
    everywhere, up to the projection's shrinking), none mirrored, ``gutter_px`` apart. No chart overlaps itself, as far
    as two million samples can tell. Faces that use a vertex twice, and second copies of a face, are left out; all
    others, degenerate ones too, keep their order.

    Raises:
        InputError: the mesh has no area, or falls into too many pieces for the texture.
    """
    mesh = _without_copies(mesh)
    vertices, faces = mesh.vertices.detach().cpu().double().numpy(), mesh.faces.cpu().numpy()
    if len(faces) == 0 or float(mesh.area()) == 0:
        raise InputError("the mesh has no area, so there is nothing to put a texture on; check the pictures' alpha")
    charts, corners = find_charts(vertices, faces)
    corners, sizes = turn_upright(corners, charts)
    scale, places = pack(sizes, texture_px, gutter_px)
    uv = (corners * scale + places[charts, None]) / texture_px
    # A vertex has one uv in each chart that it belongs to.
    _, first, uv_faces = np.unique(charts[:, None] * len(vertices) + faces, return_index=True, return_inverse=True)
    return mesh.replace(
        uv=torch.from_numpy(uv.reshape(-1, 2)[first]).to(mesh.vertices),
        uv_faces=torch.from_numpy(uv_faces.reshape(-1, 3)).to(mesh.faces),
        texture=None,
    )


def _without_copies(mesh: Mesh) -> Mesh:
    """Without faces that use a vertex twice and all but the first of faces with the same corners, either way round."""
    ordered = mesh.faces.sort(dim=1).values
    _, inverse = torch.unique(ordered, dim=0, return_inverse=True)
    numbers = torch.arange(len(inverse), device=inverse.device)
    first = torch.full_like(numbers, len(inverse)).scatter_reduce(0, inverse, numbers, "amin")
    keep = (first[inverse] == numbers) & (ordered[:, 1:] != ordered[:, :-1]).all(dim=1)
    return mesh if bool(keep.all()) else mesh.keep_faces(keep)
