"""Our own layout in tar shards, as the webdataset library reads them: one sample an object, NAME.FILE its members.

    shard-000000.tar        NAME.000.png, NAME.000_depth.png, ..., NAME.transforms.json, NAME.object.json, next object
    shard-000000.index.json where each member's bytes lie, so that any object can be read without the ones before it

The same objects give the same bytes.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from meshwright.curate.object_files import (
    ObjectRecord,
    ReadFile,
    RenderedObject,
    read_object,
    read_record,
    read_view_count,
)
from meshwright.curate.options import CuratePackOptions
from meshwright.curate.rendered_folder import RenderedFolder
from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.progress import Progress, silent
from meshwright.untrusted import parse_json, read_untrusted

_MAX_INDEX_BYTES = 256 << 20
_MAX_FILE_BYTES = 64 << 20


def pack(options: CuratePackOptions, progress: Progress = silent) -> list[Path]:
    """Write all objects into shards; the shards' paths.

    Raises:
        InputError: an object is broken (`meshwright curate check` names all), or ``out`` holds shards already.
    """
    source = RenderedFolder(options.dataset)
    if not source.names:
        raise InputError(f"{options.dataset}: holds no objects; render some first")
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out}: is not empty; choose another `out`")
    options.out.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    waiting = iter(enumerate(source.names))
    for number, first in waiting:
        path = options.out / f"shard-{len(shards):06d}.tar"
        with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            _add_object(tar, source, first)
            while temporary.stat().st_size < options.shard_mib << 20:
                following = next(waiting, None)
                if following is None:
                    break
                number, name = following
                _add_object(tar, source, name)
                progress("pack", (number + 1) / len(source.names), name)
        _write_index(path)
        shards.append(path)
        progress("pack", (number + 1) / len(source.names), path.name)
    return shards


def _add_object(tar: tarfile.TarFile, source: RenderedFolder, name: str) -> None:
    read = source.reader(name)
    count = read_view_count(read, source.where(name))
    files = [f"{i:03d}{kind}.png" for i in range(count) for kind in ("", "_depth", "_normal")]
    for file in (*files, "transforms.json", "object.json"):
        data = read(file)
        member = tarfile.TarInfo(f"{name}.{file}")  # its time, owner and mode are those of nobody: bytes repeat
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _write_index(shard: Path) -> None:
    members = {name: [offset, size] for name, offset, size in _members(shard)}
    with atomic_path(shard.with_suffix(".index.json")) as temporary:
        temporary.write_text(json.dumps(members, separators=(",", ":")) + "\n", encoding="utf-8")


def _members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file in a shard. Raises: InputError: it is damaged or cut off."""
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(f"{shard}: the shard is damaged or cut off ({error}); pack it again") from None


class Shards:
    """The shards of a folder, read in any order."""

    def __init__(self, folder: Path) -> None:
        self._members: dict[str, dict[str, tuple[Path, int, int]]] = {}
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise InputError(f"{folder}: holds no .tar shards; check the path")
        for shard in shards:
            end = shard.stat().st_size
            for member, offset, size in _indexed(shard):
                name, _, file = member.partition(".")
                if offset < 0 or not 0 <= size <= _MAX_FILE_BYTES or offset + size > end:
                    raise InputError(f"{shard}: the shard is cut off within {member}; fetch or pack it again")
                self._members.setdefault(name, {})[file] = (shard, offset, size)
        self._names = tuple(sorted(self._members))

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def where(self, name: str) -> str:
        files = self._members[name]
        return f"{next(iter(files.values()))[0]}: {name}"

    def reader(self, name: str) -> ReadFile:
        """Reads the object's files by their names."""
        files = self._members[name]

        def read(file: str) -> bytes:
            if file not in files:
                raise InputError(f"{self.where(name)}: has no {file}; pack it again")
            shard, offset, size = files[file]
            try:
                with shard.open("rb") as stream:  # opened anew: handles do not survive a fork
                    stream.seek(offset)
                    data = stream.read(size)
            except OSError as error:
                raise InputError(f"{shard}: cannot be read ({(error.strerror or '').lower()}); check it") from None
            if len(data) < size:
                raise InputError(f"{shard}: the shard is cut off within {name}.{file}; fetch or pack it again")
            return data

        return read

    def record(self, name: str) -> ObjectRecord:
        """Raises: InputError: the object is broken."""
        return read_record(self.reader(name), self.where(name))

    def view_count(self, name: str) -> int:
        return read_view_count(self.reader(name), self.where(name))

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        return read_object(name, self.reader(name), self.where(name), views)


def _indexed(shard: Path) -> list[tuple[str, int, int]]:
    """The shard's members, from the index beside it or else from the shard itself."""
    index = shard.with_suffix(".index.json")
    if not index.is_file():
        return list(_members(shard))
    content = parse_json(read_untrusted(index, _MAX_INDEX_BYTES, "an index of a shard"), index)
    try:
        return [(str(name), int(offset), int(size)) for name, (offset, size) in content.items()]
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{index}: is no index of a shard; remove it or pack again") from None
