"""The options of commands that only read files."""

from dataclasses import dataclass

from tyro.conf import Suppress

from meshwright.options import RunOptions


@dataclass(frozen=True)
class RunReading(RunOptions):
    """How files are read."""

    device: Suppress[str] = RunOptions.device
    seed: Suppress[int] = RunOptions.seed
