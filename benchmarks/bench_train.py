"""Speed of training and of novel views, beside plain twins in the same run.

    python -m benchmarks.bench_train [RECIPE ...] [--repeats 5] [--crop 192] [--no-twin] [--frames]

in the root of the repository. A training step of RECIPE (tiny_stage1 and tiny_stage2 unless others are named) with
batch 1 and without its perceptual term, in phases: pictures to planes, planes to losses, backward, and the rest (clip,
AdamW, running mean). The twin does the same step with tests/plain_model.py and tests/plain_volume.py: attention with
its matrix of scores, features gathered for every point, all samples of all rays at once, every head everywhere. Losses
and gradients of both are compared before anything is timed. Under it stands what drawing a sample costs, from the
folders of `meshwright curate render`, on a core of its own.

``--frames``: also novel views of the large model's field at 192 and 96 px, batch 1 (benchmarks/bench_render.py).
Seconds are of the CPU, since other programs may run beside it. Every row is measured in a process of its own.
"""

import argparse
import dataclasses
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from tests import plain_model
from tests.plain_volume import plain_render
from torch import Tensor

from benchmarks.bench_dataset import cpu_seconds_a_sample
from benchmarks.measure import in_child
from meshwright.curate import (
    Batch,
    CurateRenderOptions,
    DrawnOnDemand,
    DrawOptions,
    Samples,
    ViewSetOptions,
    open_dataset,
    render_objects,
)
from meshwright.losses import sdf_entropy
from meshwright.mesh import Mesh
from meshwright.model import Draws, Geometry, InstantMesh, InstantNeRF, ModelConfig, Triplane
from meshwright.train import RECIPES, TrainConfig, stage1, stage2
from meshwright.train.loop import make_optimizer
from meshwright.train.prediction import Prediction
from meshwright.train.training import new_model
from meshwright.weights import start_from

OBJECTS = Path("examples/train/objects")
SAMPLE_PX = 320
SEED = 5
"""Of a sample's draws."""


