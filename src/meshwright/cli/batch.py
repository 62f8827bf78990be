"""Many inputs, one after the other: what fails does not stop the rest, and what is there is not made again."""

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from meshwright.cli.display import console
from meshwright.cli.flags import in_flags
from meshwright.errors import InputError


@dataclass(frozen=True)
class _Outcome:
    """How one input ended. ``report``: its report.json, None if there is none."""

    out: Path
    state: str
    report: dict[str, object] | None


def run_batch(inputs: Sequence[Path], out: Path, make: Callable[[Path, Path], None]) -> None:
    """Make each input's results in a folder of its own below ``out``, and show a table of all.

    An input whose folder holds a report.json is done: it is written last and with everything else.

    Args:
        make: what makes one input's results in a folder.

    Raises:
        InputError: at the end, if inputs failed; the others' results stand.
    """
    outcomes = []
    for source, name in zip(inputs, folder_names(inputs), strict=True):
        folder = out / name
        if (folder / "report.json").is_file():
            outcomes.append(_Outcome(folder, "was there", _report(folder)))
            continue
        console.print(f"{source} -> {folder}", markup=False, highlight=False, soft_wrap=True)
        try:
            make(source, folder)
            outcomes.append(_Outcome(folder, "done", _report(folder)))
        except InputError as error:
            outcomes.append(_Outcome(folder, in_flags(str(error)), None))
        except Exception as error:  # our fault, but not the next input's
            traceback.print_exc()
            outcomes.append(_Outcome(folder, f"broke down: {type(error).__name__}", None))
    _print_outcomes(outcomes)
    failed = [outcome for outcome in outcomes if outcome.report is None]
    if failed:
        raise InputError(
            f"{len(failed)} of {len(outcomes)} inputs failed; the table says why, and a rerun makes what is missing"
        )


def folder_names(inputs: Sequence[Path]) -> list[str]:
    """A name for each input: its own without suffix, a camera file's folder's, numbered where two are the same."""
    names: list[str] = []
    for source in inputs:
        path = source.resolve()
        name = path.parent.name if path.suffix.lower() == ".json" else path.name if path.is_dir() else path.stem
        taken, number = name or "input", 2
        while taken in names:
            taken, number = f"{name}-{number}", number + 1
        names.append(taken)
    return names


def _report(folder: Path) -> dict[str, object] | None:
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def _print_outcomes(outcomes: Sequence[_Outcome]) -> None:
    table = Table("folder", "triangles", "PSNR", "IoU", "state")
    for outcome in outcomes:
        mesh, mean = ((outcome.report or {}).get(key) for key in ("mesh", "mean"))
        numbers = ["", "", ""]
        if isinstance(mesh, dict) and isinstance(mean, dict):
            numbers = [f"{mesh['triangles']:,}", f"{mean['psnr_db']:.1f} dB", f"{mean['silhouette_iou']:.3f}"]
        table.add_row(escape(str(outcome.out)), *numbers, escape(outcome.state))
    Console().print(table)
