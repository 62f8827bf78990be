"""Runs survive: kill -9 anywhere in a save, signals, full disks; and refuse to go on with something else."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from meshwright.errors import InputError
from meshwright.model import build_model
from meshwright.train.config import from_yaml
from meshwright.train.loop import make_optimizer
from meshwright.train.runs import Run, TrainState
from meshwright.train.training import run_training
from meshwright.weights import load_model
from training_scenes import stage1_config, write_dataset

CONFIG = stage1_config(steps=4, checkpoint_every=2)


def state_of(step: int, seed: int = 0) -> TrainState:
    model, ema = build_model(CONFIG.model, seed), build_model(CONFIG.model, seed + 1)
    state = TrainState(model, ema, make_optimizer(CONFIG.optimizer, model), step=step)
    for parameter in model.parameters():
        parameter.grad = parameter.detach() + 0.1
    state.optimizer.step()
    return state


def new_run(folder: Path) -> Run:
    return Run.create(folder, CONFIG, {"data": "d"})


def weights(run: Run) -> TrainState:
    state = state_of(0, seed=5)
    assert run.load(state)
    return state


def test_a_checkpoint_gives_back_weights_means_and_optimiser(tmp_path):
    run, saved = new_run(tmp_path / "run"), state_of(7)
    saved.skipped, saved.best_step, saved.best_psnr = 2, 3, 21.5
    run.save(saved, keep=2)
    found = weights(run)
    for a, b in ((saved.model, found.model), (saved.ema, found.ema)):
        assert all((x == y).all() for x, y in zip(a.parameters(), b.parameters(), strict=True))
    for a, b in zip(saved.model.parameters(), found.model.parameters(), strict=True):
        mine, theirs = saved.optimizer.state[a], found.optimizer.state[b]
        assert mine.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all((mine[key] == theirs[key]).all() for key in mine)
    assert (found.step, found.skipped, found.best_step, found.best_psnr) == (7, 2, 3, 21.5)
    loaded = load_model(run.folder)  # as reconstruct --model RUN does
    assert all((x == y).all() for x, y in zip(saved.ema.parameters(), loaded.parameters(), strict=True))


def test_the_last_and_the_best_are_kept(tmp_path):
    run = new_run(tmp_path / "run")
    state = state_of(0)
    for step in range(1, 7):
        state.step = step
        if step == 2:
            state.best_step, state.best_psnr = 2, 30.0
        run.save(state, keep=2)
    assert run.steps() == [2, 5, 6]
    assert not list(run.checkpoints.glob(".*"))


def test_a_run_refuses_another_training_unless_told(tmp_path):
    new_run(tmp_path / "run")
    Run.resume(tmp_path / "run", dataclasses.replace(CONFIG, checkpoint_every=1), "d")
    other = dataclasses.replace(CONFIG, seed=8)
    with pytest.raises(InputError, match="seed: 7 -> 8"):
        Run.resume(tmp_path / "run", other, "d")
    with pytest.raises(InputError, match="data set has changed"):
        Run.resume(tmp_path / "run", None, "e")
    Run.resume(tmp_path / "run", other, "e", changed=True)
    _, config = Run.resume(tmp_path / "run", None, "e")
    assert config == other
    with pytest.raises(InputError, match="holds a run"):
        new_run(tmp_path / "run")
    with pytest.raises(InputError, match="no run to resume"):
        Run.resume(tmp_path / "nothing", None, "d")


def test_metrics_of_steps_to_be_done_again_are_forgotten_and_a_cut_line_too(tmp_path):
    run = new_run(tmp_path / "run")
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 0.5})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run.forget_after(2)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = new_run(tmp_path / "run")
    run.save(state_of(3), keep=2)
    (run.checkpoints / "step-00000003" / "optimizer.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match=r"step-00000003: cannot be loaded .* remove it"):
        run.load(state_of(0))


# --- killed in the middle of a save -------------------------------------------------------------------------------

SAVE_AND_DIE = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_runs import Run, state_of
count = 0
def counted(handle, fsync=os.fsync):
    global count
    count += 1
    if count == {at}:
        os.kill(os.getpid(), 9)
    fsync(handle)
os.fsync = counted
import meshwright.train.runs
Run(Path({folder!r})).save(state_of(2, seed=3), keep=2)
print(count)
"""


def save_and_die(folder: Path, at: int) -> subprocess.CompletedProcess[str]:
    code = SAVE_AND_DIE.format(tests=str(Path(__file__).parent), at=at, folder=str(folder))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_killed_at_any_flush_of_a_save_a_run_has_a_whole_checkpoint(tmp_path):
    whole = new_run(tmp_path / "whole")
    whole.save(state_of(1), keep=2)
    flushes = int(save_and_die(whole.folder, at=-1).stdout)
    assert flushes >= 7  # four files and state.json's own, the folder, its parent, the run's folder
    for at in range(1, flushes + 1):
        run = new_run(tmp_path / f"killed-{at}")
        run.save(state_of(1), keep=2)
        assert save_and_die(run.folder, at).returncode == -9
        assert run.steps() in ([1], [1, 2])
        expected = state_of(1) if run.steps() == [1] else state_of(2, seed=3)
        found = weights(run)
        assert found.step == run.steps()[-1]
        assert all((x == y).all() for x, y in zip(expected.model.parameters(), found.model.parameters(), strict=True))
        load_model(run.folder)
        found.step = 3
        run.save(found, keep=2)
        assert run.steps()[-1] == 3
        assert not list(run.checkpoints.glob(".*"))


TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from meshwright.train.training import run_training
from training_scenes import stage1_config
import dataclasses, os, signal
def progress(stage, fraction, detail=""):
    if round(fraction * {steps}) == {at}:
        os.kill(os.getpid(), signal.{name})
run_training(stage1_config(steps={steps}, checkpoint_every=5), {data!r}, {out!r}, resume={resume}, device="cpu",
             progress=progress)
"""


def train_in_child(data: Path, out: Path, at: int = -1, name: str = "SIGKILL", resume: bool = False) -> int:
    code = TRAIN.format(
        tests=str(Path(__file__).parent), steps=10, at=at, name=name, data=str(data), out=str(out), resume=resume
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode in (0, -9), child.stderr
    return child.returncode


def result(folder: Path) -> tuple[list[float], str, dict[str, bytes]]:
    """All losses, numbers and tensors of a finished run (not its files' bytes: safetensors shuffles metadata)."""
    run = Run(folder)
    last = run.checkpoints / f"step-{run.steps()[-1]:08d}"
    tensors = {
        f"{f.name}/{k}": v.numpy().tobytes() for f in last.glob("*.safetensors") for k, v in load_file(f).items()
    }
    return [line["loss"] for line in run.metrics()], (last / "state.json").read_text(), tensors


@pytest.mark.slow
def test_killed_and_resumed_a_training_ends_with_the_same_bits(tmp_path):
    data = write_dataset(tmp_path / "data")
    assert train_in_child(data, tmp_path / "whole") == 0
    assert train_in_child(data, tmp_path / "killed", at=7) == -9
    assert Run(tmp_path / "killed").steps() == [5]
    assert train_in_child(data, tmp_path / "killed", resume=True) == 0
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    assert train_in_child(data, tmp_path / "asked", at=3, name="SIGTERM") == 0
    assert Run(tmp_path / "asked").steps() == [4]
    assert train_in_child(data, tmp_path / "asked", resume=True) == 0
    assert result(tmp_path / "asked") == result(tmp_path / "whole")


# --- the whole road in this process -------------------------------------------------------------------------------


def test_a_run_says_what_it_was(tmp_path):
    data = write_dataset(tmp_path / "data")
    held_out = write_dataset(tmp_path / "held_out", ["flat"])
    config = dataclasses.replace(CONFIG, validate_every=2, pictures_every=2)
    run_training(config, data, tmp_path / "run", device="cpu", held_out=held_out)
    run = Run(tmp_path / "run")
    assert from_yaml((run.folder / "config.yaml").read_text(), "x") == config
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["objects"] == 2
    assert facts["start"] == "random weights"
    assert "torch" in facts["versions"]
    assert sorted(path.name for path in (run.folder / "pictures").iterdir()) == [
        "data.png", "step-00000002.png", "step-00000004.png",
    ]  # fmt: skip
    validations = [line["validation"] for line in run.metrics() if "validation" in line]
    assert len(validations) == 2
    assert all(0 < v["psnr"] < 60 and -1 <= v["ssim"] <= 1 and 0 <= v["iou"] <= 1 for v in validations)
    assert list((run.folder / "tensorboard").iterdir())


def test_sigusr1_saves_and_ends_and_handlers_are_as_before(tmp_path):
    data = write_dataset(tmp_path / "data")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)

    def progress(stage: str, fraction: float, detail: str = "") -> None:
        if fraction == 0.5:  # heard in the step after
            os.kill(os.getpid(), signal.SIGUSR1)

    outcome = run_training(CONFIG, data, tmp_path / "run", device="cpu", progress=progress)
    assert (outcome.reason, outcome.step) == ("stopped", 3)
    assert Run(tmp_path / "run").steps() == [2, 3]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before


def test_on_a_full_disk_the_last_checkpoint_is_whole(tmp_path):
    run = new_run(tmp_path / "run")
    run.save(state_of(1), keep=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes a file: the optimiser does not fit
        with pytest.raises(InputError, match="cannot"):
            run.save(state_of(2), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.steps() == [1]
    assert not list(run.checkpoints.glob(".*"))
    assert weights(run).step == 1


def test_lpips_without_its_weights_is_one_line(tmp_path):
    data = write_dataset(tmp_path / "data", ["flat"])
    config = dataclasses.replace(CONFIG, losses=dataclasses.replace(CONFIG.losses, perceptual=2.0))
    started = time.perf_counter()
    with pytest.raises(InputError, match="LPIPS needs VGG16's weights"):
        run_training(config, data, tmp_path / "run", device="cpu")
    assert time.perf_counter() - started < 2
    assert not (tmp_path / "run").exists()
