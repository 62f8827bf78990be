"""Which way an orbit turns and how high its cameras stand, read off the pictures.

A wrong guess shows twice. The viewing cones of wrong cameras meet in a shape too small to fill the silhouettes
(Laurentini 1994), and the points of its surface have different colours in different pictures (Kutulakos & Seitz 2000,
"A theory of shape by space carving"). Silhouettes alone can hardly tell an orbit from its mirror image seen from
below; colours can.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.progress import Progress, silent
from meshwright.views import Views

_SIDE_PX = 96  # pictures are looked at in this size
_COARSE, _FINE = 32, 48  # cells along a side of [-1, 1]^3
_FIRST_DEG = (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0, 40.0)
_STEPS_DEG = (5.0, 2.0)
_WRONG_VIEWS = 0.1  # share of silhouettes that may be wrong
_COLOUR = 0.5  # weight of the colours' spread against the silhouettes' overlap
_GAIN = 0.01  # in fit: less is no reason to leave the documented rig


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Small copies of the views, and what is known of their orbit."""

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


def estimate_orbit(views: Views, progress: Progress = silent) -> Views:
    """Replace the direction of rotation and the elevation of an even orbit by those that fit the pictures best.

    The views' own cameras give radius, lens and the size of the steps. Where the pictures do not clearly say
    otherwise (a ball looks the same from everywhere) the cameras stay. ``Views.assumptions`` says what was found.
    Elevations are good to about 2 degrees; they are searched from -35 to 50.
    """
    pictures = _small(views)
    given_deg = _elevation_deg(views.cameras)
    tried: dict[tuple[bool, float], float] = {}
    total = 2 * len(_FIRST_DEG) + 4 * len(_STEPS_DEG) + 2

    def fit(mirrored: bool, elevation_deg: float, resolution: int) -> float:
        progress("orbit", min(len(tried) / total, 0.99))
        return _fit(pictures, pictures.cameras(elevation_deg, mirrored), resolution)

    for mirrored in (False, True):
        for elevation_deg in _FIRST_DEG:
            tried[mirrored, elevation_deg] = fit(mirrored, elevation_deg, _COARSE)
    mirrored, best_deg = max(tried, key=lambda candidate: tried[candidate])
    best = fit(mirrored, best_deg, _FINE)
    for step_deg in _STEPS_DEG:
        for candidate_deg in (best_deg - step_deg, best_deg + step_deg):
            tried[mirrored, candidate_deg] = fit(mirrored, candidate_deg, _FINE)
            if tried[mirrored, candidate_deg] > best:
                best, best_deg = tried[mirrored, candidate_deg], candidate_deg
    before = fit(False, given_deg, _FINE)
    progress("orbit", 1.0)
    if best < before + _GAIN:
        said = f"the pictures fit the elevation of {given_deg:g} deg and this direction as well as any other"
        return replace(views, assumptions=(*views.assumptions, said))
    way = "clockwise" if mirrored != _clockwise(pictures.azimuths_deg) else "counter-clockwise"
    said = f"measured in the pictures and used: {way}, elevation {best_deg:g} deg (fit {best:.2f}, before {before:.2f})"
    return replace(views, cameras=pictures.cameras(best_deg, mirrored), assumptions=(*views.assumptions, said))


def _small(views: Views) -> _Pictures:
    height, width = views.images.shape[2:]
    scale = min(1.0, _SIDE_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    positions = views.cameras.positions
    return _Pictures(
        torch.nn.functional.interpolate(views.images, size, mode="area"),
        torch.nn.functional.interpolate(views.alpha, size, mode="area"),
        views.cameras.intrinsics,
        torch.rad2deg(torch.atan2(positions[:, 1], positions[:, 0])),
        positions.norm(dim=1).mean().item(),
    )


def _elevation_deg(cameras: Cameras) -> float:
    positions = cameras.positions
    return torch.rad2deg(torch.asin(positions[:, 2] / positions.norm(dim=1))).mean().item()


def _clockwise(azimuths_deg: Float[Tensor, " views"]) -> bool:
    steps_deg = (azimuths_deg.diff() + 180) % 360 - 180
    return bool(steps_deg.median() < 0)


def _fit(pictures: _Pictures, cameras: Cameras, resolution: int) -> float:
    """Overlap of the hull with the silhouettes, 0 to 1, less the spread of colours on its surface."""
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=3).reshape(-1, 3)
    uv, depth_z = cameras.project(points)
    inside = _look_up(pictures.alpha, uv)[:, 0] > 0.5
    needed = len(cameras) - round(_WRONG_VIEWS * len(cameras))
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
    return overlap - _COLOUR * _colour_spread(pictures, uv[:, surface], depth_z[:, surface], nearest_z, cell)


def _look_up(
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


def _colour_spread(
    pictures: _Pictures,
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
    rgb = _look_up(pictures.rgb, uv)
    mean = (rgb * weight).sum(dim=0) / count.clamp(min=1)
    variance = ((rgb - mean) ** 2 * weight).sum(dim=0) / count.clamp(min=1)
    several = count[0] >= 3
    return variance.sum(dim=0)[several].mean().sqrt().item() if several.any() else 1.0
