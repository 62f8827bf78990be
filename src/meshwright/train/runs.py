"""A run on disk: what was asked, what was measured, and checkpoints from which it goes on bit for bit.

    RUN/config.yaml         the `TrainConfig`
    RUN/run.json            versions, data set, and what the weights started from
    RUN/metrics.jsonl       one line a step, and one a validation
    RUN/tensorboard/        the same for TensorBoard
    RUN/pictures/           what the data looks like, and predictions
    RUN/model.safetensors   the running mean of the weights at the last checkpoint: ``reconstruct --model RUN``
    RUN/checkpoints/step-N/ model, ema, optimizer (.safetensors) and state.json
    RUN/skipped/            batches whose gradients were not finite

A checkpoint appears whole or not at all: its folder is written under another name, flushed to the disk and renamed.
Nothing is pickled. No state of a random generator is among it, because nothing in a training draws from one that goes
on: every draw comes from (seed, number of the sample).
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.train.config import TrainConfig, differences, from_yaml, to_yaml
from meshwright.train.sharding import is_sharded, load_weights, part_like, whole, whole_model
from meshwright.weights import save_model

_METRICS = "metrics.jsonl"


@dataclass(eq=False)
class TrainState:
    """Everything that changes from step to step. ``step``: how many are done. ``skipped``: how many of them in vain."""

    model: InstantNeRF | InstantMesh
    ema: InstantNeRF | InstantMesh
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    step: int = 0
    skipped: int = 0
    best_step: int = -1
    best_psnr: float = float("-inf")

    def whole(self) -> "TrainState":
        """The same, with whole tensors if processes share them; then every process has to ask. Else itself."""
        if not is_sharded(self.model):
            return self
        model, ema = whole_model(self.model), whole_model(self.ema)
        optimizer = torch.optim.AdamW(model.parameters())  # a place for the means; its own numbers are not used
        names, parameters = _named(self.model), dict(model.named_parameters())
        for parameter, values in self.optimizer.state.items():
            optimizer.state[parameters[names[parameter]]] = {kind: whole(value) for kind, value in values.items()}
        return dataclasses.replace(self, model=model, ema=ema, optimizer=optimizer)


class Run:
    """A run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"

    @classmethod
    def create(cls, folder: Path, config: TrainConfig, facts: Mapping[str, object]) -> "Run":
        """A new folder; ``facts`` (the data set's description among them) go to run.json.

        Raises:
            InputError: it holds a run already, or cannot be written.
        """
        if (folder / "config.yaml").exists():
            raise InputError(f"{folder}: holds a run; go on with `resume` or choose another `out`")
        run = cls(folder)
        with writing(folder):
            for name in ("checkpoints", "pictures"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            _write_text(folder / "run.json", json.dumps({**facts, "versions": versions()}, indent=1) + "\n")
            _write_text(folder / _METRICS, "")
            # Last: a folder with a config is a run.
            _write_text(folder / "config.yaml", to_yaml(config))
        return run

    @classmethod
    def resume(
        cls, folder: Path, config: TrainConfig | None, data: str, changed: bool = False
    ) -> tuple["Run", TrainConfig]:
        """An existing run, and the config to go on with: its own, or ``config`` where that asks for the same result.

        ``data``: the data set's description. ``changed``: go on even if config or data differ.

        Raises:
            InputError: no run is there, or it is about something else.
        """
        path = folder / "config.yaml"
        if not path.exists():
            raise InputError(f"{folder}: holds no run to resume; leave `resume` out to begin one")
        run, stored = cls(folder), from_yaml(path.read_text(), str(path))
        config = config or stored
        facts = json.loads((folder / "run.json").read_text())
        problems = differences(stored, config)
        if facts.get("data") != data:
            problems.append("the data set has changed")
        if problems and not changed:
            raise InputError(
                f"{folder}: is another training ({'; '.join(problems[:3])});"
                " choose another --out, or say --allow-changes to go on with the new values"
            )
        with writing(folder):
            _write_text(path, to_yaml(config))
            _write_text(folder / "run.json", json.dumps({**facts, "data": data}, indent=1) + "\n")
        return run, config

    # --- checkpoints -------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.checkpoints.glob("step-????????"))

    def save(self, state: TrainState, keep: int) -> None:
        """Write a checkpoint, flushed to the disk, and remove those that are neither among the last nor the best.

        Raises:
            InputError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        final = self._checkpoint(state.step)
        for stray in self.checkpoints.glob(".*"):  # of a run that was killed while it saved
            shutil.rmtree(stray, ignore_errors=True)
        temporary = self.checkpoints / f".{final.name}"
        try:
            with writing(self.folder):
                temporary.mkdir()
                save_model(state.model, temporary / "model.safetensors")
                save_model(state.ema, temporary / "ema.safetensors")
                tensors = _optimizer_tensors(state)
                save_file(tensors, temporary / "optimizer.safetensors")
                _write_text(temporary / "state.json", json.dumps(_numbers(state)) + "\n")
                for file in temporary.iterdir():
                    _flush(file)
                _flush(temporary)
                os.rename(temporary, final)
                _flush(self.checkpoints)
                self._publish(final / "ema.safetensors")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for step in self.steps()[:-keep]:
            if step != state.best_step:
                old = self._checkpoint(step)
                hidden = old.with_name("." + old.name)
                os.rename(old, hidden)  # so that no half of it is ever taken for a whole one
                shutil.rmtree(hidden, ignore_errors=True)

    def load(self, state: TrainState) -> bool:
        """Put the last checkpoint into ``state``, in place; False if there is none yet.

        Raises:
            InputError: it is damaged or of another model.
        """
        if not (steps := self.steps()):
            return False
        folder = self._checkpoint(steps[-1])
        try:
            for module, name in ((state.model, "model"), (state.ema, "ema")):
                load_weights(module, load_file(folder / f"{name}.safetensors"))
            tensors = load_file(folder / "optimizer.safetensors")
            numbers = json.loads((folder / "state.json").read_text())
            _restore_optimizer(state, tensors)
            if state.scaler is not None and numbers.get("scaler"):
                state.scaler.load_state_dict(numbers["scaler"])
            for name in ("step", "skipped", "best_step"):
                setattr(state, name, int(numbers[name]))
            state.best_psnr = float("-inf") if numbers["best_psnr"] is None else float(numbers["best_psnr"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"{folder}: cannot be loaded ({reason}); remove it to go on from the one before") from None
        return True

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def _publish(self, weights: Path) -> None:
        """Let RUN/model.safetensors be ``weights``, by a second name for the same bytes where the disk can do that."""
        with atomic_path(self.folder / "model.safetensors") as temporary:
            temporary.unlink()
            try:
                os.link(weights, temporary)
            except OSError:
                shutil.copyfile(weights, temporary)
        _flush(self.folder)

    # --- what was measured ---------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, object]) -> None:
        """Add a line to metrics.jsonl."""
        with writing(self.folder), (self.folder / _METRICS).open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / _METRICS).read_text().splitlines() if _is_whole(line)]

    def forget_after(self, step: int) -> None:
        """Remove the measurements of steps that will be done again, and a line cut off by a crash."""
        lines = [json.dumps(values) + "\n" for values in self.metrics() if values["step"] <= step]
        with writing(self.folder):
            _write_text(self.folder / _METRICS, "".join(lines))

    def save_skipped(self, step: int, batch: Any) -> None:
        """Keep a batch whose gradients were not finite."""
        tensors = {
            field.name: value.contiguous().cpu()
            for field in dataclasses.fields(batch)
            if isinstance(value := getattr(batch, field.name), Tensor)
        }
        with writing(self.folder):
            (self.folder / "skipped").mkdir(exist_ok=True)
            path = self.folder / "skipped" / f"step-{step:08d}.safetensors"
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, {"names": ", ".join(batch.names)})


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises into a message."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(
            f"{folder}: cannot write there ({reason}); free space, then go on with --resume: checkpoints are whole"
        ) from error


def versions() -> dict[str, str]:
    """Of what computes, for the record."""
    names = ("meshwright", "torch", "numpy", "lightning-fabric")
    found = {name: version(name) for name in names}
    found["python"] = platform.python_version()
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found | ({"commit": git.stdout.strip()} if git.returncode == 0 else {})


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)
        _flush(temporary)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _numbers(state: TrainState) -> dict[str, object]:
    return {
        "step": state.step,
        "skipped": state.skipped,
        "best_step": state.best_step,
        "best_psnr": None if state.best_step < 0 else state.best_psnr,
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
    }


def _named(module: nn.Module) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in module.named_parameters()}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """The optimiser's running means by parameter: ``exp_avg/encoder...``; a parameter never stepped has none."""
    names = _named(state.model)
    return {
        f"{kind}/{names[parameter]}": value.detach().cpu().contiguous()
        for parameter, values in state.optimizer.state.items()
        for kind, value in values.items()
    }


def _restore_optimizer(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    parameters = {name: parameter for parameter, name in _named(state.model).items()}
    state.optimizer.state.clear()
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        parameter = parameters[name]
        # Counters of steps stay on the CPU, where torch keeps them.
        moved = value if value.dim() == 0 else part_like(value, parameter)
        state.optimizer.state[parameter][kind] = moved
