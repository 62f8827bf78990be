"""Published training layouts: NNN.png beside a table of camera matrices, whose convention is recognised."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import focal_from_fov, opengl_camera_to_world, rigid
from meshwright.capture.camera_files.instantmesh import read_npz_poses
from meshwright.capture.camera_files.mindone import read_pickled_poses
from meshwright.capture.camera_files.numbers_pickle import unpickle_numbers, without_stand_ins
from meshwright.capture.camera_files.posed_files import PosedFiles, PosedPicture
from meshwright.capture.lens import Lens
from meshwright.errors import InputError


def read_training_cameras(path: Path) -> tuple[Float[ndarray, "views 4 4"], Float[ndarray, "3 3"] | None]:
    """T_world_camera of a published training set's cameras.npz or meta.pkl, and its K in pixels (meta.pkl).

    Raises:
        InputError: unreadable, or a matrix in it cannot be used.
    """
    K = None
    if path.suffix == ".npz":
        poses = read_npz_poses(path)
    else:
        poses = read_pickled_poses(path)
        content = unpickle_numbers(path)
        try:
            K = np.asarray(
                without_stand_ins(content[0] if isinstance(content, (list, tuple)) else content["K"]), np.float64
            )
        except (LookupError, TypeError, ValueError):
            K = np.zeros(0)
        if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise InputError(f"{path}: K is not a 3x3 matrix with focal lengths; correct it")
    T = np.stack([rigid(pose, f"{path}: camera {number}") for number, pose in enumerate(poses)])
    return opengl_camera_to_world(T)[0], K


def read_training_layout(path: Path, poses: Float[ndarray, "views rows 4"], fov_deg: float) -> PosedFiles:
    pictures = sorted(
        file
        for file in path.parent.iterdir()
        if file.suffix == ".png" and file.stem.isascii() and file.stem.isdecimal()
    )
    if not pictures:
        raise InputError(f"{path.parent}: holds no pictures named 000.png, 001.png ...; add them")
    numbers = [int(picture.stem) for picture in pictures]
    if max(numbers) >= len(poses):
        raise InputError(f"{path}: holds {len(poses)} cameras, too few for {pictures[-1].name}; add the missing ones")
    T = np.stack([rigid(poses[number], f"{path}: camera {number}") for number in numbers])
    T_world_camera, convention = opengl_camera_to_world(T)
    focal = focal_from_fov(fov_deg)
    lens = Lens(1.0, 1.0, focal, focal, 0.5, 0.5)
    said = f"cameras are {convention} matrices (so they look at the object); field of view {fov_deg:g} deg"
    posed = tuple(PosedPicture(file, pose, lens) for file, pose in zip(pictures, T_world_camera, strict=True))
    return PosedFiles(posed, "published training set", (said,))
