"""Our own layout: DATASET/objects/NAME/ with the files of ``object_files``."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.curate.object_files import (
    ObjectRecord,
    ReadFile,
    RenderedObject,
    folder_reader,
    read_object,
    read_record,
    read_view_count,
)
from meshwright.errors import InputError


class RenderedFolder:
    """A data set of `meshwright curate render`."""

    def __init__(self, dataset: Path) -> None:
        self.dataset = dataset
        objects = dataset / "objects"
        if not objects.is_dir():
            raise InputError(f"{dataset}: holds no folder objects; give a data set of `meshwright curate render`")
        self._names = tuple(sorted(path.name for path in objects.iterdir() if path.is_dir() and path.name[0] != "."))

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def where(self, name: str) -> Path:
        return self.dataset / "objects" / name

    def reader(self, name: str) -> ReadFile:
        """Reads the object's files by their names."""
        return folder_reader(self.where(name))

    def record(self, name: str) -> ObjectRecord:
        """Raises: InputError: the object is broken."""
        return read_record(self.reader(name), self.where(name))

    def view_count(self, name: str) -> int:
        return read_view_count(self.reader(name), self.where(name))

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        return read_object(name, self.reader(name), self.where(name), views)
