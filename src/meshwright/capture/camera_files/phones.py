"""What scan apps of phones export, posed by ARKit: Polycam, Record3D and 3D Scanner App.

ARKit's cameras are OpenGL's (x right, y up, looking along -z) in a world whose y is up, along gravity, in metres; poses
are of the sensor's picture, which lies on its side when the phone was held upright.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from meshwright.cameras import rigid
from meshwright.capture.camera_files.beside import mask_beside, pictures_by_label, with_missing_noted
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, DepthFile, PosedFiles, PosedPicture, fitted
from meshwright.capture.lens import Lens
from meshwright.errors import InputError
from meshwright.images import image_size
from meshwright.untrusted import MIB, finite, parse_json, printable, read_untrusted

UP = np.array([0.0, 1.0, 0.0])  # against gravity, in ARKit's world
_MAX_BYTES = 16 * MIB
_MILLIMETRE = 1e-3


def find_polycam(folder: Path) -> Path | None:
    """The folder ``keyframes`` of Polycam's raw export (developer mode), or None."""
    for place in (folder / "keyframes", folder):
        if any((place / name).is_dir() for name in ("corrected_cameras", "cameras")) and any(
            (place / name).is_dir() for name in ("corrected_images", "images")
        ):
            return place
    return None


def read_polycam(keyframes: Path) -> PosedFiles:
    """Pictures of Polycam with the cameras that its bundle adjustment corrected, where there are any, and depths.

    Raises:
        InputError: a camera cannot be used, or no picture is there.
    """
    corrected = (keyframes / "corrected_cameras").is_dir() and (keyframes / "corrected_images").is_dir()
    prefix = "corrected_" if corrected else ""
    by_label = pictures_by_label([keyframes / f"{prefix}images"])
    depths = pictures_by_label([keyframes / "depth"])
    pictures, missing = [], []
    for file in _json_files(keyframes / f"{prefix}cameras"):
        content = _read_object(file)
        picture = by_label.get(file.stem.lower())
        if picture is None:
            missing.append(file.stem)
            continue
        rows = [[_number(content, f"t_{i}{j}", file) for j in range(4)] for i in range(3)]
        width_px, height_px = (_number(content, side, file, 1.0, 1e6) for side in ("width", "height"))
        fx, fy, cx, cy = (_number(content, name, file) for name in ("fx", "fy", "cx", "cy"))
        depth = depths.get(file.stem.lower())
        pictures.append(
            _posed(
                picture,
                rigid(np.array(rows), str(file)),
                _lens(width_px, height_px, fx, fy, cx, cy, file),
                mask_beside([keyframes / "masks"], picture.name),
                None if depth is None else DepthFile(depth, _MILLIMETRE),
                file,
            )
        )
    kind = "Polycam keyframes, corrected" if corrected else "Polycam keyframes"
    return PosedFiles(tuple(pictures), kind, with_missing_noted(pictures, missing, keyframes), up=UP)


def is_record3d(folder: Path) -> bool:
    return (folder / "rgb").is_dir() and any((folder / name).is_file() for name in ("metadata.json", "metadata"))


def read_record3d(folder: Path) -> PosedFiles:
    """Record3D's export "EXR + JPG sequence": rgb/0.jpg ..., depth/0.exr or .png, metadata.json.

    K is written column by column, poses as (qx, qy, qz, qw, x, y, z).

    Raises:
        InputError: something in it cannot be used, or no picture is there.
    """
    path = next(folder / name for name in ("metadata.json", "metadata") if (folder / name).is_file())
    content = _read_object(path)
    poses = content.get("poses")
    if not isinstance(poses, list) or not poses or len(poses) > MAX_CAMERAS:
        raise InputError(f"{path}: holds no list of poses; export it again")
    width_px, height_px = (_number(content, side, path, 1.0, 1e6) for side in ("w", "h"))
    K = _table(content.get("K"), (9,), f"{path}: K")
    each = content.get("perFrameIntrinsicCoeffs")
    by_label, depths = pictures_by_label([folder / "rgb"]), _depth_files(folder / "depth")
    pictures, missing = [], []
    for number, pose in enumerate(poses):
        where = f"{path}: pose {number}"
        picture = by_label.get(str(number))
        if picture is None:
            missing.append(f"{number}.jpg")
            continue
        values = _table(pose, (7,), where)
        if not 0.5 < np.linalg.norm(values[:4]) < 2:
            raise InputError(f"{where}: is no rotation and position; export it again")
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(values[:4]).as_matrix(), values[4:]
        fx, fy, cx, cy = K[0], K[4], K[6], K[7]
        if isinstance(each, list) and len(each) == len(poses) and isinstance(each[number], list):
            fx, fy, cx, cy = _table(each[number][:4], (4,), f"{where}: its intrinsics")
        depth = depths.get(number)
        pictures.append(
            _posed(
                picture,
                T,
                _lens(width_px, height_px, fx, fy, cx, cy, path),
                mask_beside([folder / "masks"], picture.name),
                depth,
                path,
            )
        )
    return PosedFiles(tuple(pictures), "Record3D", with_missing_noted(pictures, missing, path), up=UP)


