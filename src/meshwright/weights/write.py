"""Writing weights in the own form, and safetensors in general."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.model import InstantMesh, InstantNeRF, ModelConfig
from meshwright.weights.check import is_finite
from meshwright.weights.read import FORMAT, VERSION, printable_names

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def save_model(
    model: InstantNeRF | InstantMesh, path: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> None:
    """Write ``model`` in the own form (.safetensors), with its weights as they are or in ``dtype``.

    Raises:
        InputError: a weight is not finite in ``dtype``, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: models are saved as .safetensors; change the name")
    save_own(in_dtype(path, model.state_dict(), dtype), model.config, path)


def in_dtype(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    too_large = [name for name, tensor in cast.items() if not is_finite(tensor)]
    if too_large:
        raise InputError(
            f"{path}: {printable_names(too_large)} is not finite there; choose another dtype, such as bf16 or fp32"
        )
    return cast


def save_own(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    dtype = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    metadata = {"format": FORMAT, "version": VERSION, "config": config.to_json(), "dtype": dtype}
    save_safetensors(tensors, metadata, path)


def save_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    plain: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in places else tensor  # safetensors does not write tied tensors
        places.add(place)
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error}); free space or choose another place") from None
