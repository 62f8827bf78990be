"""Training batches: which views of which object, how they are augmented, and what happens to broken ones.

Every number drawn is a pure function of (seed, epoch, index of the sample in the epoch): batches do not depend on how
many processes load them, a run can go on in the middle of an epoch, and the ranks of a distributed run divide one
sequence among themselves.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras, Rays
from meshwright.curate.object_files import RenderedObject
from meshwright.curate.options import SampleOptions
from meshwright.errors import InputError

logger = logging.getLogger(__name__)

_LEAST_JUDGED = 100  # samples seen before a share of broken ones can stop a run


@runtime_checkable
class ObjectSource(Protocol):
    """Rendered objects by name, whatever layout they lie in, or drawn when they are asked for."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def view_count(self, name: str) -> int:
        """Raises: InputError: the object is broken."""
        ...

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        """The chosen views, in the order given; all when None. Raises: InputError: the object is broken."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees.

    Pictures are sRGB in [0, 1] on the sample's background. ``target_depth`` (world units along the viewing axis) and
    ``target_normals`` (unit, in the world) are 0 where nothing is seen or the layout holds none. Target cameras are
    those of the crop: rays through its pixels are ``target_rays()``. ``input_cameras``: `Cameras.embedding` with noise.
    ``broken``: what was left out, named with the reason, before these samples were found.
    """

    names: tuple[str, ...]
    input_images: Float[Tensor, "batch inputs 3 input_px input_px"]
    input_cameras: Float[Tensor, "batch inputs 16"]
    target_images: Float[Tensor, "batch targets 3 height width"]
    target_alpha: Float[Tensor, "batch targets 1 height width"]
    target_depth: Float[Tensor, "batch targets 1 height width"]
    target_normals: Float[Tensor, "batch targets 3 height width"]
    target_T_world_camera: Float[Tensor, "batch targets 4 4"]
    target_intrinsics: Float[Tensor, "batch targets 4"]
    background: Float[Tensor, "batch 3"]
    crops: Int[Tensor, "batch 3"]
    """Side of the resized whole picture, and left and top of the crop in it, in pixels."""
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def target_cameras(self, sample: int) -> Cameras:
        """The cameras of one sample's target crops."""
        return Cameras(self.target_T_world_camera[sample], self.target_intrinsics[sample])

    def target_rays(self) -> Rays:
        """World rays through the pixel centres of the target crops, shape (batch, targets, height, width, 3)."""
        T, intrinsics = self.target_T_world_camera.flatten(0, 1), self.target_intrinsics.flatten(0, 1)
        height, width = self.target_images.shape[3:]
        rays = Cameras(T, intrinsics).rays(height, width)
        shape = (len(self), -1, height, width, 3)
        return Rays(rays.origins.reshape(shape), rays.directions.reshape(shape))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader when it is to pin what it loads."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed = {field.name: change(getattr(self, field.name)) for field in dataclasses.fields(self)[1:-1]}
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]

    @classmethod
    def collate(cls, samples: Sequence["Batch"]) -> "Batch":
        """Samples (batches of one) under each other."""
        first = samples[0]
        together = {
            field.name: torch.cat([getattr(sample, field.name) for sample in samples])
            for field in dataclasses.fields(cls)[1:-1]
        }
        names = tuple(name for sample in samples for name in sample.names)
        broken = tuple(line for sample in samples for line in sample.broken)
        return dataclasses.replace(first, names=names, broken=broken, **together)


