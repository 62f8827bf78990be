"""Camera files beside pictures: transforms.json in its dialects, and the layouts of published training sets."""

import io
import json
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import Cameras, focal_from_fov
from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES, image_size
from meshwright.untrusted import read_untrusted

_MAX_CAMERA_FILE_BYTES = 64 * 2**20
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_TRAINING_FOV_DEG = 50.0


@dataclass(frozen=True)
class DepthFile:
    """A depth picture, and how many world units one of its steps is."""

    path: Path
    unit: float


@dataclass(frozen=True, eq=False)
class PosedFiles:
    """Picture files with the cameras of their full extent, one each."""

    pictures: tuple[Path, ...]
    cameras: Cameras
    masks: tuple[Path | None, ...]
    depths: tuple[DepthFile | None, ...]
    assumptions: tuple[str, ...] = ()


def find_camera_file(folder: Path) -> Path | None:
    """The file in ``folder`` that holds the cameras, or None."""
    for name in ("transforms.json", "transforms_train.json", "cameras.npz", "meta.pkl"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_posed(path: Path, fov_deg: float | None = None) -> PosedFiles:
    """Read a camera file: transforms.json, cameras.npz or meta.pkl.

    ``fov_deg`` is the vertical field of view of layouts that do not hold one (default 50, as published).

    Raises:
        InputError: unreadable, or a camera, picture or number in it cannot be used.
    """
    if path.stat().st_size > _MAX_CAMERA_FILE_BYTES:
        raise InputError(f"{path}: larger than {_MAX_CAMERA_FILE_BYTES >> 20} MiB; this is no camera file")
    if path.suffix == ".json":
        return _read_transforms(path)
    poses = _poses_from_npz(path) if path.suffix == ".npz" else _poses_from_pickle(path)
    return _training_layout(path, poses, _TRAINING_FOV_DEG if fov_deg is None else fov_deg)


# --- transforms.json -------------------------------------------------------------------------------------------------


def _read_transforms(path: Path) -> PosedFiles:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}); write it again") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path}: holds no list of frames; it must be a NeRF transforms.json")
    model = str(content.get("camera_model", "OPENCV")).upper()
    if "FISHEYE" in model or "EQUIRECT" in model:
        raise InputError(f"{path}: camera model {model} is not a pinhole; undistort the pictures first")
    unit = _number(content, "depth_unit_scale_factor", path) or 1e-3
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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{where}: {name} is not a finite number; correct it")
    return float(value)


def _picture_path(folder: Path, name: object, where: str) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{where}: has no file_path; add it")
    path = folder / name
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
    if not isinstance(name, str) or not (folder / name).is_file():
        raise InputError(f"{where}: there is no file {name!r} for {key}; correct it or leave {key} out")
    return folder / name


def _pose(matrix: object, where: str) -> Float[ndarray, "4 4"]:
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if values.shape not in ((3, 4), (4, 4)):
        raise InputError(f"{where}: transform_matrix is not a 4x4 matrix of numbers; correct it")
    return _rigid(values, where)


def _rigid(matrix: Float[ndarray, "rows 4"], where: str) -> Float[ndarray, "4 4"]:
    """Check a 3x4 or 4x4 rigid motion and remove its rounding: the nearest rotation (polar decomposition)."""
    if not np.isfinite(matrix).all():
        raise InputError(f"{where}: the camera matrix holds NaN or infinity; correct it")
    R = matrix[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 0.02 or np.linalg.det(R) < 0:
        raise InputError(f"{where}: the camera matrix is not a rotation and a position; remove scale and mirroring")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{where}: the camera matrix does not end in the row 0 0 0 1; correct it")
    left, _, right = np.linalg.svd(R)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = left @ right, matrix[:3, 3]
    return rigid


def _intrinsics(content: dict[str, Any], frame: dict[str, Any], picture: Path, where: str) -> list[float]:
    """(fx, fy, cx, cy) divided by the picture's sides. What a frame says goes before what the file says."""
    merged = {**content, **frame}
    real_height_px, real_width_px = image_size(picture)
    width_px, height_px = _number(merged, "w", where), _number(merged, "h", where)
    width_px = real_width_px if width_px is None else width_px
    height_px = real_height_px if height_px is None else height_px
    if min(width_px, height_px) <= 0 or abs(width_px * real_height_px / (height_px * real_width_px) - 1) > 0.01:
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


# --- Published training layouts: NNN.png with a table of poses -------------------------------------------------------


def read_training_cameras(path: Path) -> tuple[Float[ndarray, "views 4 4"], Float[ndarray, "3 3"] | None]:
    """T_world_camera of a published training set's cameras.npz or meta.pkl, and its K in pixels (meta.pkl).

    Raises:
        InputError: unreadable, or a matrix in it cannot be used.
    """
    K = None
    if path.suffix == ".npz":
        poses = _poses_from_npz(path)
    else:
        poses = _poses_from_pickle(path)
        content = unpickle_numbers(path)
        try:
            K = np.asarray(_unwrapped(content[0] if isinstance(content, (list, tuple)) else content["K"]), np.float64)
        except (LookupError, TypeError, ValueError):
            K = np.zeros(0)
        if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise InputError(f"{path}: K is not a 3x3 matrix with focal lengths; correct it")
    T = np.stack([_rigid(pose, f"{path}: camera {number}") for number, pose in enumerate(poses)])
    return _opengl_camera_to_world(T)[0], K


def unpickle_numbers(path: Path) -> Any:
    """A pickle of numbers, strings, containers and arrays of numbers; nothing in it is run.

    Raises:
        InputError: it holds anything else.
    """
    try:
        return _NumbersOnly(io.BytesIO(read_untrusted(path, _MAX_CAMERA_FILE_BYTES, "a pickle of numbers"))).load()
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path}: is no pickle of numbers ({type(error).__name__}); write it again") from None


