"""InstantMesh's cameras.npz: an array ``cam_poses``."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.capture.camera_files.posed_files import MAX_CAMERA_FILE_BYTES, pose_table
from meshwright.errors import InputError


def read_npz_poses(path: Path) -> Float[ndarray, "views rows 4"]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_CAMERA_FILE_BYTES:
                raise InputError(f"{path}: unpacks to more than {MAX_CAMERA_FILE_BYTES >> 20} MiB; no camera file")
        with np.load(path, allow_pickle=False) as arrays:
            if "cam_poses" not in arrays:
                raise InputError(f"{path}: holds no array cam_poses; add it")
            return pose_table(arrays["cam_poses"], path)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them trip over
        raise InputError(f"{path}: cannot be read; write it again with numpy.savez") from error
