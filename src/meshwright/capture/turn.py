"""The cameras of a turn, refined on points of the object's surface that several pictures show.

Corners are matched between pictures near each other, matches are chained to tracks, and bundle adjustment (Triggs et
al. 2000) moves a few parameters of the whole turn: elevation, roll, aim and focal length of all cameras together, and
the azimuth and elevation of each, held together as those of a camera that moves smoothly. With the better cameras it is
matched again, closer to where these say that matches must lie. Silhouettes alone, as `estimate_orbit` and
`estimate_path` look at them, tell an elevation to degrees; a few hundred points tell it to a tenth.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from meshwright.cameras import Cameras
from meshwright.capture.agreement import FINE, agreement, shrink
from meshwright.images import resize
from meshwright.progress import Progress, silent
from meshwright.views import Views

_LONGEST_PX = 640  # of the pictures that are looked at
_MOST_VIEWS = 40
_CORNERS = 500  # of a picture, at most
_CORNER_SIGMA_PX = 1.5
_PATCH_PX = 15  # side of what is compared
_LEAST_CONTRAST = 4 / 255  # standard deviation in a patch: less is the noise of the codec
_TURNS_DEG = (17.0, 34.0)  # between the pictures that are matched
_MOST_TURN_DEG = 50.0
_ALIKE, _ALIKE_GUIDED = 0.8, 0.65  # correlation of patches, at least: anywhere, and where the cameras say
_DISTINCT = 0.04  # by which the second best correlates less
_FAR, _HIGH = 0.35, 0.07  # of a side: how far corners move across and up between pictures that are matched
_BANDS_PX = (6.0, 3.0)  # distance from the epipolar line in later rounds
_ROBUST_PX = 1.0  # errors by which an observation counts half
_STEPS = 30  # of Gauss-Newton in a round
_OUTLIER_PX = 3.0
_LEAST_TRACKS, _LEAST_SEEN = 60, 10  # points that three pictures show; such points in each picture but a tenth
_MOST_ERROR_PX = 1.6  # root mean square, of points that hold together
_TOLERATED_FIT = 0.03  # by which silhouettes and colours may agree less than before: this is a coarse measure
_CLEAR = 0.95  # share of the error before (of an even turn) that moved cameras (an uneven turn) must leave at most
# What is usual of a turn: an adjustment that is off by so much costs as one observation with an error of a pixel.
_USUAL_DEG = {"elevation": 10.0, "roll": 3.0, "pan": 3.0}
_USUAL_ZOOM = 0.3
_USUAL_AZIMUTH_DEG, _USUAL_AZIMUTH_BEND_DEG = 5.0, 1.0
_USUAL_BOB_DEG, _USUAL_BOB_BEND_DEG = 1.0, 0.5
_COMMON = 4  # elevation, roll, pan, zoom; tilting is the same as moving the world along its axis


@dataclass(frozen=True, eq=False)
class _Tracks:
    """``px[k]``: where view ``view[k]`` shows point ``point[k]``; points count from 0, and each has two or more."""

    point: Int[ndarray, " observations"]
    view: Int[ndarray, " observations"]
    px: Float[ndarray, "observations 2"]

    @property
    def count(self) -> int:
        return int(self.point.max(initial=-1)) + 1

    def lengths(self) -> Int[ndarray, " points"]:
        return np.bincount(self.point, minlength=self.count)


_NO_TRACKS = _Tracks(np.empty(0, int), np.empty(0, int), np.empty((0, 2)))


def refine_turn(
    views: Views,
    *,
    keep_elevation: bool = False,
    keep_focal: bool = False,
    progress: Progress = silent,
) -> Views:
    """Move the cameras of a turn to where points of the object say that they were.

    ``views`` must be a turn in order, its cameras nearly right and even (`estimate_orbit`). Cameras leave the even turn
    where that explains the points clearly better, and stay where nothing does. ``views`` themselves are returned where
    too few points are seen by three pictures, or where points and silhouettes contradict each other.
    ``Views.assumptions`` says what was found. The distance to the object stays in proportion to the focal length, so
    the object keeps its size.
    """
    chosen = [i * len(views) // _MOST_VIEWS for i in range(_MOST_VIEWS)]
    few = views[chosen] if len(views) > _MOST_VIEWS else views
    height, width = few.images.shape[2:]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    size = round(height * scale), round(width * scale)
    grey = resize(few.images, *size).mean(dim=1).double().numpy()
    solid = resize(few.alpha, *size)[:, 0].numpy() > 0.5
    corners = [_corners(picture, inside) for picture, inside in zip(grey, solid, strict=True)]
    model = _Turn(few.cameras, size, keep_elevation, keep_focal)
    x, tracks = np.zeros(model.free.size), _NO_TRACKS
    pairs = _pairs(few.cameras)
    for number, band_px in enumerate((None, *_BANDS_PX)):
        progress("turn", number / (len(_BANDS_PX) + 1))
        tracks = _chain(corners, [_matches(corners, pair, model, x, band_px) for pair in pairs])
        if not _enough(tracks, len(few)):
            break
        x, tracks = model.adjust(x, tracks)
    progress("turn", 1.0)
    if not _enough(tracks, len(few)):
        return views
    x = model.even_unless_clear(x, tracks)
    before, after = (model.error_px(each, tracks) for each in (np.zeros_like(x), x))
    pictures = shrink(few)
    fits = [agreement(pictures, cameras, FINE) for cameras in (few.cameras, model.cameras(x))]
    if after > _MOST_ERROR_PX or fits[1] < fits[0] - _TOLERATED_FIT:
        return views
    if after > _CLEAR * before:
        x, after = np.zeros_like(x), before
    cameras = model.cameras(x)
    if few is not views:
        cameras = _Turn(views.cameras, size, keep_elevation, keep_focal).cameras(model.spread(x, len(views)))
    elevation_deg, roll_deg, fov_deg, uneven_deg = model.in_degrees(x)
    said = (
        f"cameras by {int((tracks.lengths() > 2).sum())} points of the object: elevation {elevation_deg:.1f} deg,"
        f" field of view {fov_deg:.1f} deg, roll {roll_deg:.1f} deg, turn uneven by up to {uneven_deg:.1f} deg"
        f" (error {after:.2f} px, before {before:.2f})"
    )
    return replace(views, cameras=cameras, assumptions=(*views.assumptions, said), cameras_fitted=True)


def _enough(tracks: _Tracks, views: int) -> bool:
    """Whether points tie the pictures together."""
    long = tracks.lengths() > 2
    seen = np.bincount(tracks.view[long[tracks.point]], minlength=views)
    return int(long.sum()) >= _LEAST_TRACKS and float(np.quantile(seen, 0.1)) >= _LEAST_SEEN


# ----------------------------------------------------------------------------------------- corners and matches


@dataclass(frozen=True, eq=False)
class _Corners:
    px: Float[ndarray, "corners 2"]  # x, y; the middle of the first pixel is (0.5, 0.5)
    patches: Float[ndarray, "corners values"]  # mean 0, length 1


def _corners(grey: Float[ndarray, "height width"], solid: Bool[ndarray, "height width"]) -> _Corners:
    """Corners well inside the object, by the smaller eigenvalue of the structure tensor (Shi & Tomasi 1994)."""
    reach = _PATCH_PX // 2
    down, across = ndimage.sobel(grey, 0) / 8, ndimage.sobel(grey, 1) / 8
    a, b, c = (ndimage.gaussian_filter(product, _CORNER_SIGMA_PX) for product in (across**2, across * down, down**2))
    strength = (a + c) / 2 - np.sqrt(((a - c) / 2) ** 2 + b**2)
    framed = np.pad(solid, 1)  # what the picture's edge cuts off is no inside
    inside = ndimage.distance_transform_edt(framed)[1:-1, 1:-1] > reach + 1
    peak = inside & (strength == ndimage.maximum_filter(strength, 5)) & (strength > 0)
    row, column = np.nonzero(peak)
    order = np.argsort(-strength[row, column])[: 2 * _CORNERS]
    row, column = row[order], column[order]
    middle = strength[row, column]

    if not len(row):
        return _Corners(np.empty((0, 2)), np.empty((0, _PATCH_PX**2)))

    def vertex(low: Float[ndarray, " n"], high: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        return np.clip((low - high) / np.minimum(2 * (low + high - 2 * middle), -1e-12), -0.5, 0.5)

    x = column + vertex(strength[row, column - 1], strength[row, column + 1])
    y = row + vertex(strength[row - 1, column], strength[row + 1, column])
    px = np.stack([x, y], axis=1) + 0.5
    patches = _patches(grey, px)
    patches = patches - patches.mean(axis=1, keepdims=True)
    plain = patches.std(axis=1) < _LEAST_CONTRAST
    px, patches = px[~plain][:_CORNERS], patches[~plain][:_CORNERS]
    return _Corners(px, patches / np.linalg.norm(patches, axis=1, keepdims=True))


def _patches(grey: Float[ndarray, "height width"], px: Float[ndarray, "n 2"]) -> Float[ndarray, "n values"]:
    """Squares around points, row by row."""
    offset = np.arange(_PATCH_PX) - _PATCH_PX // 2
    down, across = (grid.ravel() for grid in np.meshgrid(offset, offset, indexing="ij"))
    at = [px[:, 1:] - 0.5 + down, px[:, :1] - 0.5 + across]
    return ndimage.map_coordinates(grey, at, order=1, mode="nearest")


def _pairs(cameras: Cameras) -> list[tuple[int, int]]:
    """Views about so far around as corners can be told again, around the whole turn."""
    count = len(cameras)
    steps = sorted({max(1, round(count * turn / 360)) for turn in _TURNS_DEG})
    steps = [step for step in steps if 360 * step / count <= _MOST_TURN_DEG]
    return [(i, (i + step) % count) for step in steps for i in range(count)]


def _matches(
    corners: list[_Corners], pair: tuple[int, int], model: "_Turn", x: Float[ndarray, " p"], band_px: float | None
) -> tuple[Int[ndarray, "matches 2"], tuple[int, int]]:
    """Corners of two views that look alike, each the other's most alike: anywhere near, or along epipolar lines."""
    one, two = (corners[i] for i in pair)
    alike = one.patches @ two.patches.T
    apart = np.abs(two.px[None] - one.px[:, None])
    turns = max(1, round((pair[1] - pair[0]) % len(corners) * 360 / len(corners) / _TURNS_DEG[0]))
    far, high = (share * turns * max(model.size) for share in (_FAR / 2, _HIGH))
    allowed = (apart[..., 0] < far) & (apart[..., 1] < high)
    if band_px is not None:
        allowed &= model.epipolar_px(x, pair, one.px, two.px) < band_px
    alike = np.where(allowed, alike, -1.0)
    if min(alike.shape) < 2:
        return np.empty((0, 2), int), pair
    first = alike.argmax(axis=1)
    rows = np.arange(len(alike))
    best = alike[rows, first]
    mutual = alike.argmax(axis=0)[first] == rows
    second = np.partition(alike, -2, axis=1)[:, -2]
    least = _ALIKE if band_px is None else _ALIKE_GUIDED
    good = mutual & (best > least) & (best - second > _DISTINCT)
    return np.stack([rows[good], first[good]], axis=1), pair


