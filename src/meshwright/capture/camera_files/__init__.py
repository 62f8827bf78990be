"""Cameras out of files: a file a format.

COLMAP's sparse models, transforms.json (NeRF, instant-ngp, nerfstudio), cameras.npz (InstantMesh), meta.pkl (MindOne).
`find_camera_file` finds one in a folder, `read_camera_file` reads it with the pictures beside it.
"""

from pathlib import Path

from meshwright.capture.camera_files.colmap import find_colmap_model, read_colmap
from meshwright.capture.camera_files.instantmesh import read_npz_poses
from meshwright.capture.camera_files.mindone import read_pickled_poses
from meshwright.capture.camera_files.numbers_pickle import unpickle_numbers
from meshwright.capture.camera_files.posed_files import DepthFile, PosedFiles, PosedPicture, check_cameras
from meshwright.capture.camera_files.training_layout import read_training_cameras, read_training_layout
from meshwright.capture.camera_files.transforms import read_transforms

__all__ = [
    "DepthFile",
    "PosedFiles",
    "PosedPicture",
    "find_camera_file",
    "read_camera_file",
    "read_colmap",
    "read_training_cameras",
    "unpickle_numbers",
]

_TRAINING_FOV_DEG = 50.0


def find_camera_file(folder: Path) -> Path | None:
    """The file in ``folder`` that holds the cameras, the folder itself if it is a workspace of COLMAP, or None."""
    for name in ("transforms.json", "transforms_train.json", "cameras.npz", "meta.pkl"):
        if (folder / name).is_file():
            return folder / name
    return folder if find_colmap_model(folder) is not None else None


def read_camera_file(path: Path, fov_deg: float | None = None) -> PosedFiles:
    """Read a file of cameras, or a workspace of COLMAP, with the pictures beside it.

    ``fov_deg`` is the vertical field of view of layouts that do not hold one (default 50, as published).

    Raises:
        InputError: unreadable, or a camera, picture or number in it cannot be used.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        files = read_colmap(path)
    elif suffix == ".json":
        files = read_transforms(path)
    else:
        poses = read_npz_poses(path) if suffix == ".npz" else read_pickled_poses(path)
        files = read_training_layout(path, poses, _TRAINING_FOV_DEG if fov_deg is None else fov_deg)
    check_cameras(files.cameras, path)
    return files
