"""Output files that appear whole or not at all, whatever ends the run: an error, a signal, a full disk, kill -9.

What is being written lies in files and folders named ``.meshwright-*`` inside the folder it is for, so that the last
step is always a rename within one file system. Each is locked as long as its writer lives; whoever writes into that
folder next removes those whose writer is gone.
"""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from meshwright.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".meshwright-"
_COMPLETE = ".complete"  # in a folder whose files are all written and are being moved to their places
_OLD = ".old"  # in such a folder: second names of the files whose places they take
_ABANDONED_S = 86_400  # age at which leftovers are removed where files cannot be locked


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, with the same suffix, and rename it to ``path`` on success.

    Nothing is left behind when the body raises.

    Raises:
        InputError: the folder does not exist, cannot be written, or the disk is full.
    """
    path = Path(path)
    with _writing(path):
        _sweep(path.parent)
        temporary, lock = _locked(path.parent, path.suffix, _create_file)
    try:
        with _writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a disk that has become read-only: the next run sweeps
            temporary.unlink(missing_ok=True)
        _unlock(lock)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder inside ``path``; on success move its files up into ``path``.

    ``path`` is made when missing and removed again when the body raises; an existing folder keeps its other files.
    When the body is done, the new files take their places all together: what interrupts that (a signal, kill -9) is
    made good at once or by the next run that writes there. Where one of them cannot take its place, those that had are
    taken back and the old ones stand. Of two runs at once, the files of the last to end stand.

    Raises:
        InputError: ``path`` is a file, cannot be made or written, or the disk is full. Known before the body runs,
            but for the last.
    """
    path = Path(path)
    made: list[Path] = []
    temporary: Path | None = None
    lock: int | None = None
    done, kept = False, False
    try:
        with _writing(path):
            _make(path, made)
            _sweep(path)
            temporary, lock = _locked(path, "", Path.mkdir)
            _probe(temporary)
        with _writing(path):
            yield temporary
            for file in sorted(temporary.iterdir()):
                if (path / file.name).is_dir():
                    raise InputError(f"{path / file.name}: a folder is in the way; remove it or choose another folder")
            with _only_one(path):
                can_be_taken_back = _keep_old_files(temporary, path)
                (temporary / _COMPLETE).touch()
                try:
                    _uninterrupted(lambda: _move_all_or_none(temporary, path, can_be_taken_back))
                except KeyboardInterrupt as interruption:
                    interruption.add_note(f"{path} holds the new results, which were just complete")
                    raise
        done = True
    except _HalfMoved as error:
        kept = True
        raise InputError(str(error)) from error
    finally:
        if temporary is not None and not kept:
            _uninterrupted(lambda: shutil.rmtree(temporary, ignore_errors=True))
        _unlock(lock)
        if not done:
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the file system refuses becomes one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        if isinstance(error, ValueError) and "null byte" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path}: cannot write there ({reason.lower()}); choose another place or free space"
        ) from error


def _make(path: Path, made: list[Path]) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not a folder; choose another folder")
    for folder in (*reversed(path.absolute().parents), path.absolute()):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            made.append(folder)


def _probe(folder: Path) -> None:
    """A page can be written here: better known before the work than after it."""
    probe = folder / "probe"
    probe.write_bytes(bytes(4096))
    probe.unlink()


def _keep_old_files(source: Path, target: Path) -> dict[str, bool]:
    """Give files of ``target`` whose places will be taken a second name, for `_move_back`.

    Returns the names of all new files, and whether each could be taken back: not where an old file of its name can
    have no second name on this file system.
    """
    names = sorted(file.name for file in source.iterdir())
    (source / _OLD).mkdir()
    can_be_taken_back = {}
    for name in names:
        can_be_taken_back[name] = not os.path.lexists(target / name)
        if not can_be_taken_back[name] and not (target / name).is_symlink():
            with contextlib.suppress(OSError):
                os.link(target / name, source / _OLD / name)
                can_be_taken_back[name] = True
    return can_be_taken_back


def _move_files(source: Path, target: Path) -> None:
    """Can be done again from the start, by another process too, until it has been done."""
    for file in sorted(source.iterdir()):
        if file.name not in (_COMPLETE, _OLD):
            with contextlib.suppress(FileNotFoundError):
                os.replace(file, target / file.name)


class _HalfMoved(Exception):
    """Some files have taken their places, and neither can the others nor can these be taken back."""


def _move_all_or_none(source: Path, target: Path, can_be_taken_back: Mapping[str, bool]) -> None:
    """Move the files of ``source`` to their places, or where one cannot move, the others back.

    Raises:
        OSError: a file cannot be moved; all is as before.
        _HalfMoved: what is in ``source`` must be kept.
    """
    try:
        _move_files(source, target)
    except OSError as refused:
        try:
            _move_back(source, target, can_be_taken_back)
        except OSError:
            raise _HalfMoved(
                f"{target}: cannot write there ({str(refused.strerror).lower()}); the new files are complete in"
                f" {source.name}, and the next run that writes there moves them"
            ) from refused
        raise


def _move_back(source: Path, target: Path, can_be_taken_back: Mapping[str, bool]) -> None:
    """Undo what `_move_files` has done. Wherever it stops, it can be done again, and so can `_move_files`.

    Raises:
        OSError: a file cannot be taken back.
    """
    for name, can in can_be_taken_back.items():
        if not (source / name).exists():
            if not can:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            os.replace(target / name, source / name)
        if (source / _OLD / name).exists() and not (target / name).exists():
            os.replace(source / _OLD / name, target / name)


def _uninterrupted(work: Callable[[], None]) -> None:
    """Do ``work``, again if a signal's exception came between; raise that afterwards."""
    interruption: BaseException | None = None
    while True:
        try:
            work()
            break
        except (KeyboardInterrupt, SystemExit) as signal:
            interruption = signal
    if interruption is not None:
        raise interruption


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed have left in ``folder``; finish what they had begun to move to its place."""
    leftovers: list[Path] = []
    with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
        leftovers = [Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX)]
    for leftover in leftovers:
        with contextlib.suppress(OSError), _of_nobody(leftover):
            if leftover.is_dir() and not leftover.is_symlink():
                if (leftover / _COMPLETE).exists():
                    _move_files(leftover, folder)
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()


@contextlib.contextmanager
def _of_nobody(leftover: Path) -> Iterator[None]:
    """Hold the lock of a leftover; OSError where its writer lives."""
    if fcntl is None:
        if time.time() - leftover.stat().st_mtime < _ABANDONED_S:
            raise BlockingIOError
        yield
        return
    handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _locked(folder: Path, suffix: str, create: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Create a temporary of a new name and lock it, with the lock's handle; None where there are no locks.

    Locks end with their process, however it ends.
    """
    while True:
        temporary = folder / f"{_PREFIX}{secrets.token_hex(6)}{suffix}"
        create(temporary)
        if fcntl is None:
            return temporary, None
        try:
            handle = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another run took it for a leftover before it was locked
        with contextlib.suppress(OSError):  # some network drives have no locks: there nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, handle
        os.close(handle)


def _create_file(path: Path) -> None:
    path.touch(exist_ok=False)


def _unlock(handle: int | None) -> None:
    if handle is not None:
        with contextlib.suppress(OSError):
            os.close(handle)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two runs that end at once move their files one after the other."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
