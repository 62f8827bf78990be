"""Entry point: what ends a run is one line and an exit code, never a traceback.

0: done. 1: a fault of this program, with the place of its log. 2: the user's input. 130, 129, 143: SIGINT, SIGHUP,
SIGTERM. That nobody takes what is shown changes none of these: results are files.
"""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import Any, TextIO, cast

import meshwright
from meshwright.cli.commands import COMMANDS
from meshwright.cli.display import console
from meshwright.cli.flags import in_flags, parse
from meshwright.errors import InputError
from meshwright.untrusted import printable

_ISSUES = "https://github.com/meshwright/meshwright/issues"


def main() -> None:
    """Run the command that ``sys.argv`` names; returns if all went well, else exits with one of the codes above."""
    streams = sys.stdout, sys.stderr
    handlers = {number: signal.getsignal(number) for number in _end_signals()}
    shown, said = _Tolerant(streams[0]), _Tolerant(streams[1])
    sys.stdout, sys.stderr = cast(TextIO, shown), cast(TextIO, said)
    try:
        code = _run(handlers)
        shown.flush()
        if shown.failed and not code:
            _say("what was to be shown could not be written to stdout; files that were to be made are there", "yellow")
        said.flush()
    finally:
        sys.stdout, sys.stderr = streams
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code:
        sys.exit(code)


def _run(signals: Iterable[signal.Signals]) -> int:
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, stop)
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"meshwright {meshwright.__version__}")
        elif sys.argv[1:2] == ["train"]:
            from meshwright.cli.train import train  # its flags are the fields of a recipe: they need torch

            train(sys.argv[2:])
        else:
            parse(COMMANDS, sys.argv[1:])()
    except InputError as error:
        _say(f"error: {in_flags(str(error))}", "bold red")
        return 2
    except KeyboardInterrupt as interruption:
        return _interrupted(received, interruption)
    except MemoryError:
        _say("error: not enough memory; make the pictures smaller (--max-size) or --resolution lower", "bold red")
        return 2
    except SystemExit as end:  # of --help
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except Exception:
        if received:  # a library took the interruption for something else: trimesh does, while it is imported
            return _interrupted(received, KeyboardInterrupt())
        _say(f"error: a fault of meshwright; please report it at {_ISSUES} with the file {_log()}", "bold red")
        return 1
    return 0


def _interrupted(received: list[int], interruption: KeyboardInterrupt) -> int:
    notes: list[str] = getattr(interruption, "__notes__", [])
    _say(f"interrupted; {notes[0] if notes else 'nothing was written'}", "yellow")
    return 128 + (received[0] if received else signal.SIGINT)


def _end_signals() -> list[signal.Signals]:
    """Signals that ask a program to end, unless whoever started it has them ignored (nohup)."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    found = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in found if signal.getsignal(number) != signal.SIG_IGN]


def _say(text: str, style: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


def _log() -> str:
    """Write the traceback and the command to a file; its name, or the traceback's last line where none can be."""
    text = "".join([f"meshwright {sys.argv[1:]!a}\n", traceback.format_exc()])
    try:
        handle, name = tempfile.mkstemp(prefix="meshwright-fault-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return printable(text.splitlines()[-1])
    return name


class _Tolerant:
    """A text stream that shows what it can, and drops the rest where nobody takes it: no work is lost for it."""

    def __init__(self, stream: Any) -> None:
        self.failed = False
        if stream is None:  # closed before we began
            stream, self.failed = open(os.devnull, "w", encoding="utf-8"), True  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # any encoding can show any name
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        self.failed = True
        with contextlib.suppress(OSError, ValueError):  # nor may Python's last flush fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
