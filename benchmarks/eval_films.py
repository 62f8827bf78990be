"""Films of a turn: what masks, codec, resampling and unknown cameras each cost against RGBA with known cameras.

    python -m benchmarks.eval_films SCAN.glb ... --out RESULTS [--rungs a,b,c,d,e,f] [--masks-only]
    python -m benchmarks.eval_films --table RESULTS [--before OLDER_RESULTS]

Each scan is drawn 21 times, 576 x 576, as SV3D does (field of view 33.8 degrees), from 10 degrees above. The rungs of
the ladder, each of which gets what the one before got, and one thing worse:

- a: RGBA, true cameras;
- b: RGB on white: masks by the background, true cameras;
- c: an H.264 film of these (crf 18, yuv420p, bt709, limited range, chroma sited left), true cameras;
- d: the film enlarged from 0.6 of its size, as editors do, true cameras;
- e: the film of c alone: elevation, direction and turn are found by the program (rig auto);
- f: a film by hand, alone: field of view 45 degrees, elevation 13.7, a roll of 1.5 degrees, a turn uneven by 4.

Scored are a reconstruction's (level fast) pictures from 20 novel cameras, after the similarity that brings it nearest
to the truth as these pictures show it (so that a frame of its own costs nothing); IoU of masks; and camera errors.
RESULTS gets one line a scan and rung in results.jsonl; what is there is not made again.
"""

import argparse
import functools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from benchmarks.scans import load_scan
from meshwright.cameras import Cameras, framing_radius
from meshwright.capture import load_views
from meshwright.evaluate import photograph, psnr, silhouette_iou
from meshwright.images import read_frames
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.reconstruct import reconstruct
from meshwright.views import Views

FRAMES, SIDE_PX, ELEVATION_DEG = 21, 576, 10.0
RUNGS = "abcdef"
ENLARGED = 0.6
CRF = 18
BY_HAND_FOV_DEG, BY_HAND_ELEVATION_DEG, BY_HAND_ROLL_DEG, BY_HAND_UNEVEN_DEG = 45.0, 13.7, 1.5, 4.0
NOVEL_PX, ALIGN_PX, ALIGN_STEPS, ALIGNED = 256, 128, 8, 0.01  # the last: share of the error by which a step must gain


@dataclass(frozen=True)
class Outcome:
    scan: str
    rung: str
    psnr_db: float | None
    psnr_unaligned_db: float | None
    iou_novel: float | None
    mask_iou: float
    mask_iou_least: float
    elevation_deg: float
    azimuth_error_deg: float
    cpu_s: float
    said: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rungs", default=",".join(RUNGS))
    parser.add_argument("--masks-only", action="store_true", help="no meshes: masks and cameras alone")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    if options.table is not None:
        print(table(options.table, options.before))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    done = {(o.scan, o.rung) for o in read(options.out)}
    for path in options.scans:
        for rung in options.rungs.split(","):
            if (path.stem, rung) in done:
                continue
            outcome, picture = evaluate(path, rung, options.masks_only)
            with results.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            if picture is not None:
                picture.save(options.out / f"{path.stem}-{rung}.jpg", quality=85)
            print(outcome, flush=True)


def true_cameras(rung: str) -> Cameras:
    if rung != "f":
        return Cameras.sv3d(FRAMES, ELEVATION_DEG)
    turn = np.arange(FRAMES) / FRAMES
    azimuths = 360 * turn + BY_HAND_UNEVEN_DEG * np.sin(2 * np.pi * turn)
    radius = framing_radius(BY_HAND_FOV_DEG)
    cameras = Cameras.spherical(azimuths.tolist(), [BY_HAND_ELEVATION_DEG] * FRAMES, radius, BY_HAND_FOV_DEG)
    roll = math.radians(BY_HAND_ROLL_DEG)
    turned = torch.eye(4)
    turned[:2, :2] = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    return Cameras(cameras.T_world_camera @ turned, cameras.intrinsics)


@functools.lru_cache(2)
def drawn_truth(path: Path, by_hand: bool) -> Views:
    return photograph(load_scan(path), true_cameras("f" if by_hand else "a"), SIDE_PX, samples=3)


