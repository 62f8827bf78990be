"""Output files that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from meshwright.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, with the same suffix, and rename it to ``path`` on success.

    Nothing is left behind when the body raises.

    Raises:
        InputError: the folder does not exist, cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(_cannot_write(path, error)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; outputs are ordinary ones
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(_cannot_write(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success move its files into ``path``.

    An existing folder keeps its other files. Nothing is left behind when the body raises.

    Raises:
        InputError: ``path`` is a file, cannot be made or written, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not a folder; choose another --out")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot write there (permission denied); choose another --out")
    made: list[Path] = []
    try:
        for parent in reversed(path.absolute().parents):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    except OSError as error:
        _remove_empty(made)
        raise InputError(_cannot_write(path, error)) from None
    done = False
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.is_dir():
            for file in sorted(temporary.iterdir()):
                if (path / file.name).is_dir():
                    raise InputError(f"{path / file.name}: a folder is in the way; remove it or choose another --out")
            for file in sorted(temporary.iterdir()):
                os.replace(file, path / file.name)
        else:
            os.rename(temporary, path)
        done = True
    except OSError as error:
        raise InputError(_cannot_write(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done:
            _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, error: OSError) -> str:
    return f"{path}: cannot write there ({(error.strerror or str(error)).lower()}); choose another place or free space"
