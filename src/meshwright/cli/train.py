"""``meshwright train``: a recipe, a file or a run gives the config; every field of it is a flag."""

import argparse
import contextlib
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, arg

from meshwright.cli.display import progress_bars
from meshwright.cli.flags import one_line
from meshwright.errors import InputError
from meshwright.train import RECIPES, TrainConfig, from_yaml, run_training

_EXAMPLE = "meshwright train tiny_stage1 --data DATASET --out RUN"


@dataclass(frozen=True)
class Training:
    """Train a model on the pictures of a data set, by a recipe of which every number can be changed.

    The config is that of RECIPE, of a YAML file (--config FILE, also --base FILE), or of the run that --resume goes on
    with; flags change it. Recipes: {recipes}.
    """

    recipe: Annotated[Positional[str], arg(metavar="[RECIPE]")] = ""
    """Name of a recipe; left out with --config or --resume."""
    out: Path | None = None
    """Needed. Folder of the run: config, metrics, pictures, checkpoints, and weights for `reconstruct --model`."""
    data: Path | None = None
    """Data set of `meshwright curate render`, or in a published layout; a run that is resumed remembers its own."""
    held_out: Path | None = None
    """Data set on whose objects the model is measured; nothing is measured without it."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Which objects of the data set are trained on."""
    resume: FlagCreatePairsOff[bool] = False
    """Go on from the last checkpoint of --out."""
    allow_changes: FlagCreatePairsOff[bool] = False
    """Resume although config or data set differ from those of the run."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    devices: int = 1
    """How many of them on this machine; under torchrun or SLURM as those say."""
    nodes: int = 1
    """How many machines."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Of many processes. ddp: each has the whole model. fsdp: each has a part of every weight, for less memory."""
    config: Annotated[TrainConfig, arg(name="")] = dataclasses.field(default_factory=RECIPES["tiny_stage1"])


def train(words: Sequence[str]) -> None:
    """Run ``meshwright train`` with these words.

    Raises:
        InputError: the words make no sense, or the training cannot go on.
        SystemExit: help was asked for and has been printed.
    """
    asked = parse_training(words)
    if asked.out is None:
        raise InputError(f"no folder for the run was given; for example {_EXAMPLE}")
    data = asked.data or _data_of(asked.out, asked.resume)
    with progress_bars() as bars:
        outcome = run_training(
            asked.config,
            data,
            asked.out,
            resume=asked.resume,
            allow_changes=asked.allow_changes,
            split=asked.split,
            held_out=asked.held_out,
            device=asked.device,
            devices=asked.devices,
            nodes=asked.nodes,
            strategy=asked.strategy,
            progress=bars,
        )
    skipped = f", {outcome.skipped} steps without finite gradients" if outcome.skipped else ""
    out = Console()
    out.print(
        f"{asked.out}: {outcome.reason} at step {outcome.step}{skipped}", markup=False, highlight=False, soft_wrap=True
    )
    if outcome.reason == "stopped":
        out.print(
            f"go on with: meshwright train --resume --out {asked.out}", markup=False, highlight=False, soft_wrap=True
        )


def parse_training(words: Sequence[str]) -> Training:
    """The words as a training; those that are left out come from the recipe, the file or the run.

    Raises:
        InputError: a word makes no sense; one line that says which.
        SystemExit: help was asked for and has been printed.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", "--base", type=Path)
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    recipe, words = (words[0], words[1:]) if words and not words[0].startswith("-") else ("", words)
    try:
        sources, rest = first.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; see meshwright train --help") from None
    if not recipe and not sources.resume and sources.config is None and not {"-h", "--help"} & set(words):
        raise InputError(f"no recipe was given; use one of {', '.join(RECIPES)}, for example {_EXAMPLE}")
    config = _starting_config(recipe, sources.config, sources.out if sources.resume else None)
    rest = [*([f"--out={sources.out}"] if sources.out else []), *(["--resume"] if sources.resume else []), *rest]
    default = Training(recipe=recipe, config=config)
    assert Training.__doc__ is not None
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                Training,
                prog="meshwright train",
                description=Training.__doc__.format(recipes=", ".join(RECIPES)),
                default=default,
                args=[recipe or "-", *rest] if recipe else rest,
            )
    except SystemExit as stop:
        if stop.code:
            raise InputError(one_line(complaint.getvalue())) from None
        raise


def _starting_config(recipe: str, file: Path | None, run: Path | None) -> TrainConfig:
    if file is not None or run is not None:
        path = file or (run or Path()) / "config.yaml"
        if recipe:
            raise InputError(f"{recipe} and {path} both give a config; leave one out")
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise InputError(f"{path}: cannot be read ({reason.lower()}); name a config, or a run to resume") from None
        return from_yaml(text, str(path))
    if not recipe:
        return RECIPES["tiny_stage1"]()  # of whom --help shows the numbers
    if recipe not in RECIPES:
        raise InputError(f"{recipe}: is no recipe; use one of {', '.join(RECIPES)}")
    return RECIPES[recipe]()


def _data_of(out: Path, resume: bool) -> str:
    if resume:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((out / "run.json").read_text())["data_path"])
    raise InputError("no data set was given; render one with meshwright curate render, then give it as --data")
