"""The two models at the small sizes for which golden numbers of the published code exist, and an object to see."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file

from meshwright.model import InstantMesh, InstantNeRF, ModelConfig, build_model
from meshwright.model.field import MeshDecoder

Model = TypeVar("Model", bound=torch.nn.Module)
GOLDEN_FOLDER = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDEN_FOLDER / f"{name}.npz").items()}


def small_config(kind: str) -> ModelConfig:
    return ModelConfig(
        kind,
        encoder_hidden_size=48,
        encoder_layers=4,
        encoder_heads=4,
        encoder_mlp_size=192,
        encoder_image_size=64,
        transformer_dim=64,
        transformer_layers=2,
        transformer_heads=4,
        triplane_low_res=8,
        triplane_dim=12,
        samples_per_ray=16,
        grid_res=16,
        mesh_resolution=24,
    )


def small_nerf() -> InstantNeRF:
    return _load(InstantNeRF(small_config("nerf")), "nerf")


def small_mesh() -> InstantMesh:
    return _load(InstantMesh(small_config("mesh")), "mesh")


def _load(model: Model, kind: str) -> Model:
    model.load_state_dict(load_file(GOLDEN_FOLDER / f"small_{kind}_weights.safetensors"))
    return model


def ball(config: ModelConfig, centre: tuple[float, float, float], radius: float) -> tuple[InstantMesh, torch.Tensor]:
    """A mesh model with seeded weights and planes (3, channels, size, size) in which it sees a ball.

    Channel 0 of planes 0 and 1 adds up to K - |p - centre|^2, where K keeps it positive, also where it fades out beyond
    the planes. The first unit of each layer of the sdf head passes it on: sdf = |p - centre|^2 - radius^2, up to the
    random rest of the head and the planes' texels.
    """
    model = build_model(config)
    assert isinstance(model, InstantMesh)
    size = 2 * config.triplane_low_res
    texel = (2 * torch.arange(size) + 1) / size - 1
    x, y, z = ((texel - c) ** 2 for c in centre)
    largest = 6.0  # of what each plane subtracts, for a centre near the origin
    planes = torch.randn(3, config.triplane_dim, size, size, generator=torch.Generator().manual_seed(0))
    planes[0, 0] = largest - x[None, :] - y[:, None]
    planes[1, 0] = largest - z[:, None]
    planes[2, 0] = 0
    _pass_on_first_unit(model.decoder, config.triplane_dim, 2 * largest - radius**2)
    return model, planes


@torch.no_grad()
def _pass_on_first_unit(decoder: MeshDecoder, channels: int, offset: float) -> None:
    first, *hidden, last = (layer for layer in decoder.net_sdf if isinstance(layer, torch.nn.Linear))
    first.weight[0] = 0
    first.weight[0, [0, channels]] = 1
    for layer in hidden:
        layer.weight[0] = 0
        layer.weight[0, 0] = 1
    last.weight.mul_(1e-4)
    last.weight[0, 0] = -1
    last.bias.fill_(offset)
