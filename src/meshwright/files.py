"""Output files that appear whole or not at all, whatever ends the run: an error, a signal, a full disk, kill -9.

What is being written lies in files and folders named ``.meshwright-*`` inside the folder it is for, so that the last
step is always a rename within one file system. Each is locked as long as its writer lives; whoever writes into that
folder next removes those whose writer is gone.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from meshwright.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".meshwright-"
_COMPLETE = ".complete"  # in a folder whose files are all written and are being moved to their places
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
        temporary.unlink(missing_ok=True)
        _unlock(lock)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder inside ``path``; on success move its files up into ``path``.

    ``path`` is made when missing and removed again when the body raises; an existing folder keeps its other files.
    When the body is done, the new files take their places all together: what interrupts that (a signal, kill -9) is
    made good at once or by the next run that writes there. Of two runs at once, the files of the last to end stand.

    Raises:
        InputError: ``path`` is a file, cannot be made or written, or the disk is full. Known before the body runs,
            but for the last.
    """
    path = Path(path)
    made: list[Path] = []
    temporary: Path | None = None
    lock: int | None = None
    done = False
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
                (temporary / _COMPLETE).touch()
                _uninterrupted(lambda: _move_files(temporary, path))
        done = True
    finally:
        if temporary is not None:
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


def _move_files(source: Path, target: Path) -> None:
    """Can be done again from the start, by another process too, until it has been done."""
    for file in sorted(source.iterdir()):
        if file.name != _COMPLETE:
            with contextlib.suppress(FileNotFoundError):
                os.replace(file, target / file.name)


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