def _chain(corners: list[_Corners], matched: list[tuple[Int[ndarray, "_matches 2"], tuple[int, int]]]) -> _Tracks:
    """Corners that matches hold together; a group that has two corners in one view has none in it."""
    first = np.cumsum([0, *(len(found.px) for found in corners)])
    ends = np.concatenate([np.empty((0, 2), int), *(m + first[[i, j]] for m, (i, j) in matched)])
    total = int(first[-1])
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(total, total))
    _, group = connected_components(graph, directed=False)
    view = np.repeat(np.arange(len(corners)), np.diff(first))
    px = np.concatenate([found.px for found in corners])
    _, slot, occupants = np.unique(group * len(corners) + view, return_inverse=True, return_counts=True)
    return _renumbered(group, view, px, occupants[slot] == 1)


def _renumbered(
    point: Int[ndarray, " n"], view: Int[ndarray, " n"], px: Float[ndarray, "n 2"], keep: Bool[ndarray, " n"]
) -> _Tracks:
    """The kept observations of points that two or more views still show."""
    point, view, px = point[keep], view[keep], px[keep]
    _, point, seen = np.unique(point, return_inverse=True, return_counts=True)
    several = seen[point] > 1
    _, point = np.unique(point[several], return_inverse=True)
    return _Tracks(point, view[several], px[several])


