"""Data sets in any layout: which one lies here, which objects belong to a split, and from one layout to another."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from meshwright.curate.dataset import ObjectSource
from meshwright.curate.foreign_layouts import (
    InstantMeshLayout,
    MindOneLayout,
    instantmesh_files,
    instantmesh_folder,
    mindone_files,
    mindone_folder,
    write_instantmesh_list,
    write_mindone_list,
)
from meshwright.curate.object_files import Normalization, ObjectRecord, RenderedObject, object_files
from meshwright.curate.options import CurateConvertOptions
from meshwright.curate.rendered_folder import RenderedFolder
from meshwright.curate.shards import Shards
from meshwright.errors import InputError
from meshwright.progress import Progress, silent

Split = Literal["all", "train", "validation", "test"]

VALIDATION_SHARE, TEST_SHARE = 0.05, 0.05


def open_dataset(path: str | os.PathLike[str], split: Split = "all") -> ObjectSource:
    """The rendered objects under ``path``: a data set of `curate render`, shards, or a published layout.

    ``split`` is what the objects' records say, or else `split_of` their names.

    Raises:
        InputError: ``path`` is no data set, or holds no objects of ``split``.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such data set; check the path")
    source = _opened(path)
    if split != "all":
        source = Chosen(source, [name for name in source.names if _split(source, name) == split])
    if not source.names:
        raise InputError(f"{path}: holds no objects{'' if split == 'all' else f' of split {split}'}; check it")
    return source


def _opened(path: Path) -> ObjectSource:
    if (path / "objects").is_dir():
        return RenderedFolder(path)
    if any(path.glob("*.tar")):
        return Shards(path)
    if (path / "filtered_obj_name.json").is_file():
        return InstantMeshLayout(path)
    if (path / "uid_set.pkl").is_file() or any(path.glob("*/*/meta.pkl")) or any(path.glob("*/meta.pkl")):
        return MindOneLayout(path)
    raise InputError(
        f"{path}: is no data set that is known (objects/, *.tar, filtered_obj_name.json, */meta.pkl); check the path"
    )


def split_of(name: str, seed: int = 0) -> str:
    """train, validation or test, by a digest of the name: an object stays where it is when others come or go."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"


def _split(source: ObjectSource, name: str) -> str:
    stated = ""
    if isinstance(source, (RenderedFolder, Shards)):
        with contextlib.suppress(InputError):  # a broken object is named when it is drawn
            stated = source.record(name).split
    return stated or split_of(name)


class Chosen:
    """Some objects of another source."""

    def __init__(self, source: ObjectSource, names: Sequence[str]) -> None:
        self.source, self._names = source, tuple(names)

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def view_count(self, name: str) -> int:
        return self.source.view_count(name)

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        return self.source.read(name, views)


def convert(options: CurateConvertOptions, progress: Progress = silent) -> int:
    """Write a data set in another layout; how many objects.

    Raises:
        InputError: an object is broken, or the layout has no place for what it holds; nothing is left then.
    """
    source = _opened(options.source)
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out}: is not empty; choose another `out`")
    writers: dict[str, tuple[Callable[[Path, str], Path], Callable[[RenderedObject, str], dict[str, bytes]]]] = {
        "meshwright": (lambda out, name: out / "objects" / name, lambda r, where: object_files(r, _record(source, r))),
        "instantmesh": (instantmesh_folder, instantmesh_files),
        "mindone": (mindone_folder, mindone_files),
    }
    folder_of, files_of = writers[options.layout]
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for number, name in enumerate(source.names):
            folder = folder_of(options.out, name)
            folder.mkdir(parents=True)
            for file, data in files_of(source.read(name), f"{options.source}: {name}").items():
                (folder / file).write_bytes(data)
            progress("convert", (number + 1) / len(source.names), name)
    except BaseException:
        shutil.rmtree(options.out)
        raise
    if options.layout == "instantmesh":
        write_instantmesh_list(options.out, source.names)
    elif options.layout == "mindone":
        write_mindone_list(options.out, source.names)
    return len(source.names)


def _record(source: ObjectSource, rendered: RenderedObject) -> ObjectRecord:
    """What the source knows of the object; a foreign layout knows nothing."""
    if isinstance(source, (RenderedFolder, Shards)):
        return source.record(rendered.name)
    return ObjectRecord(
        name=rendered.name,
        source_file="",
        sha256="",
        views=len(rendered),
        size_px=rendered.rgba.shape[2],
        view_set="",
        seed=0,
        renderer="unknown: converted from another layout",
        lighting="",
        normalization=Normalization("unknown", (0.0, 0.0, 0.0), 1.0),
        bounds=((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)),
        faces=0,
    )
