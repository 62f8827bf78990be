"""COLMAP's sparse models, binary or text: cameras, images, points3D (https://colmap.github.io/format.html).

Since 3.12 there are rigs and frames beside them; images still hold every camera's pose, and that is what is read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.capture.camera_files.beside import mask_beside, picture_beside, with_missing_noted
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, DepthFile, PosedFiles, PosedPicture, fitted
from meshwright.capture.lens import (
    Brown,
    Distortion,
    Division,
    EnhancedUnified,
    FieldOfView,
    Lens,
    RadTanThinPrism,
)
from meshwright.errors import InputError
from meshwright.untrusted import MIB, finite, neighbour, printable, read_untrusted

_MAX_BYTES = 1024 * MIB  # images.bin of a thousand pictures holds millions of features
_MAX_TEXT_BYTES = 512 * MIB
_MAX_POINTS = 5_000_000
_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "0", "distorted/sparse/0")
_PICTURE_FOLDERS = ("images", "image", "rgb", "input", "", "images_2", "images_4", "images_8")
_MASK_FOLDERS = ("masks", "mask")
_LARGEST_PICTURE_PX = 1e6
_STRONGEST = 1e6  # coefficient

# By COLMAP's numbers: name, count of parameters.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
}
_SPHERES = {17: "EQUIRECTANGULAR"}
_ONE_FOCAL_LENGTH = frozenset({0, 2, 3, 8, 9, 12, 14})


@dataclass(frozen=True)
class ColmapImage:
    """One line of images.txt: the pose (world to camera, OpenCV), the camera's number and the picture's name."""

    qvec: tuple[float, float, float, float]
    tvec: tuple[float, float, float]
    camera: int
    name: str


def find_colmap_model(folder: Path) -> Path | None:
    """The folder of a sparse model in a workspace of COLMAP, 3DGS, gsplat or nerfstudio, or None.

    Of several models (sparse/0, sparse/1, ...) it is the one with the largest file of images.
    """
    for place in _MODEL_FOLDERS:
        model = folder / place
        if _is_model(model):
            siblings = [other for other in model.parent.iterdir() if other.name.isdecimal() and _is_model(other)]
            if model.name.isdecimal() and siblings:
                return max(siblings, key=lambda other: (_images_file(other).stat().st_size, other == model))
            return model
    return None


def read_colmap(folder: Path) -> PosedFiles:
    """Pictures with their cameras of a workspace, or of a folder that is a sparse model itself.

    Pictures lie in ``images`` (or input, rgb, images_2, ...) in the workspace, masks in ``masks``, where a mask is
    called like its picture, with any suffix or one more (a.jpg.png, as COLMAP has it).

    Raises:
        InputError: no model, one that is damaged, or none of its pictures is there.
    """
    model = find_colmap_model(folder)
    if model is None:
        raise InputError(f"{folder}: holds no sparse model of COLMAP (cameras and images, .bin or .txt); add it")
    is_binary = (model / "images.bin").is_file()
    cameras = _read_cameras_bin(model / "cameras.bin") if is_binary else _read_cameras_txt(model / "cameras.txt")
    images_file = _images_file(model)
    images = _read_images_bin(images_file) if is_binary else _read_images_txt(images_file)
    roots = [folder, *[parent for parent in (model.parent, model.parent.parent) if parent != folder]]
    picture_folders = [root / name for root in roots for name in _PICTURE_FOLDERS if (root / name).is_dir()]
    mask_folders = [root / name for root in roots for name in _MASK_FOLDERS if (root / name).is_dir()]
    pictures, missing = [], []
    for number, image in enumerate(sorted(images, key=lambda image: image.name)):
        where = f"{images_file}: image {printable(image.name)[:80]}"
        if image.camera not in cameras:
            raise InputError(f"{where}: its camera {image.camera} is not in cameras; export the model again")
        path = picture_beside(picture_folders, image.name, f"{images_file}: image {number}")
        if path is None:
            missing.append(image.name)
            continue
        mask = mask_beside(mask_folders, image.name)
        depth = _depth_beside(roots, image.name)
        pose = colmap_pose(image.qvec, image.tvec, where)
        pictures.append(fitted(PosedPicture(path, pose, cameras[image.camera], mask, depth, stored=True), where))
    notes = with_missing_noted(pictures, missing, images_file)
    points = read_colmap_points(folder)
    models = len({cameras[image.camera] for image in images})
    lenses = "" if models == 1 else f", {models} cameras"
    return PosedFiles(tuple(pictures), f"COLMAP sparse model ({model.name}{lenses})", notes, points, own_axes=False)


def read_colmap_points(folder: Path) -> Float[ndarray, "points 3"] | None:
    """The points of the sparse model of a workspace; None where there is no model, or one without points.

    Raises:
        InputError: they are damaged.
    """
    model = find_colmap_model(folder)
    if model is None:
        return None
    if (model / "images.bin").is_file():
        file = model / "points3D.bin"
        return _read_points_bin(file) if file.is_file() else None
    file = model / "points3D.txt"
    return _read_points_txt(file) if file.is_file() else None


def colmap_pose(
    qvec: tuple[float, float, float, float], tvec: tuple[float, float, float], where: str
) -> Float[ndarray, "4 4"]:
    """T_world_camera (OpenGL) of COLMAP's world-to-camera quaternion (w, x, y, z) and translation.

    Raises:
        InputError: not numbers, or no rotation.
    """
    q, t = np.array(qvec, np.float64), np.array(tvec, np.float64)
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(q))
        if not (np.isfinite(t).all() and 0.5 < norm < 2):
            raise InputError(f"{where}: its pose is no rotation and position; export the model again")
        w, x, y, z = q / norm
    R_camera_world = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return opencv_pose(R_camera_world, t)


def colmap_lens(model: int, width_px: float, height_px: float, parameters: tuple[float, ...], where: str) -> Lens:
    """The lens that COLMAP's model and parameters mean.

    Raises:
        InputError: a model that is no lens here, or numbers that are none.
    """
    if model in _SPHERES:
        raise InputError(
            f"{where}: camera model {_SPHERES[model]} shows all around; cut pinhole pictures out of it first"
        )
    if model not in _MODELS:
        raise InputError(f"{where}: camera model {model} is unknown; export it as OPENCV or PINHOLE")
    name, count = _MODELS[model]
    if len(parameters) != count:
        raise InputError(f"{where}: {name} has {count} parameters, not {len(parameters)}; export the model again")
    if not (min(width_px, height_px) >= 1 and max(width_px, height_px) <= _LARGEST_PICTURE_PX):
        raise InputError(f"{where}: a picture of {width_px:g}x{height_px:g} pixels is impossible; export it again")
    values = [finite(value, f"{where}: a parameter of {name}", -1e9, 1e9) for value in parameters]
    fx, fy, cx, cy, *rest = [values[0], *values] if model in _ONE_FOCAL_LENGTH else values
    if min(fx, fy) <= 0:
        raise InputError(f"{where}: the focal length is not positive; export the model again")
    if any(abs(k) > _STRONGEST for k in rest):
        raise InputError(f"{where}: a distortion coefficient is beyond {_STRONGEST:g}; export the model again")
    return Lens(width_px, height_px, fx, fy, cx, cy, _distortion(model, rest))


def opencv_pose(R_camera_world: Float[ndarray, "3 3"], t: Float[ndarray, "3"]) -> Float[ndarray, "4 4"]:
    """T_world_camera (OpenGL) of an OpenCV world-to-camera rotation and translation."""
    T = np.eye(4)
    T[:3, :3] = R_camera_world.T * [1, -1, -1]
    T[:3, 3] = -R_camera_world.T @ t
    return T


def _distortion(model: int, k: list[float]) -> Distortion:
    match model:
        case 2 | 3:
            return Brown(tuple(k))
        case 4:
            return Brown((k[0], k[1]), tangential=(k[2], k[3]))
        case 5 | 8 | 9 | 14 | 15:
            return Brown(tuple(k), fisheye=True)
        case 6:
            return Brown((k[0], k[1], k[4]), (k[5], k[6], k[7]), (k[2], k[3]))
        case 7:
            return FieldOfView(k[0])
        case 10:
            return Brown((k[0], k[1], k[4], k[5]), (), (k[2], k[3]), (k[6], k[7]), fisheye=True)
        case 11:
            return RadTanThinPrism(tuple(k[:6]), (k[6], k[7]), (k[8], k[9], k[10], k[11]))
        case 12 | 13:
            return Division(k[0])
        case 16:
            return EnhancedUnified(k[0], k[1])
        case _:
            return Brown()


def _is_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}.{suffix}").is_file() for name in ("cameras", "images")) for suffix in ("bin", "txt")
    )


def _depth_beside(roots: list[Path], name: str) -> DepthFile | None:
    """The dense map of a picture in a workspace that COLMAP's stereo has worked in."""
    for root in roots:
        for kind in ("geometric", "photometric"):
            path = neighbour(root / "stereo" / "depth_maps", f"{name}.{kind}.bin", "a map of depths")
            if path.is_file():
                return DepthFile(path, 1.0)
    return None


