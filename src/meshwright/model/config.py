"""Sizes of a reconstruction model, and those of the published ones."""

import dataclasses
import json
from dataclasses import dataclass

from meshwright.errors import InputError

# Of whole numbers in a config, so that a hostile one cannot ask for days or terabytes.
_LARGEST_SIZE = 1 << 15
_LARGEST_LAYERS = 256
_LARGEST_RESOLUTION = 1024


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
            _check_value(name, fields[name], value)
        return cls(**values)


def _check_value(name: str, kind: object, value: object) -> None:
    if kind is str:
        good, wanted = isinstance(value, str), "given as text"
    elif kind is int:
        largest = _LARGEST_LAYERS if name.endswith("_layers") else _LARGEST_SIZE
        largest = _LARGEST_RESOLUTION if name in ("grid_res", "mesh_resolution") else largest
        good, wanted = type(value) is int and 1 <= value <= largest, f"a whole number from 1 to {largest}"
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
