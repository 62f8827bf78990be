"""Fields: the small networks that turn plane features at a point into density, colour, sdf, deformation and weights.

Each head is four linear layers with ReLU between (InstantMesh, arXiv 2404.07191, sections 3.2 and 3.3). None is ever
fed features: the planes are pushed through its first layer once (see `meshwright.model.triplane`), and what is
evaluated at points is the rest. All is float32, also under autocast: a surface is a difference of nearly equal numbers.
Submodules bear the names of the published checkpoints.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meshwright.device import items_per_chunk
from meshwright.model.triplane import GridMaps, PlaneSampler, project_planes

Axes = tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, " z"]]
Chunk = TypeVar("Chunk")

HIDDEN = 64
CUBE_CORNERS = 8
CUBE_WEIGHTS = 21  # FlexiCubes: beta 12, alpha 8, gamma 1
_BYTES_PER_POINT = 4 * HIDDEN * 4  # hidden layers of 64 floats, in turn input and output, and what sampling takes


class Head(nn.Sequential):
    """Features -> 64 -> 64 -> 64 -> out, ReLU between."""

    def __init__(self, features: int, out: int) -> None:
        layers: list[nn.Module] = []
        for size in (features, HIDDEN, HIDDEN):
            layers += [nn.Linear(size, HIDDEN), nn.ReLU()]
        super().__init__(*layers, nn.Linear(HIDDEN, out))
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    @property
    def first(self) -> tuple[Float[Tensor, "64 features"], Float[Tensor, "64"]]:
        """Weight and bias of the first layer."""
        return self._linear(0).weight, self._linear(0).bias

    def after_first(self, hidden: Float[Tensor, "points 64"]) -> Float[Tensor, "points out"]:
        """From the output of the first linear layer on; ``hidden`` is overwritten where no gradients are recorded."""
        if torch.is_grad_enabled():
            for layer in list(self)[1:]:
                hidden = layer(hidden)
            return hidden
        other = torch.empty_like(hidden)
        for layer in (self._linear(2), self._linear(4)):
            torch.addmm(layer.bias, hidden.relu_(), layer.weight.T, out=other)
            hidden, other = other, hidden
        return self._linear(6)(hidden.relu_())

    def _linear(self, number: int) -> nn.Linear:
        return cast(nn.Linear, self[number])


class PointField:
    """A head over the planes of one object, to be asked at any points of the world; differentiable in all of them."""

    def __init__(self, head: Head, planes: Float[Tensor, "3 channels size size"]) -> None:
        self._head = head
        with torch.autocast(planes.device.type, enabled=False):
            self._sample = PlaneSampler(project_planes(planes, head.first[0]))

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points out"]:
        """The head's raw output; in bounded memory where no gradients are recorded."""
        with torch.autocast(points.device.type, enabled=False):
            if torch.is_grad_enabled():
                return self._evaluate(points)
            chunks = points.split(items_per_chunk(points.device, _BYTES_PER_POINT))
            return torch.cat([self._evaluate(chunk) for chunk in chunks])

    def _evaluate(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points out"]:
        return self._head.after_first(self._sample(points).add_(self._head.first[1]))


class GridField:
    """A head over the planes of one object on a grid, in bounded memory: everywhere, or at chosen places only.

    Where gradients are recorded, each chunk is evaluated again in the backward pass instead of being kept.
    """

    def __init__(self, head: Head, hidden: GridMaps) -> None:
        """``hidden``: maps that sum to the output of the head's first layer."""
        self._head, self._hidden = head, hidden
        self._shape = (*hidden.xy.shape[:2], hidden.yz.shape[1])
        self._points_per_chunk = items_per_chunk(hidden.xy.device, _BYTES_PER_POINT)

    def everywhere(self) -> Float[Tensor, "x y z"]:
        """The head's first output at all grid points."""
        if torch.is_grad_enabled():
            return torch.cat(self._evaluate(lambda slab: self._slab(slab)[..., 0], self._slabs()))
        # Into one array: small results kept between large buffers would scatter the heap over hundreds of megabytes.
        out = self._hidden.xy.new_empty(self._shape)
        self._evaluate(lambda slab: out[slab.start : slab.stop].copy_(self._slab(slab)[..., 0]), self._slabs())
        return out

    def mean_square(self) -> Float[Tensor, ""]:
        """Mean of the squares of all outputs at all grid points."""
        slab_means = self._evaluate(lambda slab: self._slab(slab).square().mean() * len(slab), self._slabs())
        return torch.stack(slab_means).sum() / self._shape[0]

    def at(self, index: Int[Tensor, "points 3"]) -> Float[Tensor, "points out"]:
        """All outputs at the grid points with these x, y and z numbers."""
        chunks = index.split(self._points_per_chunk)
        return torch.cat(self._evaluate(lambda chunk: self._head.after_first(self._hidden.at(chunk)), chunks))

    def _slabs(self) -> Iterable[range]:
        x, y, z = self._shape
        step = max(1, self._points_per_chunk // (y * z))
        return (range(start, min(start + step, x)) for start in range(0, x, step))

    def _slab(self, slab: range) -> Float[Tensor, "slab y z out"]:
        hidden = self._hidden.slab(slab.start, slab.stop)
        return self._head.after_first(hidden.flatten(0, 2)).unflatten(0, hidden.shape[:3])

    def _evaluate(self, evaluate: Callable[[Chunk], Tensor], chunks: Iterable[Chunk]) -> list[Tensor]:
        with torch.autocast(self._hidden.xy.device.type, enabled=False):
            if torch.is_grad_enabled():
                return [checkpoint(evaluate, chunk, use_reentrant=False) for chunk in chunks]
            return [evaluate(chunk) for chunk in chunks]


class RadianceDecoder(nn.Module):
    """Head of the NeRF model: raw density and colour."""

    def __init__(self, plane_channels: int) -> None:
        super().__init__()
        self.net = Head(3 * plane_channels, 4)

    def field(
        self, planes: Float[Tensor, "3 channels size size"]
    ) -> Callable[[Float[Tensor, "points 3"]], tuple[Float[Tensor, " points"], Float[Tensor, "points 3"]]]:
        """World points to raw density and colour (see `colors`)."""
        decoded = PointField(self.net, planes)

        def radiance(points: Float[Tensor, "points 3"]) -> tuple[Float[Tensor, " points"], Float[Tensor, "points 3"]]:
            raw = decoded(points)
            return raw[:, 0], colors(raw[:, 1:])

        return radiance

    def raw_density(self, planes: Float[Tensor, "3 channels size size"], axes: Axes) -> Float[Tensor, "x y z"]:
        """Raw density at all points of the grid with these coordinates."""
        with torch.autocast(planes.device.type, enabled=False):
            maps = GridMaps.sample(planes, axes).project(*self.net.first)
        return GridField(self.net, maps).everywhere()


@dataclass(frozen=True, eq=False)
class MeshFields:
    """What the mesh model says on one object's grid: raw outputs at its points, and of ``weights`` at its cubes."""

    sdf: GridField
    deformation: GridField
    weights: GridField


class MeshDecoder(nn.Module):
    """Heads of the mesh model: signed distance, colour, deformation of grid points, FlexiCubes weights of cubes."""

    def __init__(self, plane_channels: int) -> None:
        super().__init__()
        features = 3 * plane_channels
        self.net_sdf = Head(features, 1)
        self.net_rgb = Head(features, 3)
        self.net_deformation = Head(features, 3)
        self.net_weight = Head(CUBE_CORNERS * features, CUBE_WEIGHTS)

    def on_grid(self, planes: Float[Tensor, "3 channels size size"], axes: Axes) -> MeshFields:
        """The fields on the grid with these coordinates, ready to be asked."""
        with torch.autocast(planes.device.type, enabled=False):
            maps = GridMaps.sample(planes, axes)
            return MeshFields(
                GridField(self.net_sdf, maps.project(*self.net_sdf.first)),
                GridField(self.net_deformation, maps.project(*self.net_deformation.first)),
                GridField(self.net_weight, maps.project_cubes(*self.net_weight.first)),
            )

    def color_field(
        self, planes: Float[Tensor, "3 channels size size"]
    ) -> Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]:
        """World points to colour (see `colors`)."""
        decoded = PointField(self.net_rgb, planes)
        return lambda points: colors(decoded(points))


def colors(raw: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """sRGB from a head's output; sigmoids widened to [-0.001, 1.001], so that 0 and 1 can be reached (mip-NeRF)."""
    return raw.sigmoid() * 1.002 - 0.001
