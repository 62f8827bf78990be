"""Where the cameras of an orbit really stood, read off the pictures: direction, elevation, and an uneven path.

A wrong guess shows twice. The viewing cones of wrong cameras meet in a shape too small to fill the silhouettes
(Laurentini 1994), and the points of its surface have different colours in different pictures (Kutulakos & Seitz 2000,
"A theory of shape by space carving"). Silhouettes alone can hardly tell an orbit from its mirror image seen from
below; colours can.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.descent import Adam
from meshwright.progress import Progress, silent
from meshwright.shape import outline_distances_px
from meshwright.views import Views

_SIDE_PX = 96  # pictures are looked at in this size
_COARSE, _FINE = 32, 48  # cells along a side of [-1, 1]^3
_FIRST_DEG = (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0, 40.0)
_STEPS_DEG = (5.0, 2.0)
_WRONG_VIEWS = 0.1  # share of silhouettes that may be wrong
_COLOUR = 0.5  # weight of the colours' spread against the silhouettes' overlap
_GAIN = 0.05  # of what a fit lacks to 1: less is no reason to leave the cameras where they are

# The search for an uneven path:
_PATH_VIEWS = 24  # looked at; the cameras between them follow
_PATH_STEPS = 150
_PATH_GAIN = 0.01  # as _GAIN: the search stays near an even orbit by itself
_PATH_RATE_DEG = 0.6  # of Adam, falling to nothing
_RAYS_PER_VIEW = 64
_SAMPLES_PER_RAY = 36
_RIM_PX = 8.0  # rays start this far inside the outline at most, where they say most
_TOLERATED = 0.05  # in world units: a ray that misses by much more is a wrong silhouette
_STIFFNESS = 2e-5  # of the path, against the share of rays that miss
_AZIMUTH_DEG, _ELEVATION_DEG, _AZIMUTH_BEND_DEG, _ELEVATION_BEND_DEG = 10.0, 5.0, 2.2, 1.1  # usual sizes


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


def estimate_orbit(
    views: Views, elevation_deg: float | None = None, clockwise: bool | None = None, progress: Progress = silent
) -> Views:
    """Replace the direction of rotation and the elevation of an even orbit by those that fit the pictures best.

    An ``elevation_deg`` or a direction (``clockwise`` seen from above) that is given is kept, and the other found.
    The views' own cameras give radius, lens and the size of the steps. Where the pictures do not clearly say
    otherwise (a ball looks the same from everywhere) the cameras stay. ``Views.assumptions`` says what was found.
    Elevations are good to about 2 degrees; they are searched from -35 to 50.
    """
    if elevation_deg is not None and clockwise is not None:
        return views
    pictures = _small(views)
    given_deg = _elevation_deg(views.cameras)
    given_clockwise = _clockwise(pictures.azimuths_deg)
    directions = (False, True) if clockwise is None else (clockwise != given_clockwise,)
    tried: dict[tuple[bool, float], float] = {}
    total = 2 * len(_FIRST_DEG) + 4 * len(_STEPS_DEG) + 2

    def fit(mirrored: bool, elevation_deg: float, resolution: int) -> float:
        progress("orbit", min(len(tried) / total, 0.99))
        return _fit(pictures, pictures.cameras(elevation_deg, mirrored), resolution)

    for mirrored in directions:
        for candidate_deg in _FIRST_DEG if elevation_deg is None else (elevation_deg,):
            tried[mirrored, candidate_deg] = fit(mirrored, candidate_deg, _COARSE)
    mirrored, best_deg = max(tried, key=lambda candidate: tried[candidate])
    best = fit(mirrored, best_deg, _FINE)
    for step_deg in _STEPS_DEG if elevation_deg is None else ():
        for candidate_deg in (best_deg - step_deg, best_deg + step_deg):
            tried[mirrored, candidate_deg] = fit(mirrored, candidate_deg, _FINE)
            if tried[mirrored, candidate_deg] > best:
                best, best_deg = tried[mirrored, candidate_deg], candidate_deg
    before = fit(False, given_deg, _FINE)
    progress("orbit", 1.0)
    clear = _better(best, before, _GAIN)
    if not clear:
        mirrored, best_deg = False, given_deg
    way = "clockwise" if mirrored != given_clockwise else "counter-clockwise"
    found = " and ".join(
        ([f"that the camera moves {way}"] if clockwise is None else [])
        + ([f"an elevation of {best_deg:g} deg"] if elevation_deg is None else [])
    )
    said = (
        f"the pictures say {found} (fit {best:.3f}, before {before:.3f})"
        if clear
        else f"nothing speaks against {found}"
    )
    cameras = pictures.cameras(best_deg, mirrored) if clear else views.cameras
    return replace(views, cameras=cameras, assumptions=(*views.assumptions, said))


def estimate_path(views: Views, *, keep_elevation: bool = False, progress: Progress = silent) -> Views:
    """Let the cameras of an orbit leave their even circle where that makes the silhouettes agree.

    Films of "dynamic" orbits (SV3D draws them) turn unevenly and bob up and down. Every camera gets an azimuth and
    an elevation of its own, along a smooth closed path that starts at the views' cameras; it is found by gradient
    descent on how far rays through the silhouettes miss the visual hull. The cameras stay where that gains little.
    ``keep_elevation`` leaves each camera's elevation alone.
    ``views`` must be an orbit in order; `estimate_orbit` gives a good start.
    """
    few = views[[i * len(views) // _PATH_VIEWS for i in range(_PATH_VIEWS)]] if len(views) > _PATH_VIEWS else views
    offsets_deg = _walk(few, keep_elevation, progress)
    positions = _moved(few.cameras.positions, offsets_deg)
    moved = Cameras(Cameras.look_at(positions, 30.0).T_world_camera, few.cameras.intrinsics)
    pictures = _small(few)
    before, after = (_fit(pictures, cameras, _FINE) for cameras in (few.cameras, moved))
    progress("path", 1.0)
    if not _better(after, before, _PATH_GAIN):
        return views
    all_offsets_deg = _spread_over(offsets_deg, len(views))
    T_world_camera = Cameras.look_at(_moved(views.cameras.positions, all_offsets_deg), 30.0).T_world_camera
    azimuth_deg, elevation_deg = all_offsets_deg.abs().amax(dim=0).tolist()
    said = (
        f"the orbit is uneven: cameras were moved by up to {azimuth_deg:.0f} deg around the object"
        f" and {elevation_deg:.0f} deg up or down (fit {after:.3f}, before {before:.3f})"
    )
    cameras = Cameras(T_world_camera, views.cameras.intrinsics)
    return replace(views, cameras=cameras, assumptions=(*views.assumptions, said))


def _walk(views: Views, keep_elevation: bool, progress: Progress) -> Float[Tensor, "views 2"]:
    """Changes of azimuth and elevation in degrees under which rays through the silhouettes meet the hull."""
    pictures = _small(views)
    height_px, width_px = pictures.alpha.shape[2:]
    sizes_px = torch.tensor([[height_px, width_px]] * len(views))
    outlines_px = outline_distances_px(pictures.alpha, sizes_px)
    positions = views.cameras.positions
    generator = torch.Generator().manual_seed(0)
    offsets_deg = torch.zeros(len(views), 2, requires_grad=True)
    steps = Adam([offsets_deg])
    for step in range(_PATH_STEPS):
        progress("path", step / _PATH_STEPS)
        posed = Cameras.look_at(_moved(positions, offsets_deg), 30.0)
        cameras = Cameras(posed.T_world_camera, pictures.intrinsics)
        miss = _ray_misses(outlines_px, cameras, pictures.radius, generator)
        loss = (miss**2 / (miss**2 + _TOLERATED**2)).mean() + _STIFFNESS * _strain(offsets_deg)
        loss.backward()
        steps.step(_PATH_RATE_DEG * (1 - step / _PATH_STEPS))
        with torch.no_grad():
            offsets_deg[:, 0] -= offsets_deg[:, 0].mean()  # turning the world changes nothing
            if keep_elevation:
                offsets_deg[:, 1] = 0
    return offsets_deg.detach()


def _moved(positions: Float[Tensor, "views 3"], offsets_deg: Float[Tensor, "views 2"]) -> Float[Tensor, "views 3"]:
    """Camera centres after changes of azimuth and elevation about the origin."""
    radius = positions.norm(dim=1)
    azimuth_rad = torch.atan2(positions[:, 1], positions[:, 0]) + torch.deg2rad(offsets_deg[:, 0])
    elevation_rad = torch.asin(positions[:, 2] / radius) + torch.deg2rad(offsets_deg[:, 1])
    level = elevation_rad.cos()
    unit = torch.stack([level * azimuth_rad.cos(), level * azimuth_rad.sin(), elevation_rad.sin()], dim=1)
    return radius[:, None] * unit


def _strain(offsets_deg: Float[Tensor, "views 2"]) -> Float[Tensor, ""]:
    """Distance from an even orbit, and bends of the closed path."""
    usual = torch.tensor([_AZIMUTH_DEG, _ELEVATION_DEG])
    usual_bend = torch.tensor([_AZIMUTH_BEND_DEG, _ELEVATION_BEND_DEG])
    away = (offsets_deg - offsets_deg.mean(dim=0)) / usual
    bend = (offsets_deg.roll(1, 0) + offsets_deg.roll(-1, 0) - 2 * offsets_deg) / usual_bend
    return (away**2).sum() + (bend**2).sum()


def _ray_misses(
    outlines_px: Float[Tensor, "views 1 height width"], cameras: Cameras, radius: float, generator: torch.Generator
) -> Float[Tensor, " rays"]:
    """How far, in world units, rays through random points inside the silhouettes pass by the hull."""
    view, uv = _random_points_inside(outlines_px, generator)
    origins, directions = _rays(cameras, view, uv)
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


def _rays(
    cameras: Cameras, view: Int[Tensor, " rays"], uv: Float[Tensor, "rays 2"]
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Origins, and directions of unit ``depth_z``, of the rays through points ``uv`` of the pictures ``view``."""
    fx, fy, cx, cy = cameras.intrinsics[view].unbind(1)
    d_camera = torch.stack([(uv[:, 0] - cx) / fx, (cy - uv[:, 1]) / fy, -torch.ones(len(uv))], dim=1)
    T_world_camera = cameras.T_world_camera[view]
    return T_world_camera[:, :3, 3], (T_world_camera[:, :3, :3] @ d_camera[..., None])[..., 0]


def _spread_over(offsets_deg: Float[Tensor, "some 2"], count: int) -> Float[Tensor, "views 2"]:
    """Offsets of evenly chosen views for all ``count`` views, linear between them and around the turn."""
    known = torch.tensor([i * count // len(offsets_deg) for i in range(len(offsets_deg))]).float()
    around = torch.cat([offsets_deg, offsets_deg[:1]])
    known = torch.cat([known, torch.tensor([float(count)])])
    at = torch.arange(count).float()
    right = torch.searchsorted(known, at, right=True).clamp(max=len(offsets_deg))
    share = ((at - known[right - 1]) / (known[right] - known[right - 1]))[:, None]
    return around[right - 1] * (1 - share) + around[right] * share


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


def _better(after: float, before: float, gain: float) -> bool:
    return after - before > gain * (1 - before)


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
