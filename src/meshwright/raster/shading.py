"""What a pixel shows, given the face it sees."""

from jaxtyping import Float, Int
from torch import Tensor

from meshwright.raster.coverage import Fragments


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
) -> Float[Tensor, "views height width channels"]:
    """Perspective-correct attributes in every pixel, 0 where nothing is seen.

    ``faces`` says which attribute each face corner has: a mesh's ``faces`` for values at vertices, its ``uv_faces``
    for ``uv``.
    """
    seen = (fragments.face_ids >= 0).nonzero(as_tuple=True)
    corners = attributes[faces[fragments.face_ids[seen]]]
    values = (fragments.barycentrics[seen][:, :, None].to(attributes) * corners).sum(1)
    out = attributes.new_zeros(*fragments.face_ids.shape, attributes.shape[1])
    return out.index_put(seen, values)
