"""Cameras out of files: transforms.json (NeRF), cameras.npz (InstantMesh), meta.pkl (MindOne).

`find_camera_file` finds one in a folder, `read_camera_file` reads it with the pictures beside it; each format has a
file of its own.
"""

from pathlib import Path

from meshwright.capture.camera_files.instantmesh import read_npz_poses
from meshwright.capture.camera_files.mindone import read_pickled_poses
from meshwright.capture.camera_files.numbers_pickle import unpickle_numbers
from meshwright.capture.camera_files.posed_files import DepthFile, PosedFiles, check_cameras
from meshwright.capture.camera_files.training_layout import read_training_cameras, read_training_layout
from meshwright.capture.camera_files.transforms import read_transforms

__all__ = [
    "DepthFile",
    "PosedFiles",
    "find_camera_file",
    "read_camera_file",
    "read_training_cameras",
    "unpickle_numbers",
]

_TRAINING_FOV_DEG = 50.0


def find_camera_file(folder: Path) -> Path | None:
    """The file in ``folder`` that holds the cameras, or None."""
    for name in ("transforms.json", "transforms_train.json", "cameras.npz", "meta.pkl"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_camera_file(path: Path, fov_deg: float | None = None) -> PosedFiles:
    """Read a camera file: transforms.json, cameras.npz or meta.pkl.

    ``fov_deg`` is the vertical field of view of layouts that do not hold one (default 50, as published).

    Raises:
        InputError: unreadable, or a camera, picture or number in it cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        files = read_transforms(path)
    else:
        poses = read_npz_poses(path) if suffix == ".npz" else read_pickled_poses(path)
        files = read_training_layout(path, poses, _TRAINING_FOV_DEG if fov_deg is None else fov_deg)
    check_cameras(files.cameras, path)
    return files
