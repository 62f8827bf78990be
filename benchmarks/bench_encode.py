"""Pictures -> planes at instant-mesh-large sizes, six views of 320 x 320, beside the plain twin in the same run.

``python -m benchmarks.bench_encode [--size large] [--views 6] [--repeats 2]``, in the root of the repository.
Every row is measured in a process of its own, so that its peak memory is its own.
"""

import argparse
from unittest import mock

import torch
import torch.nn.functional as F
from tests import plain_model as plain
from torch import Tensor

from benchmarks.measure import Measurement, in_child, measure, print_measurement
from meshwright.cameras import Cameras
from meshwright.model import PRESETS, ModelConfig, build_model

SIDE_PX = 320
ROWS = {
    "plain": "plain twin",
    "plain-scores": "ours, but with the matrix of scores made",
    "ours": "ours",
    "ours-encoder": "  encoder alone",
    "ours-transformer": "  transformer alone",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("large", "base", "tiny"), default="large")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2, help="the fastest is reported")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = _config(arguments.size)
    if arguments.child:
        print_measurement(_measure(arguments.rows[0], config, arguments.views, arguments.repeats))
        return
    options = ["--size", arguments.size, "--views", arguments.views, "--repeats", arguments.repeats]
    print(f"instant-mesh-{arguments.size}, {arguments.views} views of {SIDE_PX} px, {torch.get_num_threads()} threads")
    print(
        f"{'':42} {'s':>7} {'CPU s':>7} {'ratio':>6} {'peak MiB':>9} {'TFLOP':>6} {'GFLOP/s':>8} {'matmul':>7} {'%':>4}"
    )
    plain_seconds = None
    for row in arguments.rows:
        measured = in_child("benchmarks.bench_encode", ["--child", "--rows", row, *options])
        plain_seconds = plain_seconds or measured.seconds
        flop = _flop(row, config, arguments.views)
        gflops = flop / measured.seconds / 1e9
        print(
            f"{ROWS[row]:42} {measured.seconds:7.2f} {measured.cpu_seconds:7.2f}"
            f" {plain_seconds / measured.seconds:6.2f} {measured.peak_mib:9.0f} {flop / 1e12:6.2f} {gflops:8.0f}"
            f" {measured.matmul_gflops:7.0f} {100 * gflops / measured.matmul_gflops:4.0f}",
            flush=True,
        )


def _config(size: str) -> ModelConfig:
    if size == "tiny":
        return ModelConfig("mesh", encoder_layers=1, transformer_layers=1, transformer_dim=256, transformer_heads=4)
    return PRESETS[f"instant-mesh-{size}"]


@torch.inference_mode()
def _measure(row: str, config: ModelConfig, views: int, repeats: int) -> Measurement:
    model = build_model(config, seed=0)
    images = torch.rand(1, views, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    cameras = Cameras.orbit(views, 20.0).embedding()[None]
    if row == "ours-encoder":
        return measure(lambda: model.encoder(images[0], cameras[0]), repeats)[0]
    if row == "ours-transformer":
        tokens = torch.randn(1, *_token_shape(config, views), generator=torch.Generator().manual_seed(0))
        return measure(lambda: model.transformer(tokens), repeats)[0]
    if row == "plain":
        weights = model.state_dict()
        return measure(lambda: plain.planes(weights, config, images, cameras), repeats)[0]
    if row == "plain-scores":
        with mock.patch.object(F, "scaled_dot_product_attention", _attention_with_scores):
            return measure(lambda: model.planes(images, cameras), repeats)[0]
    return measure(lambda: model.planes(images, cameras), repeats)[0]


def _attention_with_scores(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / query.shape[3] ** 0.5).softmax(dim=3) @ value


def _token_shape(config: ModelConfig, views: int) -> tuple[int, int]:
    return views * (1 + (SIDE_PX // config.patch_size) ** 2), config.encoder_hidden_size


def _flop(row: str, config: ModelConfig, views: int) -> float:
    """Multiplications and additions of the matrix products, two for each pair."""
    tokens, width = _token_shape(config, views)
    encoder = config.encoder_layers * tokens * (8 * width**2 + 4 * width * config.encoder_mlp_size)
    encoder += config.encoder_layers * 4 * tokens * (tokens // views) * width
    encoder += 2 * tokens * width * 3 * config.patch_size**2

    queries, dim = 3 * config.triplane_low_res**2, config.transformer_dim
    cross = 4 * queries * dim**2 + 4 * tokens * width * dim + 4 * queries * tokens * dim
    own = 8 * queries * dim**2 + 4 * queries**2 * dim
    transformer = config.transformer_layers * (cross + own + 16 * queries * dim**2)
    transformer += 8 * queries * dim * config.triplane_dim
    return {"ours-encoder": encoder, "ours-transformer": transformer}.get(row, encoder + transformer)


if __name__ == "__main__":
    main()
