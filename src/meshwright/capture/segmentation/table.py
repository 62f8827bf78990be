"""What the object stands on, as seen from straight above, and what of each picture is nothing but that.

Points of the plane have the same colour in all pictures that see them; points above it have not, for each picture
shows them before another part of the plane. So the colour on which many pictures agree is that of the plane, its
pattern, its shadows and all, and a pixel that shows just this colour in its place shows the plane and no object.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from meshwright.cameras import Cameras

_SIDE = 448  # texels along the picture of the plane
_SAME = 0.055  # sRGB: colours that agree
_LEAST_VIEWS = 3  # that must agree
_LEAST_SHARE = 0.34  # of the views that see the place


@dataclass(frozen=True, eq=False)
class TablePicture:
    """Colours of the plane z = ``height`` where |x - x0| and |y - y0| <= ``half``, ``center`` being (x0, y0).

    ``agreeing``: share of the views that see a texel which agree on its colour, 0 where too few do.
    """

    colors: Float[Tensor, "3 side side"]
    agreeing: Float[Tensor, "1 side side"]
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
    ) -> "TablePicture":
        """The picture on which the views agree most. ``free``: 0 where a view is known to show something else."""
        at = center[0] + half * (2 * (torch.arange(_SIDE) + 0.5) / _SIDE - 1)
        y = center[1] + half * (2 * (torch.arange(_SIDE) + 0.5) / _SIDE - 1)
        yy, xx = torch.meshgrid(y, at, indexing="ij")
        points = torch.stack([xx, yy, torch.full_like(xx, height)], dim=2).view(-1, 3)
        uv, depth_z = cameras.project(points)
        seen = (depth_z > 0) & (uv > 0).all(dim=2) & (uv < 1).all(dim=2)
        layers = torch.cat([images, free], dim=1)
        samples = grid_sample(layers, (uv * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")[..., 0]
        colors, agreeing = _mode(samples[:, :3], seen & (samples[:, 3] > 0.99))
        return cls(colors.T.reshape(3, _SIDE, _SIDE), agreeing.view(1, _SIDE, _SIDE), center, half, height)

    @torch.no_grad()
    def difference(
        self, image: Float[Tensor, "3 height width"], camera: Cameras
    ) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
        """How far each pixel's colour is from the plane's behind it, and the agreement on that (0 where unknown).

        Colours of the texels around count too: the cameras are exact to a pixel at best.
        """
        height, width = image.shape[1:]
        rays = camera.rays(height, width)
        down = rays.directions[0, :, :, 2]
        travel = torch.where(down < -1e-6, (self.height - rays.origins[0, :, :, 2]) / down.clamp(max=-1e-6), -1.0)
        xy = rays.origins[0, :, :, :2] + travel[..., None] * rays.directions[0, :, :, :2]
        at = (xy - torch.tensor(self.center)) / self.half
        lowest, highest = -max_pool2d(-self.colors[None], 3, 1, 1), max_pool2d(self.colors[None], 3, 1, 1)
        layers = torch.cat([lowest, highest, self.agreeing[None]], dim=1)
        drawn = grid_sample(layers, at[None], align_corners=False, padding_mode="zeros")[0]
        inside = (travel > 0) & (at.abs() < 1).all(dim=2)
        below, above = (drawn[:3] - image).clamp(min=0), (image - drawn[3:6]).clamp(min=0)
        return torch.maximum(below, above).amax(dim=0), torch.where(inside, drawn[6], 0.0)


def _mode(
    samples: Float[Tensor, "views 3 points"], seen: Tensor
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
    """The colour with the most views near it, their mean, and their share."""
    count = seen.sum(0)
    best = torch.zeros(samples.shape[2], dtype=torch.long)
    most = torch.zeros(samples.shape[2], dtype=torch.long)
    for i in range(len(samples)):
        near = ((samples - samples[i]).abs().amax(dim=1) < _SAME) & seen
        votes = torch.where(seen[i], near.sum(0), 0)
        better = votes > most
        best[better], most[better] = i, votes[better]
    chosen = samples[best, :, torch.arange(samples.shape[2])]
    near = (((samples - chosen.T).abs().amax(dim=1) < _SAME) & seen).float()
    colors = (samples * near[:, None]).sum(0) / near.sum(0).clamp(min=1)
    share = most / count.clamp(min=1)
    share = torch.where((most >= _LEAST_VIEWS) & (share >= _LEAST_SHARE), share, torch.zeros_like(share))
    return colors.T, share


def table_explains(agreeing: np.ndarray) -> np.ndarray:
    """Where the plane's colour is known."""
    return agreeing >= _LEAST_SHARE
