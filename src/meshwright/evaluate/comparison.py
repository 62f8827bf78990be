"""Several evaluations side by side, as one HTML file that needs nothing else."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from meshwright.errors import InputError

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; color: #222 }
table { border-collapse: collapse } td, th { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } .bar { fill: #4c78a8 }
figure { display: inline-block; margin: .5em }
figcaption { font-size: 13px } pre { font-size: 12px; background: #f6f6f6; padding: 1em; overflow-x: auto }
"""
_EXTREMES = 6  # best objects shown, and as many worst


def write_comparison(runs: Sequence[Path], path: Path) -> None:
    """Means, differences object by object against the first run, the best and the worst, and settings.

    Raises:
        InputError: a folder holds no finished evaluation.
    """
    read = [(run.name, *_read(run)) for run in runs]
    parts = [f"<h1>Novel views: {html.escape(', '.join(name for name, _, _ in read))}</h1>", _means(read)]
    parts.append(_by_inputs([summary for _, summary, _ in read]))
    if len(read) > 1:
        parts.append(_differences(read))
    for run, (name, _, entries) in zip(runs, read, strict=True):
        ranked = sorted((e for e in entries if "error" not in e), key=lambda e: -e["psnr_db"])
        parts.append(f"<h2>{html.escape(name)}: PSNR by object</h2>" + _plot([e["psnr_db"] for e in ranked]))
        worst = ranked[max(len(ranked) - _EXTREMES, _EXTREMES) :]
        for title, some in (("Best", ranked[:_EXTREMES]), ("Worst", worst)):
            figures = "".join(_figure(run, entry) for entry in some)
            parts.append(f"<h3>{title}: truth, reconstruction, its bare shape</h3>{figures}" if some else "")
    for name, summary, _ in read:
        parts.append(f"<h2>{html.escape(name)}: settings</h2><pre>{html.escape(json.dumps(summary, indent=1))}</pre>")
    body = "\n".join(parts)
    page = f"<!doctype html><meta charset=utf-8><title>Novel views</title><style>{_STYLE}</style>\n{body}\n"
    path.write_text(page, encoding="utf-8")


def _read(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        lines = (run / "objects.jsonl").read_text(encoding="utf-8").splitlines()
        return summary, [json.loads(line) for line in lines]
    except (OSError, ValueError):
        raise InputError(f"{run}: holds no finished evaluation; run meshwright evaluate to its end") from None


def _means(runs: Sequence[tuple[str, dict[str, Any], list[dict[str, Any]]]]) -> str:
    columns = _columns(runs[0][1])
    heads = "".join(f"<th>{head}</th>" for head in ("run", "objects", "failed", *(head for head, _, _ in columns)))
    rows = [f"<tr>{heads}</tr>"]
    for name, summary, _ in runs:
        numbers = [value(summary["means"]) for _, value, _ in columns]
        cells = "".join(
            f"<td>{'' if number is None else format(number, form)}</td>"
            for number, (_, _, form) in zip(numbers, columns, strict=True)
        )
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{summary['objects']}</td><td>{len(summary['failed'])}</td>{cells}</tr>"
        )
    note = "Visible surfaces are measured in world units, whole ones in percent of the true object's diagonal."
    return f"<table>{''.join(rows)}</table><p>{note} Normals: mean |cosine|.</p>"


_Column = tuple[str, Callable[[Mapping[str, Any]], float | None], str]


def _columns(summary: Mapping[str, Any]) -> list[_Column]:
    """Heading, how to read it from the means, and its format."""

    def one(key: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda means: means.get(key)

    def of_list(key: str, number: int) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda means: means[key][number] if len(means.get(key) or ()) > number else None

    columns: list[_Column] = [
        ("PSNR dB", one("psnr_db"), ".2f"),
        ("SSIM", one("ssim"), ".3f"),
        ("LPIPS", one("lpips"), ".3f"),
        ("IoU", one("iou"), ".3f"),
        ("visible: Chamfer", one("chamfer"), ".4f"),
    ]
    for number, threshold in enumerate(summary["thresholds"]):
        columns.append((f"F@{threshold:g}", of_list("f_scores", number), ".3f"))
    columns += [("normals", one("normals"), ".3f"), ("whole: Chamfer %", one("whole_chamfer_percent"), ".2f")]
    for number, threshold in enumerate(summary.get("whole_thresholds", ())):
        columns.append((f"F@{100 * threshold:g} %", of_list("whole_f_scores", number), ".3f"))
    return [*columns, ("normals", one("whole_normals"), ".3f"), ("seconds", one("seconds"), ".1f")]


def _by_inputs(summaries: Sequence[Mapping[str, Any]]) -> str:
    """PSNR against the number of given views, where the runs differ in that."""
    points = sorted(
        (int(summary["settings"]["inputs"]), float(summary["means"]["psnr_db"]))
        for summary in summaries
        if isinstance(summary.get("settings", {}).get("inputs"), int) and summary["means"]["psnr_db"] is not None
    )
    if len({count for count, _ in points}) < 2:
        return ""
    most, low, high = points[-1][0], min(p for _, p in points) - 1, max(p for _, p in points) + 1
    placed = [
        (40 + 520 * count / most, 180 - 160 * (value - low) / (high - low), count, value) for count, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in placed)
    dots = "".join(
        f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="4"/><text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">'
        f'{value:.2f}</text><text x="{x:.1f}" y="198" text-anchor="middle">{count}</text>'
        for x, y, count, value in placed
    )
    polyline = f'<polyline fill="none" stroke="#4c78a8" points="{line}"/>'
    svg = f'<svg width="620" height="200" font-size="12">{polyline}{dots}</svg>'
    return f"<h2>PSNR (dB) against the number of given views</h2>{svg}"


def _differences(runs: Sequence[tuple[str, dict[str, Any], list[dict[str, Any]]]]) -> str:
    by_name = [{e["name"]: e for e in entries if "error" not in e} for _, _, entries in runs]
    shared = sorted(set.intersection(*(set(found) for found in by_name)))
    head = "".join(f"<th>{html.escape(name)}</th>" for name, _, _ in runs)
    rows = [f"<tr><th>PSNR dB</th>{head}<th>last - first</th></tr>"]
    for name in sorted(shared, key=lambda n: by_name[-1][n]["psnr_db"] - by_name[0][n]["psnr_db"]):
        values = [found[name]["psnr_db"] for found in by_name]
        cells = "".join(f"<td>{value:.2f}</td>" for value in values)
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}<td>{values[-1] - values[0]:+.2f}</td></tr>")
    return f"<h2>Object by object</h2><table>{''.join(rows)}</table>"


def _plot(values: Sequence[float]) -> str:
    if not values:
        return ""
    width, height, top = 900, 120, max(max(values), 1.0)
    step = width / len(values)
    bars = "".join(
        f'<rect class="bar" x="{i * step:.1f}" y="{height * (1 - max(v, 0) / top):.1f}"'
        f' width="{max(step - 1, 0.5):.1f}" height="{height * max(v, 0) / top:.1f}"><title>{v:.2f} dB</title></rect>'
        for i, v in enumerate(values)
    )
    return f'<svg width="{width}" height="{height}">{bars}</svg>'


def _figure(run: Path, entry: dict[str, Any]) -> str:
    picture = run / "pictures" / f"{entry['name']}.png"
    if not picture.is_file():
        return ""
    data = base64.b64encode(picture.read_bytes()).decode()
    caption = f"{html.escape(entry['name'])}: {entry['psnr_db']:.2f} dB, IoU {entry['iou']:.3f}"
    return f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
