"""Two processes with half the batch each train as one process with the whole."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.train import Run
from training_scenes import write_dataset

TRAIN = """
import dataclasses, sys
sys.path.insert(0, {tests!r})
from meshwright.train import run_training
from training_scenes import stage1_config
config = stage1_config(steps=6, checkpoint_every=3, accumulation=2, batch_size={batch_size})
objective_broken_on = {broken_on}
if objective_broken_on is not None:
    from meshwright.train import training
    make = training.make_objective
    def broken(config):
        objective = make(config)
        calls = 0
        import os
        def objective_or_nan(model, batch, seeds):
            nonlocal calls
            calls += 1
            terms, prediction = objective(model, batch, seeds)
            if calls == 5 and os.environ["RANK"] == str(objective_broken_on):
                terms["mse"] = terms["mse"] * float("nan")
            return terms, prediction
        return objective_or_nan
    training.make_objective = broken
run_training(config, {data!r}, {out!r}, device="cpu")
"""


def train(folder: Path, data: Path, processes: int, batch_size: int, broken_on: int | None = None) -> Run:
    script = folder.with_suffix(".py")
    script.write_text(
        TRAIN.format(
            tests=str(Path(__file__).parent),
            batch_size=batch_size,
            data=str(data),
            out=str(folder),
            broken_on=broken_on,
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    subprocess.run([sys.executable, *(launcher if processes > 1 else []), str(script)], check=True, timeout=240)
    return Run(folder)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path):
    data = write_dataset(tmp_path / "data")
    one = train(tmp_path / "one", data, processes=1, batch_size=2)
    two = train(tmp_path / "two", data, processes=2, batch_size=1)
    ours, theirs = ([line["loss"] for line in run.metrics()] for run in (two, one))
    assert len(ours) == 6
    assert ours == pytest.approx(theirs, rel=1e-4)
    gradients = [[line["gradient"] for line in run.metrics()] for run in (two, one)]
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-3)
    assert two.steps() == [3, 6]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_skips_the_step_on_both(tmp_path):
    data = write_dataset(tmp_path / "data")
    run = train(tmp_path / "run", data, processes=2, batch_size=1, broken_on=1)
    losses = [line["loss"] for line in run.metrics()]
    assert [isinstance(loss, str) for loss in losses] == [False, False, True, False, False, False]
    state = json.loads((run.checkpoints / "step-00000006" / "state.json").read_text())
    assert (
        state["skipped"] == 1
    )  # and the weights of both are equal, or the last checkpoint would not have been written
