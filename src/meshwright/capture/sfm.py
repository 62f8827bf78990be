"""Structure from motion: where pictures of one scene were taken from, found in the pictures alone, by COLMAP.

Features (SIFT) of all pictures are matched in pairs, and two mappers of COLMAP put cameras and points together: the
incremental one (Schönberger & Frahm 2016) and, where that leaves pictures out, the global one (GLOMAP, Pan et al.
2024); what places more pictures, and is held up by the matches of pairs, is taken. Where that is too few, all is tried
once more with features that cost more: fainter ones, of affine shape (Mikolajczyk & Schmid 2004), described at several
sizes (DSP-SIFT, Dong & Soatto 2015). COLMAP sees copies of the pictures that were decoded here, never the files.

An object that turns before a camera that stands still is all there is to go by, and differs from a scene in three
ways. It fills the middle of the pictures only, which tells next to nothing of a lens: distortion is taken for none
there, and the focal length for EXIF's. Its sides may look alike (two faces of a box with one label on them), and
matches of these fold the turn up: pictures are matched with those near them in their order first. And right cameras
turn about one axis, as seen from each of them: a picture that does not counts as misplaced.

The extra ``sfm`` (pycolmap) is imported when it is needed.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from meshwright.cameras import CV_TO_GL
from meshwright.capture.lens import Brown, Lens
from meshwright.errors import InputError
from meshwright.images import Picture
from meshwright.progress import Progress, silent

_EXHAUSTIVE = 80  # pictures, up to which all pairs are matched
_OVERLAP = 10  # of more pictures, in their order, each is matched with so many next ones and 2^k further on
_KEY_PICTURES = 40  # of more pictures, so many, evenly chosen, are matched each with each, so that a turn closes
_FOCAL_GUESS = 1.2  # of the longer side, where EXIF does not tell
_RADIAL_TERMS_FROM = 8  # pictures of one lens that tell two radial terms apart
_LEAST_MATCHES = 15  # of a verified pair, as COLMAP counts
_WITHIN_PX = 5  # from the outline of what moves: features nearer to it are half background, which stands still
_LEAST_REGISTERED, _LEAST_SHARE = 3, 0.6
_WELL_PLACED = 0.9  # share of the pictures: if the incremental mapper places fewer, all is tried once more
_FEW_FEATURES = 200  # in a picture: blurred, or nothing to see
_ENOUGH_FEATURES = 600  # in the median picture; with fewer, fainter ones are taken, too
_FAINT, _FAINTEST = 0.002, 0.0007  # peak thresholds of these and of the second attempt, where COLMAP has 0.0067
_MOST_FAINT = 4096  # features in a picture of the second attempt: every pair of pictures costs the square of it
_FITS_PX = 4.0  # from its epipolar line: so near a verified match supports the cameras of its pair
_SAME_AXIS_DEG = 4.0  # right cameras kept to one axis within 0.4; where a turn was folded up, they were 4 to 15 off
_TURN_PARTS, _LEAST_TURN_NEAR = 8, 3  # of a turn, one of so many parts is near, or so many pictures
_LEAST_SUPPORT = 0.6  # share of a picture's verified matches that support its place
_MOST_FOCAL_RATIO = 1.4  # between a focal length that was found and EXIF's
_LEAST_POINTS_SEEN = 20  # by the median picture of a reconstruction that is one
_TURN_LESS = (
    "as the object turns before a background that stands still, only what is on the object itself counts: turn it by at"
    " most 10 degrees from each picture to the next, about one axis and in one direction, in the order of the names; if"
    " it has little pattern of its own, walk around it instead, on a surface with a pattern (a newspaper)"
)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded, upright picture. ``focal_35mm``: of EXIF, in millimetres on 36 mm x 24 mm film; None if unknown.

    Pictures with equal ``device``, focal length and size are taken for pictures through one lens. ``moving``: 0 where
    the scene does not move with the object, which tells nothing of where the camera was beside the object.
    """

    pixels: Picture
    name: str
    focal_35mm: float | None = None
    device: str = ""
    moving: UInt8[Tensor, "1 _height _width"] | None = None


@dataclass(frozen=True, eq=False)
class SparsePoints:
    """Points of the scene, and where which view shows them: ``px`` in its picture as it is, distorted."""

    positions: Float[ndarray, "points 3"]
    point: Int[ndarray, " observations"]
    view: Int[ndarray, " observations"]
    px: Float[ndarray, "observations 2"]

    def moved(self, T: Float[ndarray, "4 4"]) -> "SparsePoints":
        """In another world, by a similarity."""
        return SparsePoints(self.positions @ T[:3, :3].T + T[:3, 3], self.point, self.view, self.px)


