"""What the object stands on, as seen from straight above, and what of each picture is nothing but that.

Points of the plane have the same colour in all pictures that see them; points above it have not, for each picture
shows them before another part of the plane. So the colour on which many pictures agree is that of the plane, its
pattern, its shadows and all, and a pixel that shows just this colour in its place shows the plane and no object.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from meshwright.cameras import Cameras
from meshwright.compiled import compiled

TABLE_SIDE = 448  # texels along the picture of the plane
_SAME = 0.055  # sRGB: colours that agree
_LEAST_VIEWS = 3  # that must agree
_LEAST_SHARE = 0.34  # of the views that see the place


@dataclass(frozen=True, eq=False)
class Ground:
    """A part of a plane across z: ``inside[x, y]`` is the square of side ``cell`` from ``low + cell * (x, y)`` on."""

    inside: Bool[Tensor, "nx ny"]
    low: Float[Tensor, "2"]
    cell: float

    def contains(self, xy: Float[Tensor, "rows columns 2"]) -> Bool[Tensor, "rows columns"]:
        """Whether points are inside, its outline smoothed."""
        at = (xy - self.low) / (self.cell * torch.tensor(self.inside.shape)) * 2 - 1
        share = grid_sample(self.inside.float().T[None, None], at[None], align_corners=False, padding_mode="zeros")
        return share[0, 0] > 0.5


@dataclass(frozen=True, eq=False)
class TablePicture:
    """Colours of the plane z = ``height`` where |x - x0| and |y - y0| <= ``half``, ``center`` being (x0, y0).

    ``layers``: the lowest and the highest of each channel in a texel and its neighbours, and the share of the views
    that see the texel which agree on its colour, 0 where too few do.
    """

    layers: Float[Tensor, "1 7 side side"]
    center: tuple[float, float]
    half: float
    height: float

    @classmethod
    def of(
        cls,
        images: Float[Tensor, "views 3 height width"],
        cameras: Cameras,
        free: Float[Tensor, "views 1 height width"],
        height: float,
        center: tuple[float, float],
        half: float,
        side: int = TABLE_SIDE,
        stood_on: Ground | None = None,
    ) -> "TablePicture":
        """The picture on which the views agree most.

        ``free``: 0 where a view is known to show something else. ``stood_on``: what no view can see, for an object
        stands on it; the views may agree on that one's colour there.
        """
        at = center[0] + half * (2 * (torch.arange(side) + 0.5) / side - 1)
        y = center[1] + half * (2 * (torch.arange(side) + 0.5) / side - 1)
        yy, xx = torch.meshgrid(y, at, indexing="ij")
        points = torch.stack([xx, yy, torch.full_like(xx, height)], dim=2).view(-1, 3)
        uv, depth_z = cameras.project(points)
        seen = (depth_z > 0) & (uv > 0).all(dim=2) & (uv < 1).all(dim=2)
        layers = torch.cat([images, free], dim=1)
        samples = grid_sample(layers, (uv * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")[..., 0]
        colors, agreeing = np.zeros((side * side, 3), np.float32), np.zeros(side * side, np.float32)
        visible = seen & (samples[:, 3] > 0.99)
        _mode(samples[:, :3].permute(0, 2, 1).contiguous().numpy(), visible.numpy(), colors, agreeing)
        table = torch.from_numpy(colors).T.reshape(1, 3, side, side)
        # Colours of the texels around count too: the cameras are exact to a pixel at best.
        share = torch.from_numpy(agreeing).view(1, 1, side, side)
        if stood_on is not None:
            share = torch.where(stood_on.contains(torch.stack([xx, yy], dim=2)), 0.0, share)
        spread = [-max_pool2d(-table, 3, 1, 1), max_pool2d(table, 3, 1, 1), share]
        return cls(torch.cat(spread, dim=1), center, half, height)

    @torch.no_grad()
    def difference(
        self, image: Float[Tensor, "3 height width"], camera: Cameras
    ) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
        """How far each pixel's colour is from the plane's behind it, and the agreement on that (0 where unknown)."""
        height, width = image.shape[1:]
        rays = camera.rays(height, width)
        down = rays.directions[0, :, :, 2]
        travel = torch.where(down < -1e-6, (self.height - rays.origins[0, :, :, 2]) / down.clamp(max=-1e-6), -1.0)
        xy = rays.origins[0, :, :, :2] + travel[..., None] * rays.directions[0, :, :, :2]
        at = (xy - torch.tensor(self.center)) / self.half
        drawn = grid_sample(self.layers, at[None], align_corners=False, padding_mode="zeros")[0]
        inside = (travel > 0) & (at.abs() < 1).all(dim=2)
        below, above = (drawn[:3] - image).clamp(min=0), (image - drawn[3:6]).clamp(min=0)
        return torch.maximum(below, above).amax(dim=0), torch.where(inside, drawn[6], 0.0)


@compiled
@no_type_check
def _mode(samples, seen, colors, agreeing):
    """The colour with the most views near it: the mean of these, and their share of the views that see the point.

    ``samples`` float32 (views, points, 3), ``seen`` bool (views, points); ``colors`` (points, 3) and ``agreeing``
    (points) are 0 and get the answer.
    """
    for p in range(samples.shape[1]):
        count, most, best = 0, 0, -1
        for i in range(samples.shape[0]):
            if not seen[i, p]:
                continue
            count += 1
            votes = 0
            for j in range(samples.shape[0]):
                if seen[j, p] and _apart(samples[i, p], samples[j, p]) < _SAME:
                    votes += 1
            if votes > most:
                most, best = votes, i
        if best < 0:
            continue
        for j in range(samples.shape[0]):
            if seen[j, p] and _apart(samples[best, p], samples[j, p]) < _SAME:
                for c in range(3):
                    colors[p, c] += samples[j, p, c] / most
        if most >= _LEAST_VIEWS and most >= _LEAST_SHARE * count:
            agreeing[p] = most / count


@compiled
@no_type_check
def _apart(a, b):
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]), abs(a[2] - b[2]))


def table_explains(agreeing: Float[ndarray, "height width"]) -> Bool[ndarray, "height width"]:
    """Where the plane's colour is known."""
    return agreeing >= _LEAST_SHARE
