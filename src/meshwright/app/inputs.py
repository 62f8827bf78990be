"""What a client uploaded, laid out as an input of the road. Runs in the worker: nothing here is trusted."""

import json
import os
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path

from meshwright.app.limits import Limits
from meshwright.errors import InputError

_DEEPEST = 6  # folders below each other
_PART = re.compile(r"[^\w .,()+@=~#-]")
_CHUNK = 1 << 20


def safe_name(name: str) -> str:
    """The last part of a client's name for a file, as a file name that means nothing to any system."""
    parts = safe_parts(name)
    return parts[-1] if parts else "file"


def safe_parts(name: str) -> tuple[str, ...]:
    """A client's relative path as plain parts: no drive, root, dots, control or special characters."""
    parts = []
    for part in re.split(r"[/\\]+", name[:1024]):
        part = _PART.sub("_", unicodedata.normalize("NFC", part)).lstrip(". ").rstrip(". ")
        if part:
            stem, dot, suffix = part.rpartition(".")
            part = f"{stem[:80]}{dot}{suffix[:10]}" if dot else part[:90]
            # A byte limit on top: names of 90 letters can be 360 bytes.
            while len(part.encode()) > 200:
                part = part[1:]
            parts.append(part)
    return tuple(parts[-_DEEPEST:])


def lay_out(folder: Path, limits: Limits) -> Path:
    """Make the tree the client meant from ``upload/`` and ``names.json`` in a job's folder; returns the input's path.

    Archives are unpacked beside the other files. The input is one file if there is one, else the folder of all; a
    single folder around everything is stepped into.

    Raises:
        InputError: an archive is damaged or unpacks to too much, or two files have one name.
    """
    root = folder / "input"
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    budget = _Budget(limits)
    for number, name in enumerate(names):
        source = folder / "upload" / f"{number:04d}"
        if zipfile.is_zipfile(source) and Path(name).suffix.lower() == ".zip":
            _unpack(source, safe_name(name), root, budget)
        else:
            budget.file(name)
            target = _target(root, safe_parts(name) or ("file",))
            os.link(source, target)
    found = root
    while True:
        inside = [entry for entry in sorted(found.iterdir()) if entry.name != "__MACOSX"] if found.is_dir() else []
        if len(inside) != 1:
            return found
        found = inside[0]


class _Budget:
    """Files and bytes that archives may still unpack to."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files = 0
        self._bytes = 0

    def file(self, name: str) -> None:
        self._files += 1
        if self._files > self._limits.upload_files:
            raise InputError(f"{safe_name(name)}: is one of more than {self._limits.upload_files} files; send fewer")

    def data(self, name: str, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limits.unpacked_bytes:
            most = self._limits.unpacked_bytes >> 20
            raise InputError(f"{safe_name(name)}: unpacks to more than {most} MiB; send the pictures that are needed")


def _unpack(archive: Path, shown: str, root: Path, budget: _Budget) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            # Only plain bytes come out of an archive: links and devices become small files that are no pictures.
            for entry in opened.infolist():
                parts = safe_parts(entry.filename)
                if entry.is_dir() or not parts or parts[0] == "__MACOSX":
                    continue
                budget.file(shown)
                with opened.open(entry) as source, _target(root, parts).open("xb") as target:
                    for chunk in iter(lambda source=source: source.read(_CHUNK), b""):  # type: ignore[misc]
                        budget.data(shown, len(chunk))
                        target.write(chunk)
    except InputError:
        raise
    except RuntimeError:  # what zipfile raises where a password is needed
        raise InputError(f"{shown}: is locked with a password; send it without") from None
    except Exception as error:  # damaged archives raise whatever zipfile and zlib hit
        raise InputError(f"{shown}: the archive is damaged; make it again") from error


def _target(root: Path, parts: Sequence[str]) -> Path:
    """A path below ``root`` that is free; its folders are made."""
    target = root.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{parts[0]}: is both a file and a folder; rename one") from None
    if target.exists():
        raise InputError(f"{'/'.join(parts)}: two files have this name; rename one")
    return target
