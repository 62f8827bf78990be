"""Which way is up in a world that has no up: the plane that the object stands on, else how the cameras were held."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import Cameras

_TRIALS = 2000
_SCORED = 1500  # points, at most, by which a trial is judged
_GRID = 48  # points a side of a plane's grid
_STEEPEST_DEG = 40.0  # between the plane's normal and the cameras' up
_NEAR = 1.2  # median distances of the cameras: points farther from where they look belong to the room
_THICKNESS = 0.008  # of that distance: points so near to a plane lie in it
_LEAST_INLIERS = 12
_LEAST_SHARE = 0.03  # of the points near
_UNDER = 0.5  # of that distance: within it across from the middle nothing can be seen under what carries the object
_MOST_BELOW = 0.15  # of the points there, that may lie below it for being wrong
_LOWEST = 0.35  # share of the points near, among which every other trial is made: the table is under the rest


@dataclass(frozen=True, eq=False)
class Plane:
    """Points p with p @ ``normal`` = ``height``; the unit normal points to the cameras."""

    normal: Float[ndarray, "3"]
    height: float

    def above(self, points: Float[ndarray, "*points 3"]) -> Float[ndarray, "*points"]:
        """How far points lie above the plane."""
        return np.asarray(points @ self.normal - self.height)  # of one point too

    def grid_below(self, T_world_camera: Float[ndarray, "views 4 4"]) -> Float[ndarray, "points 3"]:
        """Points of the plane around where the cameras look, as far out as half their distance."""
        center = meeting_point(T_world_camera)
        reach = 0.5 * float(np.median(np.linalg.norm(T_world_camera[:, :3, 3] - center, axis=1)))
        x = np.cross(self.normal, np.eye(3)[np.abs(self.normal).argmin()])
        x /= np.linalg.norm(x)
        steps = np.linspace(-reach, reach, _GRID)
        a, b = np.meshgrid(steps, steps)
        foot = center - self.above(center) * self.normal
        return foot + a.ravel()[:, None] * x + b.ravel()[:, None] * np.cross(self.normal, x)

    def moved(self, T: Float[ndarray, "4 4"]) -> "Plane":
        """In another world, by a similarity."""
        scale = np.linalg.norm(T[:3, 0])
        normal = T[:3, :3] @ self.normal / scale
        return Plane(normal, float(scale * self.height + normal @ T[:3, 3]))


def cameras_up(T_world_camera: Float[ndarray, "views 4 4"]) -> Float[ndarray, "3"]:
    """`Cameras.up`, of matrices."""
    T = torch.from_numpy(T_world_camera)
    return Cameras(T, torch.ones(len(T), 4, dtype=T.dtype)).up().numpy()


def meeting_point(T_world_camera: Float[ndarray, "views 4 4"]) -> Float[ndarray, "3"]:
    """The point nearest to the cameras' optical axes."""
    positions, d = T_world_camera[:, :3, 3], -T_world_camera[:, :3, 2]
    across = np.eye(3) - d[:, :, None] * d[:, None, :]
    return np.linalg.lstsq(across.sum(axis=0), (across @ positions[:, :, None]).sum(axis=0)[:, 0], rcond=None)[0]


def support_plane(
    points: Float[ndarray, "points 3"], T_world_camera: Float[ndarray, "views 4 4"], seed: int = 0
) -> Plane | None:
    """The plane on which what the cameras look at stands: many points in it, next to none below; None if there is none.

    RANSAC (Fischler & Bolles 1981) among planes that are level for the people who held the cameras.
    """
    center, up = meeting_point(T_world_camera), cameras_up(T_world_camera)
    positions = T_world_camera[:, :3, 3]
    reach = float(np.median(np.linalg.norm(positions - center, axis=1)))
    near = points[np.linalg.norm(points - center, axis=1) < _NEAR * reach]
    if len(near) < _LEAST_INLIERS:
        return None
    rng = np.random.default_rng(seed)
    tolerance = _THICKNESS * reach
    best, best_score = None, 0.0
    # Few of the points may be the table's, and a trial of three hits it with the third power of their share.
    order = np.argsort(near @ up)
    lowest = order[: max(3, round(_LOWEST * len(near)))]
    scored = near if len(near) <= _SCORED else near[rng.choice(len(near), _SCORED, replace=False)]
    for trial in range(_TRIALS):
        among = lowest if trial % 2 else order
        a, b, c = near[among[rng.integers(len(among), size=3)]]
        plane = _through(a, np.cross(b - a, c - a), up)
        if plane is None or plane.above(positions).min() <= 0:
            continue
        # A lid or the floor around the table may hold more points. A table lies under the middle, and nothing under it.
        above = plane.above(scored)
        offsets = scored - center
        squared = (offsets**2).sum(axis=1) - (offsets @ plane.normal) ** 2  # across from the axis of the middle
        central = above[squared < (_UNDER * reach) ** 2]
        below = (central < -2 * tolerance).mean() if len(central) else 1.0
        score = (np.abs(central) < tolerance).sum() * max(0.0, 1 - below / _MOST_BELOW)
        if score > best_score:
            best, best_score = plane, float(score)
    if best is None:
        return None
    for _ in range(3):
        inliers = near[np.abs(best.above(near)) < tolerance]
        if len(inliers) < max(_LEAST_INLIERS, _LEAST_SHARE * len(near)):
            return None
        middle = inliers.mean(axis=0)
        refined = _through(middle, np.linalg.svd(inliers - middle)[2][2], up)
        if refined is None:
            return None
        best = refined
    return best


def _through(point: Float[ndarray, "3"], across: Float[ndarray, "3"], up: Float[ndarray, "3"]) -> Plane | None:
    length = np.linalg.norm(across)
    if length < 1e-12:
        return None
    normal = across / length * np.sign(across @ up or 1.0)
    if normal @ up < np.cos(np.deg2rad(_STEEPEST_DEG)):
        return None
    return Plane(normal, float(point @ normal))


def level_world(T_world_camera: Float[ndarray, "views 4 4"], plane: Plane | None) -> Float[ndarray, "4 4"]:
    """The similarity into a world with z up, the point that the cameras look at in the origin, and these 4 units away.

    z is across ``plane``, else what is up for the cameras; the first camera is in the half plane of +x. Turning,
    moving and scaling the world that is given does not change the one that it leads to.
    """
    up = cameras_up(T_world_camera) if plane is None else plane.normal
    center = meeting_point(T_world_camera)
    offsets = T_world_camera[:, :3, 3] - center
    scale = 4.0 / float(np.median(np.linalg.norm(offsets, axis=1)))
    ahead = offsets[0] - (offsets[0] @ up) * up
    if np.linalg.norm(ahead) < 1e-6 * np.linalg.norm(offsets[0]):
        ahead = np.cross(up, T_world_camera[0, :3, 0])
    x = ahead / np.linalg.norm(ahead)
    R = np.stack([x, np.cross(up, x), up])
    T = np.eye(4)
    T[:3, :3] = scale * R
    T[:3, 3] = -scale * R @ center
    return T


def moved_cameras(T_world_camera: Float[ndarray, "views 4 4"], T: Float[ndarray, "4 4"]) -> Float[ndarray, "views 4 4"]:
    """Cameras in another world, by a similarity; their own axes keep unit length."""
    moved = T @ T_world_camera
    moved[:, :3, :3] /= np.linalg.norm(T[:3, 0])
    return moved
