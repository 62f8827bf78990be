"""Hostile inputs through the real command line: a sample in every test run, 2,000 behind the marker ``hostile``."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads limits as Linux keeps them")


def _campaign(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("campaign.py")), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert re.match(r"\d+ inputs, 0 tracebacks, 0 wrong exits, 0 leftovers, 0 code executions", lines[-1]), done.stdout
    return "\n".join(lines[-2:])


def test_a_hundred_hostile_inputs_do_no_harm():
    assert _campaign("--seed", "0", "--count", "60", "--corpus", "--every", "7")


@pytest.mark.hostile
def test_two_thousand_hostile_inputs_do_no_harm():
    print(_campaign("--seed", "4", "--count", "1800", "--corpus"))  # seen with pytest -s
