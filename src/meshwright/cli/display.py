"""What the command line shows: progress bars and tables."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from meshwright.cli.flags import in_flags
from meshwright.untrusted import printable

if TYPE_CHECKING:  # torch takes seconds to import: --help and usage errors should not wait for it
    from meshwright.evaluate import Scored, Stage
    from meshwright.views import Views

console = Console(stderr=True)


class Bars:
    """One progress bar a stage."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._display.add_task(stage, total=1.0, detail="")
        self._display.update(self._tasks[stage], completed=fraction, detail=printable(detail))


@contextlib.contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars on stderr that vanish at the end."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as display:
        yield Bars(display)


def print_views(path: Path, views: "Views") -> None:
    """What an input was recognised as, and where each of its cameras is."""
    out = Console()
    kind = "" if views.capture is None else f", {views.capture.kind}"
    out.print(f"{printable(path)}: {len(views)} views, rig {views.rig}{kind}", markup=False, highlight=False)
    for assumption in views.assumptions:
        out.print(f"  assumed: {printable(in_flags(assumption))}", markup=False, highlight=False)
    table = Table("view", "size", "azimuth", "elevation", "distance", "fov", "covered")
    for i, name in enumerate(views.names):
        height, width = (int(side) for side in views.sizes_px[i])
        x, y, z = views.cameras.positions[i].tolist()
        fov_deg = 2 * math.degrees(math.atan(0.5 / float(views.cameras.intrinsics[i, 1])))
        coverage = float(views.alpha[i, 0, :height, :width].mean())
        table.add_row(
            escape(printable(name)),
            f"{width} x {height}",
            f"{math.degrees(math.atan2(y, x)) % 360:.1f}°",
            f"{math.degrees(math.atan2(z, math.hypot(x, y))):.1f}°",
            f"{math.hypot(x, y, z):.3f}",
            f"{fov_deg:.1f}°",
            f"{coverage:.1%}",
        )
    out.print(table)


def print_result(out: Path, before: "Scored", result: "Scored", stages: "Sequence[Stage]") -> None:
    """Assumptions on stderr; the mesh before and after, and the time of each stage, on stdout."""
    for assumption in before.views.assumptions:
        console.print(f"assumed: {printable(in_flags(assumption))}", style="yellow", markup=False, highlight=False)
    for warning in result.warnings():
        console.print(f"warning: {warning}", style="bold yellow", markup=False, highlight=False, soft_wrap=True)
    table = Table("", "start", "result", title=escape(printable(out)))
    both = (before, result)
    table.add_row("triangles", *(f"{len(scored.mesh.faces):,}" for scored in both))
    table.add_row("watertight", *("yes" if scored.mesh.is_watertight() else "no" for scored in both))
    table.add_row("silhouette IoU, mean over views", *(f"{scored.silhouette_iou:.3f}" for scored in both))
    table.add_row("PSNR, mean over views", *(f"{scored.psnr_db:.1f} dB" for scored in both))
    table.add_section()
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.1f} s", f"{stage.peak_memory_mib:,.0f} MiB")
    Console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Two columns: what, and what was found."""
    table = Table("what", "found")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    Console().print(table)
