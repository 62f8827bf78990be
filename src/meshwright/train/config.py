"""What a training is, as one frozen value: every field is a flag of ``meshwright train`` and a line of its YAML.

The numbers that are defaults here are the published ones of InstantMesh's stage 1 (Xu et al. 2024, arXiv 2404.07191);
`meshwright.train.recipes` says what each recipe changes.
"""

import contextlib
import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from meshwright.curate import SampleOptions
from meshwright.errors import InputError
from meshwright.model import ModelConfig

Section = TypeVar("Section")


@dataclass(frozen=True)
class LossWeights:
    """What each loss term counts; 0 leaves a term out, and its work undone."""

    mse: float = 1.0
    """Squared error of colours in [-1, 1]."""
    perceptual: float = 2.0
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924) with VGG16."""
    mask: float = 1.0
    """Squared error of opacity."""
    depth: float = 0.0
    """Absolute error of depth where the target is not empty; 0.5 in stage 2."""
    normal: float = 0.0
    """One minus the cosine between normals, where the target is not empty; 0.2 in stage 2."""
    entropy: float = 0.0
    """Signs of the sdf at the two ends of grid edges that disagree; stage 2 only, 0.01."""
    deviation: float = 0.0
    """FlexiCubes' L_dev; stage 2 only, 0.5."""
    cube_weight: float = 0.0
    """Squares of FlexiCubes' weights; stage 2 only, 0.1."""
    free_space: float = 0.0
    """Opacity of the air between a camera and the surface it sees; stage 2 only, not in the published sum."""
    empty: float = 0.0
    """Mean |sdf| of objects whose field has lost its surface; stage 2 only, not in the published sum."""


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) and its rate, step by step."""

    learning_rate: float = 4e-4
    """The highest."""
    schedule: Literal["warm_restarts", "cosine", "constant"] = "warm_restarts"
    """How the rate falls after the warm-up: in cosines of ``restart_steps``, in one to the last step, or not."""
    warmup_steps: int = 0
    """Steps in which the rate rises in a line to its highest."""
    restart_steps: int = 3000
    """Length of one cosine of warm_restarts."""
    lowest_rate: float = 0.1
    """Where cosines end, as a share of the highest rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the running means of gradients and of their squares."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.01
    """Decoupled decay of weights, in units of the learning rate."""
    decay_all: bool = False
    """Also decay biases, norms and other vectors, as the published code does."""
    clip_norm: float = 1.0
    """Gradients longer than this are shortened to it; 0 lets them be."""


