"""Two processes with half the batch each train as one process with the whole, each with the whole model or a part."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.train import Run
from meshwright.weights import load_model
from training_scenes import last_tensors, same, write_dataset

TRAIN = """
import dataclasses, os, sys
sys.path.insert(0, {tests!r})
from meshwright.train import run_training
from meshwright.train import training
from training_scenes import stage1_config, stage2_config
config = {config}
make = training.make_objective
def disturbed(config):
    objective = make(config)
    calls = 0
    def objective_or_nan(model, batch, seeds):
        nonlocal calls
        calls += 1
        here = os.environ.get("RANK") == "1"
        terms, prediction = objective(model, batch, seeds)
        if here and calls == {nan_at}:
            terms["mse"] = terms["mse"] * float("nan")
        if here and {headless}:  # as from an object without a surface: no head has a part in it
            used = model.encoder.camera_embedder[0].weight.square().sum()
            terms = {{name: used if name == "mse" else 0 * used for name in terms}}
        return terms, prediction
    return objective_or_nan
if {nan_at} or {headless}:
    training.make_objective = disturbed
run_training(config, {data!r}, {out!r}, device="cpu", held_out={data!r}, strategy={strategy!r}, resume={resume})
"""
SIX_STEPS = "stage1_config(steps=6, checkpoint_every=3, accumulation=2, batch_size={batch_size})"
STRATEGIES = ["ddp", "fsdp"]


def train(
    folder: Path,
    data: Path,
    processes: int,
    strategy: str = "ddp",
    config: str = SIX_STEPS,
    resume: bool = False,
    nan_at: int = 0,
    headless: bool = False,
) -> Run:
    script = folder.with_suffix(".py")
    script.write_text(
        TRAIN.format(
            tests=str(Path(__file__).parent),
            config=config.format(batch_size=2 // processes),
            data=str(data),
            out=str(folder),
            strategy=strategy,
            resume=resume,
            nan_at=nan_at,
            headless=headless,
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    subprocess.run([sys.executable, *(launcher if processes > 1 else []), str(script)], check=True, timeout=240)
    return Run(folder)


def numbers(run: Run, name: str) -> list[float]:
    return [line[name] for line in run.metrics() if name in line]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("alone") / "run", data, processes=1)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_as_one_with_the_same_global_batch(strategy, data, alone, tmp_path):
    two = train(tmp_path / "two", data, processes=2, strategy=strategy)
    assert len(numbers(two, "loss")) == 6
    assert numbers(two, "loss") == pytest.approx(numbers(alone, "loss"), rel=1e-4)
    assert numbers(two, "gradient") == pytest.approx(numbers(alone, "gradient"), rel=1e-3)
    assert two.steps() == alone.steps()
    measured, expected = ([v["psnr"] for v in numbers(run, "validation")] for run in (two, alone))
    assert measured == pytest.approx(expected, rel=1e-4)
    ours, theirs = last_tensors(two), last_tensors(alone)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():  # files hold whole tensors, however they were split
        assert tensor.shape == theirs[name].shape, name
        assert float((tensor - theirs[name]).abs().max()) < 1e-4, name
    load_model(str(two.folder))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_split_training_goes_on_bit_for_bit_or_with_another_number_of_processes(processes, data, alone, tmp_path):
    half = SIX_STEPS.replace("steps=6", "steps=3")
    train(tmp_path / "run", data, processes=2, strategy="fsdp", config=half)
    # As --allow-changes would: a rate that is constant does not depend on how long the training is to be.
    text = (tmp_path / "run" / "config.yaml").read_text().replace("steps: 3\n", "steps: 6\n")
    text = text.replace("batch_size: 1\n", f"batch_size: {2 // processes}\n")
    (tmp_path / "run" / "config.yaml").write_text(text)
    parts = train(tmp_path / "run", data, processes, strategy="fsdp", resume=True)
    assert numbers(parts, "loss") == pytest.approx(numbers(alone, "loss"), rel=1e-4)
    if processes == 2:
        whole = train(tmp_path / "whole", data, processes=2, strategy="fsdp")
        assert numbers(parts, "loss") == numbers(whole, "loss")
        assert same(last_tensors(parts), last_tensors(whole))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_process_whose_object_uses_no_head_keeps_the_other_going(strategy, data, tmp_path):
    config = "dataclasses.replace(stage2_config(), steps=2, accumulation=1, batch_size={batch_size})"
    run = train(tmp_path / "run", data, processes=2, strategy=strategy, config=config, headless=True)
    assert len(numbers(run, "loss")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_that_is_not_finite_on_one_process_skips_the_step_on_both(strategy, data, tmp_path):
    run = train(tmp_path / "run", data, processes=2, strategy=strategy, nan_at=5)
    assert [isinstance(loss, str) for loss in numbers(run, "loss")] == [False, False, True, False, False, False]
    # The weights of both are equal, or the last checkpoint would not have been written.
    state = json.loads((run.checkpoints / "step-00000006" / "state.json").read_text())
    assert state["skipped"] == 1
