"""A model with its weights."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from meshwright.device import resolve_device
from meshwright.errors import InputError
from meshwright.model import PRESETS, InstantMesh, InstantNeRF, ModelConfig
from meshwright.progress import Progress, silent
from meshwright.weights.check import check_finite, check_fit, skeleton
from meshwright.weights.hub import find_weights
from meshwright.weights.read import Checkpoint, describe, read_checkpoint


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
    read: Callable[[Path, ModelConfig | None], Checkpoint] = read_checkpoint,
    progress: Progress = silent,
) -> InstantNeRF | InstantMesh:
    """A model in evaluation mode, from a preset's name (see ``hub.find_weights``) or a file of any form.

    On the CPU, weights stored in ``dtype`` stay mapped to the file: nothing is copied. ``config`` is needed only for
    models in the published or a MindSpore form whose sizes are none of the presets'. ``read`` can be that of
    `meshwright.isolated.file_readers`.

    Raises:
        InputError: the weights cannot be had or read, are not finite, or are not those of the named preset or
            ``config``: missing, unexpected and misshapen ones are listed by name.
    """
    device = resolve_device(device)
    path = find_weights(name_or_path, model_dir=model_dir, revision=revision, progress=progress)
    checkpoint = read(path, config)
    if checkpoint.config is None:
        raise InputError(f"{path}: is {checkpoint.form}, not a reconstruction model; training can start from it")
    found, name = describe(checkpoint.config), os.fspath(name_or_path)
    if name in PRESETS and found != name:
        raise InputError(f"{path}: looks like {found}, not {name}; ask for that or replace the file")
    return _assemble(checkpoint, checkpoint.config, device, dtype, progress)


def _assemble(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype, progress: Progress
) -> InstantNeRF | InstantMesh:
    model = skeleton(checkpoint, config)
    check_fit(checkpoint, model.state_dict(), config)
    check_finite(checkpoint, progress)
    weights = {name: tensor.to(device=device, dtype=dtype) for name, tensor in checkpoint.tensors.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()