def draw_sample(rendered: RenderedObject, options: SampleOptions, generator: np.random.Generator) -> Batch:
    """A batch of one: ``rendered`` holds the sample's views alone, inputs first, as `choose_views` drew them.

    Draws, in this order whatever is switched on: background, rotation, scale, crop, camera noise. So one
    augmentation more or less leaves the others as they were.
    """
    size_px = rendered.rgba.shape[2]
    grey, turn, chance, amount, side_share, left_share, top_share = generator.random(7)
    noise = torch.from_numpy(generator.uniform(-1, 1, (options.inputs, 16))).float()
    value = {"white": 1.0, "black": 0.0, "random": float(grey)}[options.background]
    background = torch.full((3,), value)
    cameras, normals, depth_z = rendered.cameras, rendered.normals, rendered.depth_z
    if options.rotate_z:
        cameras, normals = rotated_z(cameras, normals, 360.0 * float(turn))
    if chance < options.scale_probability:
        factor = options.scale[0] + (options.scale[1] - options.scale[0]) * float(amount)
        cameras, depth_z = scaled(cameras, depth_z, factor)
    # Premultiplied, so that resizing does not mix in the colour of what is transparent.
    rgba = rendered.rgba.float() / 255
    alpha = rgba[:, 3:]
    premultiplied = rgba[:, :3] * alpha
    inputs = _resized(torch.cat([premultiplied, alpha], dim=1)[: options.inputs], options.input_px)
    low, high = (min(side, max(size_px, options.crop_px)) for side in options.render_px)
    side = low + int(side_share * (high - low + 1))
    left, top = (int(share * (side - options.crop_px + 1)) for share in (left_share, top_share))
    first = 0 if options.supervise_inputs else options.inputs
    window = (slice(None), slice(None), slice(top, top + options.crop_px), slice(left, left + options.crop_px))
    targets = _resized(torch.cat([premultiplied, alpha], dim=1)[first:], side)[window]
    chosen = cameras[first:]
    crop = chosen.cropped(left / side, top / side, options.crop_px / side, options.crop_px / side)
    embedding = cameras[: options.inputs].embedding() + options.camera_noise * noise
    return Batch(
        (rendered.name,),
        _composited(inputs, background)[None],
        embedding[None],
        _composited(targets, background)[None],
        targets[None, :, 3:],
        _nearest(depth_z[first:], side)[window][None],
        _nearest(normals[first:], side)[window][None],
        crop.T_world_camera[None],
        crop.intrinsics[None],
        background[None],
        torch.tensor([[side, left, top]]),
    )


def choose_views(view_count: int, options: SampleOptions, generator: np.random.Generator) -> list[int]:
    """Numbers of the input views, then of the further targets, all different.

    Raises:
        InputError: the object has too few.
    """
    wanted = options.inputs + options.targets
    if view_count < wanted:
        raise InputError(f"has {view_count} views, fewer than the {wanted} of a sample; draw fewer or render more")
    return [int(i) for i in generator.permutation(view_count)[:wanted]]


def rotated_z(
    cameras: Cameras, normals: Float[Tensor, "views 3 height width"], angle_deg: float
) -> tuple[Cameras, Float[Tensor, "views 3 height width"]]:
    """The world turned about z, and the cameras and normals with it: every picture stays what it was."""
    angle_rad = torch.deg2rad(torch.tensor(angle_deg, dtype=torch.float64))
    R = torch.eye(4, dtype=torch.float64)
    R[0, 0] = R[1, 1] = angle_rad.cos()
    R[1, 0], R[0, 1] = angle_rad.sin(), -angle_rad.sin()
    R = R.float()
    turned = Cameras(R @ cameras.T_world_camera, cameras.intrinsics)
    return turned, torch.einsum("ij,vjhw->vihw", R[:3, :3], normals)


def scaled(
    cameras: Cameras, depth_z: Float[Tensor, "views 1 height width"], factor: float
) -> tuple[Cameras, Float[Tensor, "views 1 height width"]]:
    """The world scaled about its origin, and camera positions and depth with it: every picture stays what it was."""
    T = cameras.T_world_camera.clone()
    T[:, :3, 3] *= factor
    return Cameras(T, cameras.intrinsics), depth_z * factor


