"""transforms.json of NeRF in its dialects: Blender, instant-ngp, nerfstudio."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import focal_from_fov, rigid
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, DepthFile, PosedFiles, PosedPicture, fitted
from meshwright.capture.lens import Brown, Lens
from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES, image_size
from meshwright.untrusted import finite, neighbour

_LARGEST_PICTURE_PX = 1e6
_DEPTH_UNIT = (1e-9, 1e6)  # world units a step
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_STRONGEST = 1e6  # coefficient; larger ones are no numbers that anyone measured


def read_transforms(content: Any, path: Path) -> PosedFiles:
    """Frames of a parsed transforms.json that stands at ``path``.

    Raises:
        InputError: a picture, matrix or number in it cannot be used.
    """
    content = content if isinstance(content, dict) else {}
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path}: holds no list of frames, nor views of Meshroom or OpenMVG; give another file")
    if len(frames) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} frames; leave some out")
    stated_unit = content.get("depth_unit_scale_factor")
    unit = 1e-3 if stated_unit is None else finite(stated_unit, f"{path}: depth_unit_scale_factor", *_DEPTH_UNIT)
    pictures = []
    for number, frame in enumerate(frames):
        where = f"{path}: frame {number}"
        picture = _picture_path(path.parent, frame.get("file_path"), where)
        pose = _pose(frame.get("transform_matrix"), where)
        lens = _lens({**content, **frame}, frame, picture, where)
        mask = _companion(path.parent, frame, "mask_path", where)
        depth = _companion(path.parent, frame, "depth_file_path", where)
        depth_file = None if depth is None else DepthFile(depth, unit)
        pictures.append(fitted(PosedPicture(picture, pose, lens, mask, depth_file), where))
    return PosedFiles(tuple(pictures), "transforms.json")


def _number(owner: dict[str, Any], name: str, where: object) -> float | None:
    value = owner.get(name)
    if value is None:
        return None
    return finite(value, f"{where}: {name}")


def _picture_path(folder: Path, name: object, where: str) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{where}: has no file_path; add it")
    path = neighbour(folder, name, f"{where}: its picture")
    if path.is_file():
        return path
    if path.suffix.lower() not in PICTURE_SUFFIXES:  # Blender's dialect leaves the suffix out
        for suffix in sorted(PICTURE_SUFFIXES):
            if Path(f"{path}{suffix}").is_file():
                return Path(f"{path}{suffix}")
    raise InputError(f"{where}: there is no picture {path}; correct file_path or add the file")


def _companion(folder: Path, frame: dict[str, Any], key: str, where: str) -> Path | None:
    name = frame.get(key)
    if name is None:
        return None
    path = neighbour(folder, name, f"{where}: {key}")
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path} for {key}; correct it or leave {key} out")
    return path


def _pose(matrix: object, where: str) -> Float[ndarray, "4 4"]:
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if values.shape not in ((3, 4), (4, 4)):
        raise InputError(f"{where}: transform_matrix is not a 4x4 matrix of numbers; correct it")
    return rigid(values, where)


def _lens(merged: dict[str, Any], frame: dict[str, Any], picture: Path, where: str) -> Lens:
    """What a frame says goes before what the file says."""
    real_height_px, real_width_px = image_size(picture)
    width_px, height_px = _number(merged, "w", where), _number(merged, "h", where)
    width_px = float(real_width_px) if width_px is None else width_px
    height_px = float(real_height_px) if height_px is None else height_px
    if not (min(width_px, height_px) >= 1 and max(width_px, height_px) <= _LARGEST_PICTURE_PX):
        raise InputError(f"{where}: {width_px:g}x{height_px:g} pixels are impossible; correct width and height")
    owner = next((owner for owner in (frame, merged) if "fl_x" in owner or "camera_angle_x" in owner), {})
    focal_x_px, focal_y_px = _number(owner, "fl_x", where), _number(owner, "fl_y", where)
    if focal_x_px is None:
        angle_x_rad, angle_y_rad = _number(owner, "camera_angle_x", where), _number(owner, "camera_angle_y", where)
        if angle_x_rad is None:
            raise InputError(f"{where}: has neither camera_angle_x nor fl_x; add one of them")
        focal_x_px = width_px * _focal_from_angle(angle_x_rad, where)
        focal_y_px = None if angle_y_rad is None else height_px * _focal_from_angle(angle_y_rad, where)
    if focal_y_px is None:
        focal_y_px = focal_x_px  # square pixels
    if min(focal_x_px, focal_y_px) <= 0:
        raise InputError(f"{where}: the focal length is not positive; correct it")
    cx_px, cy_px = _number(merged, "cx", where), _number(merged, "cy", where)
    cx_px = width_px / 2 if cx_px is None else cx_px
    cy_px = height_px / 2 if cy_px is None else cy_px
    return Lens(width_px, height_px, focal_x_px, focal_y_px, cx_px, cy_px, _distortion(merged, where))


def _distortion(merged: dict[str, Any], where: str) -> Brown:
    """OpenCV's coefficients; as in nerfstudio, k1 to k4 of the model OPENCV are those of one polynomial."""
    model = str(merged.get("camera_model", "OPENCV"))[:40].upper()
    if "EQUIRECT" in model or "ORTHO" in model or "VR180" in model or "OMNI" in model:
        raise InputError(f"{where}: camera model {model} is neither a pinhole nor a fisheye; give other pictures")
    fisheye = "FISHEYE" in model or bool(merged.get("is_fisheye"))
    k1, k2, k3, k4, p1, p2 = (
        finite(merged.get(name) or 0, f"{where}: {name}", -_STRONGEST, _STRONGEST) for name in _DISTORTION
    )
    radial = (k1, k2, k3, k4)
    return Brown(radial if any(radial) else (), tangential=(p1, p2), fisheye=fisheye)


def _focal_from_angle(angle_rad: float, where: str) -> float:
    if not 1e-3 < angle_rad < math.pi - 1e-3:
        raise InputError(f"{where}: a camera angle of {angle_rad:g} rad is impossible; correct it")
    return focal_from_fov(math.degrees(angle_rad))
