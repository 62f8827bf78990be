"""Which start serves which shape: 60 objects, most of them with several parts or holes, in views never used.

    python -m benchmarks.eval_shapes OBJECTS --out FOLDER --half tuning --starts hull carve
    python -m benchmarks.eval_shapes OBJECTS --out FOLDER --choices
    python -m benchmarks.eval_shapes --summary FOLDER

OBJECTS is a folder of textured GLB files in folders by source; `shapes.txt` beside this file lists those that are
used: 20 real scans (those of docs/refinement.md), and 40 assets drawn by a seed among those with several parts or with
holes, each in the half for tuning or in that for reporting. ``--choose`` writes that list anew, from manifest.json.

Each object is scaled into the unit ball and photographed, unlit on white, at 512 x 512 px with true masks and cameras:
by the six cameras of the Zero123++ rig, by 21 on an orbit at 10 degrees of elevation, by eight or 60 in random
directions, by four at 20 degrees, or by the Zero123++ rig with lenses of 20, 35 and 60 degrees in turn. In two more
rigs the Zero123++ one has a flaw: a wrong mask, or cameras off by one degree.
What `reconstruct` makes of that, from each start, is judged by

- the 20 novel views of `meshwright evaluate`: PSNR and SSIM of the whole picture, IoU of the coverage, depth where both
  have one (mean difference in percent of the true diagonal);
- the shape: Chamfer distance in percent of the diagonal and F-scores at 1 and 2 % of it, over the whole surfaces and
  over what the input cameras see of either (no more than 0.5 % of the diagonal behind the nearest surface).

Starts are hull, carve, auto, and those of `carve_steps`: with steps of carving left out, and an eroded hull.

``--quick``: pictures of 320 px, colours at vertices, ten of the novel views at 256 px; for a fourth of the time.

FOLDER gets a line of JSON for each object, rig, level and start (results.jsonl), the refined shapes and small pictures.
What is there is not made again. ``--choices`` finds from the refined shapes which of hull and carve `refine_best`
keeps (choices.jsonl): the start auto, without fitting both again. ``--summary`` writes tables and contact sheets.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation
from torch import Tensor

from benchmarks.carve_steps import ABLATED, start_named
from benchmarks.scans import chosen_scans, load_scan, render_scan_views
from meshwright.cameras import Cameras
from meshwright.evaluate import SurfaceSamples, compare_shapes, novel_cameras, psnr, silhouette_iou, ssim
from meshwright.files import atomic_path
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.options import ColorOptions, FitOptions, ShapeOptions
from meshwright.raster import rasterize, render
from meshwright.reconstruct import StartShape, finish, start_shape
from meshwright.shape.refine.fit import NEIGHBORS
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import nearest_views
from meshwright.shape.refine.stages import STAGES
from meshwright.shape.refine.validation import prediction_error
from meshwright.views import ObjectFrame, Views

NOVEL = novel_cameras()
LIST = Path(__file__).with_name("shapes.txt")
ASSETS, SEED = 40, 12
SAMPLES = 2  # points a pixel side, of novel views, the true ones and ours
SURFACE_POINTS = 60_000
THRESHOLDS = (0.01, 0.02)  # of the object's diagonal
SEEN_BEHIND, SEEN_PX = 0.005, 512  # of the diagonal; side of the depth maps
TILE_PX = 176
SHOWN = Cameras.spherical([35.0, 215.0], [35.0, -30.0], 4.0, 30.0)  # from above, and from below on the other side
SHEET_ROWS = 10
LENSES_DEG, BALL_ROOM = (20.0, 35.0, 60.0), 1.035  # of the radius that a picture shows: as much as on the Zero123++ rig


def random_directions(count: int, seed: int) -> Cameras:
    """Even over the sphere between 30 degrees below and 70 above the horizon."""
    draw = np.random.default_rng(seed)
    low, high = np.sin(np.deg2rad([-30.0, 70.0]))
    elevations_deg = np.rad2deg(np.arcsin(draw.uniform(low, high, count)))
    return Cameras.spherical(draw.uniform(0, 360, count).tolist(), elevations_deg.tolist(), 4.0, 30.0)


def mixed_lenses() -> Cameras:
    """The Zero123++ rig seen through lenses of 20, 35 and 60 degrees in turn, each as near as shows the unit ball."""
    directions = torch.nn.functional.normalize(Cameras.zero123plus().positions, dim=1)
    each = []
    for i in range(len(directions)):
        fov_deg = LENSES_DEG[i % len(LENSES_DEG)]
        distance = BALL_ROOM / np.sin(np.deg2rad(fov_deg) / 2)
        each.append(Cameras.look_at(directions[[i]] * float(distance), fov_deg))
    return Cameras(torch.cat([c.T_world_camera for c in each]), torch.cat([c.intrinsics for c in each]))


@dataclass(frozen=True)
class Protocol:
    """``size_px``: of the pictures given; ``texture_px``: None for colours at vertices."""

    size_px: int
    novel: Cameras
    novel_px: int
    texture_px: int | None


WHOLE = Protocol(512, NOVEL, 512, 1024)
QUICK = Protocol(320, NOVEL[list(range(0, 20, 2))], 256, None)  # a quarter of the time


def views_of(scan: Mesh, rig: str, size_px: int) -> Views:
    """What is given: pictures of a rig, with the flaw that its name says."""
    cameras = RIGS[rig]
    views = replace(render_scan_views(scan, cameras, size_px), depth_z=None)
    if rig in FLAWS:
        views = FLAWS[rig](views)
    return views


def with_wrong_masks(views: Views) -> Views:
    """In every tenth picture, or one, a disc of the object is missing: a sixth of its longer side in radius."""
    images, alpha = views.images.clone(), views.alpha.clone()
    draw = np.random.default_rng(10)
    for number in draw.choice(len(views), -(-len(views) // 10), replace=False):
        row, column = alpha[number, 0].gt(0.5).nonzero().unbind(1)
        radius = float(max(row.max() - row.min(), column.max() - column.min())) / 6
        place = int(draw.integers(len(row)))
        rows, columns = torch.meshgrid(*(torch.arange(n) for n in alpha.shape[2:]), indexing="ij")
        disc = (rows - row[place]).square() + (columns - column[place]).square() < radius**2
        images[number, :, disc] = 1.0
        alpha[number, 0, disc] = 0.0
    return replace(views, images=images, alpha=alpha)


def with_cameras_off(views: Views) -> Views:
    """Every camera turned by one degree about an axis of its own through the origin."""
    axes = np.random.default_rng(1).normal(size=(len(views), 3))
    axes *= np.deg2rad(1.0) / np.linalg.norm(axes, axis=1, keepdims=True)
    turns = torch.eye(4).repeat(len(views), 1, 1)
    turns[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec(axes).as_matrix()).float()
    return replace(views, cameras=Cameras(turns @ views.cameras.T_world_camera, views.cameras.intrinsics))


RIGS = {
    "zero123plus": Cameras.zero123plus(),
    "orbit10": Cameras.orbit(21, 10.0),
    "random8": random_directions(8, 8),
    "sixty": random_directions(60, 60),
    "mixed-lenses": mixed_lenses(),
    "four": Cameras.spherical([0.0, 90.0, 180.0, 270.0], [20.0] * 4, 4.0, 30.0),
    "wrong-masks": Cameras.zero123plus(),
    "cameras-off": Cameras.zero123plus(),
}
FLAWS = {"wrong-masks": with_wrong_masks, "cameras-off": with_cameras_off}


@dataclass(frozen=True)
class Scores:
    """``visible``: over what the input cameras see, (Chamfer in percent, F at each threshold); ``whole``: over all."""

    psnr_db: float
    ssim: float
    iou: float
    depth_percent: float
    visible: tuple[float, ...]
    whole: tuple[float, ...]


@dataclass(frozen=True)
class Record:
    """``kept``: which start the result came from. Errors are those that `refine` tells; seconds are of the CPU."""

    object: str
    half: str
    rig: str
    level: str
    start: str
    kept: str
    scores: Scores
    error_before: float
    error_after: float
    start_s: float
    finish_s: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.object, self.rig, self.level, self.start)

    @property
    def stem(self) -> str:
        return "-".join(self.key).replace("/", "-")

    @classmethod
    def parse(cls, line: str) -> "Record":
        told = json.loads(line)
        scores = told.pop("scores")
        pairs = {name: tuple(scores[name]) for name in ("visible", "whole")}
        return cls(scores=Scores(**{**scores, **pairs}), **told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="?", type=Path, help="folder with a folder for each source")
    parser.add_argument("--choose", action="store_true", help="write the list of objects anew and do nothing else")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--half", choices=["tuning", "reporting"], nargs="+", default=["tuning", "reporting"])
    parser.add_argument("--count", type=int, default=60, help="no more objects than this of each half")
    parser.add_argument("--only", nargs="+", help="these objects of the list (or others, said as SOURCE/NAME) alone")
    parser.add_argument("--rig", choices=list(RIGS), default="zero123plus")
    parser.add_argument("--level", choices=["fast", "full"], default="fast")
    parser.add_argument("--starts", nargs="+", default=["hull", "carve"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--choices", action="store_true", help="only find what would be kept of hull and carve")
    parser.add_argument("--summary", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.summary is not None:
        summarize(options.summary)
        return
    if options.objects is None:
        parser.error("say where the objects are")
    if options.choose:
        choose(options.objects)
        return
    if options.out is None:
        parser.error("say by --out where the results belong")
    protocol = QUICK if options.quick else WHOLE
    if options.choices:
        find_choices(options.out, options.objects, protocol)
        return
    chosen = [(half, name) for half in options.half for name in objects_of(half)[: options.count]]
    if options.only is not None:
        halves = {name: half for half in ("tuning", "reporting") for name in objects_of(half)}
        chosen = [(halves.get(name, "tuning"), name) for name in options.only]
    for half, name in chosen:
        evaluate_into(options.out, options.objects, protocol, name, half, options.rig, options.level, options.starts)


# ------------------------------------------------------------------------------- the list


def choose(objects: Path) -> None:
    """Write the list: scans and assets each shuffled, then in turn for tuning and for reporting."""
    scans = [f"{p.parent.name}/{p.stem}" for p in chosen_scans([objects / name for name in ("ocrtoc", "drake", "ycb")])]
    manifest = json.loads((objects / "manifest.json").read_text())
    assets = sorted(Path(x["path"]).with_suffix("") for x in manifest if x["kind"] != "real scan")
    assets = [path for path in assets if has_parts_or_holes(load_mesh(objects / f"{path.parent.name}/{path.name}.glb"))]
    draw = random.Random(SEED)
    draw.shuffle(assets)
    draw.shuffle(scans)
    names = [*scans, *(f"{path.parent.name}/{path.name}" for path in assets[:ASSETS])]
    lines = [f"{'tuning' if number % 2 == 0 else 'reporting'} {name}" for number, name in enumerate(names)]
    with atomic_path(LIST) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def has_parts_or_holes(mesh: Mesh) -> bool:
    """Whether, vertices in one place being one, it has several parts, or fewer than two as Euler's number of each."""
    vertices = mesh.vertices.numpy()
    corner = vertices.min(0)
    places = np.round((vertices - corner) / max(np.ptp(vertices, axis=0).max(), 1e-9) * 1e5).astype(np.int64)
    _, place = np.unique(places, axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces.numpy()]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    used, count = np.unique(faces), int(faces.max()) + 1
    graph = coo_array((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(count, count))
    parts = len(np.unique(connected_components(graph, directed=False)[1][used]))
    return parts > 1 or len(used) - len(edges) + len(faces) < 2 * parts


def objects_of(half: str) -> list[str]:
    """Names, scans and assets in turn as often as there are of each."""
    listed = [line.split(" ", 1) for line in LIST.read_text().splitlines()]
    names = [name for listed_half, name in listed if listed_half == half]
    scans = [name for name in names if is_scan(name)]
    assets = [name for name in names if not is_scan(name)]
    every = len(assets) // len(scans)
    return [n for i, scan in enumerate(scans) for n in (*assets[i * every : (i + 1) * every], scan)]


def is_scan(name: str) -> bool:
    return name.split("/")[0] in ("ocrtoc", "drake", "ycb")


# ------------------------------------------------------------------------------- one object


def evaluate_into(
    folder: Path, objects: Path, protocol: Protocol, name: str, half: str, rig: str, level: str, starts: list[str]
) -> None:
    for part in ("meshes", "pictures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    known = {record.key for record in read(folder)}
    missing = [start for start in starts if (name, rig, level, start) not in known]
    if not missing:
        return
    scan = load_scan(objects / f"{name}.glb")
    cameras = RIGS[rig]
    views = views_of(scan, rig, protocol.size_px)
    truth = Truth.of(scan, cameras, protocol)
    picture(scan).save(folder / "pictures" / f"{name.replace('/', '-')}.png")
    for start in missing:
        record, mesh, shape = reconstruct_and_judge(views, truth, name, half, rig, level, start)
        np.savez_compressed(
            folder / "meshes" / f"{record.stem}.npz", vertices=shape.vertices.numpy(), faces=shape.faces.int().numpy()
        )
        picture(mesh).save(folder / "pictures" / f"{record.stem}.png")
        with (folder / "results.jsonl").open("a") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        print(
            f"{record.stem} ({record.kept}): {record.scores.psnr_db:.2f} dB, IoU {record.scores.iou:.3f}, F"
            f" {record.scores.visible[1]:.3f}, {record.start_s:.1f} + {record.finish_s:.1f} CPU s",
            flush=True,
        )


def reconstruct_and_judge(
    views: Views, truth: "Truth", name: str, half: str, rig: str, level: str, start: str
) -> tuple[Record, Mesh, Mesh]:
    fit, texture_px = FitOptions(refine=level), truth.protocol.texture_px  # type: ignore[arg-type]
    color = ColorOptions(vertex_colors=True) if texture_px is None else ColorOptions(texture_size_px=texture_px)
    began = time.process_time()
    if start in ABLATED:
        frame = ObjectFrame.upright(views)
        made = start_named(start, frame.normalize_views(views))
        first = StartShape(frame.restore_mesh(made.mesh), rejected_views=made.rejected_views, unknown=made.unknown)
    else:
        first = start_shape(views, shape=ShapeOptions(start=start))  # type: ignore[arg-type]
    start_s = time.process_time() - began
    finished = finish(first, views, fit=fit, color=color)
    finish_s = time.process_time() - began - start_s
    assert finished.refined is not None
    kept = start if start != "auto" else "hull" if finished.refined.start == 0 else "carve"
    scores = truth.judge(finished.mesh)
    errors = finished.refined.error_before, finished.refined.error_after
    record = Record(name, half, rig, level, start, kept, scores, *errors, start_s, finish_s)
    return record, finished.mesh, finished.refined.mesh


@dataclass(frozen=True, eq=False)
class Truth:
    """The object from the novel cameras, points on its surface, and which of them ``cameras`` see."""

    protocol: Protocol
    views: Views
    cameras: Cameras
    samples: SurfaceSamples
    seen: Bool[Tensor, " points"]
    diagonal: float

    @classmethod
    def of(cls, scan: Mesh, cameras: Cameras, protocol: Protocol) -> "Truth":
        diagonal = float((scan.vertices.amax(0) - scan.vertices.amin(0)).norm())
        samples = SurfaceSamples.of(scan, SURFACE_POINTS)
        seen = seen_by(scan, cameras, samples.points, SEEN_BEHIND * diagonal)
        views = render_scan_views(scan, protocol.novel, protocol.novel_px, SAMPLES)
        return cls(protocol, views, cameras, samples, seen, diagonal)

    @torch.no_grad()
    def judge(self, mesh: Mesh) -> Scores:
        size_px = self.protocol.novel_px
        drawn = render(mesh, self.protocol.novel, size_px, size_px, samples=SAMPLES)
        assert self.views.depth_z is not None
        both = (self.views.depth_z > 0) & (drawn.depth_z > 0)
        depth = (self.views.depth_z - drawn.depth_z)[both].abs().mean() / self.diagonal
        ours = SurfaceSamples.of(mesh, SURFACE_POINTS)
        seen = seen_by(mesh, self.cameras, ours.points, SEEN_BEHIND * self.diagonal)
        return Scores(
            float(psnr(drawn.rgb, self.views.images).mean()),
            float(ssim(drawn.rgb, self.views.images).mean()),
            float(silhouette_iou(drawn.alpha, self.views.alpha).mean()),
            100 * float(depth),
            self._compare(ours, seen, self.seen),
            self._compare(ours, torch.ones_like(seen), torch.ones_like(self.seen)),
        )

    def _compare(self, ours: SurfaceSamples, mine: Tensor, true: Tensor) -> tuple[float, ...]:
        scores = compare_shapes(
            SurfaceSamples(ours.points[mine], ours.normals[mine]),
            SurfaceSamples(self.samples.points[true], self.samples.normals[true]),
            [share * self.diagonal for share in THRESHOLDS],
        )
        return (100 * scores.chamfer / self.diagonal, *scores.f_scores)


def seen_by(mesh: Mesh, cameras: Cameras, points: Float[Tensor, "points 3"], behind: float) -> Bool[Tensor, " points"]:
    """Which points of the mesh's surface some camera sees: no farther behind the nearest surface than ``behind``."""
    uv, depth_z = cameras.project(points)
    fragments = rasterize(mesh.vertices, mesh.faces, cameras, SEEN_PX, SEEN_PX)
    column, row = (uv * SEEN_PX).long().clamp(0, SEEN_PX - 1).unbind(2)
    view = torch.arange(len(cameras))[:, None]
    nearest = torch.where(fragments.face_ids >= 0, fragments.depth_z, torch.inf)[view, row, column]
    return (depth_z < nearest + behind).any(0)


def picture(mesh: Mesh) -> Image.Image:
    """From above and from below, with its colours and without."""
    bare = mesh.replace(vertex_colors=None, uv=None, uv_faces=None, texture=None)
    drawn = torch.cat([render(each, SHOWN, TILE_PX, TILE_PX, samples=2).rgb for each in (mesh, bare)])
    pixels = torch.cat(list(drawn), dim=2).permute(1, 2, 0).clamp(0, 1)
    return Image.fromarray((pixels * 255).round().byte().numpy())


@dataclass(frozen=True)
class Choice:
    """The errors by which `refine_best` chooses, of the start from the hull and of the carved one."""

    object: str
    rig: str
    level: str
    errors: tuple[float, float]

    @property
    def kept(self) -> str:
        return "hull" if self.errors[0] <= self.errors[1] else "carve"


def find_choices(folder: Path, objects: Path, protocol: Protocol) -> None:
    known = {(choice.object, choice.rig, choice.level) for choice in read_choices(folder)}
    for hull, carve in pairs_of(read(folder)):
        if (hull.object, hull.rig, hull.level) in known:
            continue
        views, frame = views_of(load_scan(objects / f"{hull.object}.glb"), hull.rig, protocol.size_px).normalized()
        pictures = Pictures.of(views, STAGES[hull.level][-1].largest_px, 0)
        neighbors = nearest_views(views.cameras, NEIGHBORS)
        errors = []
        for record in (hull, carve):
            saved = np.load(folder / "meshes" / f"{record.stem}.npz")
            mesh = Mesh(torch.from_numpy(saved["vertices"]), torch.from_numpy(saved["faces"]))
            errors.append(prediction_error(frame.normalize_mesh(mesh), views.cameras, pictures, neighbors))
        choice = Choice(hull.object, hull.rig, hull.level, (errors[0], errors[1]))
        with (folder / "choices.jsonl").open("a") as lines:
            lines.write(json.dumps(asdict(choice)) + "\n")
        print(f"{choice.object}: {errors[0]:.6f}, {errors[1]:.6f}: {choice.kept}", flush=True)


def read_choices(folder: Path) -> list[Choice]:
    path = folder / "choices.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [Choice(**{**one, "errors": tuple(one["errors"])}) for one in told]


def pairs_of(records: list[Record]) -> list[tuple[Record, Record]]:
    by_key = {record.key: record for record in records}
    hulls = [record for record in records if record.start == "hull"]
    return [(r, by_key[(*r.key[:3], "carve")]) for r in hulls if (*r.key[:3], "carve") in by_key]


# ------------------------------------------------------------------------------- all of them


def read(folder: Path) -> list[Record]:
    path = folder / "results.jsonl"
    return [Record.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


COLUMNS: dict[str, tuple[str, Callable[[Record], float]]] = {
    "PSNR dB": (".2f", lambda r: r.scores.psnr_db),
    "SSIM": (".3f", lambda r: r.scores.ssim),
    "IoU": (".3f", lambda r: r.scores.iou),
    "depth %": (".2f", lambda r: r.scores.depth_percent),
    "Chamfer % visible": (".2f", lambda r: r.scores.visible[0]),
    "F 1 % visible": (".3f", lambda r: r.scores.visible[1]),
    "Chamfer % whole": (".2f", lambda r: r.scores.whole[0]),
    "F 1 % whole": (".3f", lambda r: r.scores.whole[1]),
    "CPU s: start": (".1f", lambda r: r.start_s),
    "CPU s: fit, colours": (".1f", lambda r: r.finish_s),
}


def summarize(folder: Path) -> None:
    records = read(folder)
    records += chosen_records(records, read_choices(folder))
    parts = []
    for rig, level in sorted({(r.rig, r.level) for r in records}):
        chosen = [r for r in records if (r.rig, r.level) == (rig, level)]
        parts.append(f"### {rig}, {level}\n\n{choosing(chosen)}\n\n{means(chosen)}\n\n{by_object(chosen)}")
        sheets(folder, chosen, f"{rig}-{level}")
    with atomic_path(folder / "summary.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")


def chosen_records(records: list[Record], choices: list[Choice]) -> list[Record]:
    """What auto gives: the result that is kept, at the cost of both."""
    kept = {(choice.object, choice.rig, choice.level): choice.kept for choice in choices}
    found = []
    for hull, carve in pairs_of(records):
        name = kept.get(hull.key[:3])
        if name is not None:
            best = hull if name == "hull" else carve
            start_s, finish_s = hull.start_s + carve.start_s, hull.finish_s + carve.finish_s
            found.append(replace(best, start="auto", kept=name, start_s=start_s, finish_s=finish_s))
    return found


def choosing(records: list[Record]) -> str:
    """How often the better start is kept, and what is lost by that."""
    by_key = {record.key: record for record in records}
    lines = ["| half | objects | better kept | gain over the hull, dB | regret, dB | worst below the hull, dB |"]
    lines.append("| --- " * 6 + "|")
    for half in ("tuning", "reporting"):
        group = [record for record in records if record.start == "auto" and record.half == half]
        if not group:
            continue
        psnr_db = np.array([
            [by_key[(*record.key[:3], start)].scores.psnr_db for start in ("hull", "carve", "auto")] for record in group
        ])  # fmt: skip
        best, gain = psnr_db[:, :2].max(1), psnr_db[:, 2] - psnr_db[:, 0]
        right = int((psnr_db[:, 2] == best).sum())
        lines.append(
            f"| {half} | {len(group)} | {right} | {gain.mean():+.2f} | {(best - psnr_db[:, 2]).mean():.2f} |"
            f" {max(0.0, -gain.min()):.2f} |"
        )
    return "\n".join(lines)


def means(records: list[Record]) -> str:
    """By half, kind and start; only over objects that every start has."""
    starts = sorted({r.start for r in records})
    lines = [" | ".join(["| half", "objects", "start", *COLUMNS]) + " |", "| --- " * (3 + len(COLUMNS)) + "|"]
    for half in ("tuning", "reporting"):
        for kind in ("scans", "assets"):
            group = [r for r in records if r.half == half and is_scan(r.object) == (kind == "scans")]
            shared = set.intersection(*({r.object for r in group if r.start == start} for start in starts))
            for start in starts if shared else []:
                of_start = [r for r in group if r.start == start and r.object in shared]
                cells = [
                    format(np.mean([value(r) for r in of_start]), form)
                    for form, value in COLUMNS.values()
                ]  # fmt: skip
                lines.append(" | ".join([f"| {half}", f"{len(shared)} {kind}", start, *cells]) + " |")
    return "\n".join(lines)


def by_object(records: list[Record]) -> str:
    """PSNR dB, IoU and F of the visible surface for each start, side by side."""
    starts = sorted({r.start for r in records})
    lines = [" | ".join(["| object", "half", *starts]) + " |", "| --- " * (2 + len(starts)) + "|"]
    for name in sorted({r.object for r in records}):
        of_object = {r.start: r for r in records if r.object == name}
        cells = [
            f"{r.scores.psnr_db:.2f} / {r.scores.iou:.3f} / {r.scores.visible[1]:.3f}"
            if (r := of_object.get(s))
            else ""
            for s in starts
        ]
        lines.append(" | ".join([f"| {name}", next(iter(of_object.values())).half, *cells]) + " |")
    return "\n".join(lines)


def sheets(folder: Path, records: list[Record], name: str) -> None:
    """Best and worst of the last start, and what changed most from the first: truth, then each start beside it."""
    by_name: dict[str, dict[str, Record]] = {}
    for record in records:
        by_name.setdefault(record.object, {})[record.start] = record
    every = {record.start for record in records}
    by_name = {object_: each for object_, each in by_name.items() if set(each) == every}  # some may not be done yet
    starts = [start for start in ("hull", "carve", "auto") if start in every]
    if not by_name:
        return
    first, last = starts[0], starts[-1]
    ranked = sorted(by_name, key=lambda n: -by_name[n][last].scores.psnr_db)
    changed = sorted(by_name, key=lambda n: -abs(by_name[n][last].scores.psnr_db - by_name[n][first].scores.psnr_db))
    for kind, names in (("best", ranked), ("worst", ranked[::-1]), ("changed", changed)):
        rows = []
        for each in names[:SHEET_ROWS]:
            files = [
                each.replace("/", "-"),
                *(by_name[each][start].stem for start in ("hull", "carve") if start in starts),
            ]
            tiles = [np.asarray(Image.open(folder / "pictures" / f"{file}.png").convert("RGB")) for file in files]
            rows.append(np.concatenate(tiles, axis=1))
        with atomic_path(folder / f"{kind}-{name}.jpg") as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary, format="JPEG", quality=80)
        print(f"{kind}: {', '.join(names[:SHEET_ROWS])}; columns: truth, {', '.join(starts)}")


if __name__ == "__main__":
    main()
