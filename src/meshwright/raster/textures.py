"""Texture lookup: bilinear within a level, linear between mip levels (Williams 1983, "Pyramidal parametrics")."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from meshwright.raster import kernels
from meshwright.raster.coverage import Fragments


def mip_levels(
    fragments: Fragments,
    faces: Int[Tensor, "faces 3"],
    uv: Float[Tensor, "uv_points 2"],
    uv_faces: Int[Tensor, "faces 3"],
    texture_height: int,
    texture_width: int,
) -> Float[Tensor, "views height width"]:
    """log2 of how many texels a pixel's step spans, along the picture axis where it spans more; 0 where nothing is.

    Negative where the texture is magnified. Carries no gradient.
    """
    find = _mip_levels_cpu if uv.device.type == "cpu" else _mip_levels_torch
    with torch.no_grad():
        return find(fragments, faces, uv, uv_faces, (texture_width, texture_height))


def _mip_levels_cpu(
    fragments: Fragments,
    faces: Int[Tensor, "faces 3"],
    uv: Float[Tensor, "uv_points 2"],
    uv_faces: Int[Tensor, "faces 3"],
    size: tuple[int, int],
) -> Float[Tensor, "views height width"]:
    out = torch.empty_like(fragments.depth_z)
    kernels.over_rows(
        kernels.mip_levels,
        *out.shape[:2],
        fragments.projected.detach().numpy(),
        kernels.trusted(faces, fragments.projected.shape[1]),
        fragments.face_ids.numpy(),
        fragments.barycentrics.detach().numpy(),
        uv.detach().contiguous().numpy(),
        kernels.trusted(uv_faces, len(uv)),
        size,
        out.numpy(),
    )
    return out


def _mip_levels_torch(
    fragments: Fragments,
    faces: Int[Tensor, "faces 3"],
    uv: Float[Tensor, "uv_points 2"],
    uv_faces: Int[Tensor, "faces 3"],
    size: tuple[int, int],
) -> Float[Tensor, "views height width"]:
    view, row, col = seen = (fragments.face_ids >= 0).nonzero(as_tuple=True)
    face = fragments.face_ids[seen]
    corners = fragments.projected[view[:, None], faces[face]]
    centre = torch.stack([col + 0.5, row + 0.5], dim=1).to(corners)
    steps = _barycentric_steps(corners, fragments.barycentrics[seen].to(corners), centre)
    texels = uv[uv_faces[face]].to(corners) * torch.tensor(size).to(corners)
    squared = torch.einsum("nca,nct->nat", steps, texels).square().sum(2).amax(1)
    levels = 0.5 * squared.clamp(min=1e-20).log2().float()
    return levels.new_zeros(fragments.face_ids.shape).index_put(seen, levels)


def _barycentric_steps(
    corners: Float[Tensor, "pixels 3 3"], weights: Float[Tensor, "pixels 3"], centre: Float[Tensor, "pixels 2"]
) -> Float[Tensor, "pixels 3 2"]:
    """How perspective-correct barycentric coordinates change per pixel to the right and down."""
    z = corners[:, :, 2:]
    xy = corners[:, :, :2] - centre[:, None, :] * z
    following, last = xy.roll(-1, 1), xy.roll(-2, 1)
    z_following, z_last = z.roll(-1, 1), z.roll(-2, 1)
    edges = following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]
    # d/dx and d/dy of the edge functions: every xy moves by -z per pixel.
    turned = torch.stack(
        [
            z_last * following[..., 1:] - z_following * last[..., 1:],
            z_following * last[..., :1] - z_last * following[..., :1],
        ],
        dim=2,
    ).squeeze(3)
    total = edges.sum(1)[:, None, None]
    total = torch.where(total == 0, 1.0, total)
    return (turned - weights[:, :, None] * turned.sum(1, keepdim=True)) / total


def sample_texture(
    texture: Float[Tensor, "channels texture_height texture_width"],
    uv: Float[Tensor, "points 2"],
    levels: Float[Tensor, " points"] | None = None,
    repeat: bool = False,
    smallest_mip_px: int = 64,
) -> Float[Tensor, "points channels"]:
    """Texture at ``uv`` (v upwards from the bottom row, as in Mesh).

    ``levels`` (see `mip_levels`) chooses among ever coarser copies of the texture, None the texture itself. No copy
    has a side below ``smallest_mip_px``: textures no larger than that, such as palettes, are never averaged.
    Outside [0, 1] the texture repeats, or its border goes on. Differentiable with respect to texture and uv.
    """
    if levels is None:
        return MipMaps([texture]).sample(uv, uv.new_zeros(len(uv)), repeat)
    return MipMaps.of(texture, smallest_mip_px).sample(uv, levels, repeat)


class MipMaps:
    """A texture and its ever coarser copies, made once and sampled often."""

    def __init__(self, pictures: list[Float[Tensor, "channels _ _"]]) -> None:
        self._pictures = pictures
        self._sizes_px = [tuple(picture.shape[1:]) for picture in pictures]
        on_cpu = pictures[0].device.type == "cpu"
        # The compiled loop wants one row of channels a texel.
        self._texels = torch.cat([p.flatten(1) for p in pictures], dim=1).T.float().contiguous() if on_cpu else None

    @classmethod
    def of(cls, texture: Float[Tensor, "channels texture_height texture_width"], smallest_px: int = 64) -> "MipMaps":
        """Each copy half the size of the last, none with a side below ``smallest_px``."""
        pictures = [texture]
        while min(pictures[-1].shape[1:]) // 2 >= smallest_px:
            half = (pictures[-1].shape[1] // 2, pictures[-1].shape[2] // 2)
            pictures.append(torch.nn.functional.adaptive_avg_pool2d(pictures[-1], half))
        return cls(pictures)

    def sample(
        self, uv: Float[Tensor, "points 2"], levels: Float[Tensor, " points"], repeat: bool = False
    ) -> Float[Tensor, "points channels"]:
        """As `sample_texture`."""
        if self._texels is None:
            return _sample_torch(self._pictures, uv, levels, repeat)
        return _SampleCpu.apply(self._texels, self._sizes_px, uv.float(), levels.float(), repeat)


class _SampleCpu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, texels: Tensor, sizes_px: list[tuple[int, int]], uv: Tensor, levels: Tensor, repeat: bool
    ) -> Tensor:
        uv, levels = uv.contiguous(), levels.contiguous()
        sizes = np.array(sizes_px, dtype=np.int64)
        offsets = np.concatenate([[0], sizes.prod(1).cumsum()[:-1]])
        ctx.sizes, ctx.repeat = np.concatenate([sizes, offsets[:, None]], axis=1), repeat
        ctx.save_for_backward(texels, uv, levels)
        out = torch.empty(len(uv), texels.shape[1])
        arrays = (texels.numpy(), ctx.sizes, repeat, uv.numpy(), levels.numpy(), out.numpy())
        kernels.over_points(kernels.sample_texture, len(uv), *arrays)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        texels, uv, levels = ctx.saved_tensors
        lookup = (ctx.sizes, ctx.repeat, uv.numpy(), levels.numpy(), grad_out.contiguous().numpy())
        grad_texels = grad_uv = None
        if ctx.needs_input_grad[0]:
            grad_texels = torch.zeros_like(texels)
            kernels.sample_texture_grad_texels(*lookup, grad_texels.numpy())
        if ctx.needs_input_grad[2]:
            grad_uv = torch.empty_like(uv)
            kernels.over_points(kernels.sample_texture_grad_uv, len(uv), texels.numpy(), *lookup, grad_uv.numpy())
        return grad_texels, None, grad_uv, None, None


def _sample_torch(
    pyramid: list[Tensor], uv: Float[Tensor, "points 2"], levels: Float[Tensor, " points"], repeat: bool
) -> Float[Tensor, "points channels"]:
    levels = levels.nan_to_num(0.0).clamp(0, len(pyramid) - 1)
    out = uv.new_zeros(len(uv), len(pyramid[0]))
    for number, picture in enumerate(pyramid):
        weight = (1 - (levels - number).abs()).clamp(min=0)
        used = (weight > 0).nonzero().squeeze(1)
        out = out.index_add(0, used, weight[used, None] * _bilinear(picture, uv[used], repeat))
    return out


def _bilinear(
    texture: Float[Tensor, "channels texture_height texture_width"], uv: Float[Tensor, "points 2"], repeat: bool
) -> Float[Tensor, "points channels"]:
    channels, height, width = texture.shape
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    col, row = x.detach().floor(), y.detach().floor()
    right, down = (x - col)[:, None], (y - row)[:, None]
    col, row = col.long(), row.long()
    texels = texture.reshape(channels, -1).T

    def texel(row: Tensor, col: Tensor) -> Tensor:
        if repeat:
            return texels[row % height * width + col % width]
        return texels[row.clamp(0, height - 1) * width + col.clamp(0, width - 1)]

    above = torch.lerp(texel(row, col), texel(row, col + 1), right)
    below = torch.lerp(texel(row + 1, col), texel(row + 1, col + 1), right)
    return torch.lerp(above, below, down)
