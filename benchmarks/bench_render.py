"""A NeRF view at instant-nerf-large sizes, beside the plain twin in the same run.

``python -m benchmarks.bench_render [--size 192] [--plain-size 96] [--repeats 3]``, in the root of the repository;
``--device cuda`` counts frames a second instead.

The object is a cloud of seeded numbers, seen whole by a camera at radius 4.5. A row's time starts from the planes: what
decoding makes of them once belongs to it. The twin holds 2 x 240 numbers for every sample, 7 GB at size 192, so that
it runs at size 96 unless told otherwise, and its rows are compared with ours at the same size. Every row is measured
in a process of its own, so that its peak memory is its own.
"""

import argparse
import time
from collections.abc import Callable

import torch
from tests.plain_model import radiance
from tests.plain_volume import plain_render
from torch import Tensor

from benchmarks.measure import Measurement, in_child, measure, print_measurement
from meshwright.cameras import Cameras
from meshwright.model import PRESETS
from meshwright.model.field import HIDDEN, RadianceDecoder
from meshwright.model.volume import Draws, RadianceField, render_rays

LARGE = PRESETS["instant-nerf-large"]
ROWS = {
    "plain": "plain twin",
    "renderer": "our renderer alone, features gathered",
    "field": "factorised decoding alone, plain renderer",
    "unchunked": "ours in a single chunk",
    "ours": "ours",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192, help="side of the picture in pixels")
    parser.add_argument("--plain-size", type=int, default=96, help="the same where the twin takes part")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest is reported")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print_measurement(_measure(arguments.row, arguments.size, arguments.repeats))
    elif arguments.device == "cpu":
        _print_table(arguments.size, arguments.plain_size, arguments.repeats)
    else:
        _print_frame_rates(torch.device(arguments.device), arguments.size)


def _print_table(size: int, plain_size: int, repeats: int) -> None:
    half = LARGE.samples_per_ray // 2
    print(f"instant-nerf-large, {half} + {half} samples, {torch.get_num_threads()} threads")
    print(f"{'':43} {'size':>4} {'s':>7} {'CPU s':>7} {'ratio':>6} {'peak MiB':>9} {'GFLOP/s':>8} {'matmul':>7}")
    slowest = None
    for row, side in [*((row, plain_size) for row in ROWS), ("ours", size)]:
        measured = in_child("benchmarks.bench_render", ["--row", row, "--size", side, "--repeats", repeats])
        slowest = slowest or measured.seconds
        ratio = f"{slowest / measured.seconds:6.1f}" if side == plain_size else " " * 6
        print(
            f"{ROWS[row]:43} {side:4} {measured.seconds:7.2f} {measured.cpu_seconds:7.2f} {ratio}"
            f" {measured.peak_mib:9.0f} {side**2 * _flops_per_ray(row) / measured.seconds / 1e9:8.0f}"
            f" {measured.matmul_gflops:7.0f}",
            flush=True,
        )


def _flops_per_ray(row: str) -> int:
    first_layer = 2 * 3 * LARGE.triplane_dim * HIDDEN if row in ("plain", "renderer") else 0
    return LARGE.samples_per_ray * (first_layer + 2 * (2 * HIDDEN * HIDDEN + 4 * HIDDEN))


@torch.inference_mode()
def _measure(row: str, size: int, repeats: int) -> Measurement:
    decoder, planes = _seeded_object()
    weights = {f"synthesizer.decoder.{name}": weight for name, weight in decoder.state_dict().items()}
    rays = _camera().rays(size, size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    draws = Draws.fixed(len(origins), LARGE.samples_per_ray)

    def gathered(points: Tensor) -> tuple[Tensor, Tensor]:
        return radiance(weights, planes, points)

    def plainly(field: RadianceField) -> Tensor:
        return plain_render(field, origins, directions, draws.jitter, draws.u).rgb

    work: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plainly(gathered),
        "renderer": lambda: render_rays(gathered, rays, LARGE.samples_per_ray).rgb,
        "field": lambda: plainly(decoder.field(planes)),
        "unchunked": lambda: (
            render_rays(decoder.field(planes), rays, LARGE.samples_per_ray, rays_per_chunk=size**2).rgb
        ),
        "ours": lambda: render_rays(decoder.field(planes), rays, LARGE.samples_per_ray).rgb,
    }
    return measure(work[row], repeats)[0]


@torch.inference_mode()
def _print_frame_rates(device: torch.device, size: int, frames: int = 30) -> None:
    rays = _camera().to(device).rays(size, size)
    exact = None
    for name, precision, dtype in (
        ("float32", "highest", torch.float32),
        ("float32, TF32 matmuls", "high", torch.float32),
        ("bfloat16 field", "high", torch.bfloat16),
    ):
        torch.set_float32_matmul_precision(precision)
        decoder, planes = _seeded_object()
        decoder, planes = decoder.to(device, dtype), planes.to(device, dtype)
        for frame in range(-3, frames):  # three to warm up
            if frame == 0:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
                start = time.perf_counter()
            picture = render_rays(decoder.field(planes), rays, LARGE.samples_per_ray).rgb
        torch.cuda.synchronize(device)
        rate = frames / (time.perf_counter() - start)
        exact = picture if exact is None else exact
        print(
            f"{name:23} {size} x {size}: {rate:7.1f} frames/s,"
            f" {torch.cuda.max_memory_allocated(device) / 2**20:5.0f} MiB,"
            f" differs by at most {(picture - exact).abs().max().item():.1e}"
        )


def _camera() -> Cameras:
    return Cameras.orbit(1, elevation_deg=20.0, radius=4.5)


def _seeded_object() -> tuple[RadianceDecoder, Tensor]:
    """A decoder and planes (3, channels, size, size) in which it sees coloured clouds, opaque in places."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = RadianceDecoder(LARGE.triplane_dim)
        coarse = torch.randn(3, LARGE.triplane_dim, 8, 8)
    last = decoder.net[6]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.mul_(torch.tensor([[200.0], [20.0], [20.0], [20.0]]))
    return decoder, torch.nn.functional.interpolate(coarse, scale_factor=LARGE.triplane_low_res / 4, mode="bicubic")


if __name__ == "__main__":
    main()