@dataclass(frozen=True)
class TrainConfig:
    """One training. Steps are optimiser steps, never epochs."""

    model: ModelConfig
    """Sizes of the network; its kind must fit the stage."""
    stage: Literal["stage1", "stage2"] = "stage1"
    """stage1: a radiance field by volume rendering. stage2: a mesh by FlexiCubes and rasterisation."""
    start: str | None = None
    """Weights to begin from: a file of any form that ``meshwright convert`` reads, or a run; a DINO encoder too."""
    steps: int = 100_000
    """When to stop."""
    batch_size: int = 1
    """Objects a process sees at once."""
    accumulation: int = 1
    """Batches whose gradients make one step."""
    workers: int = 4
    """Processes that load data; 0 loads in the training process."""
    data: SampleOptions = field(default_factory=SampleOptions)
    losses: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    perceptual_weights: tuple[str, ...] = ()
    """Files with VGG16's weights and the linear ones of LPIPS, in any order (see docs/training.md)."""
    unsigned_normals: bool = False
    """Let normals point either way, as the published loss does."""
    ema_decay: float = 0.9999
    """Of the running mean of the weights that is evaluated and kept; reached after some thousand steps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the transformers; fields, rendering and losses are always fp32."""
    recompute: bool = False
    """Evaluate transformer blocks again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the transformers (torch.compile): faster on GPUs after minutes of waiting."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 5
    """How many of the last are kept; the best is kept besides."""
    validate_every: int = 1000
    """Steps between measurements on held-out objects."""
    pictures_every: int = 1000
    """Steps between pictures of what the model predicts."""
    skip_limit: int = 10
    """Steps in a row without finite gradients after which to give up."""
    seed: int = 42
    """Of new weights, of what is drawn in each step and of the order of the data."""

    def __post_init__(self) -> None:
        kind = {"stage1": "nerf", "stage2": "mesh"}[self.stage]
        if self.model.kind != kind:
            raise InputError(f"model.kind is {self.model.kind!r}; {self.stage} trains {kind!r}")
        positive = ("steps", "batch_size", "accumulation", "checkpoint_every", "keep_checkpoints", "skip_limit")
        for name in positive:
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.stage == "stage1" and any(getattr(self.losses, name) for name in _MESH_TERMS):
            named = next(name for name in _MESH_TERMS if getattr(self.losses, name))
            raise InputError(f"losses.{named} has no meaning in stage1; set it to 0")


_MESH_TERMS = ("normal", "entropy", "deviation", "cube_weight", "free_space", "empty")
_WITHOUT_EFFECT = ("checkpoint_every", "keep_checkpoints", "validate_every", "pictures_every", "skip_limit", "workers")


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Fields that differ and matter to the result, as ``name: old -> new``."""
    before, after = _flat(dataclasses.asdict(old)), _flat(dataclasses.asdict(new))
    return [
        f"{name}: {before[name]} -> {after[name]}"
        for name in before
        if before[name] != after[name] and name not in _WITHOUT_EFFECT
    ]


def to_yaml(config: TrainConfig) -> str:
    """The config as YAML that `from_yaml` reads back."""
    import yaml

    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def from_yaml(text: str, where: str) -> TrainConfig:
    """The inverse of `to_yaml`; fields that are left out have their defaults. ``where``: the file, for messages.

    Raises:
        InputError: not YAML, an unknown field, or a value of the wrong kind.
    """
    import yaml

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "damaged"
        raise InputError(f"{where}: is not YAML ({reason}); mend it or leave it out") from None
    return _section(TrainConfig, values, where, "")


def _section(kind: type[Section], values: object, where: str, prefix: str) -> Section:
    if not isinstance(values, dict):
        raise InputError(f"{where}: {prefix.rstrip('.') or 'it'} is no list of names and values; see docs/training.md")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(str(name) for name in values if name not in hints):
        raise InputError(f"{where}: {prefix}{unknown[0][:60]} is not a known name; remove it or mend it")
    read = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            read[name] = _section(typing.cast(type[Any], hints[name]), value, where, f"{prefix}{name}.")
        else:
            read[name] = _value(hints[name], value, f"{where}: {prefix}{name}")
    try:
        return kind(**read)
    except TypeError:
        missing = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in read]  # type: ignore[arg-type]
        raise InputError(f"{where}: {prefix}{missing[0]} is missing; add it") from None


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _value(kind: Any, value: object, what: str) -> object:
    """``value`` as ``kind``: a number, text, choice, or a tuple of such."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        return _value(next(part for part in inner if part is not type(None)), value, what)
    if origin is Literal:
        if value in inner:
            return value
        raise InputError(f"{what} is {value!r}; use one of {', '.join(map(str, inner))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)) and (inner[-1] is Ellipsis or len(value) == len(inner)):
            kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
            return tuple(_value(part, item, what) for part, item in zip(kinds, value, strict=True))
    elif kind is float:
        # YAML 1.1 reads 1e-4, without a point, as text.
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        if type(value) in (int, float) and math.isfinite(typing.cast(float, value)):
            return float(typing.cast(float, value))
    elif type(value) is kind:
        return value
    words = {int: "a whole number", bool: "true or false", float: "a number", str: "text"}
    named = words.get(kind, "a list of numbers or names")
    raise InputError(f"{what} is {str(value)[:40]!r}; it must be {named}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
