"""The reconstruction models as their papers have them: slow, large and obvious.

Twins of `meshwright.model.encoder`, `triplane`, `field` and `model`: attention with its matrix of scores written out,
features gathered for every point and put one after the other, every head at every grid point and cube. They read the
weights of a model by their published names, and are differentiable in them.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from meshwright.model import ModelConfig
from meshwright.shape.flexicubes import flexicubes, grid

Weights = Mapping[str, Tensor]


def encode(weights: Weights, config: ModelConfig, images: Tensor, cameras: Tensor) -> Tensor:
    """(views, 3, height, width) and (views, 16) -> (views, tokens, channels)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"encoder.{name}.weight"], weights[f"encoder.{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return _layer_norm(x, weights, f"encoder.model.{name}", config.layer_norm_eps)

    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    pixels = (images - mean[:, None, None]) / std[:, None, None]
    camera = linear(F.silu(linear(cameras, "camera_embedder.0")), "camera_embedder.2")

    embeddings = "encoder.model.embeddings."
    size = config.patch_size
    patches = pixels.unfold(2, size, size).unfold(3, size, size)  # views 3 rows columns size size
    rows, columns = patches.shape[2:4]
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    kernel = weights[embeddings + "patch_embeddings.projection.weight"].flatten(1)
    patches = patches @ kernel.T + weights[embeddings + "patch_embeddings.projection.bias"]
    x = torch.cat([weights[embeddings + "cls_token"].expand(len(images), -1, -1), patches], dim=1)
    x = x + position_table(weights[embeddings + "position_embeddings"], rows, columns)

    for layer in range(config.encoder_layers):
        name = f"encoder.layer.{layer}."
        modulation = linear(F.silu(camera), f"model.{name}adaLN_modulation.1")[:, None]
        shift_attention, scale_attention, shift_mlp, scale_mlp = modulation.chunk(4, dim=2)
        y = norm(x, name + "layernorm_before") * (1 + scale_attention) + shift_attention
        q, k, v = (linear(y, f"model.{name}attention.attention.{part}") for part in ("query", "key", "value"))
        x = x + linear(attention(q, k, v, config.encoder_heads), f"model.{name}attention.output.dense")
        y = norm(x, name + "layernorm_after") * (1 + scale_mlp) + shift_mlp
        x = x + linear(F.gelu(linear(y, f"model.{name}intermediate.dense")), f"model.{name}output.dense")
    return norm(x, "layernorm")


def position_table(table: Tensor, rows: int, columns: int) -> Tensor:
    """Bicubic (a = -0.75), border repeated, sample i at (i + 0.5) * side / (rows + 0.1) - 0.5; CLS as it is."""
    side = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    old = table[0, 1:].unflatten(0, (side, side))
    new = torch.einsum("ri,cj,ijd->rcd", _cubic_matrix(rows, side), _cubic_matrix(columns, side), old)
    return torch.cat([table[:, :1], new.flatten(0, 1)[None]], dim=1)


def _cubic_matrix(count: int, side: int) -> Tensor:
    a = -0.75
    matrix = torch.zeros(count, side, dtype=torch.float64)
    for i in range(count):
        place = (i + 0.5) * side / (count + 0.1) - 0.5
        first = int(place // 1) - 1
        for j in range(first, first + 4):
            d = abs(place - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[i, min(max(j, 0), side - 1)] += near if d <= 1 else far
    return matrix.float()


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(batch, tokens, channels) each; the whole matrix of scores is made."""
    query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.mT / query.shape[3] ** 0.5
    return (scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2)


def transform(weights: Weights, config: ModelConfig, tokens: Tensor) -> Tensor:
    """(batch, tokens, channels) -> planes (batch, 3, channels, size, size)."""
    side = config.triplane_low_res
    x = weights["transformer.pos_embed"].expand(len(tokens), -1, -1)
    for layer in range(config.transformer_layers):
        name = f"transformer.layers.{layer}."
        y = _layer_norm(x, weights, name + "norm1", 1e-5)
        q = y @ weights[name + "cross_attn.q_proj_weight"].T
        k = tokens @ weights[name + "cross_attn.k_proj_weight"].T
        v = tokens @ weights[name + "cross_attn.v_proj_weight"].T
        x = x + attention(q, k, v, config.transformer_heads) @ weights[name + "cross_attn.out_proj.weight"].T
        y = _layer_norm(x, weights, name + "norm2", 1e-5)
        q, k, v = (y @ part.T for part in weights[name + "self_attn.in_proj_weight"].chunk(3))
        x = x + attention(q, k, v, config.transformer_heads) @ weights[name + "self_attn.out_proj.weight"].T
        y = _layer_norm(x, weights, name + "norm3", 1e-5)
        y = F.gelu(F.linear(y, weights[name + "mlp.0.weight"], weights[name + "mlp.0.bias"]))
        x = x + F.linear(y, weights[name + "mlp.3.weight"], weights[name + "mlp.3.bias"])
    x = _layer_norm(x, weights, "transformer.norm", 1e-6).unflatten(1, (3, side, side))
    # out[2 i + a, 2 j + b] = sum over d of x[d, i, j] * weight[d, :, a, b], plus bias
    up = torch.einsum("npijd,dcab->npciajb", x, weights["transformer.deconv.weight"])
    return up.flatten(5, 6).flatten(3, 4) + weights["transformer.deconv.bias"][:, None, None]


def planes(weights: Weights, config: ModelConfig, images: Tensor, cameras: Tensor) -> Tensor:
    """(batch, views, 3, height, width) and (batch, views, 16) -> (batch, 3, channels, size, size)."""
    tokens = [encode(weights, config, *item) for item in zip(images, cameras, strict=True)]
    return transform(weights, config, torch.stack([item.flatten(0, 1) for item in tokens]))


def features(planes: Tensor, points: Tensor) -> Tensor:
    """(3, channels, size, size) at (points, 3) -> (points, 3 * channels): samples of plane 0, 1, 2."""
    coordinates = torch.stack([points[:, [0, 1]], points[:, [0, 2]], points[:, [2, 1]]])
    samples = F.grid_sample(planes, coordinates[:, None], align_corners=False)
    return samples[:, :, 0].permute(2, 0, 1).flatten(1)


def head(weights: Weights, name: str, x: Tensor) -> Tensor:
    for layer in (0, 2, 4, 6):
        x = F.linear(x, weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"])
        x = x if layer == 6 else x.relu()
    return x


def radiance(weights: Weights, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Raw density (points,) and colour (points, 3) of the NeRF model."""
    raw = head(weights, "synthesizer.decoder.net", features(planes, points))
    return raw[:, 0], raw[:, 1:].sigmoid() * 1.002 - 0.001


def color(weights: Weights, planes: Tensor, points: Tensor) -> Tensor:
    """Colour (points, 3) of the mesh model."""
    raw = head(weights, "synthesizer.decoder.net_rgb", features(planes, points))
    return raw.sigmoid() * 1.002 - 0.001


def mesh_fields(weights: Weights, config: ModelConfig, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sdf (grid_points,), deformation before tanh (grid_points, 3), cube weights (grid_cubes, 21), everywhere."""
    at_points = features(planes, grid(config.grid_res, config.grid_scale, published_rounding=True).to(planes))
    at_corners = at_points[grid_cubes(config.grid_res)].flatten(1)
    return (
        head(weights, "synthesizer.decoder.net_sdf", at_points)[:, 0],
        head(weights, "synthesizer.decoder.net_deformation", at_points),
        head(weights, "synthesizer.decoder.net_weight", at_corners) * 0.1,
    )


def grid_cubes(resolution: int) -> Tensor:
    """Point numbers of the corners of each cube (grid_cubes, 8)."""
    number = torch.arange((resolution + 1) ** 3).reshape((resolution + 1,) * 3)
    shifted = [
        number[x : x + resolution, y : y + resolution, z : z + resolution].flatten()
        for z in (0, 1)
        for y in (0, 1)
        for x in (0, 1)
    ]
    return torch.stack(shifted, dim=1)


def surface(
    weights: Weights, config: ModelConfig, planes: Tensor, training: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertices, faces, mean L_dev and mean squared weight of an object that has a surface."""
    sdf, deformation, cube_weights = mesh_fields(weights, config, planes)
    moved = deformation.tanh() / (config.grid_res * 4)
    vertices, faces, L_dev = flexicubes(
        grid(config.grid_res, config.grid_scale, published_rounding=True).to(planes) + moved,
        sdf,
        config.grid_res,
        beta=cube_weights[:, :12],
        alpha=cube_weights[:, 12:20],
        gamma=cube_weights[:, 20],
        training=training,
    )
    return vertices, faces, L_dev.mean(), cube_weights.square().mean()


def _layer_norm(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]