def _training_layout(path: Path, poses: Float[ndarray, "views rows 4"], fov_deg: float) -> PosedFiles:
    pictures = sorted(file for file in path.parent.iterdir() if file.suffix == ".png" and file.stem.isdigit())
    if not pictures:
        raise InputError(f"{path.parent}: holds no pictures named 000.png, 001.png ...; add them")
    numbers = [int(picture.stem) for picture in pictures]
    if max(numbers) >= len(poses):
        raise InputError(f"{path}: holds {len(poses)} cameras, too few for {pictures[-1].name}; add the missing ones")
    T = np.stack([_rigid(poses[number], f"{path}: camera {number}") for number in numbers])
    T_world_camera, convention = _opengl_camera_to_world(T)
    focal = focal_from_fov(fov_deg)
    intrinsics = torch.tensor([[focal, focal, 0.5, 0.5]]).repeat(len(pictures), 1)
    none = (None,) * len(pictures)
    said = f"cameras are {convention} matrices (so they look at the object); field of view {fov_deg:g} deg"
    cameras = Cameras(torch.from_numpy(T_world_camera).float(), intrinsics)
    return PosedFiles(tuple(pictures), cameras, none, none, (said,))


def _opengl_camera_to_world(T: Float[ndarray, "views 4 4"]) -> tuple[Float[ndarray, "views 4 4"], str]:
    """Tell world-to-camera from camera-to-world and OpenGL from OpenCV: right is what looks at the object.

    The published sets hold OpenGL world-to-camera matrices; sets made with other scripts use the same file names
    for the other three. Each view's object is at the world's origin, so exactly one reading has it in front.
    """
    inverse = np.linalg.inv(T)
    cv_to_gl = np.diag([1.0, -1.0, -1.0, 1.0])
    readings = {
        "OpenGL world-to-camera": inverse,
        "OpenGL camera-to-world": T,
        "OpenCV world-to-camera": inverse @ cv_to_gl,
        "OpenCV camera-to-world": T @ cv_to_gl,
    }
    centred = {name: _origin_centred(T_world_camera) for name, T_world_camera in readings.items()}
    best = max(centred, key=lambda name: centred[name])
    return readings[best], best


def _origin_centred(T_world_camera: Float[ndarray, "views 4 4"]) -> float:
    """Mean cosine between the viewing axes and the directions to the origin."""
    positions, backward = T_world_camera[:, :3, 3], T_world_camera[:, :3, 2]
    distances = np.linalg.norm(positions, axis=1)
    return float(((positions * backward).sum(axis=1) / np.maximum(distances, 1e-9)).mean())


def _poses_from_npz(path: Path) -> Float[ndarray, "views rows 4"]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_CAMERA_FILE_BYTES:
                raise InputError(f"{path}: unpacks to more than {_MAX_CAMERA_FILE_BYTES >> 20} MiB; no camera file")
        with np.load(path, allow_pickle=False) as arrays:
            if "cam_poses" not in arrays:
                raise InputError(f"{path}: holds no array cam_poses; add it")
            return _pose_table(arrays["cam_poses"], path)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them trip over
        raise InputError(f"{path}: cannot be read; write it again with numpy.savez") from error


def _pose_table(values: object, path: Path) -> Float[ndarray, "views rows 4"]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 3 or table.shape[1:] not in ((3, 4), (4, 4)) or len(table) == 0:
        raise InputError(f"{path}: cam_poses has shape {table.shape}, not (views, 3 or 4, 4); correct it")
    return table


def _poses_from_pickle(path: Path) -> Float[ndarray, "views rows 4"]:
    """The pickled list (K, azimuths, elevations, distances, cam_poses, ...), or a dict that holds cam_poses."""
    try:
        content = _NumbersOnly(io.BytesIO(path.read_bytes())).load()
        if isinstance(content, dict):
            poses = content["cam_poses"]
        elif isinstance(content, (list, tuple)):
            poses = content[4]
        else:
            poses = content
        return _pose_table(_unwrapped(poses), path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path}: holds no camera poses that can be read; write it again") from error


class _PickledArray:
    """Stands in for numpy.ndarray while unpickling, so that no code of numpy sees hostile data."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        values = np.frombuffer(data, dtype.numpy)
        self.values = values.reshape(shape, order="F" if is_fortran else "C")


class _PickledType:
    """Stands in for numpy.dtype; knows numbers only."""

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise InputError(f"holds an array of type {code!r}, not numbers; write it again")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.numpy = self.numpy.newbyteorder(">" if state[1] == ">" else "<")


class _NumbersOnly(pickle.Unpickler):
    """An unpickler that knows numbers, containers and numpy arrays of numbers, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return lambda *_: _PickledArray()
            if name == "scalar":
                return lambda dtype, data: np.frombuffer(data, dtype.numpy)[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _pickled_buffer
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct, which needs none
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *_: _PickledType(code)
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return lambda text, _: text.encode("latin1")
        raise InputError(f"wants to run {module}.{name}, which cameras do not need; do not trust this file")


def _pickled_buffer(data: Any, dtype: _PickledType, shape: tuple[int, ...], order: str) -> _PickledArray:
    array = _PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _unwrapped(value: Any) -> Any:
    if isinstance(value, _PickledArray):
        return value.values
    return [_unwrapped(item) for item in value] if isinstance(value, (list, tuple)) else value
