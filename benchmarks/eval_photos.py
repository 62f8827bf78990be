"""From pixels only: how near photos of scans come to what the same photos give with true cameras and true masks.

    python -m benchmarks.eval_photos FOLDER ... --out RESULTS [--meshes]
    python -m benchmarks.eval_photos --table RESULTS
    python -m benchmarks.eval_photos FOLDER ... --out RESULTS --sheet FILE.jpg

Each FOLDER is one that `benchmarks.photos_scene` made. `load_views` gets FOLDER/photos and nothing else. Measured are

- the share of pictures whose cameras are found, and how far these are from the true ones after the similarity that
  brings their centres together best: degrees, and distance in percent of that from the camera to the object;
- exposure gains: the mean error that is left, next to the mean error of leaving them;
- IoU of the masks with the true ones, both without distortion by the lens that was found: mean and worst of the views;
  and IoU within a band around the foot, the lowest pixel of each column of the true mask: 2 % of the picture's longer
  side to all sides, where shadows pass for object;
- with ``--meshes`` the PSNR and IoU in 12 views of the true object that no photo shows, at elevations from 10 to 55
  degrees, and the F-score of the surface at 0.02 units, of the mesh from pixels only and of that from the same
  pictures with true cameras, lens and masks.

RESULTS gets JSON files, pictures and the posed views of each scene; what is there is not made again.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from benchmarks.photos_scene import Truth, lit
from benchmarks.scans import load_scan
from meshwright.cameras import Cameras
from meshwright.capture import load, load_views
from meshwright.capture.lens import Brown, Lens
from meshwright.capture.photos import PosedPhotos, pose_photos
from meshwright.capture.undistort import pinhole_of, undistort
from meshwright.errors import InputError
from meshwright.evaluate import f_score, psnr, silhouette_iou
from meshwright.images import read_image
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.reconstruct import reconstruct
from meshwright.views import Capture, Views

NOVEL = Cameras.spherical(
    [30.0 * i + 7 for i in range(12)], [10 + 45 * (5 * i % 12) / 11 for i in range(12)], 4.0, 30.0
)
NOVEL_PX = 384
SHOWN = [0, 3, 6, 9]
CELL_PX, SHOWN_PHOTO = 176, 9
SURFACE_POINTS = 20_000
FOOT_BAND = 0.02  # of the longer side
NEAR = 0.02  # units: so near counts for the F-score; the object's radius is 0.95


@dataclass(frozen=True)
class Outcome:
    """``failed``: why there is nothing else."""

    scene: str
    pictures: int
    registered: int = 0
    turned_deg: float = 0.0
    moved_percent: float = 0.0
    gain_error: float = 0.0
    gain_spread: float = 0.0
    iou_mean: float = 0.0
    iou_least: float = 0.0
    foot_iou_mean: float | None = None
    foot_iou_least: float | None = None
    psnr_db: float | None = None
    psnr_true_db: float | None = None
    iou_novel: float | None = None
    iou_novel_true: float | None = None
    f_score: float | None = None
    f_score_true: float | None = None
    cpu_s: float = 0.0
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--meshes", action="store_true")
    parser.add_argument("--scans", type=Path, nargs="*", default=[], help="folders of the true GLB files")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--sheet", type=Path, help="a picture of all results that are there")
    options = parser.parse_args()
    if options.table is not None:
        print(table(options.table))
        return
    if options.sheet is not None:
        overview(options.scenes, options.out).save(options.sheet, quality=78)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for scene in options.scenes:
        posed = options.out / f"{scene.name}.pt"
        result = options.out / f"{scene.name}.json"
        if not result.exists():
            outcome, views, T_truth_world = evaluate(scene)
            if views is not None:
                torch.save((views, T_truth_world), posed)
                save(picture_of_masks(views), result.with_suffix(".jpg"))
            result.write_text(json.dumps(asdict(outcome), indent=1))
            print(outcome, flush=True)
        outcome = Outcome(**json.loads(result.read_text()))
        result = options.out / f"{scene.name}-mesh.json"
        if options.meshes and not outcome.failed and not result.exists():
            views, T_truth_world = torch.load(posed, weights_only=False)
            outcome, sheet = with_meshes(outcome, scene, views, T_truth_world, options.scans)
            save(sheet, result.with_suffix(".jpg"))
            result.write_text(json.dumps(asdict(outcome), indent=1))
            print(outcome, flush=True)


def evaluate(scene: Path) -> tuple[Outcome, Views | None, Float[ndarray, "4 4"] | None]:
    truth = Truth.read(scene)
    began = time.process_time()
    try:
        views, posed = load_with_lenses(scene / "photos")
    except InputError as error:
        spent = time.process_time() - began
        return Outcome(scene.name, len(truth.names), cpu_s=spent, failed=str(error)), None, None
    spent = time.process_time() - began
    numbers = [truth.names.index(name) for name in views.names]
    T_truth_world = similarity(views.cameras.positions.double(), truth.cameras.positions[numbers].double())
    turned, moved = camera_errors(views.cameras, truth.cameras[numbers], T_truth_world)
    kept = [[photo.name for photo in posed.photos].index(name) for name in views.names]
    lenses = tuple(posed.lenses[i] for i in kept)
    true_masks = torch.cat(
        [undistort(truth.masks[i], lens, "bilinear")[None] for i, lens in zip(numbers, lenses, strict=True)]
    )
    true_masks = torch.nn.functional.interpolate(true_masks, size=views.alpha.shape[2:], mode="bilinear")
    ious, feet = silhouette_iou(views.alpha, true_masks), foot_iou(views.alpha, true_masks)
    left, spread = gain_errors(views, tuple(posed.photos[i] for i in kept), lenses, truth.gains[numbers])
    outcome = Outcome(
        scene.name, len(truth.names), len(views), float(turned.mean()), float(moved.mean()), left, spread,
        float(ious.mean()), float(ious.min()), float(feet.mean()), float(feet.min()), cpu_s=spent,
    )  # fmt: skip
    return outcome, views, T_truth_world


def foot_iou(
    alpha: Float[Tensor, "views 1 height width"], true: Float[Tensor, "views 1 height width"]
) -> Float[Tensor, " views"]:
    """IoU of masks within the band around the true mask's lower edge."""
    reach_px = FOOT_BAND * max(alpha.shape[2:])
    ious = []
    for mask, wanted in zip((alpha[:, 0] > 0.5).numpy(), (true[:, 0] > 0.5).numpy(), strict=True):
        below = np.pad(wanted, ((0, 1), (0, 0)))[::-1].cumsum(axis=0)[::-1][1:]  # pixels of the mask further down
        band = ndimage.distance_transform_edt(~(wanted & (below == 0))) <= reach_px
        ious.append((mask & wanted & band).sum() / max(((mask | wanted) & band).sum(), 1))
    return torch.tensor(np.array(ious))


