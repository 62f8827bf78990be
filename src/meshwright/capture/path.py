"""How unevenly the camera of an orbit moved: the smooth closed path on which rays through silhouettes meet the hull."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.capture.agreement import FINE, agreement, is_better, shrink
from meshwright.descent import Adam
from meshwright.progress import Progress, silent
from meshwright.shape import outline_distances_px
from meshwright.views import Views

# Measured on drawn and real uneven clips (docs/LOG.md).
_MOST_VIEWS = 24  # whose offsets are searched; those of the views between them are interpolated
_STEPS = 150  # of Adam
_FIRST_STEP_DEG = 0.6  # of Adam, falling linearly to nothing
_LEAST_GAIN = 0.01  # share of what the even orbit's agreement lacks to 1; the energy holds small paths back already
_RAYS_PER_VIEW = 64  # drawn anew in each step
_SAMPLES_PER_RAY = 36  # over the world's depth of 2.1 units: one every 0.06
_RIM_PX = 8.0  # in pictures of 96 px: rays start this far inside the outline at most, where a wrong camera shows first
_TOLERATED_MISS = 0.05  # world units: a ray that misses by this counts half (Geman-McClure); outlines may be wrong
_ENERGY_WEIGHT = 2e-5  # of the path's energy, against the share of rays that miss
# Offsets and bends (second differences) of usual uneven clips, in degrees: each costs an energy of 1.
_USUAL_AZIMUTH_DEG, _USUAL_ELEVATION_DEG = 10.0, 5.0
_USUAL_AZIMUTH_BEND_DEG, _USUAL_ELEVATION_BEND_DEG = 2.2, 1.1


def estimate_path(views: Views, *, keep_elevation: bool = False, progress: Progress = silent) -> Views:
    """Let the cameras of an orbit leave their even circle where that makes the silhouettes agree.

    Films of "dynamic" orbits (SV3D draws them) turn unevenly and bob up and down. Every camera gets an azimuth and
    an elevation of its own, along a smooth closed path that starts at the views' cameras; it is found by gradient
    descent on how far rays through the silhouettes miss the visual hull. The cameras stay where that gains little.
    ``keep_elevation`` leaves each camera's elevation alone.
    ``views`` must be an orbit in order; `estimate_orbit` gives a good start.
    """
    few = views[[i * len(views) // _MOST_VIEWS for i in range(_MOST_VIEWS)]] if len(views) > _MOST_VIEWS else views
    offsets_deg = _descend_path(few, keep_elevation, progress)
    positions = _turned_about_origin(few.cameras.positions, offsets_deg)
    moved = Cameras(Cameras.look_at(positions, 30.0).T_world_camera, few.cameras.intrinsics)
    pictures = shrink(few)
    before, after = (agreement(pictures, cameras, FINE) for cameras in (few.cameras, moved))
    progress("path", 1.0)
    if not is_better(after, before, _LEAST_GAIN):
        return views
    all_offsets_deg = _spread_over(offsets_deg, len(views))
    T_world_camera = Cameras.look_at(
        _turned_about_origin(views.cameras.positions, all_offsets_deg), 30.0
    ).T_world_camera
    azimuth_deg, elevation_deg = all_offsets_deg.abs().amax(dim=0).tolist()
    said = (
        f"the orbit is uneven: cameras were moved by up to {azimuth_deg:.0f} deg around the object"
        f" and {elevation_deg:.0f} deg up or down (fit {after:.3f}, before {before:.3f})"
    )
    cameras = Cameras(T_world_camera, views.cameras.intrinsics)
    return replace(views, cameras=cameras, assumptions=(*views.assumptions, said))


def _descend_path(views: Views, keep_elevation: bool, progress: Progress) -> Float[Tensor, "views 2"]:
    """Changes of azimuth and elevation in degrees under which rays through the silhouettes meet the hull."""
    pictures = shrink(views)
    height_px, width_px = pictures.alpha.shape[2:]
    sizes_px = torch.tensor([[height_px, width_px]] * len(views))
    outlines_px = outline_distances_px(pictures.alpha, sizes_px)
    positions = views.cameras.positions
    generator = torch.Generator().manual_seed(0)
    offsets_deg = torch.zeros(len(views), 2, requires_grad=True)
    steps = Adam([offsets_deg])
    for step in range(_STEPS):
        progress("path", step / _STEPS)
        posed = Cameras.look_at(_turned_about_origin(positions, offsets_deg), 30.0)
        cameras = Cameras(posed.T_world_camera, pictures.intrinsics)
        miss = _ray_distances_to_hull(outlines_px, cameras, pictures.radius, generator)
        loss = (miss**2 / (miss**2 + _TOLERATED_MISS**2)).mean() + _ENERGY_WEIGHT * _path_energy(offsets_deg)
        loss.backward()
        steps.step(_FIRST_STEP_DEG * (1 - step / _STEPS))
        with torch.no_grad():
            offsets_deg[:, 0] -= offsets_deg[:, 0].mean()  # turning the world changes nothing
            if keep_elevation:
                offsets_deg[:, 1] = 0
    return offsets_deg.detach()


def _turned_about_origin(
    positions: Float[Tensor, "views 3"], offsets_deg: Float[Tensor, "views 2"]
) -> Float[Tensor, "views 3"]:
    """Camera centres after changes of azimuth and elevation about the origin."""
    radius = positions.norm(dim=1)
    azimuth_rad = torch.atan2(positions[:, 1], positions[:, 0]) + torch.deg2rad(offsets_deg[:, 0])
    elevation_rad = torch.asin(positions[:, 2] / radius) + torch.deg2rad(offsets_deg[:, 1])
    level = elevation_rad.cos()
    unit = torch.stack([level * azimuth_rad.cos(), level * azimuth_rad.sin(), elevation_rad.sin()], dim=1)
    return radius[:, None] * unit


def _path_energy(offsets_deg: Float[Tensor, "views 2"]) -> Float[Tensor, ""]:
    """Distance from an even orbit, and bends of the closed path."""
    usual = torch.tensor([_USUAL_AZIMUTH_DEG, _USUAL_ELEVATION_DEG])
    usual_bend = torch.tensor([_USUAL_AZIMUTH_BEND_DEG, _USUAL_ELEVATION_BEND_DEG])
    away = (offsets_deg - offsets_deg.mean(dim=0)) / usual
    bend = (offsets_deg.roll(1, 0) + offsets_deg.roll(-1, 0) - 2 * offsets_deg) / usual_bend
    return (away**2).sum() + (bend**2).sum()


def _ray_distances_to_hull(
    outlines_px: Float[Tensor, "views 1 height width"], cameras: Cameras, radius: float, generator: torch.Generator
) -> Float[Tensor, " rays"]:
    """How far, in world units, rays through random points inside the silhouettes pass by the hull."""
    view, uv = _random_points_inside(outlines_px, generator)
    origins, directions = cameras.positions[view], cameras[view].unproject(uv[:, None])[:, 0]
    depth_z = radius + torch.linspace(-1.05, 1.05, _SAMPLES_PER_RAY)

    def outside(points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Distance to the hull, as the largest distance from a viewing cone; negative inside."""
        point_uv, point_z = cameras.project(points)
        distance_px = torch.nn.functional.grid_sample(
            outlines_px, (point_uv * 2 - 1)[:, :, None], padding_mode="border", align_corners=False
        )[:, 0, :, 0]
        focal_px = cameras.intrinsics[:, 1:2] * outlines_px.shape[2]
        return (distance_px * point_z / focal_px).amax(dim=0)

    with torch.no_grad():
        samples = origins[:, None] + depth_z[None, :, None] * directions[:, None]
        nearest = outside(samples.flatten(0, 1)).view(len(origins), -1).argmin(dim=1)
    return torch.relu(outside(origins + depth_z[nearest][:, None] * directions))


