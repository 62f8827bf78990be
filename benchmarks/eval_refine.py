"""How near refined and textured reconstructions come to true objects in views never used.

    python -m benchmarks.eval_refine SCANS ... --rig zero123plus --level full --out FOLDER
    python -m benchmarks.eval_refine --table FOLDER

Each scan is scaled into the unit ball and photographed, unlit on white, at 512 x 512 px by six cameras of the
Zero123++ rig or by 21 on an orbit at 20 degrees of elevation; masks are true, depth is not given. From these pictures
come a visual hull, `refine` and `bake_texture`, as `reconstruct` does it. Judged are

- 20 views from cameras that no rig has, spread over all azimuths (by the golden angle) and over elevations from -20 to
  50 degrees: PSNR and SSIM of the whole picture, IoU of the coverage, means over the views;
- the shape: Chamfer distance in percent of the true object's diagonal, F-score at 0.5, 1 and 2 % of it, consistency of
  normals.

`meshwright evaluate SCANS --refine full --start hull` gives the same numbers of `ours` (docs/evaluation.md); this file
adds two baselines and the tables. Beside it stands the plain hull with the vertex colours of the package
(`color_vertices`), and with those of the one view that sees each vertex best.

SCANS are GLB files or folders of them. A folder of up to 12 scans is taken whole, of a larger one every third scan in
the order of names, from the first on. The published table is of the folders ocrtoc, drake and ycb (8 + 1 + 11 scans).
What FOLDER already holds is not made again, so several processes may share it if they begin with different scans
(``--backwards``). ``--table`` writes FOLDER/table.md and, for each rig and level, a sheet of the best and the worst.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from benchmarks.scans import find_scans, load_scan, render_scan_views
from meshwright.cameras import Cameras
from meshwright.color import VisibleSurface, bake_texture, color_vertices, spread_colors
from meshwright.evaluate import SurfaceSamples, compare_shapes, novel_cameras, psnr, silhouette_iou, ssim
from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.shape import refine, visual_hull
from meshwright.views import Views

SIZE_PX = 512
SAMPLES = 2  # points a pixel side, of novel views, the true ones and ours
TEXTURE_PX = 2048
THRESHOLDS = (0.005, 0.01, 0.02)  # of the object's diagonal
SURFACE_POINTS = 100_000
WHOLE_FOLDER, EVERY = 12, 3
RIGS = {"zero123plus": Cameras.zero123plus(), "orbit": Cameras.orbit(21, 20.0)}
NOVEL = novel_cameras()
SHOWN, SHOWN_PX = [1, 5, 9, 13, 17, 3], 192  # novel views in the pictures
SHEET_ROWS = 3  # best, and as many worst

Level = Literal["fast", "full"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scores:
    psnr_db: float
    ssim: float
    iou: float
    chamfer_percent: float
    f_scores: tuple[float, ...]
    normal_consistency: float


@dataclass(frozen=True)
class Seconds:
    hull: float
    refine: float
    texture: float


@dataclass(frozen=True)
class Outcome:
    """``hull_nearest`` and ``hull`` differ only in their vertex colours. Errors are those that `refine` tells."""

    scan: str
    rig: str
    level: str
    hull_nearest: Scores
    hull: Scores
    ours: Scores
    seconds: Seconds
    error_before: float
    error_after: float
    faces: int

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        told = json.loads(path.read_text())
        for key in ("hull_nearest", "hull", "ours"):
            told[key] = Scores(**told[key])
        return cls(**{**told, "seconds": Seconds(**told["seconds"])})

    @property
    def stem(self) -> str:
        return f"{self.scan.replace('/', '-')}-{self.rig}-{self.level}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--rig", choices=list(RIGS), default="zero123plus")
    parser.add_argument("--level", choices=["fast", "full"], default="full")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--backwards", action="store_true", help="begin with the last scan")
    parser.add_argument("--table", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.scans:
        if options.out is None:
            parser.error("say by --out where the results belong")
        options.out.mkdir(parents=True, exist_ok=True)
        scans = chosen_scans(options.scans)
        for path in reversed(scans) if options.backwards else scans:
            evaluate_into(options.out, path, options.rig, options.level)
    if options.table is not None:
        tabulate(options.table)


def chosen_scans(given: list[Path]) -> list[Path]:
    chosen = []
    for path in given:
        found = find_scans([path]) if path.is_dir() else [path]
        chosen += found if len(found) <= WHOLE_FOLDER else found[::EVERY]
    return chosen


# ------------------------------------------------------------------------------- one scan


def evaluate_into(folder: Path, path: Path, rig: str, level: Level) -> None:
    name = f"{path.parent.name}/{path.stem}"
    result = folder / f"{name.replace('/', '-')}-{rig}-{level}.json"
    if result.exists():
        return
    outcome, picture = evaluate(path, name, rig, level)
    with atomic_path(result.with_suffix(".png")) as temporary:
        picture.save(temporary)
    with atomic_path(result) as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1))
    print(f"{outcome.stem}: {outcome.hull.psnr_db:.2f} -> {outcome.ours.psnr_db:.2f} dB, {outcome.seconds}", flush=True)


def evaluate(path: Path, name: str, rig: str, level: Level) -> tuple[Outcome, Image.Image]:
    scan = load_scan(path)
    views = replace(render_scan_views(scan, RIGS[rig], SIZE_PX), depth_z=None)
    hull, hull_s = timed(lambda: visual_hull(views).mesh())
    refined, refine_s = timed(lambda: refine(hull, views, level=level))
    mesh, texture_s = timed(lambda: bake_texture(refined.mesh, refined.views, texture_size_px=TEXTURE_PX))

    truth = Truth.of(scan)
    outcome = Outcome(
        name,
        rig,
        level,
        truth.judge(color_by_best_view(hull, views)),
        truth.judge(color_vertices(hull, views)),
        truth.judge(mesh),
        Seconds(hull_s, refine_s, texture_s),
        refined.error_before,
        refined.error_after,
        len(mesh.faces),
    )
    return outcome, truth.picture(mesh)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


@torch.no_grad()
def color_by_best_view(mesh: Mesh, views: Views) -> Mesh:
    """Each vertex as the one view shows it that sees it best; what none sees is filled in from around."""
    normals = mesh.vertex_normals()
    samples = [VisibleSurface.of(mesh, views[[i]]).sample_view(mesh.vertices, normals) for i in range(len(views))]
    quality, best = torch.stack([quality for _, quality in samples]).max(0)
    colors = torch.stack([colors for colors, _ in samples])[best, torch.arange(len(best))]
    return mesh.replace(vertex_colors=spread_colors(mesh, colors, quality > 0).clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Truth:
    """The scan from the novel cameras, and points on its surface."""

    views: Views
    samples: SurfaceSamples
    diagonal: float

    @classmethod
    def of(cls, scan: Mesh) -> "Truth":
        diagonal = float((scan.vertices.amax(0) - scan.vertices.amin(0)).norm())
        return cls(render_scan_views(scan, NOVEL, SIZE_PX, SAMPLES), SurfaceSamples.of(scan, SURFACE_POINTS), diagonal)

    def judge(self, mesh: Mesh) -> Scores:
        drawn = render(mesh, NOVEL, SIZE_PX, SIZE_PX, samples=SAMPLES)
        shape = compare_shapes(
            SurfaceSamples.of(mesh, SURFACE_POINTS), self.samples, [share * self.diagonal for share in THRESHOLDS]
        )
        return Scores(
            float(psnr(drawn.rgb, self.views.images).mean()),
            float(ssim(drawn.rgb, self.views.images).mean()),
            float(silhouette_iou(drawn.alpha, self.views.alpha).mean()),
            100 * shape.chamfer / self.diagonal,
            shape.f_scores,
            shape.normal_consistency,
        )

    def picture(self, mesh: Mesh) -> Image.Image:
        """Some of the novel views: the scan above, the mesh below it, its bare shape under that."""
        cameras = NOVEL[SHOWN]
        bare = mesh.replace(uv=None, uv_faces=None, texture=None)
        rows = [
            self.views.images[SHOWN],
            render(mesh, cameras, SIZE_PX, SIZE_PX).rgb,
            render(bare, cameras, SIZE_PX, SIZE_PX).rgb,
        ]
        small = [torch.nn.functional.interpolate(row, (SHOWN_PX, SHOWN_PX), mode="area") for row in rows]
        pixels = torch.cat([torch.cat(list(row), dim=2) for row in small], dim=1)
        return Image.fromarray((pixels.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy())


# ------------------------------------------------------------------------------- all of them


def tabulate(folder: Path) -> None:
    outcomes = [Outcome.read(path) for path in sorted(folder.glob("*.json"))]
    kinds = sorted({(outcome.rig, outcome.level) for outcome in outcomes})
    parts = []
    for rig, level in kinds:
        chosen = [outcome for outcome in outcomes if (outcome.rig, outcome.level) == (rig, level)]
        parts.append(f"### {rig}, {level}\n\n{markdown(chosen)}")
        with atomic_path(folder / f"sheet-{rig}-{level}.jpg") as temporary:
            sheet(folder, chosen).save(temporary, quality=85)
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")


COLUMNS: dict[str, tuple[str, Callable[[Outcome], tuple[float, ...]]]] = {
    "PSNR dB: one view, hull, ours": (".2f", lambda o: (o.hull_nearest.psnr_db, o.hull.psnr_db, o.ours.psnr_db)),
    "SSIM: hull, ours": (".3f", lambda o: (o.hull.ssim, o.ours.ssim)),
    "IoU: hull, ours": (".3f", lambda o: (o.hull.iou, o.ours.iou)),
    "F 0.5 %": (".3f", lambda o: (o.hull.f_scores[0], o.ours.f_scores[0])),
    "F 1 %": (".3f", lambda o: (o.hull.f_scores[1], o.ours.f_scores[1])),
    "F 2 %": (".3f", lambda o: (o.hull.f_scores[2], o.ours.f_scores[2])),
    "Chamfer %": (".2f", lambda o: (o.hull.chamfer_percent, o.ours.chamfer_percent)),
    "normals": (".3f", lambda o: (o.hull.normal_consistency, o.ours.normal_consistency)),
    "s: hull, refine, texture": (".0f", lambda o: (o.seconds.hull, o.seconds.refine, o.seconds.texture)),
}


def markdown(outcomes: list[Outcome]) -> str:
    lines = [" | ".join(["| object", *COLUMNS]) + " |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for outcome in sorted(outcomes, key=lambda o: o.scan):
        cells = [numbers(values(outcome), form) for form, values in COLUMNS.values()]
        lines.append(" | ".join([f"| {outcome.scan}", *cells]) + " |")
    means = [
        numbers(np.mean([values(outcome) for outcome in outcomes], axis=0).tolist(), form)
        for form, values in COLUMNS.values()
    ]
    lines.append(" | ".join([f"| **mean of {len(outcomes)}**", *means]) + " |")
    return "\n".join(lines)


def numbers(values: tuple[float, ...] | list[float], form: str) -> str:
    return " / ".join(format(value, form) for value in values)


def sheet(folder: Path, outcomes: list[Outcome]) -> Image.Image:
    """The best by PSNR, then the worst, each as `Truth.picture` shows it."""
    ranked = sorted(outcomes, key=lambda o: -o.ours.psnr_db)
    shown = ranked if len(ranked) <= 2 * SHEET_ROWS else ranked[:SHEET_ROWS] + ranked[-SHEET_ROWS:]
    pictures = [np.asarray(Image.open(folder / f"{outcome.stem}.png").convert("RGB")) for outcome in shown]
    return Image.fromarray(np.concatenate(pictures))


if __name__ == "__main__":
    main()