@dataclass(frozen=True)
class Step:
    """CPU seconds of the phases, and the peak of the process in MiB; ``base_mib``: before the first step."""

    planes: float
    losses: float
    backward: float
    update: float
    base_mib: float
    peak_mib: float

    @property
    def total(self) -> float:
        return self.planes + self.losses + self.backward + self.update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["tiny_stage1", "tiny_stage2"])
    parser.add_argument("--repeats", type=int, default=5, help="the fastest is reported")
    parser.add_argument("--crop", type=int, help="side of the supervised pictures, instead of the recipe's")
    parser.add_argument("--no-twin", action="store_true")
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("--row", choices=["ours", "twin"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        step = measure_step(config_of(arguments.recipes[0], arguments.crop), arguments.row, arguments.repeats)
        print(json.dumps(dataclasses.asdict(step)))
        return
    for recipe in arguments.recipes:
        print_recipe(recipe, arguments.crop, arguments.repeats, not arguments.no_twin)
    if arguments.frames:
        print_frames(arguments.repeats)


def config_of(recipe: str, crop: int | None) -> TrainConfig:
    """The recipe on the CPU: fp32, no perceptual term, whose weights do not come with the package."""
    config = RECIPES[recipe]()
    data, losses = config.data, dataclasses.replace(config.losses, perceptual=0.0)
    if crop is not None:
        data = dataclasses.replace(data, crop_px=crop, render_px=(crop, max(crop, data.render_px[1])))
    return dataclasses.replace(config, data=data, losses=losses, precision="fp32", batch_size=1)


def print_recipe(recipe: str, crop: int | None, repeats: int, with_twin: bool) -> None:
    config = config_of(recipe, crop)
    data = config.data
    targets = data.targets + data.inputs * data.supervise_inputs
    print(f"{recipe}: {data.inputs} inputs of {data.input_px} px, {targets} targets of {data.crop_px} px, batch 1")
    print(
        f"{'':6} {'step/s':>7} {'ratio':>6} {'planes':>7} {'losses':>7} {'backward':>8} {'update':>7}"
        f" {'MiB':>6} {'+ MiB':>6}"
    )
    steps = {}
    for row in ("twin", "ours") if with_twin else ("ours",):
        command = [sys.executable, "-m", "benchmarks.bench_train", recipe, "--row", row, "--repeats", str(repeats)]
        command += [] if crop is None else ["--crop", str(crop)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        step = steps[row] = Step(**json.loads(output.splitlines()[-1]))
        ratio = f"{steps['twin'].total / step.total:6.2f}" if "twin" in steps else " " * 6
        print(
            f"{row:6} {1 / step.total:7.3f} {ratio} {step.planes:7.3f} {step.losses:7.3f} {step.backward:8.3f}"
            f" {step.update:7.3f} {step.peak_mib:6.0f} {step.peak_mib - step.base_mib:6.0f}",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        render_objects(CurateRenderOptions((OBJECTS,), Path(folder) / "data", draw=DrawOptions(SAMPLE_PX), workers=1))
        seconds = cpu_seconds_a_sample(open_dataset(Path(folder) / "data"), data, samples=10)
    print(f"a sample {seconds:.3f} s: one loading process feeds {steps['ours'].total / seconds:.1f} times this speed\n")


def print_frames(repeats: int) -> None:
    print("novel views of the large model's field, batch 1: CPU seconds a frame")
    for row, side in (("plain", 96), ("ours", 96), ("ours", 192)):
        found = in_child("benchmarks.bench_render", ["--row", row, "--size", side, "--repeats", repeats])
        print(f"{row:6} {side:4} px {found.cpu_seconds:7.2f} s, {1 / found.cpu_seconds:.3f} frame/s", flush=True)


# --- one row --------------------------------------------------------------------------------------------------------


def measure_step(config: TrainConfig, row: str, repeats: int) -> Step:
    torch.set_num_threads(1)
    model = new_model(config)[0]
    if isinstance(model, InstantMesh) and config.model == RECIPES["tiny_stage2"]().model:
        start_from(model, "demo")  # a field with a surface, as the stage has it
    source = DrawnOnDemand((OBJECTS,), ViewSetOptions(), DrawOptions(SAMPLE_PX))
    batch = Samples(source, config.data, seed=1)[0]
    optimizer = make_optimizer(config.optimizer, model)
    ema = [parameter.detach().clone() for parameter in model.parameters()]
    whose = PlainModel(model) if row == "twin" else model
    base = peak_mib()
    if row == "twin":
        check_equal(config, model, batch)
    fastest = None
    for _ in range(1 + repeats):
        step = one_step(config, whose, model, batch, optimizer, ema)
        fastest = step if fastest is None or sum(step) < sum(fastest) else fastest
    assert fastest is not None
    return Step(*fastest, base, peak_mib())


def one_step(
    config: TrainConfig,
    whose: "InstantNeRF | InstantMesh | PlainModel",
    model: InstantNeRF | InstantMesh,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    ema: list[Tensor],
) -> tuple[float, float, float, float]:
    times = [time.process_time()]
    triplane = whose.planes(batch.input_images, batch.input_cameras)
    times.append(time.process_time())
    total = weighted(config, terms_of(config, whose, triplane, batch))
    times.append(time.process_time())
    total.backward()
    times.append(time.process_time())
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm or float("inf"))
    # At rate 0, so that the repeats do the same work.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for mean, parameter in zip(ema, model.parameters(), strict=True):
            mean.lerp_(parameter, 0.01)
    times.append(time.process_time())
    planes, losses, backward, update = (end - start for start, end in itertools.pairwise(times))
    return planes, losses, backward, update


def check_equal(config: TrainConfig, model: InstantNeRF | InstantMesh, batch: Batch) -> None:
    """Raises: AssertionError: twin and model do not have the same losses and gradients."""
    found = []
    for whose in (model, PlainModel(model)):
        triplane = whose.planes(batch.input_images, batch.input_cameras)
        total = weighted(config, terms_of(config, whose, triplane, batch))
        total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
        found.append((float(total.detach()), gradient))
    (ours, gradient), (plain, plain_gradient) = found
    assert abs(ours - plain) < 1e-3 * abs(plain), f"loss {ours} against the twin's {plain}"
    error = float((gradient - plain_gradient).norm() / plain_gradient.norm())
    assert error < 1e-2, f"gradients differ by {error:.1e} of their length"


def weighted(config: TrainConfig, terms: dict[str, Tensor]) -> Tensor:
    weights = dataclasses.asdict(config.losses)
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def terms_of(
    config: TrainConfig, whose: "InstantNeRF | InstantMesh | PlainModel", triplane: Triplane, batch: Batch
) -> dict[str, Tensor]:
    if config.stage == "stage2":
        return stage2.mesh_terms(cast(InstantMesh, whose), triplane, batch, [SEED], config.losses)[0]
    if isinstance(whose, PlainModel):
        prediction = whose.rendered(triplane, batch)
    else:
        assert isinstance(whose, InstantNeRF)
        prediction = stage1.render_targets(whose, triplane, batch, [SEED])
    return stage1.picture_terms(prediction, batch, config.losses, None)


class PlainModel:
    """tests/plain_model.py with a model's weights, under the names by which the stages ask a model."""

    def __init__(self, model: InstantNeRF | InstantMesh) -> None:
        self.config: ModelConfig = model.config
        self._weights = dict(model.named_parameters())

    def planes(self, images: Tensor, cameras: Tensor) -> Triplane:
        return Triplane(plain_model.planes(self._weights, self.config, images, cameras))

    def rendered(self, triplane: Triplane, batch: Batch) -> Prediction:
        """All samples of all rays of a batch of one at once, on white."""
        rays, (planes,) = batch.target_rays(), triplane.planes
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        draws = Draws.random(len(origins), self.config.samples_per_ray, torch.Generator().manual_seed(SEED))
        seen = plain_render(
            lambda p: plain_model.radiance(self._weights, planes, p), origins, directions, *_parts(draws)
        )
        shape = rays.origins.shape[:-1]
        forward = -batch.target_T_world_camera[:, :, :3, 2]
        cosine = torch.einsum("bvhwc,bvc->bvhw", rays.directions, forward)
        rgb = seen.rgb.view(*shape, 3).permute(0, 1, 4, 2, 3)
        return Prediction(rgb, seen.weight.view(shape)[:, :, None], (seen.depth.view(shape) * cosine)[:, :, None])

    def geometry(self, triplane: Triplane, training: bool = False) -> Geometry:
        (planes,) = triplane.planes
        vertices, faces, deviation, weight = plain_model.surface(self._weights, self.config, planes, training)
        sdf = plain_model.mesh_fields(self._weights, self.config, planes)[0]
        side = self.config.grid_res + 1
        zero = torch.zeros(1)
        return Geometry(
            [Mesh(vertices, faces)], sdf[None], zero, deviation, weight, sdf_entropy(sdf.view(1, side, side, side))
        )

    def color_field(self, planes: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda points: plain_model.color(self._weights, planes, points)

    def sdf_field(self, planes: Tensor) -> Callable[[Tensor], Tensor]:
        name = "synthesizer.decoder.net_sdf"
        return lambda points: plain_model.head(self._weights, name, plain_model.features(planes, points))[:, 0]


def _parts(draws: Draws) -> tuple[Tensor, Tensor]:
    return draws.jitter, draws.u


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
