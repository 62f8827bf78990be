"""How a run ends: exit codes, one line, whatever the names, the terminal and the signals are."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.cli import main
from meshwright.errors import InputError
from meshwright.evaluate import Scored
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.views import Views


@pytest.fixture
def run(monkeypatch):
    """Run a function in place of a command: exit code."""

    def go(work) -> int:
        monkeypatch.setattr(sys.modules["meshwright.cli.main"], "parse", lambda *_: work)
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0

    return go


def test_a_fault_of_ours_is_one_line_with_a_log_and_exit_code_1(run, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail():
        raise ZeroDivisionError("in [/a] \x1b[2J")

    assert run(fail) == 1
    (log,) = tmp_path.iterdir()
    assert "ZeroDivisionError" in log.read_text()
    said = capfd.readouterr().err
    assert log.name in said.replace("\n", "")
    assert "Traceback" not in said


def test_memory_that_is_not_there_is_one_line(run, capfd):
    def fail():
        raise MemoryError

    assert run(fail) == 2
    assert "not enough memory" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["[/a].mp4", "[bold red]", "\x1b[2J\x07", "two\nlines", "\udcff", "\u202egnp.mp4"])
def test_names_are_shown_as_they_are_or_as_escapes(run, capfd, name):
    def fail():
        raise InputError(f"{name}: is not a file")

    assert run(fail) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert ascii(name)[1:-1].replace("\\\\", "\\") in said
    assert not set(said) & {"\x1b", "\x07", "\u202e", "\udcff"}


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_end_in_their_own_exit_codes_and_one_line(run, capfd, number, code):
    before = signal.getsignal(getattr(signal, number))

    def wait():
        threading.Timer(0.1, os.kill, (os.getpid(), getattr(signal, number))).start()
        time.sleep(20)

    assert run(wait) == code
    assert capfd.readouterr().err == "interrupted; nothing was written\n"
    assert signal.getsignal(getattr(signal, number)) is before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_library_that_takes_the_signal_for_a_fault_of_its_own_changes_nothing(run, capfd):
    def wait():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            time.sleep(20)
        except BaseException as error:
            raise TypeError("unsupported operand") from error

    assert run(wait) == 143
    assert capfd.readouterr().err == "interrupted; nothing was written\n"


def test_an_interruption_says_what_it_left(run, capfd):
    def stop():
        interruption = KeyboardInterrupt()
        interruption.add_note("out holds the new results")
        raise interruption

    assert run(stop) == 130
    assert capfd.readouterr().err == "interrupted; out holds the new results\n"


def test_an_ascii_terminal_shows_everything(run, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run(lambda: print("Bär 90° ━┏")) == 0
    assert b"B\\xe4r" in raw.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_or_closed_stdout_loses_no_work(run, monkeypatch, capfd):
    done = []

    def show():
        print("x" * 100_000, flush=True)
        done.append(True)

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(show) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert run(show) == 0
    assert done == [True, True]
    assert capfd.readouterr().err.count("could not be written to stdout") == 2


def test_a_result_that_does_not_show_the_pictures_says_so():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) - 0.25
    mesh = Mesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    cameras = Cameras.orbit(3)
    blank = Views(torch.ones(3, 3, 32, 32), torch.zeros(3, 1, 32, 32), cameras, torch.full((3, 2), 32), ("a", "b", "c"))
    bad = Scored.of(mesh, blank)
    alpha = render(mesh, cameras, 32, 32).alpha
    assert Scored.of(mesh, dataclasses.replace(blank, alpha=alpha)).warnings() == []
    (warning,) = bad.warnings()
    assert "cameras" in warning
    json.dumps(warning)


@pytest.mark.slow
def test_the_installed_command_ends_well_by_sigterm(tmp_path):
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "meshwright",
            "reconstruct",
            "examples/demo/orbit.mp4",
            "--out",
            str(tmp_path / "o"),
        ],
        stderr=subprocess.PIPE,
    )
    time.sleep(8)
    child.terminate()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 143
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []
