"""Objects, data sets, models and configs that are small enough to be trained in a test."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from meshwright.cameras import Cameras
from meshwright.curate import Batch, ObjectRecord, RenderedObject, SampleOptions, Samples
from meshwright.curate.object_files import Normalization, object_files
from meshwright.mesh import Mesh, subdivide
from meshwright.model import ModelConfig
from meshwright.raster import render
from meshwright.train.config import LossWeights, OptimizerOptions, TrainConfig
from meshwright.train.runs import Run

VIEWS = 8


def ellipsoid(radii: Sequence[float], center: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
    """A coloured ellipsoid from an octahedron: each direction has a colour of its own."""
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(3):
        points, faces = subdivide(points, faces)
    points = torch.nn.functional.normalize(points, dim=1)
    return Mesh(torch.tensor(center) + points * torch.tensor(radii), faces, vertex_colors=(points + 1) / 2)


MESHES = {"tall": ellipsoid((0.35, 0.4, 0.75)), "flat": ellipsoid((0.7, 0.6, 0.3), (0.1, 0.0, -0.1))}


def rendered(name: str, size_px: int = 48) -> RenderedObject:
    positions = torch.randn(VIEWS, 3, generator=torch.Generator().manual_seed(3))
    cameras = Cameras.look_at(2.8 * torch.nn.functional.normalize(positions, dim=1), fov_deg=50.0)
    pictures = render(MESHES[name], cameras, size_px, size_px, background=0.0)
    straight = torch.where(pictures.alpha > 0, pictures.rgb / pictures.alpha.clamp(min=1e-6), 0.0)
    rgba = (torch.cat([straight, pictures.alpha], dim=1).clamp(0, 1) * 255).round().to(torch.uint8)
    return RenderedObject(name, rgba, pictures.depth_z, pictures.normals, cameras)


class Source:
    """The meshes above, rendered once."""

    def __init__(self, names: Sequence[str] = tuple(MESHES)) -> None:
        self._objects = {name: rendered(name) for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._objects)

    def view_count(self, name: str) -> int:
        return VIEWS

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        whole = self._objects[name]
        chosen = list(range(VIEWS) if views is None else views)
        return RenderedObject(
            name, whole.rgba[chosen], whole.depth_z[chosen], whole.normals[chosen], whole.cameras[chosen]
        )


def write_dataset(folder: Path, names: Sequence[str] = tuple(MESHES)) -> Path:
    """The objects as `meshwright curate render` lays them out."""
    for name in names:
        whole = rendered(name)
        record = ObjectRecord(
            name, f"{name}.glb", "0" * 64, VIEWS, 48, "random", 0, "test 0", "unlit",
            Normalization("box", (0.0, 0.0, 0.0), 1.0), ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), 512,
        )  # fmt: skip
        (folder / "objects" / name).mkdir(parents=True)
        for file, data in object_files(whole, record).items():
            (folder / "objects" / name / file).write_bytes(data)
    return folder


def tiny_model(kind: str) -> ModelConfig:
    return ModelConfig(
        kind,
        encoder_hidden_size=32,
        encoder_layers=1,
        encoder_heads=2,
        encoder_mlp_size=64,
        encoder_image_size=32,
        transformer_dim=32,
        transformer_layers=1,
        transformer_heads=2,
        triplane_low_res=6,
        triplane_dim=8,
        samples_per_ray=16,
        grid_res=12,
        mesh_resolution=16,
    )


PLAIN_VIEWS = SampleOptions(
    inputs=2,
    targets=1,
    input_px=32,
    crop_px=16,
    render_px=(16, 24),
    rotate_z=False,
    scale_probability=0.0,
    camera_noise=0.0,
)


def stage1_config(**changes: object) -> TrainConfig:
    config = TrainConfig(
        tiny_model("nerf"),
        steps=10,
        workers=0,
        data=PLAIN_VIEWS,
        losses=LossWeights(perceptual=0.0, depth=0.1),
        optimizer=OptimizerOptions(learning_rate=3e-3, schedule="constant"),
        checkpoint_every=5,
        validate_every=5,
        pictures_every=1000,
        seed=7,
    )
    return dataclasses.replace(config, **changes)


def stage2_config(**changes: object) -> TrainConfig:
    return stage1_config(
        **{
            "model": tiny_model("mesh"),
            "stage": "stage2",
            "data": dataclasses.replace(PLAIN_VIEWS, crop_px=24, render_px=(24, 24)),
            "losses": LossWeights(
                perceptual=0.0, depth=0.5, normal=0.2, entropy=0.01, deviation=0.5, cube_weight=0.1, free_space=0.1
            ),
            "optimizer": OptimizerOptions(learning_rate=1e-3, schedule="constant"),
            **changes,
        }
    )


def one_batch(config: TrainConfig, size: int = 1, first: int = 0) -> Batch:
    samples = Samples(Source(), config.data, config.seed)
    return Batch.collate([samples[first + i] for i in range(size)])


def stream(config: TrainConfig, source: Source, first: int) -> Iterator[Batch]:
    """Batches of one process from the n-th on, as `meshwright.curate.batches` gives them."""
    samples = Samples(source, config.data, config.seed)
    for number in itertools.count(first):
        yield Batch.collate([samples[number * config.batch_size + i] for i in range(config.batch_size)])


def in_memory(config: TrainConfig, source: Source | None = None) -> partial[Iterator[Batch]]:
    return partial(stream, config, source or Source())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k].numpy(), b[k].numpy()) for k in a)


def last_tensors(run: Run) -> dict[str, torch.Tensor]:
    """All that a run's last checkpoint holds, by file and name."""
    folder = run.checkpoints / f"step-{run.steps()[-1]:08d}"
    return {f"{file.name}/{k}": v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
