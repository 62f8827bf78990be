"""What signals and refusals of the file system leave in DIR: a few in every test run, all behind ``hostile``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and signals of POSIX")


def _faults(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("faults.py")), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("\n0 wrong\n"), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sample() -> str:
    return _faults("--sample", "--only", "signals,errors")


def test_a_signal_leaves_old_results_whole_or_new_ones(sample):
    assert "| SIGTERM at hull | 1 | 1 x exit 143, old |" in sample
    assert "| SIGKILL at hull | 1 | 1 x exit -9, old, leftovers until the next run |" in sample
    assert "| SIGKILL at a rename |" in sample


def test_a_disk_that_refuses_leaves_old_results_whole(sample):
    assert "ENOSPC once at: write" in sample
    assert "EROFS from there on: write" in sample


@pytest.mark.hostile
def test_every_signal_at_every_stage_and_every_error_at_every_operation():
    print(_faults("--rounds", "50"))
