"""From any known form of weights to the own one or to MindSpore's."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from meshwright.errors import InputError
from meshwright.model import ModelConfig
from meshwright.progress import Progress, silent
from meshwright.weights.check import check_finite, check_fit, skeleton
from meshwright.weights.hub import find_weights
from meshwright.weights.mindspore import mindspore_name, write_mindspore
from meshwright.weights.read import PUBLISHED_PREFIX, Checkpoint, describe, read_checkpoint
from meshwright.weights.write import in_dtype, save_own, save_safetensors


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` found and wrote, in words, and how many tensors."""

    source: str
    destination: str
    tensors: int


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    mindspore: bool = False,
    config: ModelConfig | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    read: Callable[[Path, ModelConfig | None], Checkpoint] = read_checkpoint,
    progress: Progress = silent,
) -> Conversion:
    """Write the weights of ``source`` (a known name or a file of any form) as ``destination``, whose suffix says how.

    ``.safetensors``: a model in the own form, an encoder or OpenLRM under its own names. ``.ckpt``: MindSpore's form.
    ``mindspore``: MindSpore's names, in a .safetensors file too; models get the prefix of the published files,
    which MindOne's port expects. ``config`` and ``read`` as in ``load_model``.

    Raises:
        InputError: the source cannot be had or is no good (see ``load_model``), a weight is not finite in ``dtype``,
            or the destination has another suffix or cannot be written.
    """
    destination = Path(destination)
    if destination.suffix not in (".safetensors", ".ckpt"):
        raise InputError(
            f"{destination}: name it .safetensors, or .ckpt for MindSpore (PyTorch's pickles are not written)"
        )
    path = find_weights(source, model_dir=model_dir, revision=revision, progress=progress)
    checkpoint = read(path, config)
    if checkpoint.config is not None:
        check_fit(checkpoint, skeleton(checkpoint, checkpoint.config).state_dict(), checkpoint.config)
    check_finite(checkpoint, progress)
    tensors = in_dtype(destination, checkpoint.tensors, dtype)
    if mindspore or destination.suffix == ".ckpt":
        prefix = PUBLISHED_PREFIX if checkpoint.config is not None else ""
        tensors = {prefix + mindspore_name(name): tensor for name, tensor in tensors.items()}
        if destination.suffix == ".ckpt":
            write_mindspore(tensors, destination)
            form = "a MindSpore checkpoint"
        else:
            save_safetensors(tensors, {"format": "ms"}, destination)
            form = "safetensors with MindSpore's names"
    elif checkpoint.config is not None:
        save_own(tensors, checkpoint.config, destination)
        form = "a meshwright model"
    else:
        save_safetensors(tensors, {"format": "pt"}, destination)
        form = "safetensors"
    source_form = checkpoint.form + (f" ({describe(checkpoint.config)})" if checkpoint.config is not None else "")
    return Conversion(source_form, form, len(tensors))
