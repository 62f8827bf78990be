"""InstantMesh's cameras.npz: an array ``cam_poses``."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.capture.camera_files.posed_files import MAX_CAMERA_FILE_BYTES, pose_table
from meshwright.errors import InputError
from meshwright.untrusted import read_untrusted


def read_npz_poses(path: Path) -> Float[ndarray, "views rows 4"]:
    content = read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a camera file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if "cam_poses.npy" not in archive.namelist():
                raise InputError(f"{path}: holds no array cam_poses; add it")
            if sum(member.file_size for member in archive.infolist()) > MAX_CAMERA_FILE_BYTES:
                raise InputError(f"{path}: unpacks to more than {MAX_CAMERA_FILE_BYTES >> 20} MiB; no camera file")
            array = archive.read("cam_poses.npy")
        check_npy(array)
        return pose_table(np.load(io.BytesIO(array), allow_pickle=False), path)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them trip over
        raise InputError(f"{path}: cannot be read; write it again with numpy.savez") from error


def check_npy(content: bytes) -> None:
    """The array must have the bytes that its header claims, before numpy makes room for them."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError("an array that is larger than its file")
