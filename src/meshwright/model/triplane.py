"""Triplane: image tokens -> three feature planes, and sampling them at points and on grids.

The transformer is that of LRM (Hong et al. 2023, arXiv 2311.04400, section 3.2) as InstantMesh uses it; triplanes are
from Chan et al. 2022 (arXiv 2112.07945). Plane 0 lies in (x, y), plane 1 in (x, z), plane 2 in (z, y): the first
named coordinate runs along picture columns, the second along rows. Texel centres are at (2 i + 1) / size - 1; between
them features are bilinear, beyond the outermost they fade to zero within one texel.

The features of a point are the samples of the three planes, one after the other, and a linear layer is what reads them
first. Both are linear, so they swap: `project_planes` pushes the planes through the layer once, and what is left for a
point is the sum of three samples. On a grid even that falls apart: plane 0 gives the same for all z, and so on, so a
`GridMaps` of three pictures holds the whole grid.

Submodules bear the names of the published checkpoints.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meshwright.compiled import compiled
from meshwright.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Triplane:
    """Feature planes that span [-1, 1]^3 of the world, one set of three an object."""

    planes: Float[Tensor, "batch 3 channels size size"]

    def __len__(self) -> int:
        return self.planes.shape[0]


class TriplaneTransformer(nn.Module):
    """Learned plane tokens that attend to the image tokens, then to each other."""

    def __init__(
        self, dim: int, layers: int, heads: int, image_channels: int, low_res: int, plane_channels: int
    ) -> None:
        """``low_res``: plane tokens along a side; the planes have twice as many texels."""
        super().__init__()
        self.low_res = low_res
        self.pos_embed = nn.Parameter(torch.empty(1, 3 * low_res**2, dim))
        if not self.pos_embed.is_meta:  # there, normal_ would draw nothing but import half of torch for seconds
            nn.init.normal_(self.pos_embed, std=dim**-0.5)
        self.layers = nn.ModuleList([_Block(dim, heads, image_channels) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.deconv = nn.ConvTranspose2d(dim, plane_channels, kernel_size=2, stride=2)

    def forward(
        self,
        image_tokens: Float[Tensor, "batch tokens image_channels"],
        progress: Progress = silent,
        recompute: bool = False,
    ) -> Triplane:
        """``image_tokens``: those of all views of an object, in any number and order. The planes are float32.

        ``recompute``: as for the encoder.
        """
        x = self.pos_embed.expand(len(image_tokens), -1, -1)
        for number, layer in enumerate(self.layers, start=1):
            x = checkpoint(layer, x, image_tokens, use_reentrant=False) if recompute else layer(x, image_tokens)
            progress("planes", number / len(self.layers))
        x = self.norm(x).unflatten(1, (3, self.low_res, self.low_res))
        planes = self.deconv(x.flatten(0, 1).permute(0, 3, 1, 2))
        return Triplane(planes.unflatten(0, (len(image_tokens), 3)).float())


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, image_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = _CrossAttention(dim, heads, image_channels)
        self.norm2 = nn.LayerNorm(dim)
        self.self_attn = _SelfAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        # The published names are mlp.0 and mlp.3: dropouts of no effect stood between.
        self.mlp = nn.ModuleDict({"0": nn.Linear(dim, 4 * dim), "3": nn.Linear(4 * dim, dim)})

    def forward(
        self,
        x: Float[Tensor, "batch plane_tokens channels"],
        image_tokens: Float[Tensor, "batch tokens image_channels"],
    ) -> Float[Tensor, "batch plane_tokens channels"]:
        x = x + self.cross_attn(self.norm1(x), image_tokens)
        x = x + self.self_attn(self.norm2(x))
        return x + self.mlp["3"](F.gelu(self.mlp["0"](self.norm3(x))))


class _CrossAttention(nn.Module):
    """Attention from plane tokens to image tokens, without biases."""

    def __init__(self, dim: int, heads: int, image_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj_weight = _projection(dim, dim)
        self.k_proj_weight = _projection(dim, image_channels)
        self.v_proj_weight = _projection(dim, image_channels)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch plane_tokens channels"],
        image_tokens: Float[Tensor, "batch tokens image_channels"],
    ) -> Float[Tensor, "batch plane_tokens channels"]:
        query = F.linear(x, self.q_proj_weight)
        key = F.linear(image_tokens, self.k_proj_weight)
        value = F.linear(image_tokens, self.v_proj_weight)
        return self.out_proj(_attend(query, key, value, self.heads))


class _SelfAttention(nn.Module):
    """Attention of plane tokens to each other, without biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = _projection(3 * dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch tokens channels"]:
        query, key, value = F.linear(x, self.in_proj_weight).chunk(3, dim=2)
        return self.out_proj(_attend(query, key, value, self.heads))


def _projection(out_channels: int, in_channels: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(out_channels, in_channels)))


