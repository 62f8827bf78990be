"""meshwright curate select | render | check | preview | pack | convert: from 3D files to a training set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from meshwright.cli.display import progress_bars
from meshwright.curate import (
    CurateCheckOptions,
    CurateConvertOptions,
    CuratePackOptions,
    CuratePreviewOptions,
    CurateRenderOptions,
    CurateSelectOptions,
)
from meshwright.errors import InputError

ObjectPaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="OBJECTS", help_behavior_hint="(required)")]
DatasetPath = Annotated[Positional[Path], arg(metavar="DATASET")]

_MOST_SHOWN = 20  # lines of a table of problems


@dataclass(frozen=True)
class Select(CurateSelectOptions):
    """Choose objects to learn from: broken, flat, plain and doubled ones go, the rest is split; writes a manifest."""

    objects: ObjectPaths

    def __call__(self) -> None:
        from meshwright.curate import select_objects

        with progress_bars() as bars:
            selection = select_objects(self, bars)
        _print_counts(str(self.out), {"kept": selection.kept, **_marked("in ", selection.splits)})
        _print_counts("rejected", selection.reasons)


@dataclass(frozen=True)
class Render(CurateRenderOptions):
    """Render OBJECTS from many views: colour, depth, normals and cameras of each go to the data set --out."""

    objects: ObjectPaths

    def __call__(self) -> None:
        from meshwright.curate import render_objects

        with progress_bars() as bars:
            done = render_objects(self, bars)
        counts: dict[str, object] = {
            "rendered": done.rendered,
            "there before": done.already_there,
            "failed": done.failed,
        }
        if done.rendered:
            counts["objects a minute"] = f"{60 * done.rendered / done.seconds:.1f}"
            counts["MB an object"] = f"{done.bytes_written / done.rendered / 1e6:.2f}"
        _print_counts(str(self.out), counts)
        _print_counts("failed, in the whole data set", done.failures)


@dataclass(frozen=True)
class Check(CurateCheckOptions):
    """Read every file of a data set and compare pictures, depth, normals and cameras with each other."""

    dataset: DatasetPath

    def __call__(self) -> None:
        from meshwright.curate import check_dataset

        with progress_bars() as bars:
            checked = check_dataset(self, bars)
        _print_counts(str(self.dataset), {"objects": checked.objects, "views": checked.views, **checked.kinds})
        for name, line in checked.problems[:_MOST_SHOWN]:
            Console().print(f"{name}: {line}", markup=False, highlight=False)
        if checked.problems:
            count = len({name for name, _ in checked.problems})
            raise InputError(f"{self.dataset}: {count} of {checked.objects} objects have faults; render them again")


@dataclass(frozen=True)
class Preview(CuratePreviewOptions):
    """Write a contact sheet of a data set: some views of some objects, depth and normals."""

    dataset: DatasetPath

    def __call__(self) -> None:
        from meshwright.curate import preview_dataset

        with progress_bars() as bars:
            preview_dataset(self, bars)


@dataclass(frozen=True)
class Pack(CuratePackOptions):
    """Put a rendered data set into tar shards that the webdataset library reads as well."""

    dataset: DatasetPath

    def __call__(self) -> None:
        from meshwright.curate import pack

        with progress_bars() as bars:
            shards = pack(self, bars)
        _print_counts(str(self.out), {"shards": len(shards), "MB": sum(p.stat().st_size for p in shards) // 10**6})


@dataclass(frozen=True)
class Convert(CurateConvertOptions):
    """Write a data set in another layout: ours, InstantMesh's or MindOne's."""

    source: Annotated[Positional[Path], arg(metavar="SRC")]
    out: Annotated[Positional[Path], arg(metavar="DST")]

    def __call__(self) -> None:
        from meshwright.curate import convert

        with progress_bars() as bars:
            count = convert(self, bars)
        _print_counts(str(self.out), {"objects": count})


@dataclass(frozen=True)
class Curate:
    """From 3D files to a training set: select, render, check, preview, pack, convert."""

    command: OmitSubcommandPrefixes[
        Annotated[Select, subcommand("select", description=Select.__doc__)]
        | Annotated[Render, subcommand("render", description=Render.__doc__)]
        | Annotated[Check, subcommand("check", description=Check.__doc__)]
        | Annotated[Preview, subcommand("preview", description=Preview.__doc__)]
        | Annotated[Pack, subcommand("pack", description=Pack.__doc__)]
        | Annotated[Convert, subcommand("convert", description=Convert.__doc__)]
    ]

    def __call__(self) -> None:
        self.command()


def _marked(mark: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{mark}{name}": count for name, count in sorted(counts.items())}


def _print_counts(title: str, counts: Mapping[str, object]) -> None:
    """Two columns: what, and how many. Nothing for an empty table."""
    if not counts:
        return
    table = Table("", "", title=escape(title), show_header=False)
    for name, count in counts.items():
        table.add_row(escape(name), escape(str(count)))
    Console().print(table)
