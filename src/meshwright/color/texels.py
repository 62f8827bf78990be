"""Texels of an unwrapped mesh: where on the surface each lies."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import rasterize


@dataclass(frozen=True, eq=False)
class Texels:
    """The texels whose centre lies on the surface: their faces and barycentric coordinates there.

    ``nearest``: for every texel of the texture the number of the nearest one on the surface, itself if it is one.
    """

    face: Int[Tensor, " texels"]
    weights: Float[Tensor, "texels 3"]
    nearest: Int[Tensor, "texture_height texture_width"]

    @classmethod
    def of(cls, mesh: Mesh, size_px: int) -> "Texels":
        from scipy.ndimage import distance_transform_edt

        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        # A camera one unit before the plane z = -1 whose picture is the texture: u to the right, v upwards.
        flat = torch.cat([mesh.uv, -torch.ones_like(mesh.uv[:, :1])], dim=1)
        camera = Cameras(torch.eye(4).to(flat)[None], torch.tensor([[1.0, 1.0, 0.0, 1.0]]).to(flat))
        fragments = rasterize(flat, mesh.uv_faces, camera, size_px, size_px)
        face, weights = fragments.face_ids[0], fragments.barycentrics[0]
        # A face too small to cover any texel's centre gets the one that its own centre is in.
        missed = torch.ones(len(mesh.faces), dtype=torch.bool, device=face.device)
        missed[face[face >= 0]] = False
        missed = missed.nonzero()[:, 0]
        column, row = (mesh.uv[mesh.uv_faces[missed]].mean(1) * size_px).long().clamp(0, size_px - 1).unbind(1)
        row = size_px - 1 - row
        free = face[row, column] < 0
        face[row[free], column[free]] = missed[free]
        weights[row[free], column[free]] = 1 / 3
        on_surface = face >= 0
        number = (on_surface.flatten().cumsum(0) - 1).view_as(face)
        row, column = distance_transform_edt(~on_surface.cpu().numpy(), return_distances=False, return_indices=True)
        nearest = number[torch.from_numpy(row).to(face.device).long(), torch.from_numpy(column).to(face.device).long()]
        return cls(face[on_surface], weights[on_surface], nearest)

    def interpolate(
        self, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
    ) -> Float[Tensor, "texels channels"]:
        corner_of_texel = faces[self.face]
        return sum(self.weights[:, k : k + 1] * attributes[corner_of_texel[:, k]] for k in range(3))  # type: ignore[return-value]

    def texture(self, values: Float[Tensor, "texels 3"]) -> Float[Tensor, "3 texture_height texture_width"]:
        """The picture of these values, the gutters filled from their nearest texels. Differentiable."""
        return values.index_select(0, self.nearest.flatten()).T.view(3, *self.nearest.shape)
