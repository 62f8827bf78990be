"""Encoder: pictures and their cameras -> image tokens.

A vision transformer pretrained by DINO (Caron et al. 2021, arXiv 2104.14294) whose blocks are modulated by the camera,
as in InstantMesh (Xu et al. 2024, arXiv 2404.07191, section 3.2). Each picture is encoded on its own.
Submodules bear the names of the published checkpoints.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meshwright.progress import Progress, silent

CAMERA_NUMBERS = 16


class CameraViT(nn.Module):
    """Camera-modulated ViT: pictures to tokens, one CLS token and one a patch, row by row."""

    def __init__(
        self,
        hidden_size: int,
        layers: int,
        heads: int,
        mlp_size: int,
        table_side: int,
        patch_size: int,
        layer_norm_eps: float,
        image_mean: tuple[float, float, float],
        image_std: tuple[float, float, float],
    ) -> None:
        """``table_side``: patches along each side of the square table of position embeddings."""
        super().__init__()
        self.image_mean, self.image_std = image_mean, image_std
        self.model = _ViT(hidden_size, layers, heads, mlp_size, table_side, patch_size, layer_norm_eps)
        self.camera_embedder = nn.Sequential(
            nn.Linear(CAMERA_NUMBERS, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.blocks

    def forward(
        self,
        images: Float[Tensor, "views 3 height width"],
        cameras: Float[Tensor, "views 16"],
        progress: Progress = silent,
        recompute: bool = False,
    ) -> Float[Tensor, "views tokens channels"]:
        """Encode sRGB pictures in [0, 1] of any size from one patch on; ``cameras`` as in ``Cameras.embedding``.

        Rows and columns beyond the last whole patch are not seen. ``recompute``: evaluate each block again in the
        backward pass rather than keep what it computed.
        """
        mean, std = (images.new_tensor(value)[:, None, None] for value in (self.image_mean, self.image_std))
        return self.model((images - mean) / std, self.camera_embedder(cameras), progress, recompute)


class _ViT(nn.Module):
    def __init__(
        self,
        hidden_size: int,
        layers: int,
        heads: int,
        mlp_size: int,
        table_side: int,
        patch_size: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.embeddings = _Embeddings(hidden_size, table_side, patch_size)
        blocks = [_Block(hidden_size, heads, mlp_size, layer_norm_eps) for _ in range(layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})
        self.layernorm = nn.LayerNorm(hidden_size, layer_norm_eps)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.encoder["layer"]  # type: ignore[return-value]

    def forward(
        self,
        pixels: Float[Tensor, "views 3 height width"],
        camera: Float[Tensor, "views channels"],
        progress: Progress,
        recompute: bool,
    ) -> Float[Tensor, "views tokens channels"]:
        x = self.embeddings(pixels)
        for number, block in enumerate(self.blocks, start=1):
            x = checkpoint(block, x, camera, use_reentrant=False) if recompute else block(x, camera)
            progress("encoder", number / len(self.blocks))
        return self.layernorm(x)


class _Embeddings(nn.Module):
    def __init__(self, hidden_size: int, table_side: int, patch_size: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + table_side**2, hidden_size))
        projection = nn.Conv2d(3, hidden_size, patch_size, stride=patch_size)
        self.patch_embeddings = nn.ModuleDict({"projection": projection})

    def forward(self, pixels: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views tokens channels"]:
        patches = self.patch_embeddings["projection"](pixels)
        rows, columns = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches.flatten(2).mT], dim=1)
        return tokens + resize_position_table(self.position_embeddings, rows, columns)


def resize_position_table(
    table: Float[Tensor, "1 entries channels"], rows: int, columns: int
) -> Float[Tensor, "1 tokens channels"]:
    """Position embeddings (CLS first) for ``rows`` x ``columns`` patches, from a square table.

    The published weights were trained with this odd rule: bicubic, sampled at steps of side / (rows + 0.1) rather
    than side / rows (a guard of DINO's code against rounding that also shifts the samples).
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).mT], dim=1)


class _Block(nn.Module):
    """Pre-norm transformer block; the camera shifts and scales what attention and MLP read (no gates)."""

    def __init__(self, hidden_size: int, heads: int, mlp_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.attention = _Attention(hidden_size, heads)
        self.layernorm_after = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden_size, mlp_size)})
        self.output = nn.ModuleDict({"dense": nn.Linear(mlp_size, hidden_size)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 4 * hidden_size))

    def forward(
        self, x: Float[Tensor, "views tokens channels"], camera: Float[Tensor, "views channels"]
    ) -> Float[Tensor, "views tokens channels"]:
        modulation = self.adaLN_modulation(camera)[:, None]
        shift_attention, scale_attention, shift_mlp, scale_mlp = modulation.chunk(4, dim=2)
        x = x + self.attention(self.layernorm_before(x) * (1 + scale_attention) + shift_attention)
        y = self.layernorm_after(x) * (1 + scale_mlp) + shift_mlp
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](y)))


class _Attention(nn.Module):
    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {name: nn.Linear(hidden_size, hidden_size) for name in ("query", "key", "value")}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(hidden_size, hidden_size)})

    def forward(self, x: Float[Tensor, "views tokens channels"]) -> Float[Tensor, "views tokens channels"]:
        query, key, value = (
            self.attention[name](x).unflatten(2, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.output["dense"](mixed.transpose(1, 2).flatten(2))
