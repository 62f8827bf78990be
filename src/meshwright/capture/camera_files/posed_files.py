"""What a camera file says: pictures, and the cameras that took them; checks that all formats share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import Cameras
from meshwright.errors import InputError

MAX_CAMERA_FILE_BYTES = 64 * 2**20


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
    if table.ndim != 3 or table.shape[1:] not in ((3, 4), (4, 4)) or len(table) == 0:
        raise InputError(f"{path}: cam_poses has shape {table.shape}, not (views, 3 or 4, 4); correct it")
    return table
