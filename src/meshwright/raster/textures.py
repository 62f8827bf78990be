"""Texture lookup: bilinear within a level, linear between mip levels (Williams 1983, "Pyramidal parametrics")."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    with torch.no_grad():
        view, row, col = (fragments.face_ids >= 0).nonzero(as_tuple=True)
        face = fragments.face_ids[view, row, col]
        corners = fragments.projected[view[:, None], faces[face]].float()
        texels = uv[uv_faces[face]] * torch.tensor([texture_width, texture_height]).to(uv)
        weights = fragments.barycentrics[view, row, col]
        centre = torch.stack([col + 0.5, row + 0.5], dim=1).to(corners)
        steps = _barycentric_steps(corners, weights, centre)
        squared = torch.einsum("nca,nct->nat", steps, texels).square().sum(2).amax(1)
        out = uv.new_zeros(fragments.face_ids.shape)
        return out.index_put((view, row, col), 0.5 * squared.clamp(min=1e-20).log2())


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
    Outside [0, 1] the texture repeats, or its border goes on.
    """
    if levels is None:
        return _bilinear(texture, uv, repeat)
    pyramid = _pyramid(texture, smallest_mip_px)
    levels = levels.clamp(0, len(pyramid) - 1)
    out = texture.new_zeros(len(uv), len(texture))
    for number, picture in enumerate(pyramid):
        weight = (1 - (levels - number).abs()).clamp(min=0)
        used = (weight > 0).nonzero().squeeze(1)
        out = out.index_add(0, used, weight[used, None] * _bilinear(picture, uv[used], repeat))
    return out


def _pyramid(
    texture: Float[Tensor, "channels texture_height texture_width"], smallest_px: int
) -> list[Float[Tensor, "channels _ _"]]:
    pyramid = [texture]
    while min(pyramid[-1].shape[1:]) // 2 >= smallest_px:
        half = (pyramid[-1].shape[1] // 2, pyramid[-1].shape[2] // 2)
        pyramid.append(torch.nn.functional.adaptive_avg_pool2d(pyramid[-1], half))
    return pyramid


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