def evaluate(path: Path, rung: str, masks_only: bool) -> tuple[Outcome, Image.Image | None]:
    scan, truth = load_scan(path), drawn_truth(path, rung == "f")
    began = time.process_time()
    views = as_given(truth, rung)
    loaded = time.process_time() - began
    alpha = torch.nn.functional.interpolate(views.alpha, truth.alpha.shape[2:], mode="bilinear", antialias=True)
    ious = silhouette_iou(alpha, truth.alpha)
    elevation_deg, azimuth_error_deg = angles(views.cameras, truth.cameras)
    scores: tuple[float | None, float | None, float | None] = (None, None, None)
    picture = None
    if not masks_only:
        mesh = reconstruct(views)
        print(f"{path.stem} {rung}: {loaded:.0f} s read, {time.process_time() - began - loaded:.0f} s made", flush=True)
        wanted = render(scan, novel_cameras(), NOVEL_PX, NOVEL_PX, samples=2)
        cameras = seen_moved(novel_cameras(), align(mesh, scan))
        drawn = render(mesh, cameras, NOVEL_PX, NOVEL_PX, samples=2)
        bare = render(mesh, novel_cameras(), NOVEL_PX, NOVEL_PX, samples=2)
        scores = (
            max(float(psnr(each.rgb, wanted.rgb).mean()) for each in (drawn, bare)),
            float(psnr(bare.rgb, wanted.rgb).mean()),
            float(silhouette_iou(drawn.alpha, wanted.alpha).mean()),
        )
        picture = sheet([wanted.rgb[::5], drawn.rgb[::5]])
    spent = time.process_time() - began
    return (
        Outcome(
            path.stem, rung, *scores, float(ious.mean()), float(ious.min()), elevation_deg, azimuth_error_deg, spent,
            views.assumptions,
        ),
        picture,
    )  # fmt: skip


def as_given(truth: Views, rung: str) -> Views:
    """What the program makes of the pictures as the rung gives them."""
    rgb = (truth.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        film = folder / "film.mp4"
        if rung in "ef":
            write_film(list(rgb), film)
            return load_views(film)
        if rung == "a":
            alpha = (truth.alpha.permute(0, 2, 3, 1) * 255).round().byte().numpy()
            # Straight colours, so that what is partly covered holds no white.
            straight = (truth.images - (1 - truth.alpha)) / truth.alpha.clamp(min=1e-3)
            colors = (straight.clamp(0, 1).permute(0, 2, 3, 1) * 255).round().byte().numpy()
            return posed(folder, list(np.concatenate([colors, alpha], axis=3)), truth.cameras)
        if rung == "b":
            return posed(folder, list(rgb), truth.cameras)
        frames = list(rgb)
        if rung == "d":
            small = round(SIDE_PX * ENLARGED)
            frames = [resampled(resampled(frame, small), SIDE_PX) for frame in frames]
        write_film(frames, film)
        decoded = [picture.permute(1, 2, 0).numpy() for picture in read_frames(film).pictures]
        return posed(folder / "posed", decoded, truth.cameras)


def posed(folder: Path, pictures: Sequence[UInt8[ndarray, "height width channels"]], cameras: Cameras) -> Views:
    """By way of a transforms.json, whose world is kept as it is."""
    folder.mkdir(exist_ok=True)
    frames = []
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png", compress_level=1)
        frames.append({"file_path": f"{i:03d}.png", "transform_matrix": cameras.T_world_camera[i].tolist()})
    fov_rad = 2 * math.atan(0.5 / float(cameras.intrinsics[0, 0]))
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": fov_rad, "frames": frames}))
    return load_views(folder)


def resampled(pixels: UInt8[ndarray, "height width 3"], side_px: int) -> UInt8[ndarray, "side side 3"]:
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC))


