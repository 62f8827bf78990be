"""Time and memory of one piece of work in a process of its own, beside the speed of plain matmuls at that moment."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measurement:
    """``seconds``: of the fastest repeat; ``first_seconds``: of the first run, with whatever it had to set up.

    ``peak_mib``: of the whole process; ``before_mib``: its peak before the first run. ``matmul_gflops``: the fastest
    of the float32 matmuls timed before and between the repeats.
    """

    first_seconds: float
    seconds: float
    cpu_seconds: float
    before_mib: float
    peak_mib: float
    matmul_gflops: float


def measure(work: Callable[[], Result], repeats: int) -> tuple[Measurement, Result]:
    """Run ``work`` once, then ``repeats`` times more."""
    before = _peak_mib()
    matmul = [_matmul_gflops()]
    times = []
    for _ in range(1 + repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        times.append((time.perf_counter() - start, time.process_time() - start_cpu))
        matmul.append(_matmul_gflops())
    seconds, cpu_seconds = min(times[1:] or times)
    return Measurement(times[0][0], seconds, cpu_seconds, before, _peak_mib(), max(matmul)), result


def in_child(module: str, arguments: Sequence[object]) -> Measurement:
    """Run ``python -m module arguments`` and read the measurement that it prints by `print_measurement`."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Measurement(**json.loads(output.splitlines()[-1]))


def print_measurement(measurement: Measurement) -> None:
    print(json.dumps(asdict(measurement)))


def _matmul_gflops() -> float:
    a, b = torch.ones(3072, 1024), torch.ones(1024, 4096)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 3072 * 1024 * 4096 / min(times) / 1e9


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
