"""Which mesh files are meant by files, folders and manifests, and what each object is called."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwright.errors import InputError

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 30


@dataclass(frozen=True)
class ObjectFile:
    """A mesh file to be rendered, the name of its object, and what its manifest says of it."""

    name: str
    path: Path
    source: str = ""
    licence: str = ""
    credit: str = ""
    split: str = ""


def find_objects(paths: Sequence[Path], suffixes: Sequence[str]) -> list[ObjectFile]:
    """All mesh files of ``paths``, by name: files, folders (with everything in them), or manifests.

    A manifest is a JSON list of {"path": ..., and perhaps "name", "source", "licence", "credit", "split"}; a folder
    with a manifest.json holds what that says. Names are those of the manifest, or paths within the folder, as in
    ``aws__chair``.

    Raises:
        InputError: something is missing, or there is nothing to render.
    """
    found: list[ObjectFile] = []
    for path in paths:
        if path.is_dir() and (path / MANIFEST).is_file():
            found += _of_manifest(path / MANIFEST, suffixes)
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
            found += [ObjectFile(_name(file.relative_to(path)), file) for file in sorted(files)]
        elif path.suffix.lower() == ".json" and path.is_file():
            found += _of_manifest(path, suffixes)
        elif path.is_file():
            if path.suffix.lower() not in suffixes:
                raise InputError(f"{path}: not a mesh file of {', '.join(suffixes)}; convert it")
            found.append(ObjectFile(_name(Path(path.name)), path))
        else:
            raise InputError(f"{path}: there is no such file or folder; check the path")
    if not found:
        raise InputError(f"{paths[0]}: holds no mesh files ({', '.join(suffixes)}); check the path")
    # Names that would fall together, also where a file system does not tell capitals apart, are told apart by the path.
    counts = Counter(item.name.lower() for item in found)
    unique = {
        item.path: item if counts[item.name.lower()] == 1 else _renamed(item) for item in found
    }  # the same file given twice is one object
    return sorted(unique.values(), key=lambda item: item.name)


def _of_manifest(manifest: Path, suffixes: Sequence[str]) -> list[ObjectFile]:
    found = []
    for number, entry in enumerate(read_manifest(manifest)):
        where = f"{manifest}: entry {number}"
        name = entry.get("path")
        if not isinstance(name, str):
            raise InputError(f"{where} has no path; add it")
        # Written with the folder's own name in front, or without it.
        candidates = [folder / name for folder in (manifest.parent, manifest.parent.parent)]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise InputError(f"{where}: there is no file {candidates[0]}; correct its path or take the entry out")
        if path.suffix.lower() in suffixes:
            relative = Path(f"{entry.get('name') or path.stem}{path.suffix}")
            facts = {key: str(entry.get(key) or "") for key in ("source", "licence", "split")}
            credit = str(entry.get("credit") or entry.get("repo") or "")
            found.append(ObjectFile(_name(relative), path, credit=credit, **facts))
    return found


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """Raises: InputError: not a JSON list of objects (or such a list under "objects")."""
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise InputError(f"{path}: larger than {_MAX_MANIFEST_BYTES >> 20} MiB; divide it")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise (
            error if isinstance(error, InputError) else InputError(f"{path}: is no manifest ({error}); write it again")
        ) from None
    if isinstance(content, dict):
        content = content.get("objects")
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f"{path}: holds no list of objects; write it again")
    return content


def _name(relative: Path) -> str:
    parts = "__".join(relative.with_suffix("").parts)
    # A dot would end the key of a shard's member, and a name that begins with one is hidden.
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", parts)[:150]
    return plain if plain == parts else f"{plain}-{_digest(relative)}"


def _renamed(item: ObjectFile) -> ObjectFile:
    return ObjectFile(
        f"{item.name}-{_digest(item.path)}", item.path, item.source, item.licence, item.credit, item.split
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.as_posix().encode()).hexdigest()[:8]
