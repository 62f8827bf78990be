"""How long each stage of the work took, and how much memory."""

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.progress import Progress, silent


@dataclass(frozen=True)
class Stage:
    """One stage of the work: its name, how long it took, and how much memory the process held at most."""

    name: str
    seconds: float
    peak_memory_mib: float


@dataclass
class StageClock:
    """A Progress that notes seconds and peak memory of each stage and passes everything on."""

    inner: Progress = silent
    stages: list[Stage] = field(default_factory=list)
    _current: str | None = None
    _started: float = 0.0

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        if stage != self._current:
            self.close()
            self._current, self._started = stage, time.perf_counter()
            _reset_peak_memory()
        self.inner(stage, fraction, detail)

    def close(self) -> None:
        """End the running stage, if there is one."""
        if self._current is not None:
            seconds = time.perf_counter() - self._started
            self.stages.append(Stage(self._current, round(seconds, 3), round(_peak_memory_mib(), 1)))
            self._current = None


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