def write_film(frames: Sequence[UInt8[ndarray, "height width 3"]], path: Path, full_range: bool = False) -> None:
    """H.264, bt709, chroma averaged around where its samples are sited: left, as the standard has it."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 2 if full_range else 1
        stream.options = {"crf": str(CRF), "x264-params": "chromaloc=0"}
        for pixels in frames:
            planes = np.concatenate([plane.ravel() for plane in yuv420(pixels, full_range)]).reshape(-1, width)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.colorspace, frame.color_range = 1, 2 if full_range else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def yuv420(pixels: UInt8[ndarray, "height width 3"], full_range: bool) -> list[UInt8[ndarray, "rows columns"]]:
    """Planes after ITU-R BT.709, chroma at the left of each four pixels: weights 1 2 1 across, 1 1 down."""
    r, g, b = np.moveaxis(pixels / 255.0, 2, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b

    def chroma(difference: Float[ndarray, "height width"]) -> Float[ndarray, "rows columns"]:
        rows = (difference[::2] + difference[1::2]) / 2
        wide = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
        return 0.25 * wide[:, :-2:2] + 0.5 * wide[:, 1:-1:2] + 0.25 * wide[:, 2::2]

    span = 255 if full_range else 224
    planes = (
        255 * y if full_range else 16 + 219 * y,
        128 + span * chroma((b - y) / 1.8556),
        128 + span * chroma((r - y) / 1.5748),
    )
    return [np.round(plane).clip(0, 255).astype(np.uint8) for plane in planes]


def novel_cameras() -> Cameras:
    """Azimuths by the golden angle, elevations from -20 to 50 degrees."""
    azimuths_deg = [i * 137.508 % 360 for i in range(20)]
    return Cameras.spherical(azimuths_deg, [-20 + 70 * (i * 7 % 20) / 19 for i in range(20)], 4.0, 30.0)


def angles(found: Cameras, true: Cameras) -> tuple[float, float]:
    """Mean elevation, and rms error of the azimuths after turning the world so that it is least."""
    positions, wanted = found.positions.double(), true.positions.double()
    elevation = torch.rad2deg(torch.asin(positions[:, 2] / positions.norm(dim=1))).mean()
    difference = torch.atan2(positions[:, 1], positions[:, 0]) - torch.atan2(wanted[:, 1], wanted[:, 0])
    mean = torch.atan2(difference.sin().mean(), difference.cos().mean())
    error = torch.atan2((difference - mean).sin(), (difference - mean).cos())
    return float(elevation), float(torch.rad2deg(error.square().mean().sqrt()))


def align(mesh: Mesh, scan: Mesh) -> Float[Tensor, "7"]:
    """The similarity under which the mesh's pictures are nearest to the scan's: Gauss-Newton steps from where it is."""
    cameras = novel_cameras()[::2]
    wanted = render(scan, cameras, ALIGN_PX, ALIGN_PX, samples=2)
    best, x = math.inf, torch.zeros(7, dtype=torch.float64)
    kept, damping = x, 1e-3

    def residual(x: Float[Tensor, "7"]) -> Float[Tensor, " values"]:
        drawn = render(mesh, seen_moved(cameras, x), ALIGN_PX, ALIGN_PX, samples=2)
        return (drawn.rgb - wanted.rgb).flatten(1).double()

    for _ in range(ALIGN_STEPS):
        r = residual(x)
        weight = 1 / r.square().mean(dim=1, keepdim=True)  # so that the mean of dB is what falls
        error = float((-weight.log()).mean().exp())
        if error >= best:
            damping *= 10
        else:
            gained = 1 - error / best
            best, kept = error, x
            if gained < ALIGNED:
                break
            steps = 0.01 * torch.eye(7, dtype=torch.float64)
            J = torch.stack([(residual(x + step) - residual(x - step)).flatten() / 0.01 for step in steps / 2], dim=1)
            heavy = weight.expand_as(r).flatten()[:, None] * J
            normal, gradient = heavy.T @ J, heavy.T @ r.flatten()
        x = kept - torch.linalg.solve(normal + damping * torch.diag(torch.diag(normal)), gradient)
    return kept


def seen_moved(cameras: Cameras, x: Float[Tensor, "7"]) -> Cameras:
    """Cameras to which a mesh looks as it would to ``cameras`` after it was turned (radians about x, y, z), grown by
    the exponential of the fourth number, and shifted: they are moved the other way."""
    a, b, c = x[:3].tolist()
    R = torch.matrix_exp(torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64))
    T = cameras.T_world_camera.double().clone()
    T[:, :3, 3] = (T[:, :3, 3] - x[4:]) @ R / math.exp(float(x[3]))
    T[:, :3, :3] = R.T @ T[:, :3, :3]
    return Cameras(T.float(), cameras.intrinsics)


def sheet(rows: list[Float[Tensor, "views 3 height width"]]) -> Image.Image:
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)
    return Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy())


def read(folder: Path) -> list[Outcome]:
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines if line.endswith("}")]


def table(folder: Path, before: Path | None = None) -> str:
    """Markdown: dB of each rung for each scan, before / after where there are both; means over scans that have all."""
    columns = [read(place) for place in ([folder] if before is None else [before, folder])]
    found = [{(o.scan, o.rung): o for o in outcomes} for outcomes in columns]
    scans = sorted({o.scan for outcomes in columns for o in outcomes})
    rungs = [rung for rung in RUNGS if any((scan, rung) in found[-1] for scan in scans)]
    lines = ["| scan | " + " | ".join(rungs) + " |", "| --- " * (len(rungs) + 1) + "|"]

    def cell(scan: str, rung: str) -> str:
        values = [column[scan, rung].psnr_db if (scan, rung) in column else None for column in found]
        return " / ".join("" if value is None else f"{value:.2f}" for value in values)

    for scan in scans:
        lines.append(f"| {scan} | " + " | ".join(cell(scan, rung) for rung in rungs) + " |")
    for name, read_value in (
        ("PSNR dB", lambda o: o.psnr_db),
        ("mask IoU", lambda o: o.mask_iou),
        ("elevation error, deg", lambda o: abs(o.elevation_deg - (BY_HAND_ELEVATION_DEG if o.rung == "f" else 10.0))),
        ("azimuth error, deg", lambda o: o.azimuth_error_deg),
        ("CPU s", lambda o: o.cpu_s),
    ):
        cells = []
        for rung in rungs:
            common = [scan for scan in scans if all((scan, rung) in column for column in found)]
            values = [[read_value(column[scan, rung]) for scan in common] for column in found]
            shown = [statistics.mean(v) if v and None not in v else math.nan for v in values]
            cells.append(" / ".join(f"{value:.3f}" for value in shown) + f" ({len(common)})")
        lines.append(f"| **mean {name}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
