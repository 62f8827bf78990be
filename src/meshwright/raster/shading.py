"""What a pixel shows, given the face it sees."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from meshwright.raster import kernels
from meshwright.raster.coverage import Fragments


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
) -> Float[Tensor, "views height width channels"]:
    """Perspective-correct attributes in every pixel, 0 where nothing is seen.

    ``faces`` says which attribute each face corner has: a mesh's ``faces`` for values at vertices, its ``uv_faces``
    for ``uv``. Differentiable with respect to the attributes and, through the fragments, vertices and cameras.
    """
    interpolate_there = _interpolate_cpu if attributes.device.type == "cpu" else _interpolate_torch
    return interpolate_there(fragments, faces, attributes)


def _interpolate_torch(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
) -> Float[Tensor, "views height width channels"]:
    seen = (fragments.face_ids >= 0).nonzero(as_tuple=True)
    corners = attributes[faces[fragments.face_ids[seen]]]
    values = (fragments.barycentrics[seen][:, :, None] * corners).sum(1)
    return values.new_zeros(*fragments.face_ids.shape, attributes.shape[1]).index_put(seen, values)


def _interpolate_cpu(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "points channels"]
) -> Float[Tensor, "views height width channels"]:
    return _InterpolateCpu.apply(fragments.face_ids, fragments.barycentrics, faces, attributes.float())


class _InterpolateCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_ids: Tensor, weights: Tensor, faces: Tensor, attributes: Tensor) -> Tensor:
        attributes = attributes.contiguous()
        ctx.save_for_backward(face_ids, weights, attributes)
        ctx.faces = kernels.trusted(faces, len(attributes))
        out = torch.empty(*face_ids.shape, attributes.shape[1])
        kernels.over_points(
            kernels.interpolate,
            face_ids.numel(),
            face_ids.flatten().numpy(),
            weights.view(-1, 3).numpy(),
            ctx.faces,
            attributes.numpy(),
            out.view(-1, out.shape[3]).numpy(),
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[None, Tensor, None, Tensor]:
        face_ids, weights, attributes = ctx.saved_tensors
        grad_weights = torch.empty_like(weights)
        grad_attributes = kernels.summed_over_points(
            kernels.interpolate_backward,
            tuple(attributes.shape),
            face_ids.numel(),
            face_ids.flatten().numpy(),
            weights.view(-1, 3).numpy(),
            ctx.faces,
            attributes.numpy(),
            grad_out.contiguous().view(-1, attributes.shape[1]).numpy(),
            grad_weights.view(-1, 3).numpy(),
        )
        return None, grad_weights, None, torch.from_numpy(grad_attributes)
