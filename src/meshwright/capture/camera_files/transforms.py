"""transforms.json of NeRF in its dialects: Blender, instant-ngp, nerfstudio."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import Cameras, focal_from_fov
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, DepthFile, PosedFiles, rigid
from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES, image_size
from meshwright.untrusted import MIB, finite, neighbour, parse_json, read_untrusted

_MAX_BYTES = 16 * MIB  # objects made of JSON are many times larger
_LARGEST_PICTURE_PX = 1e6
_DEPTH_UNIT = (1e-9, 1e6)  # world units a step
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def read_transforms(path: Path) -> PosedFiles:
    content = parse_json(read_untrusted(path, _MAX_BYTES, "a camera file"), path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path}: holds no list of frames; it must be a NeRF transforms.json")
    if len(frames) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} frames; leave some out")
    model = str(content.get("camera_model", "OPENCV"))[:40].upper()
    if content.get("is_fisheye") or any(frame.get("is_fisheye") for frame in frames):
        model = "FISHEYE"
    if "FISHEYE" in model or "EQUIRECT" in model:
        raise InputError(f"{path}: camera model {model} is not a pinhole; undistort the pictures first")
    stated_unit = content.get("depth_unit_scale_factor")
    unit = 1e-3 if stated_unit is None else finite(stated_unit, f"{path}: depth_unit_scale_factor", *_DEPTH_UNIT)
    pictures, poses, intrinsics, masks, depths = [], [], [], [], []
    for number, frame in enumerate(frames):
        where = f"{path}: frame {number}"
        picture = _picture_path(path.parent, frame.get("file_path"), where)
        pictures.append(picture)
        poses.append(_pose(frame.get("transform_matrix"), where))
        intrinsics.append(_intrinsics(content, frame, picture, where))
        masks.append(_companion(path.parent, frame, "mask_path", where))
        depth = _companion(path.parent, frame, "depth_file_path", where)
        depths.append(None if depth is None else DepthFile(depth, unit))
    assumptions = []
    if any(_number(owner, name, path) for owner in (content, *frames) for name in _DISTORTION):
        assumptions.append("lens distortion is ignored; undistort the pictures for sharper results")
    cameras = Cameras(torch.from_numpy(np.stack(poses)).float(), torch.tensor(intrinsics, dtype=torch.float32))
    return PosedFiles(tuple(pictures), cameras, tuple(masks), tuple(depths), tuple(assumptions))


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


def _intrinsics(content: dict[str, Any], frame: dict[str, Any], picture: Path, where: str) -> list[float]:
    """(fx, fy, cx, cy) divided by the picture's sides. What a frame says goes before what the file says."""
    merged = {**content, **frame}
    real_height_px, real_width_px = image_size(picture)
    width_px, height_px = _number(merged, "w", where), _number(merged, "h", where)
    width_px = real_width_px if width_px is None else width_px
    height_px = real_height_px if height_px is None else height_px
    if (
        not (min(width_px, height_px) >= 1 and max(width_px, height_px) <= _LARGEST_PICTURE_PX)
        or abs(width_px * real_height_px / (height_px * real_width_px) - 1) > 0.01
    ):
        raise InputError(
            f"{where}: says {width_px:g}x{height_px:g} but {picture.name} is {real_width_px}x{real_height_px};"
            " correct w and h"
        )
    owner = next((owner for owner in (frame, content) if "fl_x" in owner or "camera_angle_x" in owner), {})
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
    cx = 0.5 if cx_px is None else cx_px / width_px
    cy = 0.5 if cy_px is None else cy_px / height_px
    return [focal_x_px / width_px, focal_y_px / height_px, cx, cy]


def _focal_from_angle(angle_rad: float, where: str) -> float:
    if not 1e-3 < angle_rad < math.pi - 1e-3:
        raise InputError(f"{where}: a camera angle of {angle_rad:g} rad is impossible; correct it")
    return focal_from_fov(math.degrees(angle_rad))
