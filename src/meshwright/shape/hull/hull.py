"""Visual hull: from silhouettes to a smooth signed field and a closed mesh, with no model.

A point is inside the hull when every picture shows object where the point falls. Instead of carving voxels, each
picture is turned into signed distances to its outline, at sub-pixel precision; a point reads its distance in every
picture, scales it to world units by depth / focal length, and keeps the largest (the intersection of the viewing
cones; Laurentini 1994, "The visual hull concept for silhouette-based image understanding", as a distance field).
"""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, normalize

from meshwright.cameras import Cameras
from meshwright.compiled import compiled
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from meshwright.progress import Progress, silent
from meshwright.shape.flexicubes import flexicubes, grid, marching_cubes
from meshwright.threads import kernel_threads, one_torch_thread
from meshwright.views import Views

_SAMPLES_AT_ONCE = 1 << 19  # views x points looked up together; fastest where it fits the caches
_LIPSCHITZ = 1.5  # bound on how fast the field changes, for fields of view up to 90 degrees
_SEARCH_CELLS = 40  # along a side of a region that is searched for the hull
_SEARCH_ROUNDS = 12  # of searching the smaller region that the last round found
_DOUBLINGS = 3  # from the first, coarse grid to the last
_PARALLEL = 1e-4  # smallest mean squared sine between rays that still tells where they meet
_RAYS_TO_BLAME = 4096  # looked along to find views that contradict the others
_RAYS_TO_FILL = 12288  # looked along to measure how well a hull fills the silhouettes
_STEPS = 48  # along each of these rays
_SLENDER = 4  # how many times ``resolution`` cells may lie along the longest side of a thin object
_CRUMB = 1e-3  # of the volume of the largest part
_CLEAR = 0.01  # a ray this far inside its silhouette, as a share of the object's size, must meet the hull
_BLAME = 0.002  # share of all such rays that a wrong view alone keeps from meeting it
_SINGLED_OUT = 3  # times the blame of an ordinary view: less, and the views disagree among each other
_FILLED = 0.97  # silhouette IoU of a hull that needs no tolerance
_GAIN = 0.003  # in silhouette IoU, that makes one more overruled view worth the loss of detail


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """Outlines of the object in each picture as signed distances, negative inside.

    ``distances_px``: distance from each pixel centre to the outline. ``cameras`` and ``sizes_px`` as in `Views`.
    """

    distances_px: Float[Tensor, "views 1 height width"]
    cameras: Cameras
    sizes_px: Int[Tensor, "views 2"]

    @classmethod
    def from_views(cls, views: Views) -> "Silhouettes":
        return cls(outline_distances_px(views.alpha, views.sizes_px), views.cameras, views.sizes_px)

    def __len__(self) -> int:
        return len(self.sizes_px)

    def __getitem__(self, index: list[int]) -> "Silhouettes":
        return Silhouettes(self.distances_px[index], self.cameras[index], self.sizes_px[index])

    def distances_to_cones(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "views points"]:
        """Distance of each world point to each viewing cone, negative inside, first order accurate at its surface."""
        fx, fy, cx, cy = self.cameras.intrinsics.unbind(1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        picture_axes = torch.stack(
            [torch.stack(row, dim=1) for row in ((fx, zero, -cx), (zero, -fy, -cy), (zero, zero, -one))], dim=1
        )
        # (u, v, 1) * depth_z as three planes of contiguous memory: four times faster than Cameras.project here.
        P_picture_world = (picture_axes @ self.cameras.T_camera_world[:, :3]).transpose(0, 1)
        u, v, depth_z = P_picture_world[..., :3] @ points.T + P_picture_world[..., 3:]
        distances = self.distances_at(torch.stack([u / depth_z, v / depth_z], dim=2))
        distances *= depth_z * self.pixel_at_unit_depth[:, None]
        return torch.where(depth_z > 0, distances, -depth_z)  # nothing behind a camera was seen by it

    def distances_at(self, uv: Float[Tensor, "views points 2"]) -> Float[Tensor, "views points"]:
        """Distances in pixels at picture coordinates; outside a picture, those of the nearest border pixel.

        So an outline that leaves the picture goes on straight, and background stays background.
        """
        height, width = self.distances_px.shape[2:]
        canvas_px = torch.tensor([width, height]).to(uv)
        first, last = 0.5 / canvas_px, (self.sizes_px.flip(1)[:, None, :] - 0.5) / canvas_px
        lookup = torch.minimum(uv.clamp(min=first), last)[:, None] * 2 - 1
        return grid_sample(self.distances_px, lookup, padding_mode="border", align_corners=False)[:, 0, 0]

    @property
    def pixel_at_unit_depth(self) -> Float[Tensor, " views"]:
        """Side of a pixel in world units at depth 1; the geometric mean where pixels are not square."""
        height, width = self.distances_px.shape[2:]
        focal_px = self.cameras.intrinsics[:, :2] * torch.tensor([width, height]).to(self.cameras.intrinsics)
        return focal_px.abs().log().mean(1).neg().exp()


def outline_distances_px(
    alpha: Float[Tensor, "views 1 height width"], sizes_px: Int[Tensor, "views 2"]
) -> Float[Tensor, "views 1 height width"]:
    """Signed distance in pixels from each pixel centre to the line where alpha passes 0.5, negative inside.

    The line is traced through the bilinear interpolant of alpha (marching squares), so it is as exact as alpha
    is soft. Without a line in the picture all distances are the picture's diagonal, signed.
    """
    level = alpha[:, 0].float().cpu().numpy() - np.float32(0.5)
    distances = np.zeros_like(level)

    def trace(view: int) -> None:
        height, width = sizes_px[view].tolist()
        distances[view, :height, :width] = _outline_distance(np.ascontiguousarray(level[view, :height, :width]))

    with ThreadPoolExecutor(max_workers=kernel_threads()) as pool:  # the kernel lets go of the interpreter
        list(pool.map(trace, range(len(level))))
    return torch.from_numpy(distances)[:, None].to(alpha.device)


@compiled
@no_type_check
def _outline_distance(level):
    """Distance transform by propagating the nearest outline segment (Danielsson 1980)."""
    height, width = level.shape
    segments = _outline_segments(level)
    diagonal = np.float32(math.hypot(height, width))
    squared = np.full((height, width), diagonal * diagonal, np.float32)
    nearest = np.full((height, width), -1, np.int32)
    for number in range(len(segments)):
        row, column = int(segments[number, 0]), int(segments[number, 1])
        for i in range(max(row, 0), min(row + 2, height)):
            for j in range(max(column, 0), min(column + 2, width)):
                _offer(squared, nearest, segments, i, j, number)
    for i in range(height):
        for j in range(width):
            _ask(squared, nearest, segments, i, j, i - 1, j - 1)
            _ask(squared, nearest, segments, i, j, i - 1, j)
            _ask(squared, nearest, segments, i, j, i - 1, j + 1)
            _ask(squared, nearest, segments, i, j, i, j - 1)
        for j in range(width - 2, -1, -1):
            _ask(squared, nearest, segments, i, j, i, j + 1)
    for i in range(height - 1, -1, -1):
        for j in range(width - 1, -1, -1):
            _ask(squared, nearest, segments, i, j, i + 1, j - 1)
            _ask(squared, nearest, segments, i, j, i + 1, j)
            _ask(squared, nearest, segments, i, j, i + 1, j + 1)
            _ask(squared, nearest, segments, i, j, i, j + 1)
        for j in range(1, width):
            _ask(squared, nearest, segments, i, j, i, j - 1)
    return np.where(level < 0, np.sqrt(squared), -np.sqrt(squared))


@compiled
@no_type_check
def _ask(squared, nearest, segments, i, j, from_i, from_j):
    if from_i < 0 or from_i >= squared.shape[0] or from_j < 0 or from_j >= squared.shape[1]:
        return
    number = nearest[from_i, from_j]
    if number >= 0 and number != nearest[i, j]:
        _offer(squared, nearest, segments, i, j, number)


@compiled
@no_type_check
def _offer(squared, nearest, segments, i, j, number):
    """Take segment ``number`` for pixel (i, j) if it is nearer than the one known so far."""
    dy, dx = segments[number, 4], segments[number, 5]
    y, x = np.float32(i) - segments[number, 2], np.float32(j) - segments[number, 3]
    along = y * dy + x * dx
    if along > 0:
        t = min(along / (dy * dy + dx * dx), np.float32(1))
        y, x = y - t * dy, x - t * dx
    distance = y * y + x * x
    if distance < squared[i, j]:
        squared[i, j] = distance
        nearest[i, j] = number


@compiled
@no_type_check
def _outline_segments(level):
    """Marching squares: rows (cell row, cell column, y, x, dy, dx), one a piece of the zero line."""
    height, width = level.shape
    cell = np.empty((2, 6), np.float32)
    count = 0
    for i in range(height - 1):
        for j in range(width - 1):
            count += _cell_segments(level, i, j, cell)
    segments = np.empty((count, 6), np.float32)
    count = 0
    for i in range(height - 1):
        for j in range(width - 1):
            found = _cell_segments(level, i, j, cell)
            segments[count : count + found] = cell[:found]
            count += found
    return segments


@compiled
@no_type_check
def _cell_segments(level, i, j, out):
    """Pieces of the zero line between four neighbouring pixel centres, written to ``out``; returns how many."""
    rows, columns = (i, i, i + 1, i + 1), (j, j + 1, j + 1, j)  # the corners in turn
    inside = 0
    for corner in range(4):
        inside += level[rows[corner], columns[corner]] >= 0
    if inside == 0 or inside == 4:
        return 0
    crossing_y, crossing_x = np.empty(4, np.float32), np.empty(4, np.float32)
    count = 0
    for corner in range(4):
        after = (corner + 1) % 4
        a, b = level[rows[corner], columns[corner]], level[rows[after], columns[after]]
        if (a >= 0) != (b >= 0):
            t = a / (a - b)
            crossing_y[count] = rows[corner] + t * (rows[after] - rows[corner])
            crossing_x[count] = columns[corner] + t * (columns[after] - columns[corner])
            count += 1
    # Four crossings are a saddle: the sign at the middle says which two opposite corners are cut off.
    middle = level[i, j] + level[i, j + 1] + level[i + 1, j + 1] + level[i + 1, j]
    first = 0 if count == 2 or (middle >= 0) == (level[i, j] >= 0) else 1
    for piece in range(count // 2):
        start, end = (first + 2 * piece) % count, (first + 2 * piece + 1) % count
        out[piece, 0], out[piece, 1] = i, j
        out[piece, 2], out[piece, 3] = crossing_y[start], crossing_x[start]
        out[piece, 4], out[piece, 5] = crossing_y[end] - crossing_y[start], crossing_x[end] - crossing_x[start]
    return count // 2


@dataclass(frozen=True, eq=False)
class VisualHull:
    """A signed field on a grid of cubic cells, about the distance to the hull in world units, negative inside.

    ``values[i, j, k]`` is the field at ``origin + cell_size * (i, j, k)`` in the world; it is positive on the
    grid's border, so its surface is closed. ``rejected_views`` are the numbers of views that contradict the others.
    ``ignored_per_point``: how many of the others were overruled at each point, because they disagree a little.
    """

    values: Float[Tensor, "nx ny nz"]
    origin: Float[Tensor, "3"]
    cell_size: float
    rejected_views: tuple[int, ...] = ()
    ignored_per_point: int = 0

    def mesh(self, surface: Literal["flexicubes", "marching-cubes"] = "flexicubes") -> Mesh:
        """The closed surface, without crumbs: parts smaller than a thousandth of the largest are dropped."""
        nx, ny, nz = (n - 1 for n in self.values.shape)
        sides = (nx * self.cell_size, ny * self.cell_size, nz * self.cell_size)
        middle = self.origin + torch.tensor(sides).to(self.origin) / 2
        if surface == "flexicubes":
            positions = grid((nx, ny, nz), sides, device=self.values.device) + middle
            vertices, faces, _ = flexicubes(positions, self.values.flatten(), (nx, ny, nz))
            mesh = Mesh(vertices, faces)
        else:
            mesh = marching_cubes(self.values, scale=sides)
            mesh = mesh.replace(vertices=mesh.vertices + middle)
        return _without_crumbs(mesh)


@one_torch_thread()
def visual_hull(views: Views, resolution: int = 128, progress: Progress = silent) -> VisualHull:
    """The hull of all silhouettes in a grid of about ``resolution`` ** 3 cubic cells that fits the object.

    A view that contradicts the others is left out; where many disagree a little, a few are overruled at each point.
    Where the views leave the object unbounded (a single picture), it ends at the [-1, 1] cube.

    Raises:
        InputError: no picture shows anything, or no point of space is object in all of them.
    """
    silhouettes = Silhouettes.from_views(views)
    useful = [i for i in range(len(views)) if bool((silhouettes.distances_px[i] < 0).any())]
    if not useful:
        raise InputError("the views show no object (alpha is below 0.5 everywhere); check the masks or background")
    progress("hull", 0.3)
    silhouettes = silhouettes[useful]
    kept, ignored = _agreement(silhouettes)
    cones = _Cones(silhouettes[kept], ignored)
    rejected = sorted(set(range(len(views))) - {useful[i] for i in kept})
    progress("hull", 0.6)
    hull = _sample_grid(cones, _bounding_box(cones), resolution)
    progress("hull", 1.0)
    return dataclasses.replace(hull, rejected_views=tuple(rejected), ignored_per_point=ignored)


def hull_mesh(
    views: Views,
    resolution: int = 128,
    surface: Literal["flexicubes", "marching-cubes"] = "flexicubes",
    progress: Progress = silent,
) -> Mesh:
    """The closed surface of the visual hull; see `visual_hull` and `VisualHull.mesh`."""
    return visual_hull(views, resolution, progress).mesh(surface)


@dataclass(frozen=True, eq=False)
class _Cones:
    """Intersection of viewing cones as a field; at any point ``ignored`` views may say otherwise."""

    silhouettes: Silhouettes
    ignored: int = 0

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        chunk = max(1, _SAMPLES_AT_ONCE // len(self.silhouettes))
        return torch.cat([self._largest(part) for part in points.split(chunk)])

    def _largest(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        distances = self.silhouettes.distances_to_cones(points)
        if self.ignored == 0:
            return distances.amax(0)
        return distances.topk(self.ignored + 1, dim=0).values[-1]


@dataclass(frozen=True, eq=False)
class _Box:
    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    @property
    def side(self) -> float:
        return float((self.high - self.low).max())

    def grid(self, cell_size: float) -> tuple[Float[Tensor, "points 3"], tuple[int, int, int]]:
        """Points of a grid of cubic cells that covers the box, and their number along each axis."""
        nx, ny, nz = (((self.high - self.low) / cell_size).ceil().long() + 1).tolist()
        x, y, z = (torch.arange(n, device=self.low.device) * cell_size for n in (nx, ny, nz))
        return torch.cartesian_prod(x, y, z) + self.low, (nx, ny, nz)


def _cube(centre: Float[Tensor, "3"], half: float) -> _Box:
    return _Box(centre - half, centre + half)


def _bounding_box(cones: _Cones) -> _Box:
    """A box around the hull, a little too large.

    Looks in [-1, 1]^3 and, if the hull is not all in there, in the space between the cameras; a hull that ends in
    neither is cut off at the border of the first.

    Raises:
        InputError: the hull is empty.
    """
    box = None
    for region in (_cube(torch.zeros(3).to(cones.silhouettes.cameras.intrinsics), 1.0), _between(cones.silhouettes)):
        found = None if region is None else _occupied(cones, region)
        if region is None or found is None:
            continue
        box = box or found
        if bool((found.low > region.low).all() and (found.high < region.high).all()):
            box = found
            break
    for _ in range(_SEARCH_ROUNDS):
        if box is None:
            raise _contradiction()
        larger, box = box, _occupied(cones, box)
        if box is not None and box.side > 0.7 * larger.side:
            return box
    raise _contradiction()  # the hull is no larger than a rounding error


def _contradiction() -> InputError:
    return InputError(
        "the views contradict each other, no point of space is object in all of them; "
        "check the rig, the order of the pictures, the direction of rotation and the masks"
    )


def _occupied(cones: _Cones, region: _Box) -> _Box | None:
    """The part of a region outside which the field is surely positive."""
    cell = region.side / _SEARCH_CELLS
    points, _ = region.grid(cell)
    near = points[cones(points) <= _LIPSCHITZ * cell * math.sqrt(3) / 2]
    if len(near) == 0:
        return None
    low, high = near.amin(0) - cell, near.amax(0) + cell
    return _Box(torch.maximum(low, region.low), torch.minimum(high, region.high))


def _between(silhouettes: Silhouettes) -> _Box | None:
    """The cube around the point nearest to the rays through the silhouettes' centres, as far as the nearest camera.

    None if the rays are parallel.
    """
    cameras = silhouettes.cameras
    height, width = silhouettes.distances_px.shape[2:]
    canvas_px = torch.tensor([width, height], device=silhouettes.distances_px.device)
    centres = [((d < 0).nonzero().flip(1) + 0.5).mean(0) / canvas_px for d in silhouettes.distances_px[:, 0]]
    d = normalize(_unproject(cameras, torch.stack(centres)[:, None])[:, 0], dim=1)
    across = torch.eye(3).to(d) - d[:, :, None] * d[:, None, :]  # projects onto the plane across each ray
    total = across.mean(0)
    if torch.linalg.eigvalsh(total)[0] < _PARALLEL:
        return None
    centre = torch.linalg.solve(total, (across @ cameras.positions[:, :, None]).mean(0)[:, 0])
    return _cube(centre, float((cameras.positions - centre).norm(dim=1).min()))


def _unproject(cameras: Cameras, uv: Float[Tensor, "views points 2"]) -> Float[Tensor, "views points 3"]:
    """World vectors from the camera to where ``uv`` is at depth 1."""
    fx, fy, cx, cy = (value[:, None] for value in cameras.intrinsics.unbind(1))
    d_camera = torch.stack([(uv[..., 0] - cx) / fx, (cy - uv[..., 1]) / fy, -torch.ones_like(uv[..., 0])], dim=2)
    return d_camera @ cameras.T_world_camera[:, :3, :3].mT


@dataclass(frozen=True, eq=False)
class _Sightings:
    """Rays through the pictures, cut to the box of the object.

    ``near`` and ``far``: the ends inside the box. ``clearance``: distance of the ray inside (negative) or outside
    of its own view's silhouette, in world units at the object. ``views``: the view each ray belongs to.
    """

    near: Float[Tensor, "rays 3"]
    far: Float[Tensor, "rays 3"]
    clearance: Float[Tensor, " rays"]
    views: Int[Tensor, " rays"]

    def __getitem__(self, chosen: Tensor) -> "_Sightings":
        return _Sightings(self.near[chosen], self.far[chosen], self.clearance[chosen], self.views[chosen])

    def of_views(self, numbers: list[int]) -> "_Sightings":
        return self[torch.isin(self.views, torch.tensor(numbers, device=self.views.device))]

    def points(
        self, low: Float[Tensor, " rays"], high: Float[Tensor, " rays"], steps: int
    ) -> Float[Tensor, "rays steps 3"]:
        """Points from ``low`` to ``high``, as fractions of the way from ``near`` to ``far``."""
        t = torch.linspace(0, 1, steps, device=self.near.device)
        t = low[:, None] + (high - low)[:, None] * t
        return self.near[:, None] + t[..., None] * (self.far - self.near)[:, None]


def _sightings(silhouettes: Silhouettes, box: _Box, rays: int) -> _Sightings:
    """About ``rays`` rays spread evenly over where each picture shows the box."""
    cameras, count = silhouettes.cameras, math.ceil(math.sqrt(rays / len(silhouettes)))
    corners = torch.cartesian_prod(*torch.stack([box.low, box.high], dim=1))
    uv, depth_z = cameras.project(corners)
    height, width = silhouettes.distances_px.shape[2:]
    last = silhouettes.sizes_px.flip(1) / torch.tensor([width, height], device=uv.device)
    uv = torch.where((depth_z > 0)[..., None], uv, uv.new_tensor(0.5))
    low, high = uv.amin(1).clamp(min=0), torch.minimum(uv.amax(1), last)
    shares = (torch.arange(count, device=uv.device) + 0.5) / count
    uv = low[:, None] + torch.cartesian_prod(shares, shares) * (high - low)[:, None]
    directions = _unproject(cameras, uv)
    origins = cameras.positions[:, None]
    slabs = torch.stack([(box.low - origins) / directions, (box.high - origins) / directions])
    t_near, t_far = slabs.amin(0).amax(2).clamp(min=0), slabs.amax(0).amin(2)
    hit = t_far > t_near
    depth = (t_near + t_far) / 2
    clearance = silhouettes.distances_at(uv) * silhouettes.pixel_at_unit_depth[:, None] * depth
    views = torch.arange(len(cameras), device=uv.device)[:, None].expand_as(hit)
    ends = [(origins + t[..., None] * directions)[hit] for t in (t_near, t_far)]
    return _Sightings(ends[0], ends[1], clearance[hit], views[hit])


def _agreement(silhouettes: Silhouettes) -> tuple[list[int], int]:
    """Which views to keep, and how many of them to ignore at each point, for a hull that fills the silhouettes."""
    kept = list(range(len(silhouettes)))
    may_go = (len(kept) - 1) // 5
    if may_go == 0:
        return kept, 0
    box = _bounding_box(_Cones(silhouettes, ignored=may_go))
    object_rays = _sightings(silhouettes, box, _RAYS_TO_BLAME)
    object_rays = object_rays[object_rays.clearance < -_CLEAR * box.side]
    for _ in range(may_go):
        blame = _blame(silhouettes[kept], kept, object_rays.of_views(kept))
        ranked = blame.sort(descending=True).values.tolist()
        if ranked[0] < max(_BLAME, _SINGLED_OUT * ranked[may_go]):
            break
        kept.pop(int(blame.argmax()))
    sightings = _sightings(silhouettes, box, _RAYS_TO_FILL)
    ignored, _ = _overruled(silhouettes[kept], sightings.of_views(kept), may_go)
    if len(kept) < len(silhouettes):
        # Where many views disagree a little, a few stand out by chance; to overrule them at some points is enough.
        everyone = list(range(len(silhouettes)))
        ignored_of_all, iou_of_all = _overruled(silhouettes, sightings, may_go)
        if iou_of_all > _fill(_Cones(silhouettes[kept], ignored), sightings):
            return everyone, ignored_of_all
    return kept, ignored


def _overruled(silhouettes: Silhouettes, sightings: _Sightings, most: int) -> tuple[int, float]:
    """How many views to ignore at each point, no more than helps, and the silhouette IoU of that hull."""
    ignored, iou = 0, _fill(_Cones(silhouettes), sightings)
    while iou < _FILLED and ignored < most:
        better = _fill(_Cones(silhouettes, ignored + 1), sightings)
        if better < iou + _GAIN:
            break
        ignored, iou = ignored + 1, better
    return ignored, iou


def _blame(silhouettes: Silhouettes, numbers: list[int], rays: _Sightings) -> Float[Tensor, " views"]:
    """For each view the share of all object rays that miss the hull because of this view, not their own, alone."""
    chunk = max(1, _SAMPLES_AT_ONCE // (len(silhouettes) * _STEPS))
    start, end = torch.zeros_like(rays.clearance), torch.ones_like(rays.clearance)
    blame = torch.zeros(len(silhouettes), device=rays.clearance.device)
    for part in torch.arange(len(rays.views), device=rays.views.device).split(chunk):
        points = rays[part].points(start[part], end[part], _STEPS)
        distances = silhouettes.distances_to_cones(points.flatten(0, 1)).unflatten(1, points.shape[:2])
        largest, farthest = distances.max(dim=0)
        second = distances.scatter(0, farthest[None], -math.inf).amax(0)
        missed = largest.amin(1) > 0
        for index, number in enumerate(numbers):
            without = torch.where(farthest == index, second, largest).amin(1)
            blame[index] += (missed & (without <= 0) & (rays.views[part] != number)).sum()
    return blame / max(1, len(rays.views))


def _fill(cones: _Cones, rays: _Sightings) -> float:
    """IoU of the hull's silhouettes with the given ones, on a sample of rays."""
    low, high = torch.zeros_like(rays.clearance), torch.ones_like(rays.clearance)
    for steps in (_STEPS, 9, 9):  # close in on the point of each ray that is deepest inside
        points = rays.points(low, high, steps)
        field = cones(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        deepest, at = field.min(dim=1)
        step = (high - low) / (steps - 1)
        low, high = (low + (at - 1) * step).clamp(min=0), (low + (at + 1) * step).clamp(max=1)
    in_hull, in_silhouette = deepest <= 0, rays.clearance <= 0
    return float((in_hull & in_silhouette).sum() / (in_hull | in_silhouette).sum().clamp(min=1))


def _sample_grid(cones: _Cones, box: _Box, resolution: int) -> VisualHull:
    """The field on a grid that fits the box, computed exactly near the surface and interpolated elsewhere."""
    sides = box.high - box.low
    cell = max(float(sides.prod()) ** (1 / 3) / resolution, box.side / (_SLENDER * resolution))
    spacing = cell * 2**_DOUBLINGS
    # A cell of room around the box for the surface to close.
    points, (nx, ny, nz) = _Box(box.low - cell, box.high + cell).grid(spacing)
    values = cones(points).view(nx, ny, nz)
    for _ in range(_DOUBLINGS):
        spacing /= 2
        nx, ny, nz = 2 * nx - 1, 2 * ny - 1, 2 * nz - 1
        values = interpolate(values[None, None], (nx, ny, nz), mode="trilinear", align_corners=True)[0, 0]
        # Cubes of this grid that the surface crosses have all their corners nearer than this.
        near = (values.abs() < 2 * math.sqrt(3) * _LIPSCHITZ * spacing).nonzero()
        values[tuple(near.T)] = cones(near * spacing + points[0])
    if not bool((values < 0).any()):
        raise _contradiction()
    for axis, n in enumerate((nx, ny, nz)):
        along = points[0, axis] + torch.arange(n, device=points.device) * spacing
        beyond_box = torch.maximum(box.low[axis] - along, along - box.high[axis])
        values = torch.maximum(values, beyond_box.view([-1 if i == axis else 1 for i in range(3)]))
    return VisualHull(values, points[0], spacing)


def _without_crumbs(mesh: Mesh) -> Mesh:
    part = mesh.components()
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    # Signed, so that a bubble inside the object (negative) goes too.
    volume = torch.zeros(int(part.max()) + 1, dtype=torch.float64, device=part.device)
    volume.index_add_(0, part, (a * torch.linalg.cross(b, c)).sum(1))
    return mesh.keep_faces((volume >= _CRUMB * volume.max())[part])
