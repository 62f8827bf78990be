"""Carving's two long steps in PyTorch, for GPUs: costs and depths of the sweep, and the iterations of the fit.

What the compiled loops of `matching` and `steps` do one pixel and one ray after the other is done for all at once.
Results are the same but for rounding; on a GPU sums come in any order, so two runs may differ in the last bits.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshwright.shape.carve import matching, steps
from meshwright.shape.carve.grid import Scene
from meshwright.shape.carve.rays import RaySamples

CPU = torch.device("cpu")

_MOST_AT_ONCE = 4_000_000  # samples of rays that are rendered together: about 1 GB


class TensorSteps:
    """One level of the fit on ``device``; the methods are those of `meshwright.shape.carve.steps.CompiledSteps`."""

    def __init__(
        self,
        samples: RaySamples,
        active: Int[np.ndarray, " some"],
        offsets: Int[np.ndarray, "8"],
        logits: Float[np.ndarray, " nodes"],
        colors: Float[np.ndarray, "nodes 3"],
        device: torch.device,
    ) -> None:
        self._device, self._step = device, samples.step
        self._active, self._offsets = torch.from_numpy(active).to(device), torch.from_numpy(offsets).to(device)
        self._logits, self._colors = torch.tensor(logits, device=device), torch.tensor(colors, device=device)
        self._starts = torch.from_numpy(samples.starts).to(device)
        self._nodes, self._fractions = (torch.from_numpy(x).to(device) for x in (samples.nodes, samples.fractions))
        self._targets = torch.from_numpy(samples.colors).to(device)
        self._chunks = _chunks_of(samples.starts)
        self._gradient = torch.zeros_like(self._logits)
        self._sums = torch.zeros(len(logits), 4, device=device)
        self._mean, self._square = torch.zeros_like(self._logits), torch.zeros_like(self._logits)

    @property
    def logits(self) -> Float[np.ndarray, " nodes"]:
        return self._logits.cpu().numpy()

    @property
    def colors(self) -> Float[np.ndarray, "nodes 3"]:
        return self._colors.cpu().numpy()

    def render(self) -> float:
        return sum(self._render(first, end) for first, end in self._chunks)

    def _render(self, first: int, end: int) -> float:
        """Rays ``first`` to ``end``, by the formulas of `meshwright.shape.carve.steps.render_and_differentiate`."""
        begin, counts = self._starts[first:end], self._starts[first : end + 1].diff()
        if len(begin) == 0:
            return 0.0
        along = torch.arange(int(counts.max()), device=self._device)
        exists = along < counts[:, None]
        sample = (begin[:, None] + along).where(exists, 0)
        corners = self._nodes[sample].long()[..., None] + self._offsets
        shares = _corner_shares(self._fractions[sample])
        logit = (shares * self._logits[corners]).sum(2)
        color = (shares[..., None] * self._colors[corners]).sum(2)
        target = self._targets[first:end, None]

        depth = F.softplus(logit) * steps.DENSITY_PER_CELL * self._step * exists
        arriving = torch.exp(depth - depth.cumsum(1))
        used = exists & (arriving >= steps.LEAST_LIGHT)
        depth = depth * used
        after = torch.exp(-depth.cumsum(1))
        weight = arriving * (1 - torch.exp(-depth))
        left = after[:, -1:]

        length = ((color - target).square().sum(2) + steps.COLOR_SCALE**2).sqrt()
        error = length - steps.COLOR_SCALE
        summed = (weight[..., None] * color).sum(1, keepdim=True) - (1 - left[..., None]) * target
        summed_length = (summed.square().sum(2, keepdim=True) + steps.COLOR_SCALE**2).sqrt()
        loss = (summed_length - steps.COLOR_SCALE).sum() + left.sum() + (weight * error).sum()

        own = error + (summed / summed_length * (color - target)).sum(2)
        counted = weight * own
        behind = left + counted.flip(1).cumsum(1).flip(1) - counted
        change = self._step * (after * own - behind) * torch.sigmoid(logit) * steps.DENSITY_PER_CELL * used
        belief = weight / length * used
        shown = torch.cat([belief[..., None], belief[..., None] * target], dim=2)
        shares = shares[used]
        nodes = corners[used].reshape(-1)
        self._gradient.index_add_(0, nodes, (shares * change[used][:, None]).reshape(-1))
        self._sums.index_add_(0, nodes, (shares[..., None] * shown[used][:, None]).reshape(-1, 4))
        return float(loss)

    def take_mean_colors(self, forget: float) -> None:
        sums = self._sums[self._active]
        color = self._colors[self._active]
        self._colors[self._active] = (forget * color + sums[:, 1:]) / (forget + sums[:, :1])
        self._sums.zero_()

    def move_logits(self, volume_weight: Float[np.ndarray, " nodes"], rate: float, iteration: int) -> None:
        active, before = self._active, self._logits.clone()
        logit = before[active]
        total = self._gradient[active] + steps.VOLUME * torch.from_numpy(volume_weight).to(self._device)[active]
        for offset in self._offsets[[4, 2, 1]]:
            for neighbour in (active + offset, active - offset):
                difference = logit - before[neighbour]
                bend = difference / (difference.square() + steps.TV_SCALE**2).sqrt()
                total = total + steps.TOTAL_VARIATION * bend
        mean = steps.FAST_DECAY * self._mean[active] + (1 - steps.FAST_DECAY) * total
        square = steps.SLOW_DECAY * self._square[active] + (1 - steps.SLOW_DECAY) * total.square()
        self._mean[active], self._square[active] = mean, square
        fast, slow = 1 - steps.FAST_DECAY ** (iteration + 1), 1 - steps.SLOW_DECAY ** (iteration + 1)
        step = rate * (mean / fast) / ((square / slow).sqrt() + steps.LEAST)
        self._logits[active] = (logit - step).clamp(steps.LOWEST, steps.HIGHEST)
        self._gradient.zero_()


def _chunks_of(starts: Int[np.ndarray, " ends"]) -> list[tuple[int, int]]:
    """Runs of rays whose samples, padded to the longest ray, are few enough."""
    longest = max(int(np.diff(starts).max(initial=1)), 1)
    size = max(_MOST_AT_ONCE // longest, 1)
    return [(first, min(first + size, len(starts) - 1)) for first in range(0, len(starts) - 1, size)]


def _corner_shares(fractions: Float[Tensor, "rays samples 3"]) -> Float[Tensor, "rays samples 8"]:
    """Trilinear weights in the order of `meshwright.shape.carve.rays.corner_offsets`."""
    x, y, z = (torch.stack([1 - f, f], dim=-1) for f in fractions.unbind(-1))
    return (x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]).flatten(-3)


def depths_of_view(
    scene: Scene,
    pictures: Float[np.ndarray, "views height width 4"],
    view: int,
    partners: Int[np.ndarray, " others"],
    first: float,
    count: int,
    device: torch.device,
) -> Float[np.ndarray, "height width"]:
    """Depth in cells of what each pixel of a view shows, as `meshwright.shape.carve.sweep` finds it; 0: unknown."""
    shown = torch.tensor(pictures, dtype=torch.float32, device=device)
    height, width = shown.shape[1:3]
    axes = np.linalg.inv(scene.projections[view, :, :3])
    centre = -axes @ scene.projections[view, :, 3]
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    directions = np.stack([u, v, np.ones_like(u)], axis=2) @ axes.T
    depth = first + torch.arange(count, device=device)
    # In float32, as MPS has nothing better; cells are some hundreds, so that is exact to 1/10,000 of one.
    points = depth[:, None, None, None] * _tensor(directions, device) + _tensor(centre, device)
    mask = shown[view, ..., 3] > matching.COVERED
    inside = (_trilinear(_tensor(scene.hull, device), points) <= matching.INSIDE) & mask
    own = shown[view, ..., :3] / shown[view, ..., 3:].clamp(min=1e-6)
    best = torch.full(inside.shape, torch.inf, device=device)
    second = best.clone()
    for other in partners:
        projection = _tensor(scene.projections[other], device)
        at = points @ projection[:, :3].T + projection[:, 3]
        place = at[..., :2] / at[..., 2:] * 2 - 1
        drawn = F.grid_sample(
            shown[other].permute(2, 0, 1)[None], place.reshape(1, -1, width, 2), padding_mode="border",
            align_corners=False,
        )[0].reshape(4, count, height, width)  # fmt: skip
        counts = (mask & (at[..., 2] > 0) & (drawn[3] >= 0.5)).float()
        difference = (drawn[:3] / drawn[3].clamp(min=1e-6) - own.permute(2, 0, 1)[:, None]).norm(dim=0)
        total = _box_sums(difference.clamp(max=matching.COST_LIMIT).nan_to_num() * counts)
        number = _box_sums(counts)
        error = torch.where(number > 0.5, total / number.clamp(min=1), torch.inf)
        second = torch.minimum(second, torch.maximum(best, error))
        best = torch.minimum(best, error)
    cost = torch.where(second < torch.inf, 0.5 * (best + second), matching.COST_LIMIT)
    cost = torch.where(inside, cost, matching.UNKNOWN)
    cost = cost + matching.FRONT * (torch.arange(count, device=device) / count)[:, None, None]
    cost = cost.permute(1, 2, 0)
    chosen = _aggregate(cost, mask).argmin(dim=2)
    known = mask & (cost.gather(2, chosen[..., None])[..., 0] < 0.75 * matching.UNKNOWN)
    return np.where(known.cpu().numpy(), first + chosen.cpu().numpy(), 0)


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.tensor(array, dtype=torch.float32, device=device)


def _trilinear(
    values: Float[Tensor, "nx ny nz"], points: Float[Tensor, "depths height width 3"]
) -> Float[Tensor, "depths height width"]:
    """``values`` at points in cells; 3 beyond the grid."""
    last = torch.tensor(values.shape, device=values.device) - 1
    place = (2 * points / last - 1).flip(-1)
    found = F.grid_sample(values[None, None], place[None], padding_mode="border", align_corners=True)[0, 0]
    beyond = (points < 0).any(dim=-1) | (points >= last).any(dim=-1)
    return torch.where(beyond, 3.0, found)


def _box_sums(values: Float[Tensor, "depths height width"]) -> Float[Tensor, "depths height width"]:
    return 9 * F.avg_pool2d(values[:, None], 3, stride=1, padding=1)[:, 0]


def _aggregate(
    cost: Float[Tensor, "height width depths"], mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width depths"]:
    """The sums of four paths, a line of pixels at a time."""
    total = torch.zeros_like(cost)
    for direction in range(4):
        lines, covered, into = cost, mask, total
        if direction >= 2:
            lines, covered, into = cost.transpose(0, 1), mask.T, total.transpose(0, 1)
        length = lines.shape[1]
        path = torch.zeros_like(lines[:, 0])
        running = torch.zeros_like(covered[:, 0])
        for i in range(length):
            at = i if direction % 2 == 0 else length - 1 - i
            least = path.min(dim=1, keepdim=True).values
            padded = F.pad(path, (1, 1), value=torch.inf)
            near = torch.minimum(padded[:, :-2], padded[:, 2:]) + matching.SMALL_STEP
            step = torch.minimum(torch.minimum(path, near), least + matching.LARGE_STEP) - least
            path = torch.where(running[:, None], lines[:, at] + step, lines[:, at])
            running = covered[:, at]
            into[:, at] += torch.where(running[:, None], path, 0)
    return total
