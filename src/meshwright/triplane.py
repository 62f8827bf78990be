"""Triplane: image tokens -> three feature planes, and sampling them at points.

The transformer is that of LRM (Hong et al. 2023, arXiv 2311.04400, section 3.2) as InstantMesh uses it; triplanes are
from Chan et al. 2022 (arXiv 2112.07945). Plane 0 lies in (x, y), plane 1 in (x, z), plane 2 in (z, y): the first
named coordinate runs along picture columns, the second along rows. Texel centres are at (2 i + 1) / size - 1.
Submodules bear the names of the published checkpoints.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PLANE_AXES = ((0, 1), (0, 2), (2, 1))  # world axes (x 0, y 1, z 2) along the columns and rows of each plane


@dataclass(frozen=True, eq=False)
class Triplane:
    """Feature planes that span [-1, 1]^3 of the world, one set of three an object."""

    planes: Float[Tensor, "batch 3 channels height width"]

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
        self.pos_embed = nn.Parameter(torch.randn(1, 3 * low_res**2, dim) * dim**-0.5)
        self.layers = nn.ModuleList([_Block(dim, heads, image_channels) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.deconv = nn.ConvTranspose2d(dim, plane_channels, kernel_size=2, stride=2)

    def forward(self, image_tokens: Float[Tensor, "batch tokens image_channels"]) -> Triplane:
        """``image_tokens``: those of all views of an object, in any number and order."""
        x = self.pos_embed.expand(len(image_tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, image_tokens)
        x = self.norm(x).unflatten(1, (3, self.low_res, self.low_res))
        planes = self.deconv(x.flatten(0, 1).permute(0, 3, 1, 2))
        return Triplane(planes.unflatten(0, (len(image_tokens), 3)))


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