def is_scanner_app(folder: Path) -> bool:
    return any(_FRAME.fullmatch(file.name) for file in folder.glob("frame_*.json"))


def read_scanner_app(folder: Path) -> PosedFiles:
    """3D Scanner App's "All data": frame_00000.jpg and .json with cameraPoseARFrame and intrinsics, depth_00000.png.

    Raises:
        InputError: a camera cannot be used, or no picture is there.
    """
    by_label = pictures_by_label([folder])
    pictures, missing = [], []
    for file in _json_files(folder):
        found = _FRAME.fullmatch(file.name)
        if found is None:
            continue
        content = _read_object(file)
        picture = by_label.get(file.stem.lower())
        if picture is None:  # the app keeps poses of frames whose pictures it dropped
            missing.append(file.stem)
            continue
        T = _table(content.get("cameraPoseARFrame"), (16,), f"{file}: cameraPoseARFrame").reshape(4, 4)
        K = _table(content.get("intrinsics"), (9,), f"{file}: intrinsics")
        height_px, width_px = _size(picture)
        depth = by_label.get(f"depth_{found[1]}")
        pictures.append(
            _posed(
                picture,
                rigid(T, str(file)),
                _lens(width_px, height_px, K[0], K[4], K[2], K[5], file),
                mask_beside([folder / "masks"], picture.name),
                None if depth is None else DepthFile(depth, _MILLIMETRE),
                file,
            )
        )
    return PosedFiles(tuple(pictures), "3D Scanner App (ARKit)", with_missing_noted(pictures, missing, folder), up=UP)


_FRAME = re.compile(r"frame_(\d{1,9})\.json")


def _posed(
    picture: Path, T: Float[ndarray, "4 4"], lens: Lens, mask: Path | None, depth: DepthFile | None, where: Path
) -> PosedPicture:
    return fitted(PosedPicture(picture, T, lens, mask, depth, stored=True), str(where))


def _lens(width_px: float, height_px: float, fx: float, fy: float, cx: float, cy: float, where: Path) -> Lens:
    if min(fx, fy) <= 0:
        raise InputError(f"{where}: the focal length is not positive; export it again")
    return Lens(width_px, height_px, float(fx), float(fy), float(cx), float(cy))


def _size(picture: Path) -> tuple[float, float]:
    height_px, width_px = image_size(picture, upright=False)
    return float(height_px), float(width_px)


def _json_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".json" and file.is_file())
    if len(files) > MAX_CAMERAS:
        raise InputError(f"{folder}: holds more than {MAX_CAMERAS} cameras; leave some out")
    return files


def _depth_files(folder: Path) -> dict[int, DepthFile]:
    """Depths by number: .exr in metres, .png in millimetres."""
    found: dict[int, DepthFile] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.stem.isascii() and file.stem.isdecimal() and len(file.stem) < 10 and file.is_file():
            if file.suffix.lower() in (".exr", ".tif", ".tiff"):
                found[int(file.stem)] = DepthFile(file, 1.0)
            elif file.suffix.lower() == ".png":
                found[int(file.stem)] = DepthFile(file, _MILLIMETRE)
    return found


def _read_object(path: Path) -> dict[str, Any]:
    content = parse_json(read_untrusted(path, _MAX_BYTES, "a camera file"), path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no JSON object; export it again")
    return content


def _number(content: dict[str, Any], name: str, path: Path, low: float = -1e12, high: float = 1e12) -> float:
    return finite(content.get(name), f"{path}: {printable(name)}", low, high)


def _table(value: object, shape: tuple[int, ...], where: str) -> Float[ndarray, " numbers"]:
    try:
        table = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        table = np.empty(0)
    if table.shape != shape or not np.isfinite(table).all() or np.abs(table).max() > 1e12:
        raise InputError(f"{where} is no list of {shape[0]} numbers; export it again")
    return table
