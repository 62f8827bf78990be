"""Seconds and memory of a NeRF view at instant-nerf-large sizes, beside the plain twin in the same run.

``python -m benchmarks.bench_render [--size 192] [--device cpu] [--frames 3]``, in the root of the repository.
Every row is measured in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tests.plain_model import radiance
from tests.plain_volume import plain_render
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.field import HIDDEN, RadianceDecoder
from meshwright.model import PRESETS
from meshwright.volume import Draws, RadianceField, box_interval, render

LARGE = PRESETS["instant-nerf-large"]
ROWS = {
    "plain": "plain twin: full tensors, concatenated features",
    "plain-renderer": "factorised decoding alone, plain renderer",
    "plain-field": "our renderer alone, concatenated features",
    "unchunked": "ours in one single chunk",
    "ours": "ours",
}


@dataclass(frozen=True)
class Measurement:
    seconds: float
    cpu_seconds: float
    peak_mib: float
    points: int
    matmul_gflops: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192, help="picture side in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=3, help="the fastest of so many is reported")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="'plain' needs 7 GB at size 192")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measurement, picture = measure(arguments.rows[0], arguments.size, arguments.device, arguments.frames)
        np.savez(arguments.child, measurement=json.dumps(asdict(measurement)), picture=picture.numpy())
        return
    print_table([(row, *in_child(row, arguments)) for row in arguments.rows], arguments.size)


def in_child(row: str, arguments: argparse.Namespace) -> tuple[Measurement, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.npz"
        options = ["--size", arguments.size, "--device", arguments.device, "--frames", arguments.frames]
        command = [sys.executable, "-m", "benchmarks.bench_render", "--rows", row, "--child", out, *options]
        subprocess.run([str(part) for part in command], check=True)
        with np.load(out) as result:
            return Measurement(**json.loads(str(result["measurement"]))), result["picture"]


def print_table(rows: list[tuple[str, Measurement, np.ndarray]], size: int) -> None:
    _, first, reference = rows[0]
    samples = LARGE.samples_per_ray
    print(f"{size} x {size}, {samples // 2} + {samples // 2} samples, {torch.get_num_threads()} threads")
    heads = f"{'s':>7} {'CPU s':>7} {'ratio':>6} {'MiB':>6} {'ratio':>6} {'GFLOP/s':>8} {'matmul':>7} {'max diff':>9}"
    print(f"{'':50} {heads}")
    for row, measured, picture in rows:
        gflops = measured.points * _flops_per_point(row) / measured.seconds / 1e9
        print(
            f"{ROWS[row]:50} {measured.seconds:7.2f} {measured.cpu_seconds:7.2f} "
            f"{first.seconds / measured.seconds:6.1f} {measured.peak_mib:6.0f} "
            f"{first.peak_mib / measured.peak_mib:6.1f} {gflops:8.0f} {measured.matmul_gflops:7.0f} "
            f"{np.abs(picture - reference).max():9.1e}"
        )


def _flops_per_point(row: str) -> int:
    first_layer = 2 * 3 * LARGE.triplane_dim * HIDDEN if row in ("plain", "plain-field") else 0
    return first_layer + 2 * (2 * HIDDEN * HIDDEN + HIDDEN * 4)


@torch.no_grad()
def measure(row: str, size: int, device: str, frames: int) -> tuple[Measurement, Tensor]:
    decoder, planes = seeded_object()
    decoder, planes = decoder.to(device), planes.to(device)
    weights = {f"synthesizer.decoder.{name}": weight for name, weight in decoder.state_dict().items()}
    rays = Cameras.orbit(1, 20.0, radius=4.5).to(device).rays(size, size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    near, far = box_interval(origins, directions)

    def frame() -> Tensor:
        # What decoding makes of the planes belongs to the frame: the published code decodes anew for every call.
        field: RadianceField = decoder.field(planes)
        if row in ("plain", "plain-field"):
            field = lambda points: radiance(weights, planes, points)  # noqa: E731
        if row in ("plain", "plain-renderer"):
            draws = Draws.fixed(len(origins), LARGE.samples_per_ray, origins.device)
            return plain_render(field, origins, directions, draws.jitter, draws.u).rgb.view(size, size, 3)
        whole = size * size if row == "unchunked" else None
        return render(field, rays, LARGE.samples_per_ray, rays_per_chunk=whole).rgb[0]

    fastest, cpu = float("inf"), float("inf")
    for _ in range(frames):
        start, cpu_start = _now(device), time.process_time()
        picture = frame()
        fastest, cpu = min(fastest, _now(device) - start), min(cpu, time.process_time() - cpu_start)
    hits = len(origins) if row in ("plain", "plain-renderer") else int((near <= far).sum())
    points = hits * LARGE.samples_per_ray
    return Measurement(fastest, cpu, _peak_mib(device), points, _matmul_gflops(device)), picture.cpu()


def seeded_object() -> tuple[RadianceDecoder, Tensor]:
    """A decoder and planes (3, channels, size, size) with seeded numbers: soft, partly opaque clouds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = RadianceDecoder(LARGE.triplane_dim)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(3, LARGE.triplane_dim, 8, 8, generator=generator)
    side = 2 * LARGE.triplane_low_res
    planes = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    with torch.no_grad():
        decoder.net[6].weight[0] *= 200  # type: ignore[index, operator]
    return decoder, planes


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_mib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _matmul_gflops(device: str, side: int = 2048, runs: int = 5) -> float:
    a = torch.rand(side, side, device=device)
    seconds = []
    for _ in range(runs):
        start = _now(device)
        a @ a
        seconds.append(_now(device) - start)
    return 2 * side**3 / min(seconds) / 1e9


if __name__ == "__main__":
    main()
