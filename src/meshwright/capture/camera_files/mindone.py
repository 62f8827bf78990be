"""MindOne's meta.pkl: a pickled list whose fifth item holds the camera matrices."""

from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from meshwright.capture.camera_files.numbers_pickle import unpickle_numbers, without_stand_ins
from meshwright.capture.camera_files.posed_files import pose_table
from meshwright.errors import InputError


def read_pickled_poses(path: Path) -> Float[ndarray, "views rows 4"]:
    """The pickled list (K, azimuths, elevations, distances, cam_poses, ...), or a dict that holds cam_poses."""
    try:
        content = unpickle_numbers(path)
        if isinstance(content, dict):
            poses = content["cam_poses"]
        elif isinstance(content, (list, tuple)):
            poses = content[4]
        else:
            poses = content
        return pose_table(without_stand_ins(poses), path)
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path}: holds no camera poses that can be read; write it again") from error
