"""Cameras out of files: a file a format.

`find_camera_file` finds one in a folder, `read_camera_file` reads it with the pictures beside it, whatever its format:
COLMAP's sparse models, transforms.json (NeRF, instant-ngp, nerfstudio), Metashape's cameras.xml, RealityCapture's
table, Polycam, Record3D and 3D Scanner App, Meshroom and OpenMVG, DTU as IDR has it, cameras.npz (InstantMesh),
meta.pkl (MindOne).
"""

from pathlib import Path

from meshwright.capture.camera_files.beside import first_bytes
from meshwright.capture.camera_files.colmap import find_colmap_model, read_colmap, read_colmap_points
from meshwright.capture.camera_files.idr import is_idr, read_idr
from meshwright.capture.camera_files.instantmesh import read_npz_poses
from meshwright.capture.camera_files.meshroom import read_meshroom, read_openmvg
from meshwright.capture.camera_files.metashape import is_metashape, read_metashape
from meshwright.capture.camera_files.mindone import read_pickled_poses
from meshwright.capture.camera_files.numbers_pickle import unpickle_numbers
from meshwright.capture.camera_files.phones import (
    find_polycam,
    is_record3d,
    is_scanner_app,
    read_polycam,
    read_record3d,
    read_scanner_app,
)
from meshwright.capture.camera_files.posed_files import DepthFile, PosedFiles, PosedPicture, check_cameras
from meshwright.capture.camera_files.realitycapture import is_realitycapture, read_realitycapture
from meshwright.capture.camera_files.training_layout import read_training_cameras, read_training_layout
from meshwright.capture.camera_files.transforms import read_transforms
from meshwright.untrusted import MIB, parse_json, read_untrusted

__all__ = [
    "DepthFile",
    "PosedFiles",
    "PosedPicture",
    "find_camera_file",
    "has_no_field_of_view",
    "is_camera_file",
    "read_camera_file",
    "read_colmap",
    "read_colmap_points",
    "read_training_cameras",
    "unpickle_numbers",
]

_TRAINING_FOV_DEG = 50.0
_MAX_JSON_BYTES = 16 * MIB  # objects made of JSON are many times larger


def find_camera_file(folder: Path) -> Path | None:
    """What in ``folder`` holds the cameras: a file, the folder itself or one in it; None if nothing does."""
    for name in (
        "transforms.json",
        "transforms_train.json",
        "cameras_sphere.npz",
        "cameras.npz",
        "meta.pkl",
        "cameras.xml",
        "cameras.sfm",
        "sfm.json",
        "sfm_data.json",
    ):
        if (folder / name).is_file():
            return folder / name
    if find_colmap_model(folder) is not None or is_record3d(folder) or is_scanner_app(folder):
        return folder
    keyframes = find_polycam(folder)
    if keyframes is not None:
        return keyframes
    files = sorted(folder.iterdir())
    told = (is_metashape, ".xml"), (is_realitycapture, ".csv"), (_is_sfm, ".sfm")
    return next(
        (file for is_it, suffix in told for file in files if file.suffix.lower() == suffix and is_it(file)), None
    )


def is_camera_file(path: Path) -> bool:
    """Whether a file, by its name, holds cameras and nothing else."""
    return path.suffix.lower() in (".json", ".xml", ".csv", ".sfm", ".npz", ".pkl")


def read_camera_file(path: Path, fov_deg: float | None = None) -> PosedFiles:
    """Read what `find_camera_file` has found, with the pictures beside it.

    ``fov_deg`` is the vertical field of view of layouts that do not hold one (default 50, as published).

    Raises:
        InputError: unreadable, or a camera, picture or number in it cannot be used.
    """
    files = _read(path, _TRAINING_FOV_DEG if fov_deg is None else fov_deg)
    check_cameras(files.cameras, path)
    return files


def has_no_field_of_view(path: Path) -> bool:
    """Whether a file of cameras is of a published training layout, which does not hold it."""
    return path.suffix.lower() == ".pkl" or (path.suffix.lower() == ".npz" and not is_idr(path))


def _read(path: Path, fov_deg: float) -> PosedFiles:
    if path.is_dir():
        if find_colmap_model(path) is not None:
            return read_colmap(path)
        if is_record3d(path):
            return read_record3d(path)
        return read_scanner_app(path) if is_scanner_app(path) else read_polycam(path)
    match path.suffix.lower():
        case ".xml":
            return read_metashape(path)
        case ".csv":
            return read_realitycapture(path)
        case ".json" | ".sfm":
            content = parse_json(read_untrusted(path, _MAX_JSON_BYTES, "a camera file"), path)
            if isinstance(content, dict) and "sfm_data_version" in content:
                return read_openmvg(content, path)
            if isinstance(content, dict) and "views" in content and "intrinsics" in content:
                return read_meshroom(content, path)
            return read_transforms(content, path)
        case ".npz" if is_idr(path):
            return read_idr(path)
    poses = read_npz_poses(path) if path.suffix.lower() == ".npz" else read_pickled_poses(path)
    return read_training_layout(path, poses, fov_deg)


def _is_sfm(path: Path) -> bool:
    return first_bytes(path, 64).lstrip().startswith(b"{")