# ----------------------------------------------------------------------------------------- bundle adjustment


class _Turn:
    """Cameras of a turn as functions of a few parameters ``x``, 0 where they were given.

    First elevation, roll and pan (radians) and zoom (logarithm) of all, then the azimuths and then the elevations of
    each (radians).
    """

    def __init__(self, cameras: Cameras, size: tuple[int, int], keep_elevation: bool, keep_focal: bool) -> None:
        self.size = size
        count = self.count = len(cameras)
        self._intrinsics = cameras.intrinsics.double().numpy()
        position = cameras.positions.double().numpy()
        self._radius = np.linalg.norm(position, axis=1)
        self._azimuth = np.arctan2(position[:, 1], position[:, 0])
        self._elevation = np.arcsin(position[:, 2] / self._radius)
        self.free = np.ones(_COMMON + 2 * count, bool)
        self.free[0] &= not keep_elevation
        self.free[3] &= not keep_focal
        self.free[_COMMON + count :] &= not keep_elevation
        self._prior = _prior(count)

    def cameras(self, x: Float[ndarray, " p"]) -> Cameras:
        T, intrinsics = self._posed(x)
        return Cameras(torch.from_numpy(T).float(), torch.from_numpy(intrinsics).float())

    def in_degrees(self, x: Float[ndarray, " p"]) -> tuple[float, float, float, float]:
        """Mean elevation, roll and vertical field of view, and how far azimuths are from even steps, in degrees."""
        n = self.count
        elevation = np.degrees((self._elevation + x[0] + x[_COMMON + n :]).mean())
        azimuth = np.unwrap(self._azimuth + x[_COMMON : _COMMON + n])
        steps = np.arange(n) * 2 * np.pi / n * np.sign(azimuth[-1] - azimuth[0])
        uneven = np.degrees(np.abs(azimuth - steps - np.median(azimuth - steps)).max())
        fov = 2 * np.degrees(np.arctan(0.5 / (self._intrinsics[:, 1].mean() * np.exp(x[3]))))
        return elevation, np.degrees(x[1]), fov, uneven

    def spread(self, x: Float[ndarray, " p"], count: int) -> Float[ndarray, " q"]:
        """The parameters for ``count`` views of which these are an even choice; each camera's own are interpolated."""
        known = np.append([i * count // self.count for i in range(self.count)], count)
        each = x[_COMMON:].reshape(2, -1)
        spread = [np.interp(np.arange(count), known, np.append(row, row[0])) for row in each]
        return np.concatenate([x[:_COMMON], *spread])

    def _posed(self, x: Float[ndarray, " p"]) -> tuple[Float[ndarray, "views 4 4"], Float[ndarray, "views 4"]]:
        n = self.count
        azimuth = self._azimuth + x[_COMMON : _COMMON + n]
        elevation = self._elevation + x[0] + x[_COMMON + n :]
        cos, sin = np.cos(azimuth), np.sin(azimuth)
        level, height = np.cos(elevation), np.sin(elevation)
        zero = np.zeros(n)
        backward = np.stack([level * cos, level * sin, height], axis=1)
        right = np.stack([-sin, cos, zero], axis=1)
        up = np.cross(backward, right)
        R = np.stack([right, up, backward], axis=2) @ _small_turn(x[2], x[1])
        T = np.tile(np.eye(4), (n, 1, 1))
        T[:, :3, :3] = R
        T[:, :3, 3] = backward * (self._radius * np.exp(x[3]))[:, None]
        return T, self._intrinsics * np.exp([x[3], x[3], 0, 0])

    def _projections(self, x: Float[ndarray, " p"]) -> Float[ndarray, "views 3 4"]:
        """Matrices from homogeneous points to homogeneous pixels."""
        T, (fx, fy, cx, cy) = (value if i == 0 else value.T for i, value in enumerate(self._posed(x)))
        height, width = self.size
        K = np.zeros((self.count, 3, 3))
        K[:, 0, 0], K[:, 0, 2] = fx * width, -cx * width
        K[:, 1, 1], K[:, 1, 2] = -fy * height, -cy * height
        K[:, 2, 2] = -1
        R = T[:, :3, :3].transpose(0, 2, 1)
        return K @ np.concatenate([R, -R @ T[:, :3, 3:]], axis=2)

    def epipolar_px(
        self, x: Float[ndarray, " p"], pair: tuple[int, int], one: Float[ndarray, "a 2"], two: Float[ndarray, "b 2"]
    ) -> Float[ndarray, "a b"]:
        """Distance of each corner of the second view from the epipolar line of each of the first."""
        P1, P2 = self._projections(x)[list(pair)]
        center = np.append(self._posed(x)[0][pair[0], :3, 3], 1.0)
        epipole = P2 @ center
        F = _cross(epipole) @ P2 @ np.linalg.pinv(P1)
        lines = np.concatenate([one, np.ones((len(one), 1))], axis=1) @ F.T
        lines /= np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
        return np.abs(lines @ np.concatenate([two, np.ones((len(two), 1))], axis=1).T)

    def error_px(self, x: Float[ndarray, " p"], tracks: _Tracks) -> float:
        """Root mean square error of observations of points that three or more views show, outliers bounded."""
        r = self._residuals(x, tracks, self._points(x, tracks))
        long = (tracks.lengths() > 2)[tracks.point]
        return float(np.sqrt(np.minimum((r[long] ** 2).sum(axis=1), _OUTLIER_PX**2).mean()))

    def adjust(self, x: Float[ndarray, " p"], tracks: _Tracks) -> tuple[Float[ndarray, " p"], _Tracks]:
        """Cameras and points that explain the observations best; observations that are far off are left out."""
        for _ in range(2):
            x = self._descend(x, tracks)
            r = self._residuals(x, tracks, self._points(x, tracks))
            tracks = _renumbered(tracks.point, tracks.view, tracks.px, np.linalg.norm(r, axis=1) < _OUTLIER_PX)
        return x, tracks

    def even_unless_clear(self, x: Float[ndarray, " p"], tracks: _Tracks) -> Float[ndarray, " p"]:
        """Cameras on their even circle, or each where it is best if that leaves clearly less error.

        Two numbers for each camera always find some noise to explain; measured on even turns: 3 % of the error at most.
        """
        own, even = self.free, x.copy()
        even[_COMMON:] = 0
        self.free = own & (np.arange(len(x)) < _COMMON)
        even = self._descend(even, tracks)
        self.free = own
        return x if self.error_px(x, tracks) < _CLEAR * self.error_px(even, tracks) else even

    def _descend(self, x: Float[ndarray, " p"], tracks: _Tracks) -> Float[ndarray, " p"]:
        """Levenberg-Marquardt on the cameras, points always where these say (Schur complement)."""
        damping, points = 1e-3, self._points(x, tracks)
        cost = self._cost(x, tracks, points)
        for _ in range(_STEPS):
            H, g = self._normal_equations(x, tracks, points)
            free = self.free
            lifted = H + damping * np.diag(np.diag(H))
            step = np.zeros_like(x)
            step[free] = -np.linalg.solve(lifted[np.ix_(free, free)], g[free])
            moved = self._points(x + step, tracks)
            lower = self._cost(x + step, tracks, moved)
            if lower < cost:
                done = cost - lower < 1e-5 * cost
                x, points, cost, damping = x + step, moved, lower, damping / 5
                if done:
                    break
            else:
                damping *= 10
        return x

    def _cost(self, x: Float[ndarray, " p"], tracks: _Tracks, points: Float[ndarray, "n 3"]) -> float:
        squared = (self._residuals(x, tracks, points) ** 2).sum(axis=1)
        return float(np.log1p(squared / _ROBUST_PX**2).sum() * _ROBUST_PX**2 + ((self._prior @ x) ** 2).sum())

    def _residuals(
        self, x: Float[ndarray, " p"], tracks: _Tracks, points: Float[ndarray, "n 3"]
    ) -> Float[ndarray, "observations 2"]:
        P = self._projections(x)[tracks.view]
        p = (P[:, :, :3] @ points[tracks.point][..., None])[..., 0] + P[:, :, 3]
        depth = np.where(np.abs(p[:, 2:]) < 1e-9, 1e-9, p[:, 2:])
        return p[:, :2] / depth - tracks.px

    def _points(self, x: Float[ndarray, " p"], tracks: _Tracks) -> Float[ndarray, "n 3"]:
        """Triangulated: linearly, then two steps of Gauss-Newton."""
        P = self._projections(x)[tracks.view]
        rows = tracks.px[:, :, None] * P[:, 2:3] - P[:, :2]
        rows /= np.linalg.norm(P[:, 2, :3], axis=1)[:, None, None] * max(self.size)
        A, b = rows[:, :, :3], -rows[:, :, 3]
        normal = _summed(tracks, A.transpose(0, 2, 1) @ A) + 1e-9 * np.eye(3)
        points = np.linalg.solve(normal, _summed(tracks, A.transpose(0, 2, 1) @ b[..., None]))[..., 0]
        for _ in range(2):
            J, r = self._by_points(x, tracks, points), self._residuals(x, tracks, points)
            normal = _summed(tracks, J.transpose(0, 2, 1) @ J) + 1e-6 * np.eye(3)
            points = points - np.linalg.solve(normal, _summed(tracks, J.transpose(0, 2, 1) @ r[..., None]))[..., 0]
        return points

    def _by_points(
        self, x: Float[ndarray, " p"], tracks: _Tracks, points: Float[ndarray, "n 3"]
    ) -> Float[ndarray, "observations 2 3"]:
        P = self._projections(x)[tracks.view]
        p = (P[:, :, :3] @ points[tracks.point][..., None])[..., 0] + P[:, :, 3]
        depth = np.where(np.abs(p[:, 2]) < 1e-9, 1e-9, p[:, 2])[:, None, None]
        return (P[:, :2, :3] - (p[:, :2] / p[:, 2:])[..., None] * P[:, 2:, :3]) / depth

    def _normal_equations(
        self, x: Float[ndarray, " p"], tracks: _Tracks, points: Float[ndarray, "n 3"]
    ) -> tuple[Float[ndarray, "p p"], Float[ndarray, " p"]]:
        n, total = self.count, len(x)
        r = self._residuals(x, tracks, points)
        weight = 1 / (1 + (r**2).sum(axis=1) / _ROBUST_PX**2)
        B = self._by_points(x, tracks, points)
        # An observation depends on the common parameters and on its own camera's two.
        C = np.zeros((len(r), 2, _COMMON + 2))
        for k in range(_COMMON + 2):
            step = np.zeros(total)
            step[k if k < _COMMON else slice(_COMMON + (k - _COMMON) * n, _COMMON + (k - _COMMON + 1) * n)] = 1e-6
            C[:, :, k] = (self._residuals(x + step, tracks, points) - r) / 1e-6
        dense = np.zeros((len(r), 2, total))
        dense[:, :, :_COMMON] = C[:, :, :_COMMON]
        rows = np.arange(len(r))
        for k in range(2):
            dense[rows, :, _COMMON + k * n + tracks.view] = C[:, :, _COMMON + k]
        weighted = weight[:, None, None] * B.transpose(0, 2, 1)
        V = _summed(tracks, weighted @ B) + 1e-6 * np.eye(3)
        W = _summed(tracks, weighted @ dense)
        e = _summed(tracks, weighted @ r[..., None])
        Vi = np.linalg.inv(V)
        flat = (np.sqrt(weight)[:, None, None] * dense).reshape(-1, total)
        H = flat.T @ flat - np.einsum("nik,nij,njl->kl", W, Vi, W, optimize=True) + self._prior.T @ self._prior
        g = flat.T @ (np.sqrt(weight)[:, None] * r).ravel() - np.einsum("nik,nij,njl->k", W, Vi, e, optimize=True)
        return H, g + self._prior.T @ (self._prior @ x)


def _summed(tracks: _Tracks, values: Float[ndarray, "observations rows columns"]) -> Float[ndarray, "n rows columns"]:
    """Sums over the observations of each point."""
    order = np.argsort(tracks.point, kind="stable")
    starts = np.concatenate([[0], np.cumsum(tracks.lengths())[:-1]])
    return np.add.reduceat(values[order], starts, axis=0)


def _prior(count: int) -> Float[ndarray, "rows p"]:
    """Rows that should be near 0, by what is usual of a turn (the constants); bends are second differences around."""
    common = np.zeros((_COMMON, _COMMON + 2 * count))
    usual = [np.radians(_USUAL_DEG[name]) for name in ("elevation", "roll", "pan")]
    common[:, :_COMMON] = np.diag(1 / np.array([*usual, _USUAL_ZOOM]))
    eye = np.eye(count)
    bend = np.roll(eye, 1, 1) + np.roll(eye, -1, 1) - 2 * eye
    rows = [common]
    for k, (offset_deg, bend_deg) in enumerate(
        ((_USUAL_AZIMUTH_DEG, _USUAL_AZIMUTH_BEND_DEG), (_USUAL_BOB_DEG, _USUAL_BOB_BEND_DEG))
    ):
        each = np.zeros((2 * count, _COMMON + 2 * count))
        place = slice(_COMMON + k * count, _COMMON + (k + 1) * count)
        each[:count, place] = eye / np.radians(offset_deg)
        each[count:, place] = bend / np.radians(bend_deg)
        rows.append(each)
    return np.concatenate(rows)


def _small_turn(pan: float, roll: float) -> Float[ndarray, "3 3"]:
    """Rotation about the camera's y after one about its z."""
    (cb, sb), (cc, sc) = ((np.cos(angle), np.sin(angle)) for angle in (pan, roll))
    return np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]]) @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])


def _cross(v: Float[ndarray, "3"]) -> Float[ndarray, "3 3"]:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
