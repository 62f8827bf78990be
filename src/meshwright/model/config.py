"""Sizes of a reconstruction model, and those of the published ones."""

import dataclasses
import json
from dataclasses import dataclass

from meshwright.errors import InputError

# Of every number, so that a stranger's config cannot ask for days or terabytes: sizes that the weights in the file
# bound as well, and those that only computing would show (grids, samples, tokens). Several times what is published.
RANGES: dict[str, tuple[float, float]] = {
    "encoder_hidden_size": (1, 4096),
    "encoder_layers": (1, 64),
    "encoder_heads": (1, 64),
    "encoder_mlp_size": (1, 16384),
    "encoder_image_size": (8, 1024),
    "patch_size": (8, 64),  # 40 x 40 tokens of a picture of 320 pixels
    "layer_norm_eps": (1e-15, 1e-2),
    "image_mean": (1e-3, 1.0),
    "image_std": (1e-3, 10.0),
    "transformer_dim": (1, 4096),
    "transformer_layers": (1, 64),
    "transformer_heads": (1, 64),
    "triplane_low_res": (1, 64),
    "triplane_dim": (1, 512),
    "samples_per_ray": (1, 1024),
    "grid_res": (2, 256),
    "grid_scale": (1e-2, 100.0),
    "mesh_resolution": (2, 512),
    "mesh_threshold": (1e-6, 1e6),
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model; the defaults are those that all published models share.

    ``kind``: ``nerf`` (InstantNeRF) or ``mesh`` (InstantMesh). ``encoder_image_size``: side in pixels of the pictures
    for which the table of position embeddings was made. ``triplane_low_res``: plane tokens along a side; the planes
    have twice as many texels. ``grid_res``: FlexiCubes cells along a side of a cube of ``grid_scale`` world units.
    ``mesh_resolution``, ``mesh_threshold``: points along a side, and density of the surface, of a mesh from the
    NeRF model. `RANGES` bounds every number.

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
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not all(low <= number <= high for number in (value if isinstance(value, tuple) else (value,))):
                raise InputError(f"model config: {name} is {str(value)[:40]}; it must lie between {low:g} and {high:g}")
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
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise InputError("model config: not a JSON object; write it with ModelConfig.to_json")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - fields.keys()):
            raise InputError(f"model config: {unknown[0]!r} is not a known name; remove it or update meshwright")
        for name, value in {"kind": None, **values}.items():
            _check_type(name, fields[name], value)
        return cls(**values)


def _check_type(name: str, kind: object, value: object) -> None:
    if kind is str:
        good, wanted = isinstance(value, str), "given as text"
    elif kind in (int, float):
        good, wanted = type(value) is kind, "a whole number" if kind is int else "a decimal number such as 2.0"
    else:
        good = isinstance(value, tuple) and len(value) == 3 and all(type(v) is float for v in value)
        wanted = "three decimal numbers"
    if not good:
        raise InputError(f"model config: {name} is {str(value)[:40]!r}; it must be {wanted}")


PRESETS = {
    "instant-nerf-base": ModelConfig("nerf"),
    "instant-nerf-large": ModelConfig("nerf", transformer_layers=16, triplane_dim=80, samples_per_ray=128),
    "instant-mesh-base": ModelConfig("mesh"),
    "instant-mesh-large": ModelConfig("mesh", transformer_layers=16, triplane_dim=80, samples_per_ray=128),
}