def _resized(pictures: Float[Tensor, "views channels _ _"], side_px: int) -> Float[Tensor, "views channels _ _"]:
    if pictures.shape[2:] == (side_px, side_px):
        return pictures
    return torch.nn.functional.interpolate(
        pictures, size=(side_px, side_px), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)


def _nearest(maps: Float[Tensor, "views channels _ _"], side_px: int) -> Float[Tensor, "views channels _ _"]:
    """Depths and normals are never mixed across an outline."""
    if maps.shape[2:] == (side_px, side_px):
        return maps
    return torch.nn.functional.interpolate(maps, size=(side_px, side_px), mode="nearest-exact")


def _composited(
    premultiplied: Float[Tensor, "views 4 height width"], background: Float[Tensor, "3"]
) -> Float[Tensor, "views 3 height width"]:
    rgb, alpha = premultiplied[:, :3], premultiplied[:, 3:]
    return (rgb + (1 - alpha) * background[:, None, None]).clamp(0, 1)


class Samples(torch.utils.data.Dataset[Batch]):
    """Samples by their number in an endless sequence: every epoch shows each object once, in an order of its own.

    Number n is sample n % len(names) of epoch n // len(names). An object that cannot be used is left out, with the
    reason in ``Batch.broken`` and in the log, and the next of the epoch's order that can be used takes its turn.
    """

    def __init__(self, source: ObjectSource, options: SampleOptions, seed: int = 0) -> None:
        if not source.names:
            raise InputError("the data set holds no objects; render some, or choose another split")
        self.source, self.options, self.seed = source, options, seed

    def __len__(self) -> int:
        return len(self.source.names)

    def order(self, epoch: int) -> list[int]:
        """Which object each sample of an epoch shows."""
        return _order(self.seed, epoch, len(self))

    def __getitem__(self, number: int) -> Batch:
        epoch, index = divmod(number, len(self))
        order = self.order(epoch)
        generator = np.random.default_rng([self.seed, epoch, index])
        broken: list[str] = []
        for skipped in range(len(self)):
            name = self.source.names[order[(index + skipped) % len(self)]]
            try:
                views = choose_views(self.source.view_count(name), self.options, generator)
                sample = draw_sample(self.source.read(name, views), self.options, generator)
            except InputError as error:
                logger.warning("left out %s: %s", name, error)
                broken.append(f"{name}: {error}")
                continue
            return dataclasses.replace(sample, broken=tuple(broken))
        raise InputError(f"none of the {len(self)} objects can be used; the last one: {broken[-1]}")


def batches(
    source: ObjectSource,
    options: SampleOptions,
    batch_size: int,
    *,
    seed: int = 0,
    first_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    most_broken: float = 0.01,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of steps ``first_step``, ``first_step`` + 1, ... of one rank, without end.

    ``batch_size`` is that of one rank: step k of all ranks together shows samples k * ranks * batch_size onwards.

    Raises:
        InputError: more than the share ``most_broken`` of the samples had to be left out (judged from the hundredth
            sample on), or none can be used.
    """
    samples = Samples(source, options, seed)
    loader = torch.utils.data.DataLoader(
        samples,
        batch_sampler=_Steps(batch_size, first_step, rank, ranks),
        collate_fn=Batch.collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )
    seen = broken = 0
    for batch in loader:
        seen, broken = seen + len(batch), broken + len(batch.broken)
        if broken > most_broken * max(seen + broken, _LEAST_JUDGED):
            raise InputError(
                f"{broken} of {seen + broken} samples are broken, more than {most_broken:.1%}; the last one:"
                f" {batch.broken[-1] if batch.broken else 'see the log'}; run `meshwright curate check`"
            )
        yield batch


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(count)]


@dataclass(frozen=True)
class _Steps:
    """The sample numbers of one rank's batches, step after step."""

    batch_size: int
    first_step: int
    rank: int
    ranks: int

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            first = (step * self.ranks + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
            step += 1


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