def load_with_lenses(photos: Path) -> tuple[Views, PosedPhotos]:
    """`load_views`, and the lenses that it found, which views do not keep."""
    found: list[PosedPhotos] = []

    def kept(*given: Any, **options: Any) -> PosedPhotos:
        found.append(pose_photos(*given, **options))
        return found[-1]

    with patch.object(load, "pose_photos", kept):
        views = load_views(photos)
    return views, found[-1]


def picture_of_masks(views: Views) -> Float[Tensor, "3 height width"]:
    """What was cut out of some of the pictures."""
    chosen = [i * len(views) // 4 for i in range(4)]
    return torch.cat(list(views.images[chosen]), dim=2)


def with_meshes(
    outcome: Outcome, scene: Path, views: Views, T_truth_world: Float[ndarray, "4 4"], scans: list[Path]
) -> tuple[Outcome, Float[Tensor, "3 height width"]]:
    path = next(path for folder in scans for path in folder.glob(f"{scene.name}.glb"))
    scan = load_scan(path)
    mesh = moved_mesh(reconstruct(views), T_truth_world)
    best = reconstruct(true_views(Truth.read(scene), scene))
    wanted = lit(scan, NOVEL, NOVEL_PX, NOVEL_PX, samples=2)
    ours, theirs = (render(m, NOVEL, NOVEL_PX, NOVEL_PX, samples=2) for m in (mesh, best))
    points = [m.sample_surface(SURFACE_POINTS)[0] for m in (mesh, best, scan)]
    outcome = replace(
        outcome,
        psnr_db=float(psnr(ours.rgb, wanted.rgb).mean()),
        psnr_true_db=float(psnr(theirs.rgb, wanted.rgb).mean()),
        iou_novel=float(silhouette_iou(ours.alpha, wanted.alpha).mean()),
        iou_novel_true=float(silhouette_iou(theirs.alpha, wanted.alpha).mean()),
        f_score=f_score(points[0], points[2], [NEAR])[0],
        f_score_true=f_score(points[1], points[2], [NEAR])[0],
    )
    rows = [wanted.rgb[SHOWN], ours.rgb[SHOWN], theirs.rgb[SHOWN]]
    return outcome, torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def similarity(points: Float[Tensor, "points 3"], wanted: Float[Tensor, "points 3"]) -> Float[ndarray, "4 4"]:
    """The one that takes points nearest to others (Umeyama 1991)."""
    a, b = points.numpy(), wanted.numpy()
    a_mean, b_mean = a.mean(axis=0), b.mean(axis=0)
    u, s, vt = np.linalg.svd((b - b_mean).T @ (a - a_mean))
    d = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    R = u @ d @ vt
    scale = (s * np.diag(d)).sum() / ((a - a_mean) ** 2).sum()
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = scale * R, b_mean - scale * R @ a_mean
    return T


def camera_errors(found: Cameras, true: Cameras, T: Float[ndarray, "4 4"]) -> tuple[Tensor, Tensor]:
    """Degrees, and percent of the distance to the object."""
    moved = torch.from_numpy(T) @ found.T_world_camera.double()
    moved[:, :3, :3] /= float(np.linalg.norm(T[:3, 0]))
    turned, shifted = Cameras(moved, found.intrinsics.double()).difference(true.to(dtype=torch.float64))
    return turned, 100 * shifted / true.positions.double().norm(dim=1)


def gain_errors(
    views: Views, photos: tuple, lenses: tuple[Lens, ...], gains: Float[Tensor, "views 3"]
) -> tuple[float, float]:
    """Mean relative error of the light after and before evening out, both up to one number a channel for all."""
    from meshwright.srgb import linear_from_srgb

    found = []
    for i, (photo, lens) in enumerate(zip(photos, lenses, strict=False)):
        before = undistort(photo.pixels.float() / 255, lens).clamp(0, 1)
        h, w = (min(pair) for pair in zip(before.shape[1:], views.images.shape[2:], strict=True))
        before, after = before[:, :h, :w], views.images[i, :, :h, :w]
        useful = (views.alpha[i, 0, :h, :w] > 0.999) & (before > 0.1).all(0) & (after < 0.95).all(0)
        ratio = linear_from_srgb(after[:, useful]) / linear_from_srgb(before[:, useful])
        found.append(ratio.median(dim=1).values if bool(useful.any()) else torch.ones(3))
    left = torch.stack(found) * gains
    left, spread = left / left.log().mean(0).exp(), gains / gains.log().mean(0).exp()
    return float((left - 1).abs().mean()), float((spread - 1).abs().mean())


def true_views(truth: Truth, scene: Path) -> Views:
    """The photos with the true lens, cameras, masks and exposures."""
    from meshwright.capture.gains import apply_gains

    pictures = [read_image(scene / "photos" / name).float() / 255 for name in truth.names]
    height, width = pictures[0].shape[1:]
    fx, fy, cx, cy = truth.cameras.intrinsics[0].tolist()
    bent = Brown((truth.lens.k1, truth.lens.k2), tangential=(truth.lens.p1, truth.lens.p2))
    lens = Lens(width, height, fx * width, fy * height, cx * width, cy * height, bent)
    images = torch.stack([undistort(picture, lens).clamp(0, 1) for picture in pictures])
    alpha = torch.stack([undistort(mask, lens, "bilinear").clamp(0, 1) for mask in truth.masks])
    gains = 1 / truth.gains
    images = apply_gains(images, gains / gains.log().mean(0).exp())
    intrinsics = torch.tensor([pinhole_of(lens).intrinsics]).repeat(len(images), 1)
    cameras = Cameras(truth.cameras.T_world_camera, intrinsics)
    sizes = torch.tensor([images.shape[2:]] * len(images))
    capture = Capture("truth", (0.0, 0.0, 1.0), own_axes=False)
    return Views(images * alpha + 1 - alpha, alpha, cameras, sizes, truth.names, "posed", capture=capture)


def moved_mesh(mesh: Mesh, T: Float[ndarray, "4 4"]) -> Mesh:
    vertices = mesh.vertices.double() @ torch.from_numpy(T[:3, :3]).T + torch.from_numpy(T[:3, 3])
    return mesh.replace(vertices=vertices.float())


def save(sheet: Float[Tensor, "3 height width"], path: Path) -> None:
    pixels = (sheet.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((1400, 1400))
    image.save(path, quality=85)


def overview(scenes: list[Path], results: Path) -> Image.Image:
    """Of each scene a photo, what was cut out of it, and a novel view of the truth and of the mesh, if there is one."""
    width, height, across = CELL_PX, CELL_PX * 3 // 4, 8
    rows: list[list[Image.Image]] = [[]]
    for scene in scenes:
        cells: list[Image.Image] = []
        if (results / f"{scene.name}.pt").exists():
            views, _ = torch.load(results / f"{scene.name}.pt", weights_only=False)
            view = min(SHOWN_PHOTO, len(views) - 1)
            pixels = (views.images[view].permute(1, 2, 0) * 255).round().byte().numpy()
            cells += [Image.open(scene / "photos" / views.names[view]), Image.fromarray(pixels)]
        if (results / f"{scene.name}-mesh.jpg").exists():
            shown = Image.open(results / f"{scene.name}-mesh.jpg")
            side = shown.width // len(SHOWN)
            cells += [shown.crop((side, row * side, 2 * side, (row + 1) * side)) for row in (0, 1)]
        if len(rows[-1]) + len(cells) > across:
            rows.append([])
        rows[-1] += cells
    drawn = Image.new("RGB", (across * width, len(rows) * height), "white")
    for row, line in enumerate(rows):
        for column, cell in enumerate(line):
            small = cell.convert("RGB")
            small.thumbnail((width, height))
            drawn.paste(small, (column * width + (width - small.width) // 2, row * height))
    return drawn


def table(folder: Path) -> str:
    """Markdown of all results; where meshes were made, their row."""
    outcomes = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem.endswith("-mesh")):
        outcome = Outcome(**json.loads(path.read_text()))
        outcomes[outcome.scene] = outcome
    lines = [
        "| scan | placed | camera: deg, % | gains: before, after | mask IoU: mean, least | its foot: the same |"
        " PSNR dB: pixels only, true | F-score | IoU of novel views | CPU s |",
        "| --- " * 10 + "|",
    ]
    for o in sorted(outcomes.values(), key=lambda o: o.scene):
        if o.failed:
            lines.append(f"| {o.scene} | 0 of {o.pictures} | failed | | | | | | | {o.cpu_s:.0f} |")
            continue
        meshes = f"{o.psnr_db:.2f}, {o.psnr_true_db:.2f}" if o.psnr_db is not None else ""
        surface = f"{o.f_score:.3f}, {o.f_score_true:.3f}" if o.f_score is not None else ""
        foot = f"{o.foot_iou_mean:.3f}, {o.foot_iou_least:.3f}" if o.foot_iou_mean is not None else ""
        novel = f"{o.iou_novel:.3f}, {o.iou_novel_true:.3f}" if o.iou_novel is not None else ""
        lines.append(
            f"| {o.scene} | {o.registered} of {o.pictures} | {o.turned_deg:.2f}, {o.moved_percent:.2f} |"
            f" {100 * o.gain_spread:.0f} %, {100 * o.gain_error:.1f} % | {o.iou_mean:.3f}, {o.iou_least:.3f} |"
            f" {foot} | {meshes} | {surface} | {novel} | {o.cpu_s:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
