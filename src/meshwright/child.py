"""A function in a child process with limits: started, watched, heard; and the child's own side of that.

The child takes one task as a line of JSON on its standard input and answers in such lines: ``{"ready"}`` once libraries
are loaded and limits set, ``{"stage", "fraction", "detail"}``, and at last ``{"end"}``. The result comes in a file that
both have open. Nothing here waits for torch to be loaded.
"""

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from meshwright.errors import InputError
from meshwright.limits import Limits, NotAllowed, is_out_of_memory, refusing, restrain
from meshwright.progress import Progress, silent
from meshwright.untrusted import parse_json

_LIBRARIES_S = 300.0  # for a busy machine to load them
_LINE_BYTES = 1 << 20
_RESULT_BYTES = 64 << 30
_WITHOUT = "do not use it, or leave out `isolate` if you trust it"


def run_in_child(
    function: str,
    arguments: Mapping[str, Any],
    result: BinaryIO,
    where: object,
    limits: Limits = Limits(),
    progress: Progress = silent,
) -> None:
    """Call a function in a child process. Whatever it does to that process, this one goes on.

    Args:
        function: ``module:name``; called as ``name(**arguments, result=..., progress=...)``, it writes to ``result``.
        arguments: can be JSON.
        result: a file of the system (not in memory); when this returns, the child is gone and changes it no more.
        where: the file that is read; begins errors.

    Raises:
        InputError: as the function does, or reading the file crashed the child, took it beyond its limits, or wanted
            a program or a connection.
        RuntimeError: the function has a fault; with its traceback.
    """
    if not hasattr(os, "killpg"):
        raise InputError("`isolate`: needs Linux or macOS; leave it out here")
    with tempfile.TemporaryFile() as log:
        child = _start(result, log)
        try:
            task = {"function": function, "arguments": arguments, "limits": vars(limits), "result": result.fileno()}
            ending = _Conversation(child, limits).hold(task, progress)
        finally:
            _end(child)
        match ending:
            case None:
                raise InputError(f"{where}: {_how_it_ended(child.returncode)}")
            case {"end": "done"}:
                return
            case {"end": "input", "error": error}:
                raise InputError(str(error))
            case {"end": "memory"}:
                most = f"{limits.memory_limit_mib} MiB"
                raise InputError(f"{where}: reading it takes more than {most}; make it smaller, or {_WITHOUT}")
            case {"end": "time"}:
                most = f"{limits.time_limit_s:g} s"
                raise InputError(f"{where}: reading it takes longer than {most}; make it smaller, or {_WITHOUT}")
            case {"end": "refused"}:
                raise InputError(f"{where}: reading it wants another program or a connection; {_WITHOUT}")
        log.seek(0)
        raise RuntimeError(f"in the process that reads {where}:\n{log.read(1 << 20).decode(errors='replace')}")


def _start(result: BinaryIO, log: BinaryIO) -> "subprocess.Popen[bytes]":
    # -P: not from the current folder, where a stranger's files may lie; nor by an empty entry, which means that folder.
    package = str(Path(__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "meshwright.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=[result.fileno()],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # so that it can be ended with what it started, and Ctrl-C comes to us alone
    )


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the child if it lives; a call that is interrupted has done its part, or is made again."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()


def _how_it_ended(code: int) -> str:
    if -code == signal.SIGKILL:
        return f"the process that reads it was killed, perhaps since memory ran out; make it smaller, or {_WITHOUT}"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"reading it crashed ({name}), in a process of its own; {_WITHOUT}"


class _Conversation:
    """With a child that need not keep to it."""

    def __init__(self, child: "subprocess.Popen[bytes]", limits: Limits) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._to, self._from = child.stdin, child.stdout
        self._limits = limits
        self._heard = b""

    def hold(self, task: Mapping[str, Any], progress: Progress) -> dict[str, Any] | None:
        """Give the task and hear how it goes: the last message, or None where the child ended without one."""
        with contextlib.suppress(BrokenPipeError):
            self._to.write(json.dumps(task).encode() + b"\n")
            self._to.flush()
        end_s = time.monotonic() + _LIBRARIES_S
        while True:
            try:
                message = self._message(end_s)
            except TimeoutError:
                return {"end": "time"}
            if message is None or "end" in message:
                return message
            if "ready" in message:
                end_s = time.monotonic() + self._limits.time_limit_s
            elif isinstance(fraction := message.get("fraction"), int | float):
                stage, detail = str(message.get("stage"))[:60], str(message.get("detail", ""))[:200]
                progress(stage, min(1.0, max(0.0, float(fraction))), detail)

    def _message(self, end_s: float) -> dict[str, Any] | None:
        while b"\n" not in self._heard:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._from], [], [], left_s)[0]:
                raise TimeoutError
            more = os.read(self._from.fileno(), 1 << 16)
            if not more or len(self._heard) > _LINE_BYTES:
                return None
            self._heard += more
        line, self._heard = self._heard.split(b"\n", 1)
        try:
            message = parse_json(line, "its message")
        except InputError:
            return None
        return message if isinstance(message, dict) else None


def main() -> None:
    """The child: do one task, say how it ended, end."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes to the log
    task = json.loads(sys.stdin.readline() or "{}")
    if not task:
        return
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    module, _, name = task["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    limits = Limits(**task["limits"])
    restrain(limits.time_limit_s, limits.memory_limit_mib, _RESULT_BYTES)
    sys.addaudithook(refusing())
    _say(own, ready=True)
    try:
        with os.fdopen(task["result"], "wb", closefd=False) as result:
            function(
                **task["arguments"],
                result=result,
                progress=lambda stage, share, detail="": _say(own, stage=stage, fraction=share, detail=detail),
            )
        _say(own, end="done")
    except InputError as error:
        _say(own, end="input", error=str(error))
    except NotAllowed:
        _say(own, end="refused")
    except Exception as error:
        traceback.print_exc()
        _say(own, end="memory" if is_out_of_memory(error) else "fault")


def _say(stream: io.TextIOBase, **message: Any) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _end_with_the_parent() -> None:
    """Its end of our input closes, however it ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
