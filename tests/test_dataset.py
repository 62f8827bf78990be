"""Training batches: augmented samples re-project onto themselves, and numbers depend on (seed, epoch, index) alone."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.curate import (
    Batch,
    ObjectRecord,
    RenderedFolder,
    RenderedObject,
    SampleOptions,
    Samples,
    batches,
    open_dataset,
)
from meshwright.curate.dataset import choose_views, draw_sample
from meshwright.curate.object_files import Normalization, object_files
from meshwright.errors import InputError
from meshwright.mesh import Mesh, subdivide
from meshwright.raster import render

CENTER = torch.tensor([0.15, -0.1, 0.05])
RADIUS = 0.6
PLAIN = SampleOptions(
    inputs=3,
    targets=2,
    input_px=64,
    crop_px=64,
    render_px=(64, 64),
    rotate_z=False,
    scale_probability=0.0,
    camera_noise=0.0,
)


def ball(rounds: int = 4) -> Mesh:
    """A coloured sphere off the origin, from an octahedron."""
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(rounds):
        points, faces = subdivide(points, faces)
    points = torch.nn.functional.normalize(points, dim=1)
    return Mesh(CENTER + RADIUS * points, faces, vertex_colors=(points + 1) / 2)


def rendered_ball(name: str = "ball", views: int = 8, size_px: int = 64) -> RenderedObject:
    generator = torch.Generator().manual_seed(3)
    positions = 2.6 * torch.nn.functional.normalize(torch.randn(views, 3, generator=generator), dim=1)
    cameras = Cameras.look_at(positions, fov_deg=50.0)
    pictures = render(ball(), cameras, size_px, size_px, background=0.0)
    straight = torch.where(pictures.alpha > 0, pictures.rgb / pictures.alpha.clamp(min=1e-6), 0.0)
    rgba = (torch.cat([straight, pictures.alpha], dim=1).clamp(0, 1) * 255).round().to(torch.uint8)
    return RenderedObject(name, rgba, pictures.depth_z, pictures.normals, cameras)


def record(name: str = "ball", views: int = 8, size_px: int = 64, **changes: str) -> ObjectRecord:
    return dataclasses.replace(
        ObjectRecord(
            name, f"{name}.glb", "0" * 64, views, size_px, "random", 0, "test 0", "unlit",
            Normalization("box", (0.0, 0.0, 0.0), 1.0), ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), 2048,
        ),
        **changes,
    )  # fmt: skip


def write(folder: Path, rendered: RenderedObject, **changes: str) -> None:
    folder.mkdir(parents=True)
    size_px = rendered.rgba.shape[2]
    for name, data in object_files(rendered, record(rendered.name, len(rendered), size_px, **changes)).items():
        (folder / name).write_bytes(data)


class InMemory:
    """A source of balls; those named in ``broken`` raise."""

    def __init__(self, count: int, broken: Sequence[str] = ()) -> None:
        self.names = tuple(f"ball{i:02d}" for i in range(count))
        self.broken = broken
        self.ball = rendered_ball()

    def view_count(self, name: str) -> int:
        return len(self.ball)

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        if name in self.broken:
            raise InputError(f"{name}: is broken; mend it")
        rows = list(range(len(self.ball))) if views is None else list(views)
        return RenderedObject(
            name, self.ball.rgba[rows], self.ball.depth_z[rows], self.ball.normals[rows], self.ball.cameras[rows]
        )


def sample(options: SampleOptions, seed: int = 0) -> Batch:
    return Samples(InMemory(1), options, seed)[0]


def surface_points(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """World points and normals of all target pixels that have depth, from the batch alone."""
    cameras, rays = batch.target_cameras(0), batch.target_rays()
    forward = -cameras.T_world_camera[:, :3, 2]
    distance = batch.target_depth[0, :, 0] / torch.einsum("vhwi,vi->vhw", rays.directions[0], forward)
    points = rays.origins[0] + rays.directions[0] * distance[..., None]
    seen = batch.target_depth[0, :, 0] > 0
    return points[seen], batch.target_normals[0].permute(0, 2, 3, 1)[seen]


AUGMENTATIONS = {
    "plain": {},
    "rotate": {"rotate_z": True},
    "scale": {"scale_probability": 1.0},
    "crop": {"crop_px": 40, "render_px": (44, 64)},
    "all": {"rotate_z": True, "scale_probability": 1.0, "crop_px": 40, "render_px": (44, 64), "camera_noise": 0.02},
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmented_sample_reprojects_onto_itself(name: str) -> None:
    """Every pixel's ray, depth and normal lie on one sphere: the world's, turned and scaled as the cameras say."""
    batch = sample(dataclasses.replace(PLAIN, **AUGMENTATIONS[name]))
    factor = float(batch.target_T_world_camera[0, 0, :3, 3].norm()) / 2.6
    points, normals = surface_points(batch)
    assert len(points) > 500
    # Depth is that of the nearest pixel of the stored picture: half a pixel of it aside, on a slope.
    coarse = 3e-2 if "crop_px" in AUGMENTATIONS[name] else 3e-3
    centers = points - factor * RADIUS * normals
    facing = torch.ones(len(points), dtype=torch.bool)
    middle = centers[facing].median(dim=0).values
    assert (middle[:2].norm() - factor * CENTER[:2].norm()).abs() < 5e-3
    assert (middle[2] - factor * CENTER[2]).abs() < 5e-3
    errors = ((points - middle).norm(dim=1) - factor * RADIUS).abs()
    assert errors.quantile(0.9) < coarse
    assert ((centers - middle).norm(dim=1)).quantile(0.9) < max(coarse, 2e-2)
    if "rotate_z" not in AUGMENTATIONS[name]:
        assert (middle - factor * CENTER).abs().max() < 5e-3


def test_rotation_and_scale_change_no_picture() -> None:
    plain = sample(PLAIN)
    turned = sample(dataclasses.replace(PLAIN, rotate_z=True, scale_probability=1.0))
    assert torch.equal(plain.target_images, turned.target_images)
    assert torch.equal(plain.input_images, turned.input_images)
    assert not torch.allclose(plain.target_T_world_camera, turned.target_T_world_camera)
    assert not torch.allclose(plain.target_normals, turned.target_normals)


def test_noise_touches_the_input_cameras_alone() -> None:
    plain, noisy = sample(PLAIN), sample(dataclasses.replace(PLAIN, camera_noise=0.02))
    change = (noisy.input_cameras - plain.input_cameras).abs()
    assert 0.015 < change.max() <= 0.02 + 1e-6
    assert change.min() > 0
    assert torch.equal(plain.target_T_world_camera, noisy.target_T_world_camera)
    assert torch.equal(plain.input_images, noisy.input_images)


def test_targets_begin_with_the_inputs_and_a_crop_is_a_window_of_the_whole() -> None:
    whole = sample(dataclasses.replace(PLAIN, render_px=(64, 64), crop_px=64))
    assert whole.target_images.shape == (1, 5, 3, 64, 64)
    assert torch.equal(whole.input_images, whole.target_images[:, :3])
    part = sample(dataclasses.replace(PLAIN, render_px=(64, 64), crop_px=40))
    side, left, top = part.crops[0].tolist()
    assert side == 64
    assert torch.equal(part.target_images, whole.target_images[..., top : top + 40, left : left + 40])
    assert torch.allclose(
        part.target_rays().directions,
        whole.target_rays().directions[:, :, top : top + 40, left : left + 40],
        atol=1e-6,
    )
    only = sample(dataclasses.replace(PLAIN, supervise_inputs=False))
    assert torch.equal(only.target_images, whole.target_images[:, 3:])


@pytest.mark.parametrize(("background", "value"), [("white", 1.0), ("black", 0.0)])
def test_background_stands_where_alpha_is_zero(background: str, value: float) -> None:
    batch = sample(dataclasses.replace(PLAIN, background=background))
    empty = (batch.target_alpha == 0).expand_as(batch.target_images)
    assert empty.float().mean() > 0.3
    assert (batch.target_images[empty] == value).all()
    assert (batch.background == value).all()


def test_random_background_differs_from_sample_to_sample() -> None:
    samples = Samples(InMemory(3), dataclasses.replace(PLAIN, background="random"))
    greys = {float(samples[i].background[0, 0]) for i in range(3)}
    assert len(greys) == 3


def test_each_epoch_shows_each_object_once_in_an_order_of_its_own() -> None:
    samples = Samples(InMemory(9), PLAIN, seed=1)
    names = [samples[i].names[0] for i in range(27)]
    epochs = [names[:9], names[9:18], names[18:]]
    assert all(sorted(epoch) == list(samples.source.names) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [Samples(InMemory(9), PLAIN, seed=2)[i].names[0] for i in range(9)] != epochs[0]


def test_batches_do_not_depend_on_workers_ranks_or_where_a_run_starts() -> None:
    options = dataclasses.replace(PLAIN, rotate_z=True, camera_noise=0.02)
    source = InMemory(5)

    def take(count: int, **choices: int) -> list[Batch]:
        stream = batches(source, options, **{"batch_size": 2, **choices})
        return [next(stream) for _ in range(count)]

    straight = take(6)
    assert [b.names for b in straight] == [b.names for b in take(6, workers=2)]
    for ours, theirs in zip(straight[3:], take(3, first_step=3, workers=1), strict=True):
        assert_equal(ours, theirs)
    halves = [take(6, batch_size=1, rank=rank, ranks=2) for rank in (0, 1)]
    for whole, *parts in zip(straight, *halves, strict=True):
        assert_equal(whole, Batch.collate(parts))


def assert_equal(a: Batch, b: Batch) -> None:
    for field in dataclasses.fields(Batch):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def test_a_broken_object_is_named_and_its_turn_goes_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples(InMemory(4, broken=["ball02"]), PLAIN)
    epoch = [samples[i] for i in range(4)]
    assert all(sample.names != ("ball02",) for sample in epoch)
    assert sum(len(sample.broken) for sample in epoch) == 1
    (line,) = [line for sample in epoch for line in sample.broken]
    assert line.startswith("ball02: ")
    assert "mend it" in line
    assert "ball02" in caplog.text


def test_too_many_broken_objects_stop_the_run() -> None:
    stream = batches(InMemory(4, broken=["ball02"]), PLAIN, batch_size=10)
    with pytest.raises(InputError, match="samples are broken"):
        list(itertools.islice(stream, 30))
    with pytest.raises(InputError, match="none of the 2 objects"):
        Samples(InMemory(2, broken=["ball00", "ball01"]), PLAIN)[0]


def test_views_of_a_sample_are_different_and_too_few_are_an_error() -> None:
    chosen = choose_views(8, PLAIN, np.random.default_rng(0))
    assert len(set(chosen)) == 5
    with pytest.raises(InputError, match="fewer than the 5"):
        choose_views(4, PLAIN, np.random.default_rng(0))


def test_a_folder_reads_back_what_was_written(tmp_path: Path) -> None:
    rendered = rendered_ball()
    write(tmp_path / "objects" / "ball", rendered, split="train")
    source = RenderedFolder(tmp_path)
    assert source.names == ("ball",)
    assert source.view_count("ball") == 8
    assert source.record("ball").views == 8
    again = source.read("ball", [5, 2])
    assert torch.equal(again.rgba, rendered.rgba[[5, 2]])
    assert torch.equal(again.depth_z > 0, rendered.depth_z[[5, 2]] > 0)
    assert (again.depth_z - rendered.depth_z[[5, 2]]).abs().max() <= 2.0**-15
    seen = rendered.depth_z[[5, 2], 0] > 0
    cosine = (again.normals * rendered.normals[[5, 2]]).sum(1)[seen]
    assert cosine.min() > 0.99995
    assert torch.allclose(again.cameras.embedding(), rendered.cameras[[5, 2]].embedding(), atol=1e-6)
    assert open_dataset(tmp_path, "train").names == ("ball",)
    with pytest.raises(InputError, match="no objects of split test"):
        open_dataset(tmp_path, "test")


def test_a_seed_fixes_the_augmentations_of_a_sample() -> None:
    options = dataclasses.replace(PLAIN, rotate_z=True)
    ball = InMemory(1).read("ball00", [0, 1, 2, 3, 4])
    assert_equal(
        draw_sample(ball, options, np.random.default_rng(5)), draw_sample(ball, options, np.random.default_rng(5))
    )
