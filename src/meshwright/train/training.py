"""A training from start to end: config, data set and folder in, trained weights out."""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from meshwright.curate import ObjectSource, batches, open_dataset
from meshwright.errors import InputError
from meshwright.model import InstantMesh, InstantNeRF, build_model
from meshwright.progress import Progress, silent
from meshwright.train.config import TrainConfig
from meshwright.train.loop import Objective, Outcome, Strategy, Validate, open_fabric, train
from meshwright.train.perceptual import Lpips
from meshwright.train.runs import Run
from meshwright.train.stage1 import stage1_losses
from meshwright.train.stage2 import stage2_losses
from meshwright.train.validation import held_out_batches, measure
from meshwright.weights import start_from

_VALIDATION_OBJECTS = 8


def run_training(
    config: TrainConfig | None,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    allow_changes: bool = False,
    split: Literal["all", "train", "validation", "test"] = "all",
    held_out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    progress: Progress = silent,
) -> Outcome:
    """Train on the objects of ``data``; everything is written to ``out`` (see `meshwright.train.runs`).

    ``resume`` goes on from the last checkpoint, with the run's own config if ``config`` is None; a config or data set
    that would give another result is refused unless ``allow_changes``. ``held_out``: a data set to validate on; without
    it nothing is validated. ``device`` is ``cpu``, ``cuda``, ``mps`` or ``auto``; ``devices`` and ``nodes`` as torchrun
    or SLURM started them; ``strategy``: each has the whole model (``ddp``), or a part of every weight (``fsdp``).

    Raises:
        InputError: the data, the start weights or the folder cannot be used, the disk is full, or the training breaks.
    """
    source = open_dataset(data, split)
    description = describe(source)
    folder = Path(out)
    if resume:
        run, config = Run.resume(folder, config, description, allow_changes)
    elif config is None:
        raise InputError("no recipe was given; name one, or a run to `resume`")
    objective = make_objective(config)
    fabric = open_fabric(config.precision, device, devices, nodes, strategy)
    if not resume:
        model, notes = new_model(config, progress)
        if fabric.is_global_zero:
            facts = {"data": description, "objects": len(source.names), "data_path": str(data), "start": notes}
            run = Run.create(folder, config, facts)
        else:
            run = Run(folder)
        fabric.barrier()
    else:
        model = build_model(config.model, config.seed)
    if isinstance(objective, nn.Module):
        objective.to(fabric.device)
    validate: Validate | None = None
    if held_out is not None:
        kept = held_out_batches(open_dataset(held_out), config.data, _VALIDATION_OBJECTS)
        validate = partial(measure, batches=kept)
    stream = partial(
        _stream, source, config, rank=fabric.global_rank, ranks=fabric.world_size, pin=fabric.device.type == "cuda"
    )
    return train(config, model, objective, stream, run, fabric, validate, progress)


def new_model(config: TrainConfig, progress: Progress = silent) -> tuple[InstantNeRF | InstantMesh, str]:
    """A model as its training begins, and in words what its weights started from."""
    model = build_model(config.model, config.seed)
    _draw_positions(model, config.seed)
    if config.start is None:
        return model, "random weights"
    start = start_from(model, config.start, seed=config.seed, progress=progress)
    return model, f"{config.start}: {start.form}, {len(start.loaded)} weights loaded, {len(start.new)} new"


def make_objective(config: TrainConfig) -> Objective:
    """The losses of the config's stage.

    Raises:
        InputError: LPIPS has a weight, but its network's weights are not given or cannot be read.
    """
    perceptual = Lpips.load(config.perceptual_weights) if config.losses.perceptual else None
    return _StageObjective(config, perceptual)


class _StageObjective(nn.Module):
    """The stage's loss function with its settings; a module so that LPIPS moves to the device with it."""

    def __init__(self, config: TrainConfig, perceptual: Lpips | None) -> None:
        super().__init__()
        self.perceptual = perceptual
        self._config = config

    def forward(self, model, batch, seeds):  # type: ignore[no-untyped-def]  # the types are Objective's
        config = self._config
        if config.stage == "stage1":
            return stage1_losses(model, batch, seeds, config.losses, self.perceptual, config.recompute)
        return stage2_losses(
            model, batch, seeds, config.losses, self.perceptual, config.recompute, config.unsigned_normals
        )


def describe(source: ObjectSource) -> str:
    """Changes when objects come, go or get another number of views."""
    text = "\n".join(f"{name} {_views(source, name)}" for name in source.names)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _views(source: ObjectSource, name: str) -> int:
    try:
        return source.view_count(name)
    except InputError:  # the sampler leaves it out and says so
        return 0


def _stream(source: ObjectSource, config: TrainConfig, first: int, *, rank: int, ranks: int, pin: bool):  # type: ignore[no-untyped-def]
    return batches(
        source,
        config.data,
        config.batch_size,
        seed=config.seed,
        first_step=first,
        rank=rank,
        ranks=ranks,
        workers=config.workers,
        pin_memory=pin,
    )


def _draw_positions(model: InstantNeRF | InstantMesh, seed: int) -> None:
    """Position embeddings of a new encoder as DINO begins: zeros would make all patches alike at first."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.encoder.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
