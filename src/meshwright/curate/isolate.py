"""A function in a process of its own, with limits: whatever a file does to its reader, it does to that process alone.

Processes are forked off a server that has imported torch and loaded the compiled kernels once (see ``warm.py``), so
that one costs some ten milliseconds. Memory is limited where the system can (Linux).
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from meshwright.errors import InputError
from meshwright.limits import Limits, is_out_of_memory, restrain

_MOST_TRIES = 3  # of a task whose process somebody else killed


@dataclass(frozen=True)
class Outcome:
    """How a process ended. ``kind``: done, input (the file cannot be used), time, memory, killed (by somebody else),
    crash, bug, or system (the disk is full, say: no fault of the file's). ``reason``: one line, empty when done.
    ``value``: what the function returned."""

    kind: str
    reason: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    value: Any = None


class Isolated:
    """``function(*arguments)`` running in a process of its own; both must be picklable."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits) -> None:
        context = _context()
        self._limits = limits
        self._answer, answer = context.Pipe(duplex=False)
        self._started = time.monotonic()
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_in_child, args=(function, arguments, limits, answer), daemon=False
        )
        self._process.start()
        answer.close()

    @property
    def sentinel(self) -> int:
        """Ready (for `multiprocessing.connection.wait`) when the process has ended."""
        return int(self._process.sentinel)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._started + self._limits.time_limit_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self._process.exitcode is not None or self.seconds_left == 0

    def finish(self) -> Outcome:
        """Wait until the process has ended by itself or its time is over."""
        self._process.join(self.seconds_left)
        late = self._process.exitcode is None
        if late:
            self.kill()
        seconds = time.monotonic() - self._started
        answer = _received(self._answer)
        self._answer.close()
        code = self._process.exitcode
        self._process.close()
        if answer is not None:
            return dataclasses.replace(answer, seconds=seconds)
        if late or (code is not None and -code == getattr(signal, "SIGALRM", None)):
            return Outcome("time", f"took longer than {self._limits.time_limit_s:g} s", seconds, 0.0, 0.0)
        if code == -signal.SIGKILL:
            reason = "its process was killed (by the system when memory ran out, or by a person)"
            return Outcome("killed", reason, seconds, 0.0, 0.0)
        return Outcome("crash", f"its process ended with code {code}", seconds, 0.0, 0.0)

    def kill(self) -> None:
        """End the process and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def run_isolated(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: int, limits: Limits
) -> Iterator[tuple[int, Outcome]]:
    """``function(*task)`` for all tasks, ``workers`` at a time, each in a process of its own: its number and how it
    ended, in the order they end. A task whose process was killed from outside is tried again.

    Raises:
        InputError: the system does not play along, whatever the task: a full disk, say.
    """
    _wait_for_server()
    waiting = [(number, 1) for number in range(len(tasks))][::-1]
    running: dict[Isolated, tuple[int, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, attempt = waiting.pop()
                running[Isolated(function, tasks[number], limits)] = (number, attempt)
            multiprocessing.connection.wait(
                [process.sentinel for process in running], min(process.seconds_left for process in running)
            )
            for process in [process for process in running if process.is_over]:
                number, attempt = running.pop(process)
                outcome = process.finish()
                if outcome.kind == "system":
                    raise InputError(f"cannot go on ({outcome.reason}); mend that and run it again")
                if outcome.kind == "killed" and attempt < _MOST_TRIES:
                    waiting.append((number, attempt + 1))
                    continue
                yield number, outcome
    finally:
        for process in running:
            process.kill()


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["meshwright.curate.warm"])
    return context


def _wait_for_server() -> None:
    """Until processes can be forked at once: no task's time is spent on libraries that are still being loaded."""
    process = _context().Process(target=int)  # type: ignore[attr-defined]
    process.start()
    process.join()


def _received(connection: Connection) -> Outcome | None:
    try:
        return connection.recv() if connection.poll() else None  # written by our own code, before the file was read
    except (EOFError, OSError):
        return None


def _in_child(function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits, answer: Connection) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # so that ending this process can end what it starts (Blender)
    restrain(limits.time_limit_s, limits.memory_limit_mib)
    started = time.monotonic()
    kind, reason, value = "done", "", None
    try:
        value = function(*arguments)
    except InputError as error:
        kind, reason = "input", _one_line(error)
    except Exception as error:
        if is_out_of_memory(error):
            kind, reason = "memory", f"needs more than {limits.memory_limit_mib} MiB"
        elif isinstance(error, OSError):
            kind, reason = "system", _one_line(error)
        else:
            kind, reason = "bug", f"{type(error).__name__}: {_one_line(error)}"
            traceback.print_exc()
    answer.send(Outcome(kind, reason, time.monotonic() - started, time.process_time(), _peak_mib(), value))
    answer.close()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _peak_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
