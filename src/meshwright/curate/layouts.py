"""Where rendered objects lie: our own folders (shards and foreign layouts follow)."""

import os
from collections.abc import Sequence
from pathlib import Path

from meshwright.curate.dataset import ObjectSource
from meshwright.curate.object_files import (
    ObjectRecord,
    RenderedObject,
    folder_reader,
    read_object,
    read_record,
    read_view_count,
)
from meshwright.errors import InputError


def open_dataset(path: str | os.PathLike[str], split: str = "all") -> ObjectSource:
    """The rendered objects under ``path``, in whichever layout they lie.

    Raises:
        InputError: ``path`` is no data set, or holds no objects of ``split``.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such data set; check the path")
    return RenderedFolder(path, split)


class RenderedFolder:
    """A data set of `meshwright curate render`: DATASET/objects/NAME/..."""

    def __init__(self, dataset: Path, split: str = "all") -> None:
        self.objects = dataset / "objects"
        if not self.objects.is_dir():
            raise InputError(f"{dataset}: holds no folder objects; give a data set of `meshwright curate render`")
        folders = sorted(path.name for path in self.objects.iterdir() if path.is_dir() and path.name[0] != ".")
        self._names = tuple(folders if split == "all" else (n for n in folders if self.record(n).split == split))
        if not self._names:
            raise InputError(f"{dataset}: holds no objects{'' if split == 'all' else f' of split {split}'}")

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def record(self, name: str) -> ObjectRecord:
        """Raises: InputError: the object is broken."""
        return read_record(folder_reader(self.objects / name), self.objects / name)

    def view_count(self, name: str) -> int:
        return read_view_count(folder_reader(self.objects / name), self.objects / name)

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        return read_object(name, folder_reader(self.objects / name), self.objects / name, views)
