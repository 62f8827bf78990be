"""Output files appear whole or not at all, and what a killed run leaves is gone after the next."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from meshwright import files
from meshwright.errors import InputError
from meshwright.files import atomic_directory, atomic_path

posix = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")


def _contents(folder):
    return {entry.name: entry.read_text() for entry in folder.iterdir()}


def _write_all(folder, text):
    with atomic_directory(folder) as temporary:
        for name in ("a", "b", "c"):
            (temporary / name).write_text(text)


def test_results_lie_in_their_folder_beside_what_was_there(tmp_path):
    (tmp_path / "mine").write_text("kept")
    _write_all(tmp_path, "old")
    _write_all(tmp_path, "new")
    assert _contents(tmp_path) == {"mine": "kept", "a": "new", "b": "new", "c": "new"}


def test_a_run_that_fails_leaves_no_trace_not_even_folders(tmp_path):
    def fail():
        with atomic_directory(tmp_path / "deep" / "out") as temporary:
            (temporary / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_outside_the_folder(tmp_path):
    """It may be a file system of its own, or lie in a folder that cannot be written."""
    out = tmp_path / "out"
    out.mkdir()
    before = tmp_path.stat().st_mtime_ns
    with atomic_directory(out) as temporary:
        assert temporary.parent == out
    with atomic_path(out / "file") as temporary:
        assert temporary.parent == out
    assert tmp_path.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["x" * 300, "nul\0byte"])
def test_impossible_names_are_one_error(tmp_path, name):
    with pytest.raises(InputError, match="cannot write there"), atomic_directory(tmp_path / name):
        pass
    with pytest.raises(InputError, match="cannot write there"), atomic_path(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_can_be_written(tmp_path):
    with atomic_path(tmp_path / ("x" * 251 + ".glb")) as temporary:
        temporary.write_text("whole")
    assert _contents(tmp_path) == {"x" * 251 + ".glb": "whole"}


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_probe", full)
    with pytest.raises(InputError, match="no space left"), atomic_directory(tmp_path / "out"):
        pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interrupted_move", [0, 1, 2])
def test_a_signal_among_the_last_renames_leaves_new_results_whole(tmp_path, monkeypatch, interrupted_move):
    _write_all(tmp_path, "old")
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) - 1 == interrupted_move:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        _write_all(tmp_path, "new")
    assert "holds the new results" in caught.value.__notes__[0]
    assert _contents(tmp_path) == {"a": "new", "b": "new", "c": "new"}


def _refusing(monkeypatch, refused, number=errno.EACCES):
    """os.replace that refuses its calls of these numbers, counted from 0."""
    replace, calls = os.replace, []

    def refuse(source, target):
        calls.append(source)
        if len(calls) - 1 in refused:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_file_that_cannot_take_its_place_leaves_the_old_results(tmp_path, monkeypatch, refused):
    """A viewer holds mesh.glb open on Windows; a file of another user in a folder with the sticky bit."""
    _write_all(tmp_path, "old")
    (tmp_path / "b").unlink()  # nothing to put back
    before = _contents(tmp_path)
    _refusing(monkeypatch, [refused])
    with pytest.raises(InputError, match="cannot write there"):
        _write_all(tmp_path, "new")
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("refused", [1, 2])
def test_where_nothing_can_be_taken_back_the_next_run_finishes(tmp_path, monkeypatch, refused, links):
    _write_all(tmp_path, "old")
    with monkeypatch.context() as patch:
        _refusing(patch, range(refused, 99) if links else [refused], errno.EROFS)
        if not links:
            patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
        with pytest.raises(InputError, match=r"complete in \.meshwright-\w+, and the next run"):
            _write_all(tmp_path, "new")
    with atomic_path(tmp_path / "d") as temporary:
        temporary.write_text("next")
    assert _contents(tmp_path) == {"a": "new", "b": "new", "c": "new", "d": "next"}


@pytest.mark.parametrize("interrupted_move", range(6))
def test_a_signal_while_files_are_taken_back_leaves_whole_results(tmp_path, monkeypatch, interrupted_move):
    _write_all(tmp_path, "old")
    replace, calls = os.replace, []

    def refuse(source, target):
        calls.append(source)
        if len(calls) == 3:
            raise OSError(errno.EIO, "third move")
        if len(calls) == 4 + interrupted_move:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises((KeyboardInterrupt, InputError)):
        _write_all(tmp_path, "new")
    found = _contents(tmp_path)
    assert found.keys() == {"a", "b", "c"}
    assert len(set(found.values())) == 1


_WRITER = """
import os, sys, time
from pathlib import Path
from meshwright import files
moves = int(sys.argv[2])
replace = os.replace
def stop(source, target):
    global moves
    if moves == 0:
        print("ready", flush=True)
        time.sleep(60)
    moves -= 1
    replace(source, target)
os.replace = stop
with files.atomic_directory(sys.argv[1]) as temporary:
    for name in ("a", "b", "c"):
        (temporary / name).write_text("new")
    if moves < 0:
        print("ready", flush=True)
        time.sleep(60)
"""


def _started(folder, moves):
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), str(moves)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    return child


@posix
@pytest.mark.parametrize(("moves", "left"), [(-1, "old"), (0, "new"), (2, "new")])
def test_what_kill_9_leaves_is_whole_and_clean_after_the_next_run(tmp_path, moves, left):
    """Killed while working: the old results. Killed among the last renames: the new ones, completed."""
    _write_all(tmp_path, "old")
    child = _started(tmp_path, moves)
    child.kill()
    child.communicate()
    with atomic_path(tmp_path / "d") as temporary:
        temporary.write_text("next")
    assert _contents(tmp_path) == {"a": left, "b": left, "c": left, "d": "next"}


@posix
def test_the_files_of_a_run_that_lives_are_not_swept(tmp_path):
    child = _started(tmp_path, -1)
    try:
        _write_all(tmp_path, "mine")
        assert {name[:12] for name in os.listdir(tmp_path)} == {"a", "b", "c", ".meshwright-"}
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate()
    assert _contents(tmp_path) == {"a": "mine", "b": "mine", "c": "mine"}


@posix
def test_leftovers_of_single_files_are_swept(tmp_path):
    code = (
        "import os, sys\nfrom meshwright.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n t.write_text('half')\n os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.txt")], check=False)
    assert len(list(tmp_path.glob(".meshwright-*.txt"))) == 1
    with atomic_path(tmp_path / "f.txt") as temporary:
        temporary.write_text("whole")
    assert _contents(tmp_path) == {"f.txt": "whole"}


def test_leftovers_are_kept_for_a_day_where_files_cannot_be_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    for name, age_s in ((".meshwright-young", 60), (".meshwright-old", 90_000)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    _write_all(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == [".meshwright-young", "a", "b", "c"]


def test_two_runs_at_once_leave_the_files_of_the_last(tmp_path):
    with atomic_directory(tmp_path) as first:
        _write_all(tmp_path, "second")
        for name in ("a", "b", "c"):
            (first / name).write_text("first")
    assert _contents(tmp_path) == {"a": "first", "b": "first", "c": "first"}
