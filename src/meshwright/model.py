"""The reconstruction models: pictures and cameras -> Triplane -> Mesh or radiance field, and their presets.

InstantNeRF and InstantMesh of Xu et al. 2024 (arXiv 2404.07191). The names and shapes in ``state_dict()`` are exactly
those of the published checkpoints.
"""

import dataclasses
import json
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meshwright.encoder import CameraViT
from meshwright.errors import InputError
from meshwright.field import MeshDecoder, RadianceDecoder
from meshwright.triplane import Triplane, TriplaneTransformer

_LARGEST_SIZE = 1 << 15  # of any whole number in a config, so that a hostile one cannot ask for terabytes


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model; the defaults are those that all published models share.

    ``kind``: ``nerf`` (InstantNeRF) or ``mesh`` (InstantMesh). ``encoder_image_size``: side in pixels of the pictures
    for which the table of position embeddings was made. ``triplane_low_res``: plane tokens along a side; the planes
    have twice as many texels. ``grid_res``: FlexiCubes cells along a side of a cube of ``grid_scale`` world units.
    ``mesh_resolution``, ``mesh_threshold``: points along a side, and density of the surface, of a mesh from the
    NeRF model.

    Raises:
        InputError: a value cannot make a model.
    """

    kind: str
    encoder_hidden_size: int = 768
    encoder_layers: int = 12
    encoder_heads: int = 12
    encoder_mlp_size: int = 3072
    encoder_image_size: int = 224
    patch_size: int = 16
    layer_norm_eps: float = 1e-12
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    transformer_dim: int = 1024
    transformer_layers: int = 12
    transformer_heads: int = 16
    triplane_low_res: int = 32
    triplane_dim: int = 40
    samples_per_ray: int = 96
    grid_res: int = 128
    grid_scale: float = 2.1
    mesh_resolution: int = 256
    mesh_threshold: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in ("nerf", "mesh"):
            raise InputError(f"model config: kind is {self.kind!r}; use nerf or mesh")
        for heads, size in (("encoder_heads", "encoder_hidden_size"), ("transformer_heads", "transformer_dim")):
            if getattr(self, size) % getattr(self, heads):
                raise InputError(f"model config: {size} is not a multiple of {heads}; change one of them")
        if self.encoder_image_size < self.patch_size:
            raise InputError("model config: encoder_image_size is less than one patch_size; make it larger")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """The inverse of ``to_json``, for text from strangers.

        Raises:
            InputError: not JSON, an unknown or missing name, or a value that cannot make a model.
        """
        try:
            values = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise InputError("model config: not a JSON object; write it with ModelConfig.to_json") from None
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - fields.keys()):
            raise InputError(f"model config: {unknown[0]!r} is not a known name; remove it or update meshwright")
        for name, value in {"kind": None, **values}.items():
            _check_value(name, fields[name], value)
        return cls(**values)


def _check_value(name: str, kind: object, value: object) -> None:
    if kind is str:
        good, wanted = isinstance(value, str), "given as text"
    elif kind is int:
        good = type(value) is int and 1 <= value <= _LARGEST_SIZE
        wanted = f"a whole number from 1 to {_LARGEST_SIZE}"
    elif kind is float:
        good, wanted = _is_positive(value), "a positive decimal number such as 2.0"
    else:
        good = isinstance(value, tuple) and len(value) == 3 and all(_is_positive(v) for v in value)
        wanted = "three positive decimal numbers"
    if not good:
        raise InputError(f"model config: {name} is {str(value)[:40]!r}; it must be {wanted}")


def _is_positive(value: object) -> bool:
    return isinstance(value, float) and 0 < value < float("inf")


PRESETS = {
    "instant-nerf-base": ModelConfig("nerf"),
    "instant-nerf-large": ModelConfig("nerf", transformer_layers=16, triplane_dim=80, samples_per_ray=128),
    "instant-mesh-base": ModelConfig("mesh"),
    "instant-mesh-large": ModelConfig("mesh", transformer_layers=16, triplane_dim=80, samples_per_ray=128),
}


class _Reconstructor(nn.Module):
    """What both models share: encoder and triplane transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CameraViT(
            hidden_size=config.encoder_hidden_size,
            layers=config.encoder_layers,
            heads=config.encoder_heads,
            mlp_size=config.encoder_mlp_size,
            table_side=config.encoder_image_size // config.patch_size,
            patch_size=config.patch_size,
            layer_norm_eps=config.layer_norm_eps,
            image_mean=config.image_mean,
            image_std=config.image_std,
        )
        self.transformer = TriplaneTransformer(
            dim=config.transformer_dim,
            layers=config.transformer_layers,
            heads=config.transformer_heads,
            image_channels=config.encoder_hidden_size,
            low_res=config.triplane_low_res,
            plane_channels=config.triplane_dim,
        )

    def planes(
        self, images: Float[Tensor, "batch views 3 height width"], cameras: Float[Tensor, "batch views 16"]
    ) -> Triplane:
        """Pictures (sRGB in [0, 1] on white) with their ``Cameras.embedding`` -> feature planes, one set an object."""
        tokens = self.encoder(images.flatten(0, 1), cameras.flatten(0, 1))
        return self.transformer(tokens.unflatten(0, images.shape[:2]).flatten(1, 2))


class InstantNeRF(_Reconstructor):
    """Pictures -> radiance field (volume rendering, or a mesh by marching cubes)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.synthesizer = nn.ModuleDict({"decoder": RadianceDecoder(config.triplane_dim)})


class InstantMesh(_Reconstructor):
    """Pictures -> mesh by FlexiCubes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.synthesizer = nn.ModuleDict({"decoder": MeshDecoder(config.triplane_dim)})


def build_model(config: ModelConfig, seed: int = 0) -> InstantNeRF | InstantMesh:
    """A new model with weights drawn from ``seed``; under ``torch.device("meta")`` one without storage."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return InstantNeRF(config) if config.kind == "nerf" else InstantMesh(config)
