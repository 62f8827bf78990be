"""What a camera file says: pictures, and the cameras that took them; checks that all formats share."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import Cameras
from meshwright.errors import InputError

MAX_CAMERA_FILE_BYTES = 64 * 2**20
MAX_CAMERAS = 100_000
_FOV_DEG = (0.1, 170.0)  # what a pinhole camera can be, and the work here can bear
_FARTHEST_CENTER = 10.0  # of the principal point from the picture's corner, in pictures
_FARTHEST_CAMERA = 1e9  # from the origin; beyond, squares of float32 lose the object
_FARTHEST_OF_ALL = 1e4  # from the middle of all cameras, in their median distance from it


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


def check_cameras(cameras: Cameras, path: Path) -> None:
    """Refuse cameras that no one has used: what such numbers become further down is no mesh, or no end.

    Raises:
        InputError: a field of view, principal point or position beyond all measure.
    """
    for i in range(len(cameras)):
        fx, fy, cx, cy = cameras.intrinsics[i].tolist()
        for what, focal in (("horizontal", fx), ("vertical", fy)):
            fov_deg = math.degrees(2 * math.atan(0.5 / focal)) if focal > 0 else math.nan
            if not _FOV_DEG[0] <= fov_deg <= _FOV_DEG[1]:
                raise InputError(
                    f"{path}: camera {i} has a {what} field of view of {fov_deg:.3g} degrees, not between"
                    f" {_FOV_DEG[0]:g} and {_FOV_DEG[1]:g}; correct its focal length or the size of its picture"
                )
        if not max(abs(cx), abs(cy)) <= _FARTHEST_CENTER:
            raise InputError(f"{path}: camera {i} looks past its picture; correct cx and cy")
    positions = cameras.positions.double()
    if not bool(torch.isfinite(positions).all()) or float(positions.abs().max()) > _FARTHEST_CAMERA:
        raise InputError(f"{path}: a camera is more than {_FARTHEST_CAMERA:g} from the origin; correct or rescale it")
    distances = (positions - positions.median(dim=0).values).norm(dim=1)
    if float(distances.max()) > _FARTHEST_OF_ALL * float(distances.median()) > 0:
        raise InputError(
            f"{path}: camera {int(distances.argmax())} stands {_FARTHEST_OF_ALL:g} times farther out than the others;"
            " correct or remove it"
        )


def rigid(matrix: Float[ndarray, "rows 4"], where: str) -> Float[ndarray, "4 4"]:
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


def pose_table(values: object, path: Path) -> Float[ndarray, "views rows 4"]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim and len(table) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} cameras; leave some out")
    if table.ndim != 3 or table.shape[1:] not in ((3, 4), (4, 4)) or len(table) == 0:
        raise InputError(f"{path}: cam_poses has shape {table.shape}, not (views, 3 or 4, 4); correct it")
    return table