def _images_file(model: Path) -> Path:
    return model / ("images.bin" if (model / "images.bin").is_file() else "images.txt")


class _Bytes:
    """Little-endian numbers out of bytes, never beyond their end."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.content = read_untrusted(path, _MAX_BYTES, "a COLMAP model")

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        if self.at + layout.size > len(self.content):
            raise self.damaged()
        values = layout.unpack_from(self.content, self.at)
        self.at += layout.size
        return values

    def skip(self, count: int) -> None:
        if count > len(self.content) - self.at:
            raise self.damaged()
        self.at += count

    def text(self) -> str:
        end = self.content.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise self.damaged()
        name = self.content[self.at : end].decode("utf-8", "surrogateescape")
        self.at = end + 1
        return name

    def count(self, least_size: int) -> int:
        """A number of records that each take at least so many bytes."""
        (count,) = self.take(_U64)
        if count * least_size > len(self.content) - self.at:
            raise self.damaged()
        return int(count)

    def damaged(self) -> InputError:
        return InputError(f"{self.path}: breaks off or is damaged; export the model again")


_U64 = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I4d3dI")
_POINT = struct.Struct("<Q3d3Bd")
_FEATURE_BYTES, _TRACK_BYTES = 24, 8


def _read_cameras_bin(path: Path) -> dict[int, Lens]:
    file = _Bytes(path)
    lenses = {}
    for _ in range(_bounded(file.count(_CAMERA.size), path)):
        number, model, width_px, height_px = file.take(_CAMERA)
        where = f"{path}: camera {number}"
        _, count = _MODELS.get(int(model), ("", 0))
        parameters = file.take(struct.Struct(f"<{count}d"))
        lenses[int(number)] = colmap_lens(int(model), float(width_px), float(height_px), parameters, where)
    return lenses


def _read_images_bin(path: Path) -> list[ColmapImage]:
    file = _Bytes(path)
    images = []
    for _ in range(_bounded(file.count(_IMAGE.size + 9), path)):
        _, *pose, camera = file.take(_IMAGE)
        w, x, y, z, t0, t1, t2 = pose
        images.append(ColmapImage((w, x, y, z), (t0, t1, t2), int(camera), file.text()))
        file.skip(file.count(_FEATURE_BYTES) * _FEATURE_BYTES)
    return images


def _read_points_bin(path: Path) -> Float[ndarray, "points 3"]:
    file = _Bytes(path)
    points = []
    for _ in range(_bounded(file.count(_POINT.size + 8), path, _MAX_POINTS)):
        points.append(file.take(_POINT)[1:4])
        file.skip(file.count(_TRACK_BYTES) * _TRACK_BYTES)
    return _finite_points(points)


def _lines(path: Path) -> Iterator[str]:
    """Lines that are no comments, without their ends."""
    for line in read_untrusted(path, _MAX_TEXT_BYTES, "a COLMAP model").decode("utf-8", "surrogateescape").split("\n"):
        if not line.startswith("#"):
            yield line.strip()


def _read_cameras_txt(path: Path) -> dict[int, Lens]:
    numbers = {name: number for number, (name, _) in _MODELS.items()} | {name: n for n, name in _SPHERES.items()}
    lenses: dict[int, Lens] = {}
    for line in filter(None, _lines(path)):
        words = line.split()
        if len(words) < 4:
            raise InputError(f"{path}: {printable(line)[:80]!r} is no camera; export the model again")
        camera, where = _integer(words[0], path), f"{path}: camera {printable(words[0])[:20]}"
        if words[1] not in numbers:
            raise InputError(
                f"{where}: camera model {printable(words[1])[:40]} is unknown; export it as OPENCV or PINHOLE"
            )
        width_px, height_px, *parameters = _numbers(words[2:], path)
        lenses[camera] = colmap_lens(numbers[words[1]], width_px, height_px, tuple(parameters), where)
        _bounded(len(lenses), path)
    return lenses


def _read_images_txt(path: Path) -> list[ColmapImage]:
    images: list[ColmapImage] = []
    lines = _lines(path)
    for line in lines:
        if not line:
            continue
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise InputError(f"{path}: {printable(line)[:80]!r} is no image; export the model again")
        w, x, y, z, t0, t1, t2 = _numbers(words[1:8], path)
        images.append(ColmapImage((w, x, y, z), (t0, t1, t2), _integer(words[8], path), words[9]))
        _bounded(len(images), path)
        next(lines, None)  # its features, perhaps none
    return images


def _read_points_txt(path: Path) -> Float[ndarray, "points 3"]:
    points: list[tuple[float, ...]] = []
    for line in filter(None, _lines(path)):
        x, y, z, *_ = [*_numbers(line.split(maxsplit=4)[1:4], path), 0.0, 0.0, 0.0]
        points.append((x, y, z))
        _bounded(len(points), path, _MAX_POINTS)
    return _finite_points(points)


def _finite_points(points: list[tuple[float, ...]]) -> Float[ndarray, "points 3"]:
    table = np.array(points, np.float64).reshape(-1, 3)
    return table[np.isfinite(table).all(axis=1)]


def _numbers(words: list[str], path: Path) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(
            f"{path}: {printable(' '.join(words))[:80]!r} are no numbers; export the model again"
        ) from None


def _integer(word: str, path: Path) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 12):
        raise InputError(f"{path}: {printable(word)[:40]!r} is no number of a camera; export the model again")
    return int(word)


def _bounded(count: int, path: Path, most: int = MAX_CAMERAS) -> int:
    if count > most:
        raise InputError(f"{path}: holds {count} records, more than {most}; leave some out")
    return count
