"""How well cameras agree with small copies of the pictures: the score that finds how an orbit was filmed.

A wrong guess shows twice. The viewing cones of wrong cameras meet in a shape too small to fill the silhouettes
(Laurentini 1994), and the points of its surface have different colours in different pictures (Kutulakos & Seitz 2000,
"A theory of shape by space carving"). Silhouettes alone can hardly tell an orbit from its mirror image seen from
below; colours can.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.views import Views

_SIDE_PX = 96  # longer side of the copies: an outline off by 2 degrees of camera moves by a pixel or so
COARSE, FINE = 32, 48  # cells along a side of [-1, 1]^3: to choose among guesses far apart, and near each other
_WRONG_SHARE = 0.1  # of the silhouettes may be wrong: a point inside the others still belongs to the hull
_COLOR_WEIGHT = 0.5  # of the colours' spread (rms, in [0, 1]) against the silhouettes' overlap (IoU)


@dataclass(frozen=True, eq=False)
class SmallPictures:
    """Small copies of the views, and what their cameras say of the orbit."""

    rgb: Float[Tensor, "views 3 height width"]
    alpha: Float[Tensor, "views 1 height width"]
    intrinsics: Float[Tensor, "views 4"]
    azimuths_deg: Float[Tensor, " views"]
    radius: float

    def cameras(self, elevation_deg: float, mirrored: bool) -> Cameras:
        azimuths_deg = -self.azimuths_deg if mirrored else self.azimuths_deg
        elevations_deg = [elevation_deg] * len(azimuths_deg)
        posed = Cameras.spherical(azimuths_deg.tolist(), elevations_deg, self.radius, 30.0)
        return Cameras(posed.T_world_camera, self.intrinsics)


def shrink(views: Views) -> SmallPictures:
    """Copies of the pictures with 96 pixels on the longer side."""
    height, width = views.images.shape[2:]
    scale = min(1.0, _SIDE_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    positions = views.cameras.positions
    return SmallPictures(
        torch.nn.functional.interpolate(views.images, size, mode="area"),
        torch.nn.functional.interpolate(views.alpha, size, mode="area"),
        views.cameras.intrinsics,
        torch.rad2deg(torch.atan2(positions[:, 1], positions[:, 0])),
        positions.norm(dim=1).mean().item(),
    )


def is_better(after: float, before: float, gain: float) -> bool:
    """Whether an agreement gains more than the share ``gain`` of what it lacked to 1."""
    return after - before > gain * (1 - before)


def agreement(pictures: SmallPictures, cameras: Cameras, resolution: int) -> float:
    """Overlap of the hull with the silhouettes, 0 to 1, less the spread of colours on its surface."""
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=3).reshape(-1, 3)
    uv, depth_z = cameras.project(points)
    inside = _sample(pictures.alpha, uv)[:, 0] > 0.5
    needed = len(cameras) - round(_WRONG_SHARE * len(cameras))
    hull = inside.sum(dim=0) >= needed
    if not hull.any():
        return 0.0
    nearest_z = _nearest_depth(uv[:, hull], depth_z[:, hull], resolution)
    drawn = nearest_z < torch.inf
    silhouettes = torch.nn.functional.interpolate(pictures.alpha, drawn.shape[1:], mode="area")[:, 0] > 0.5
    both, either = (drawn & silhouettes).sum(dim=(1, 2)), (drawn | silhouettes).sum(dim=(1, 2))
    overlap = (both / either.clamp(min=1)).mean().item()
    surface = hull & ~_surrounded(hull.view(resolution, resolution, resolution)).flatten()
    cell = 2 / resolution
    return overlap - _COLOR_WEIGHT * _color_spread(pictures, uv[:, surface], depth_z[:, surface], nearest_z, cell)


def _sample(
    images: Float[Tensor, "views channels height width"], uv: Float[Tensor, "views points 2"]
) -> Float[Tensor, "views channels points"]:
    return torch.nn.functional.grid_sample(images, (uv * 2 - 1)[:, :, None], align_corners=False)[..., 0]


def _pixel(uv: Float[Tensor, "views points 2"], side: int) -> tuple[Tensor, Tensor]:
    """Row-major index into side x side cells of the picture, and whether the point is in the picture."""
    cell = (uv * side).floor().long()
    seen = ((cell >= 0) & (cell < side)).all(dim=2)
    return (cell[..., 1] * side + cell[..., 0]).clamp(0, side * side - 1), seen


def _nearest_depth(
    uv: Float[Tensor, "views points 2"], depth_z: Float[Tensor, "views points"], side: int
) -> Float[Tensor, "views {side} {side}"]:
    """Depth of the nearest point in each cell of the pictures; infinite where there is none."""
    index, seen = _pixel(uv, side)
    nearest = torch.full((len(uv), side * side), torch.inf)
    nearest.scatter_reduce_(1, index, torch.where(seen, depth_z, torch.inf), "amin")
    return nearest.view(-1, side, side)


def _surrounded(hull: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Cells whose six neighbours are in the hull."""
    wide = torch.nn.functional.pad(hull, (1,) * 6)
    inner = slice(1, -1)
    return (
        wide[2:, inner, inner]
        & wide[:-2, inner, inner]
        & wide[inner, 2:, inner]
        & wide[inner, :-2, inner]
        & wide[inner, inner, 2:]
        & wide[inner, inner, :-2]
    )


def _color_spread(
    pictures: SmallPictures,
    uv: Float[Tensor, "views points 2"],
    depth_z: Float[Tensor, "views points"],
    nearest_z: Float[Tensor, "views side side"],
    cell: float,
) -> float:
    """Root mean square deviation of a surface point's colour between the pictures that see it."""
    index, seen = _pixel(uv, nearest_z.shape[1])
    visible = seen & (depth_z < nearest_z.flatten(1).gather(1, index) + 1.5 * cell)
    weight = visible[:, None].float()
    count = weight.sum(dim=0)
    rgb = _sample(pictures.rgb, uv)
    mean = (rgb * weight).sum(dim=0) / count.clamp(min=1)
    variance = ((rgb - mean) ** 2 * weight).sum(dim=0) / count.clamp(min=1)
    several = count[0] >= 3  # two pictures agree too easily
    return variance.sum(dim=0)[several].mean().sqrt().item() if several.any() else 1.0
