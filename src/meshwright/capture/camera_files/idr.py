"""cameras_sphere.npz (or cameras.npz) of DTU and BlendedMVS as IDR and NeuS have them: image/ and mask/ beside it.

``world_mat_0`` ... are 4x4 projections K [R | t] of the world to pixels, whose centres are whole numbers there;
``scale_mat_i`` would shrink the world to the unit sphere and is not needed: the object's frame is found anew.
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import rq

from meshwright.cameras import CV_TO_GL, rigid
from meshwright.capture.camera_files.beside import with_missing_noted
from meshwright.capture.camera_files.instantmesh import check_npy
from meshwright.capture.camera_files.posed_files import (
    MAX_CAMERA_FILE_BYTES,
    MAX_CAMERAS,
    PosedFiles,
    PosedPicture,
    fitted,
)
from meshwright.capture.lens import Brown, Lens
from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES, image_size
from meshwright.untrusted import read_untrusted

_PICTURE_FOLDERS, _MASK_FOLDERS = ("image", "images", "rgb"), ("mask", "masks")


def is_idr(path: Path) -> bool:
    """Whether an .npz holds world_mat_0."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a camera file"))) as archive:
            return "world_mat_0.npy" in archive.namelist()
    except (InputError, zipfile.BadZipFile, OSError, ValueError):
        return False


def read_idr(path: Path) -> PosedFiles:
    """Pictures and masks in the order of their names, with the cameras of the same number.

    Raises:
        InputError: damaged, a matrix that is no camera, or pictures without one.
    """
    matrices = _matrices(path)
    folder = next((path.parent / name for name in _PICTURE_FOLDERS if (path.parent / name).is_dir()), None)
    pictures = [] if folder is None else _pictures(folder)
    if not pictures:
        raise InputError(f"{path.parent}: holds no folder image with pictures; add it")
    mask_folder = next((path.parent / name for name in _MASK_FOLDERS if (path.parent / name).is_dir()), None)
    masks = [] if mask_folder is None else _pictures(mask_folder)
    if masks and len(masks) != len(pictures):
        raise InputError(f"{mask_folder}: holds {len(masks)} masks for {len(pictures)} pictures; add the missing ones")
    if len(matrices) < len(pictures):
        raise InputError(f"{path}: holds {len(matrices)} cameras for {len(pictures)} pictures; add the missing ones")
    posed = []
    for number, picture in enumerate(pictures):
        where = f"{path}: world_mat_{number}"
        if number not in matrices:
            raise InputError(f"{where} is missing; add it")
        height_px, width_px = image_size(picture, upright=False)
        T, lens = _decomposed(matrices[number][:3], float(width_px), float(height_px), where)
        mask = masks[number] if masks else None
        posed.append(fitted(PosedPicture(picture, T, lens, mask, stored=True), where))
    return PosedFiles(tuple(posed), "DTU / BlendedMVS cameras (IDR, NeuS)", with_missing_noted(posed, (), path))


def _matrices(path: Path) -> dict[int, Float[ndarray, "4 4"]]:
    content = read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a camera file")
    found: dict[int, Float[ndarray, "4 4"]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_CAMERA_FILE_BYTES:
                raise InputError(f"{path}: unpacks to more than {MAX_CAMERA_FILE_BYTES >> 20} MiB; no camera file")
            for member in archive.namelist():
                number = member.removeprefix("world_mat_").removesuffix(".npy")
                if member == f"world_mat_{number}.npy" and number.isascii() and number.isdecimal() and len(number) < 7:
                    array = archive.read(member)
                    check_npy(array)
                    found[int(number)] = np.asarray(np.load(io.BytesIO(array), allow_pickle=False), np.float64)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them trip over
        raise InputError(f"{path}: cannot be read; write it again with numpy.savez") from error
    if len(found) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} cameras; leave some out")
    for index, matrix in found.items():
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.abs(matrix).max() > 1e12:
            raise InputError(f"{path}: world_mat_{index} is no 4x4 matrix of numbers; correct it")
    return found


def _decomposed(
    P: Float[ndarray, "3 4"], width_px: float, height_px: float, where: str
) -> tuple[Float[ndarray, "4 4"], Lens]:
    """T_world_camera (OpenGL) and the lens of a projection matrix, whatever its scale and sign."""
    M = P[:, :3]
    if abs(np.linalg.det(M)) <= 1e-12 * max(np.abs(M).max(), 1e-300) ** 3:
        raise InputError(f"{where}: is no projection of a camera; correct it")
    K, R = rq(M)
    signs = np.where(np.diag(K) < 0, -1.0, 1.0)  # focal lengths are positive, and so is K's last entry
    K, R = K * signs, signs[:, None] * R
    if np.linalg.det(R) < 0:  # the projection came with the other sign
        R = -R
    K = K / K[2, 2]
    center = -np.linalg.solve(M, P[:, 3])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R.T, center
    fx, fy, cx, cy, skew = K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, K[0, 1]
    if not all(map(math.isfinite, (fx, fy, cx, cy, skew))):
        raise InputError(f"{where}: is no projection of a camera; correct it")
    skew = 0.0 if abs(skew) < 1e-4 * fx else float(skew)  # what is left of rounding
    return rigid(T, where) @ CV_TO_GL, Lens(
        width_px, height_px, float(fx), float(fy), float(cx), float(cy), Brown(), skew
    )


def _pictures(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()]
    return sorted(file for file in files if not file.name.startswith("."))