@dataclass(frozen=True, eq=False)
class Solved:
    """Cameras of the pictures that could be placed: ``views[i]`` is the number of the picture.

    ``T_world_camera`` are OpenGL camera to world in COLMAP's world, which has no scale and no up. ``left_out`` says for
    each picture that is not placed which it is, and why.
    """

    views: tuple[int, ...]
    T_world_camera: Float[ndarray, "views 4 4"]
    lenses: tuple[Lens, ...]
    points: SparsePoints
    error_px: float
    mapper: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Attempt:
    """COLMAP's ``model``, None if there is none; ``supported``: how many of its pictures their matches hold up."""

    model: Any
    mapper: str
    supported: int
    database: Path


def require_pycolmap() -> Any:
    """The module pycolmap.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError:
        raise InputError(
            "pictures without cameras need structure from motion; pip install 'meshwright[sfm]', or give the cameras"
        ) from None
    return pycolmap


def solve_cameras(
    photos: Sequence[Photo], *, ordered: bool = False, seed: int = 0, progress: Progress = silent
) -> Solved:
    """Find where the pictures were taken from.

    ``ordered``: each picture was taken near the one before, as frames of a film are. In tests ``seed`` makes runs on
    one machine alike.

    Raises:
        InputError: fewer than three or less than 60 % of the pictures can be placed; says which, why and what to do.
            Or pycolmap is missing.
    """
    pycolmap = require_pycolmap()
    if len(photos) < _LEAST_REGISTERED:
        raise InputError(f"{len(photos)} pictures tell no shape; photograph the object from at least 20 places")
    with _quiet(pycolmap), tempfile.TemporaryDirectory(prefix="meshwright-sfm-") as scratch:
        folder = Path(scratch)
        names = _write_copies(photos, folder / "images", folder / "masks")
        pycolmap.set_random_seed(seed)
        order = {name: number for number, name in enumerate(names)}
        turning = any(photo.moving is not None for photo in photos)
        plain, faint = folder / "plain" / "database.db", folder / "faint" / "database.db"
        attempts = [(plain, False), (faint, False)]
        if turning:  # all pairs are for pictures that are in no order
            attempts = [(plain, True), (plain, False), (faint, True)]
        best: _Attempt | None = None
        for database, near in attempts:
            if not database.parent.exists():
                database.parent.mkdir()
                progress("features", 0.0)
                _extract(pycolmap, photos, names, database, folder / "images", database == faint)
                progress("features", 1.0)
            _match(pycolmap, names, database, _turn_pairs(len(names)) if near else None, ordered, seed, progress)
            attempt = _map(pycolmap, names, database, folder / "images", turning, seed, progress)
            if best is None or attempt.supported > best.supported:
                best = attempt
            if best.mapper == "incremental" and best.supported >= _WELL_PLACED * len(photos):
                break
        assert best is not None
        model = best.model
        placed = sorted(order[image.name] for image in model.images.values() if image.has_pose) if model else []
        reasons = _why_left_out(pycolmap, photos, names, best.database, set(placed))
        if model is None or len(placed) < max(_LEAST_REGISTERED, _LEAST_SHARE * len(photos)):
            raise InputError(_too_few(len(placed), len(photos), reasons, turning))
        if best.supported < _LEAST_SHARE * len(photos):
            raise InputError(_contradicting(best.supported, len(photos), turning))
        return _solved(model, best.mapper, names, reasons)


@contextlib.contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP logs every step to stderr; only its own faults are wanted."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def _write_copies(photos: Sequence[Photo], folder: Path, masks: Path) -> list[str]:
    """Lossless copies, one folder for each lens, and masks if there are any; names in the order of the photos."""
    groups: dict[tuple[object, ...], int] = {}
    names = []
    for number, photo in enumerate(photos):
        lens = (photo.device, photo.focal_35mm, *photo.pixels.shape[1:])
        name = f"lens{groups.setdefault(lens, len(groups)):04d}/{number:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = photo.pixels[:3].permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        if photo.moving is not None:
            (masks / name).parent.mkdir(parents=True, exist_ok=True)
            inside = ndimage.binary_erosion(photo.moving[0].numpy() > 127, iterations=_WITHIN_PX)
            Image.fromarray(inside.astype(np.uint8) * 255).save(masks / f"{name}.png", compress_level=1)
        names.append(name)
    return names


def _extract(
    pycolmap: Any, photos: Sequence[Photo], names: list[str], database: Path, folder: Path, thorough: bool
) -> None:
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name.split("/")[0]] = sizes.get(name.split("/")[0], 0) + 1
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "RADIAL" if max(sizes.values()) >= _RADIAL_TERMS_FROM else "SIMPLE_RADIAL"
    if (folder.parent / "masks").is_dir():
        reader.mask_path = folder.parent / "masks"
    extraction = pycolmap.FeatureExtractionOptions()
    if thorough:
        extraction.sift.estimate_affine_shape = True
        extraction.sift.domain_size_pooling = True
        extraction.sift.max_num_features = _MOST_FAINT
    for threshold in (_FAINTEST,) if thorough else (None, _FAINT):
        database.unlink(missing_ok=True)
        if threshold is not None:
            extraction.sift.peak_threshold = threshold
        pycolmap.extract_features(
            database,
            folder,
            names,
            camera_mode=pycolmap.CameraMode.PER_FOLDER,
            reader_options=reader,
            extraction_options=extraction,
        )
        with _opened(pycolmap, database) as db:
            found = [db.num_keypoints_for_image(db.read_image_with_name(name).image_id) for name in names]
        if np.median(found) >= _ENOUGH_FEATURES:
            break
    with _opened(pycolmap, database) as db:
        done = set()
        for photo, name in zip(photos, names, strict=True):
            camera_id = db.read_image_with_name(name).camera_id
            if camera_id in done:
                continue
            done.add(camera_id)
            camera = db.read_camera(camera_id)
            known = photo.focal_35mm is not None
            params = np.array(camera.params)
            params[0] = _focal_px(photo)
            camera.params = params
            camera.has_prior_focal_length = known
            db.update_camera(camera)


def _focal_px(photo: Photo) -> float:
    height, width = photo.pixels.shape[1:]
    if photo.focal_35mm is None:
        return _FOCAL_GUESS * max(height, width)
    # "35 mm equivalent" compares diagonals: phones' pictures are 4:3 and film was 3:2.
    return photo.focal_35mm / math.hypot(36, 24) * math.hypot(height, width)


def _match(
    pycolmap: Any,
    names: list[str],
    database: Path,
    pairs: list[tuple[int, int]] | None,
    ordered: bool,
    seed: int,
    progress: Progress,
) -> None:
    """Match ``pairs``, or those that suit the number of the pictures; what is matched already stays so."""
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    progress("matching", 0.0)
    if pairs is None and len(names) <= _EXHAUSTIVE:
        pycolmap.match_exhaustive(database, verification_options=verification)
    else:
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = database.parent / "pairs.txt"
        pairs = _pairs(len(names), ordered) if pairs is None else pairs
        pairing.match_list_path.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in pairs))
        pycolmap.match_image_pairs(database, pairing_options=pairing, verification_options=verification)
    progress("matching", 1.0)


def _pairs(count: int, ordered: bool) -> list[tuple[int, int]]:
    """Which of many pictures to match: near ones in their order, and all pairs of an even selection."""
    overlap = _OVERLAP if ordered else 2 * _OVERLAP
    steps = sorted({*range(1, overlap + 1), *(2**k for k in range(count.bit_length()))})
    chosen = [i * count // _KEY_PICTURES for i in range(_KEY_PICTURES)]
    near = {(i, i + step) for i in range(count) for step in steps if i + step < count}
    return sorted(near | {(i, j) for i in chosen for j in chosen if i < j})


def _turn_pairs(count: int) -> list[tuple[int, int]]:
    """Pictures of a turn that are near each other, its last ones near its first."""
    reach = max(_LEAST_TURN_NEAR, round(count / _TURN_PARTS))
    return [(i, j) for i in range(count) for j in range(i + 1, count) if min(j - i, count - j + i) <= reach]


def _map(
    pycolmap: Any, names: list[str], database: Path, images: Path, turning: bool, seed: int, progress: Progress
) -> _Attempt:
    """The reconstruction that places the most pictures by the word of their matches.

    ``turning``: the object turns before one camera.
    """
    progress("mapping", 0.0)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.min_model_size = _LEAST_REGISTERED
    options.extract_colors = False
    folder = Path(tempfile.mkdtemp(dir=database.parent))
    with _opened(pycolmap, database) as db:
        pairs = [
            (*pycolmap.pair_id_to_image_pair(pair_id), np.asarray(geometry.inlier_matches).astype(np.int64))
            for pair_id, geometry in zip(*db.read_two_view_geometries(), strict=True)
            if len(geometry.inlier_matches) >= _LEAST_MATCHES
        ]
        focal_px = {c.camera_id: c.focal_length for c in db.read_all_cameras() if c.has_prior_focal_length}
    if turning:
        options.ba_refine_extra_params = False
        options.ba_refine_focal_length = not focal_px

    def supported(model: Any) -> int:
        return count_supported(model, pairs, focal_px, turning)

    candidates = []
    models: dict[int, Any] = {}
    for least_angle_deg in (16.0, 6.0):  # the second for captures without a pair that stands wide apart
        options.mapper.init_min_tri_angle = least_angle_deg
        (folder / f"sparse{least_angle_deg:g}").mkdir()
        models = pycolmap.incremental_mapping(database, images, folder / f"sparse{least_angle_deg:g}", options)
        candidates += [(supported(model), 1, model, "incremental") for model in models.values() if _holds(model)]
        if any(count >= _LEAST_REGISTERED for count, *_ in candidates):
            break
    progress("mapping", 0.6)
    if max((count for count, *_ in candidates), default=0) < len(names):
        (folder / "global").mkdir()
        options = pycolmap.GlobalPipelineOptions()
        options.random_seed = seed
        # GLOMAP takes focal lengths for known; where EXIF does not tell, they come from the pairs first.
        with contextlib.suppress(RuntimeError, ValueError):
            pycolmap.calibrate_view_graph(database)
            models = pycolmap.global_mapping(database, images, folder / "global", options)
            candidates += [(supported(model), 0, model, "global") for model in models.values() if _holds(model)]
    progress("mapping", 1.0)
    count, _, best, mapper = max(candidates, key=lambda candidate: candidate[:2], default=(0, 0, None, ""))
    return _Attempt(best, mapper, count, database)


def _holds(model: Any) -> bool:
    """Whether enough points hold the pictures together: a mapper may place them by a handful of wrong ones."""
    seen = [image.num_points3D for image in model.images.values() if image.has_pose]
    return len(seen) > 0 and float(np.median(seen)) >= _LEAST_POINTS_SEEN


def count_supported(
    model: Any,
    pairs: Sequence[tuple[int, int, Int[ndarray, "_ 2"]]],
    focal_px: Mapping[int, float],
    turning: bool = False,
) -> int:
    """How many pictures are where the matches of verified pairs say, through a lens such as EXIF tells.

    A mapper that was led astray bends a turn around the object, or turns it inside out, and keeps the points that fit;
    most matches of pairs across the bend then lie far from their epipolar lines. ``pairs``: numbers of two images and
    of their features that match; ``focal_px`` of cameras, by EXIF. ``turning``: of an object that turns before one
    camera those pictures count that turn about the same axis.
    """
    posed = {number: image for number, image in model.images.items() if image.has_pose}
    rays = {}
    for number, image in posed.items():
        camera = model.cameras[image.camera_id]
        ratio = camera.focal_length / focal_px.get(image.camera_id, camera.focal_length)
        if not 1 / _MOST_FOCAL_RATIO < ratio < _MOST_FOCAL_RATIO:
            return 0
        xy = camera.cam_from_img(np.array([point.xy for point in image.points2D]).reshape(-1, 2))
        rays[number] = np.column_stack([xy, np.ones(len(xy))])
    fitting, matches = dict.fromkeys(posed, 0), dict.fromkeys(posed, 0)
    for first, second, features in pairs:
        if first not in posed or second not in posed:
            continue
        a, b = rays[first][features[:, 0]], rays[second][features[:, 1]]
        T_a, T_b = (posed[number].cam_from_world().matrix() for number in (first, second))
        R = T_b[:, :3] @ T_a[:, :3].T
        t = T_b[:, 3] - R @ T_a[:, 3]
        essential = np.cross(t, R, axisb=0).T  # rows of the matrix of t x, times R
        lines_b, lines_a = a @ essential.T, b @ essential
        slopes = np.sqrt((lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1))
        sampson = np.abs((b * lines_b).sum(axis=1)) / np.maximum(slopes, 1e-12)
        tolerance = _FITS_PX / model.cameras[posed[first].camera_id].focal_length
        fits = int((sampson < tolerance).sum())
        for number in (first, second):
            fitting[number] += fits
            matches[number] += len(features)
    steady = dict.fromkeys(posed, True)
    if turning and posed:
        rotations = np.stack([image.cam_from_world().matrix()[:, :3] for image in posed.values()])
        steady = dict(zip(posed, on_one_axis(rotations).tolist(), strict=True))
    return sum(bool(steady[n] and fitting[n] >= _LEAST_SUPPORT * max(matches[n], 1)) for n in posed)


def on_one_axis(R_camera_world: Float[ndarray, "views 3 3"]) -> Bool[ndarray, " views"]:
    """Whether a camera sees the axis of a turn in the direction in which most see it: R_i a = b for some a and b."""
    u, _, vt = np.linalg.svd(R_camera_world.mean(axis=0))  # a and b for which the sum of b . R_i a is largest
    return R_camera_world @ vt[0] @ u[:, 0] > np.cos(np.deg2rad(_SAME_AXIS_DEG))


def _solved(model: Any, mapper: str, names: list[str], reasons: tuple[str, ...]) -> Solved:
    order = {name: number for number, name in enumerate(names)}
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: order[image.name])
    poses, lenses, view_of = [], [], {}
    for view, image in enumerate(images):
        T_camera_world = np.vstack([image.cam_from_world().matrix(), [0.0, 0.0, 0.0, 1.0]])
        poses.append(np.linalg.inv(T_camera_world) @ CV_TO_GL)
        camera = model.cameras[image.camera_id]
        f, cx, cy, *radial = (float(value) for value in camera.params)
        lenses.append(Lens(float(camera.width), float(camera.height), f, f, cx, cy, Brown(tuple(radial))))
        view_of[image.image_id] = view
    positions, point, view_numbers, px = [], [], [], []
    for number, found in enumerate(model.points3D.values()):
        positions.append(found.xyz)
        for element in found.track.elements:
            point.append(number)
            view_numbers.append(view_of[element.image_id])
            px.append(model.images[element.image_id].points2D[element.point2D_idx].xy)
    points = SparsePoints(
        np.array(positions).reshape(-1, 3),
        np.array(point, dtype=np.int64),
        np.array(view_numbers, dtype=np.int64),
        np.array(px).reshape(-1, 2),
    )
    error_px = float(model.compute_mean_reprojection_error())
    return Solved(
        tuple(order[image.name] for image in images), np.stack(poses), tuple(lenses), points, error_px, mapper, reasons
    )


def _why_left_out(
    pycolmap: Any, photos: Sequence[Photo], names: list[str], database: Path, placed: set[int]
) -> tuple[str, ...]:
    reasons = []
    with _opened(pycolmap, database) as db:
        ids = [db.read_image_with_name(name).image_id for name in names]
        for number, (photo, image_id) in enumerate(zip(photos, ids, strict=True)):
            if number in placed:
                continue
            features = db.num_keypoints_for_image(image_id)
            partners = [
                other
                for other, other_id in enumerate(ids)
                if other != number
                and db.exists_two_view_geometry(image_id, other_id)
                and len(db.read_two_view_geometry(image_id, other_id).inlier_matches) >= _LEAST_MATCHES
            ]
            if features < _FEW_FEATURES:
                why = f"only {features} features: blurred, dark or nothing with texture in it"
            elif not partners:
                why = "it matches no other picture: its direction is too far from all others"
            elif placed and not placed.intersection(partners):
                why = f"it matches only {_listed([photos[i].name for i in partners])}, which are not placed either"
            else:
                why = f"it matches only {len(partners)} others, too few points of them agree"
            reasons.append(f"{photo.name}: {why}")
    return tuple(reasons)


def _too_few(placed: int, count: int, reasons: tuple[str, ...], turning: bool) -> str:
    features = sum("features" in reason for reason in reasons)
    if turning:
        remedy = _TURN_LESS
    elif features > len(reasons) / 2:
        remedy = "photograph again in more light, sharp, on a surface with a pattern (a newspaper)"
    else:
        remedy = (
            "take more pictures between these, at most 15 degrees of turn from each to the next, background and all"
        )
    shown = "; ".join(reasons[:4]) + (f"; and {len(reasons) - 4} more" if len(reasons) > 4 else "")
    return f"only {placed} of {count} pictures could be placed ({shown}); {remedy}"


def _contradicting(supported: int, count: int, turning: bool) -> str:
    remedy = "take more pictures in between, on a surface with a pattern that does not repeat, and move nothing"
    return (
        f"the pictures contradict each other: only {supported} of {count} stand where their matches say;"
        f" {_TURN_LESS if turning else remedy}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def _opened(pycolmap: Any, path: Path) -> Iterator[Any]:
    database = pycolmap.Database.open(path)
    try:
        yield database
    finally:
        database.close()
