"""Whether the tensors of a file are those of the model it is said to be, and sound."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from meshwright.errors import InputError
from meshwright.model import InstantMesh, InstantNeRF, ModelConfig, build_model
from meshwright.progress import Progress
from meshwright.weights.read import Checkpoint, describe, printable_names

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def skeleton(checkpoint: Checkpoint, config: ModelConfig) -> InstantNeRF | InstantMesh:
    """The model without storage, unless its config asks for more layers than the file can have."""
    if config.encoder_layers + config.transformer_layers > len(checkpoint.tensors):
        raise InputError(f"{checkpoint.path}: has too few weights for the layers in its config; fetch it again")
    with torch.device("meta"):
        return build_model(config)


def check_fit(checkpoint: Checkpoint, expected: Mapping[str, Tensor], config: ModelConfig) -> None:
    tensors = checkpoint.tensors
    shared = [name for name in tensors if name in expected]
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {list(tensors[name].shape)} for {list(expected[name].shape)}"
            for name in shared
            if tensors[name].shape != expected[name].shape
        ],
        "not of floats": [name for name in shared if tensors[name].dtype not in _FLOATS],
    }
    found = "; ".join(f"{len(names)} {what}: {printable_names(names)}" for what, names in faults.items() if names)
    if found:
        raise InputError(f"{checkpoint.path}: does not fit {describe(config)} ({found}); fetch it again")


def check_finite(checkpoint: Checkpoint, progress: Progress) -> None:
    bad = []
    for index, (name, tensor) in enumerate(checkpoint.tensors.items()):
        if not is_finite(tensor):
            bad.append(name)
        progress("weights", (index + 1) / len(checkpoint.tensors))
    if bad:
        names = printable_names(bad)
        raise InputError(f"{checkpoint.path}: {len(bad)} of its tensors hold NaN or infinity ({names}); fetch it again")


def is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # carries NaN through, and unlike isfinite() makes no second tensor
    return math.isfinite(low.item()) and math.isfinite(high.item())