def _random_points_inside(
    outlines_px: Float[Tensor, "views 1 height width"], generator: torch.Generator
) -> tuple[Int[Tensor, " rays"], Float[Tensor, "rays 2"]]:
    """Pixel centres just inside the silhouettes, the same number in every view."""
    height_px, width_px = outlines_px.shape[2:]
    rim = (outlines_px[:, 0] < -0.5) & (outlines_px[:, 0] > -_RIM_PX)
    rim |= (outlines_px[:, 0] < 0) & ~rim.any(dim=2).any(dim=1)[:, None, None]  # a silhouette of a few pixels
    index = torch.multinomial(rim.flatten(1).float(), _RAYS_PER_VIEW, replacement=True, generator=generator)
    uv = torch.stack([(index % width_px + 0.5) / width_px, (index // width_px + 0.5) / height_px], dim=2)
    return torch.arange(len(rim)).repeat_interleave(_RAYS_PER_VIEW), uv.flatten(0, 1)


def _spread_over(offsets_deg: Float[Tensor, "some 2"], count: int) -> Float[Tensor, "views 2"]:
    """Offsets of evenly chosen views for all ``count`` views, linear between them and around the turn."""
    known = torch.tensor([i * count // len(offsets_deg) for i in range(len(offsets_deg))]).float()
    around = torch.cat([offsets_deg, offsets_deg[:1]])
    known = torch.cat([known, torch.tensor([float(count)])])
    at = torch.arange(count).float()
    right = torch.searchsorted(known, at, right=True).clamp(max=len(offsets_deg))
    share = ((at - known[right - 1]) / (known[right] - known[right - 1]))[:, None]
    return around[right - 1] * (1 - share) + around[right] * share