def _attend(
    query: Float[Tensor, "batch queries channels"],
    key: Float[Tensor, "batch tokens channels"],
    value: Float[Tensor, "batch tokens channels"],
    heads: int,
) -> Float[Tensor, "batch queries channels"]:
    query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


# --- sampling ---------------------------------------------------------------------------------------------------


def project_planes(
    planes: Float[Tensor, "3 channels size size"], weight: Float[Tensor, "out features"]
) -> Float[Tensor, "3 size size out"]:
    """Planes after a linear layer (without bias) whose input is the samples of plane 0, 1 and 2, one after the other.

    The sum of the samples of the result is what the layer makes of the three samples.
    """
    return torch.einsum("pchw,opc->phwo", planes, weight.unflatten(1, (3, -1)))


class PlaneSampler:
    """Bilinear samples of three planes, summed, at any points of the world; differentiable in planes and points."""

    def __init__(self, planes: Float[Tensor, "3 size size channels"]) -> None:
        self._size = planes.shape[1]
        # A border of zeros is the fade beyond the outermost texels, and spares every test for bounds.
        self._texels = F.pad(planes, (0, 0, 1, 1, 1, 1)).flatten(0, 2)

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points channels"]:
        if points.device.type == "cpu" and not points.requires_grad:
            texels, shares = self._compiled_taps(points)
        else:
            texels, shares = self._taps(points)
        # An embedding bag is a weighted sum of table rows: the whole gather in one pass over memory.
        return F.embedding_bag(texels, self._texels, per_sample_weights=shares.to(self._texels.dtype), mode="sum")

    def _taps(self, points: Float[Tensor, "points 3"]) -> tuple[Int[Tensor, "points 12"], Float[Tensor, "points 12"]]:
        """The four texels around each point in each plane, and their bilinear shares."""
        size, stride = self._size, self._size + 2
        place = (((points.T + 1) * size - 1) / 2).clamp(-1, size)
        low = place.detach().floor().long().clamp(-1, size - 1)
        high_share = place - low
        share = torch.stack([1 - high_share, high_share])
        columns, rows = low[_COLUMN_AXIS] + 1, low[_ROW_AXIS] + 1
        plane = torch.arange(3, device=points.device)[:, None]
        first = (plane * stride + rows) * stride + columns
        offsets = torch.tensor([0, 1, stride, stride + 1], device=points.device)
        shares = share[:, None, _ROW_AXIS] * share[None, :, _COLUMN_AXIS]
        return (first.T[:, :, None] + offsets).flatten(1), shares.permute(3, 2, 0, 1).flatten(1)

    def _compiled_taps(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Int[Tensor, "points 12"], Float[Tensor, "points 12"]]:
        """``_taps`` in one pass: tensor operations spend most of a lookup on copies of 24 numbers a point."""
        texels, shares = torch.empty(len(points), 12, dtype=torch.int64), points.new_empty(len(points), 12)
        _fill_taps(points.T.contiguous().numpy(), self._size, texels.numpy(), shares.numpy())
        return texels, shares


@compiled
@no_type_check
def _fill_taps(xyz, size, texels, shares):
    stride = size + 2
    for i in range(xyz.shape[1]):
        for plane in range(3):
            column, right = _texel_below(xyz[_COLUMN_AXIS[plane], i], size)
            row, lower = _texel_below(xyz[_ROW_AXIS[plane], i], size)
            first, tap = (plane * stride + row) * stride + column, 4 * plane
            texels[i, tap], texels[i, tap + 1] = first, first + 1
            texels[i, tap + 2], texels[i, tap + 3] = first + stride, first + stride + 1
            left, upper = np.float32(1) - right, np.float32(1) - lower
            shares[i, tap], shares[i, tap + 1] = left * upper, right * upper
            shares[i, tap + 2], shares[i, tap + 3] = left * lower, right * lower


