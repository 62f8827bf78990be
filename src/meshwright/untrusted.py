"""One door for bytes that strangers made: regular files only, a size limit for each kind, numbers that are numbers.

Every reader of this package opens its files here. A pipe, a device or a file of 20 GB is refused before a byte is
read; what names a file is shown with `printable`, since names may hold control characters, too.
"""

import json
import math
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from meshwright.errors import InputError

MIB = 1 << 20


def open_untrusted(path: str | os.PathLike[str], max_bytes: int, what: str = "a file") -> BinaryIO:
    """Open a regular file of at most ``max_bytes`` for reading; ``what`` says in errors what it should have been.

    Raises:
        InputError: missing, a folder, pipe, socket or device, larger than ``max_bytes``, or not readable.
    """
    try:
        # Not blocking, or else opening a pipe that nobody writes to would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: to open a device can already do something
            raise InputError(f"{path}: is not a file; give {what}")
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}); check the path") from None
    file = os.fdopen(handle, "rb")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise InputError(f"{path}: is not a file; give {what}")
    if status.st_size > max_bytes:
        file.close()
        raise InputError(f"{path}: has {_size(status.st_size)}, more than the {_size(max_bytes)} allowed for {what}")
    return file


def read_untrusted(path: str | os.PathLike[str], max_bytes: int, what: str = "a file") -> bytes:
    """All bytes of a regular file, of which there are at most ``max_bytes``, read once.

    Raises:
        InputError: as ``open_untrusted``, or the file grows while it is read.
    """
    with open_untrusted(path, max_bytes, what) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({_reason(error)}); check the path") from None
    if len(content) > max_bytes:
        raise InputError(f"{path}: has more than the {_size(max_bytes)} allowed for {what}")
    return content


def neighbour(folder: Path, name: object, what: str) -> Path:
    """The place of a file that another file names: inside ``folder``, whatever a stranger may have written.

    Raises:
        InputError: no name, an address, an absolute path, or one that leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{what} has no name; correct it")
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    # Two slashes at the front are a root of its own ("//server/share"): what counts is the first character.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) or ".." in parts or name.startswith("/"):
        raise InputError(f"{what} is named {name[:200]!r}, outside its folder; put it beside the file that names it")
    return folder.joinpath(*parts)


def parse_json(content: bytes, where: object) -> Any:
    """JSON in UTF-8. Integers of more than 18 digits become floats (possibly infinite): all that follows expects them.

    Raises:
        InputError: not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not valid JSON ({_reason(error)}); write it again") from None


def finite(value: object, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float, if it is a number between ``low`` and ``high``; ``where`` begins the error.

    Raises:
        InputError: not a number, NaN, infinite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where} is not a finite number; correct it")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where} is not a finite number; correct it")
    if not low <= number <= high:
        raise InputError(f"{where} is {number:g}, not between {low:g} and {high:g}; correct it")
    return number


def printable(text: object) -> str:
    """``text`` on one line that is safe on any terminal: what is not printable is written as an escape.

    Control and format characters (colours, cursor movements, text that runs right to left) and the stand-ins of
    Python for undecodable bytes of file names are escaped; letters of every language stay.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 18 else float(digits)


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines()[0] if text else type(error).__name__)[:200].lower()


def _size(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count:,} bytes"