@compiled
@no_type_check
def _texel_below(coordinate, size):
    """Number of a coordinate's lower texel in the bordered plane, and the share of the one above it."""
    one, half, side = np.float32(1), np.float32(0.5), np.float32(size)  # a bare 1 or 0.5 would make it all float64
    place = min(max(((coordinate + one) * side - one) * half, -one), side)
    low = min(max(int(np.floor(place)), -1), size - 1)
    return low + 1, place - np.float32(low)


@dataclass(frozen=True, eq=False)
class GridMaps:
    """Three pictures, one a plane, on the axes of a grid: plane 0 in (x, y), plane 1 in (x, z), plane 2 in (y, z)."""

    xy: Float[Tensor, "x y channels"]
    xz: Float[Tensor, "x z channels"]
    yz: Float[Tensor, "y z channels"]

    @classmethod
    def sample(
        cls,
        planes: Float[Tensor, "3 channels size size"],
        axes: tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, " z"]],
    ) -> "GridMaps":
        """The planes resampled at a grid's coordinates: bilinear sampling is separable, a small matrix an axis."""
        texels = torch.arange(planes.shape[2], device=planes.device)
        x, y, z = ((1 - (((axis[:, None] + 1) * len(texels) - 1) / 2 - texels).abs()).clamp(min=0) for axis in axes)
        return cls(
            torch.einsum("xi,yic->xyc", x, torch.einsum("yj,cji->yic", y, planes[0])),
            torch.einsum("xi,zic->xzc", x, torch.einsum("zj,cji->zic", z, planes[1])),
            torch.einsum("zi,yic->yzc", z, torch.einsum("yj,cji->yic", y, planes[2])),
        )

    def project(self, weight: Float[Tensor, "out features"], bias: Float[Tensor, " out"]) -> "GridMaps":
        """Maps whose sum is what a linear layer makes of the three samples at a grid point, one after the other."""
        xy, xz, yz = weight.unflatten(1, (3, -1)).unbind(1)
        return GridMaps(F.linear(self.xy, xy, bias), F.linear(self.xz, xz), F.linear(self.yz, yz))

    def project_cubes(self, weight: Float[Tensor, "out features"], bias: Float[Tensor, " out"]) -> "GridMaps":
        """Maps over the grid's cubes whose sum is what a linear layer makes of the samples at all eight corners.

        Corners come one after the other, bit 0 of their number being +x, bit 1 +y, bit 2 +z. Two corners that differ
        only in z share their sample of plane 0, so their weights add; likewise for the other planes.
        """
        z_y_x = weight.unflatten(1, (2, 2, 2, 3, -1))
        xy, xz, yz = z_y_x[:, :, :, :, 0].sum(1), z_y_x[:, :, :, :, 1].sum(2), z_y_x[:, :, :, :, 2].sum(3)
        return GridMaps(
            F.linear(_corners(self.xy), xy.transpose(1, 2).flatten(1), bias),
            F.linear(_corners(self.xz), xz.transpose(1, 2).flatten(1)),
            F.linear(_corners(self.yz), yz.transpose(1, 2).flatten(1)),
        )

    def slab(self, start: int, stop: int) -> Float[Tensor, "slab y z channels"]:
        """Sums of the three maps at the grid points from ``start`` to ``stop`` along x."""
        total = self.xz[start:stop, None] + self.yz
        return total.add_(self.xy[start:stop, :, None])

    def at(self, index: Int[Tensor, "points 3"]) -> Float[Tensor, "points channels"]:
        """Sums of the three maps at chosen grid points."""
        i, j, k = index.unbind(1)
        return self.xy[i, j] + self.xz[i, k] + self.yz[j, k]


_COLUMN_AXIS, _ROW_AXIS = np.array([0, 0, 2]), np.array([1, 2, 1])  # of planes 0, 1, 2, as indices into (x, y, z)


def _corners(map_: Float[Tensor, "rows columns channels"]) -> Float[Tensor, "row_cells column_cells corners"]:
    """The four corners of each cell one after the other: (0, 0), (0, 1), (1, 0), (1, 1)."""
    return torch.cat([map_[:-1, :-1], map_[:-1, 1:], map_[1:, :-1], map_[1:, 1:]], dim=2)
