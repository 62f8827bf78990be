"""Photos and films without cameras: where each picture was taken from, in a world that stands upright.

Pictures of one scene, from a folder or a film (its sharpest frames), go through structure from motion (`sfm`); the
world is then turned so that z is up, across the table that the object stands on where there is one.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from meshwright.cameras import CV_TO_GL
from meshwright.capture.lens import Lens
from meshwright.capture.pictures import read_photos
from meshwright.capture.sfm import Photo, SparsePoints, solve_cameras
from meshwright.capture.still_background import find_moving
from meshwright.capture.upright import Plane, level_world, moved_cameras, support_plane
from meshwright.errors import InputError
from meshwright.files import atomic_directory
from meshwright.images import write_image
from meshwright.progress import Progress, silent

_TURNS = "the background stands still and the object turns before it: what does not move is not looked at"


@dataclass(frozen=True, eq=False)
class PosedPhotos:
    """Photos with their cameras (OpenGL, z up, looking at the origin from about 4 units away) and lenses.

    ``views``: numbers of the placed photos among those that were given. ``table``: the plane the object stands on.
    """

    photos: tuple[Photo, ...]
    views: tuple[int, ...]
    T_world_camera: Float[ndarray, "views 4 4"]
    lenses: tuple[Lens, ...]
    points: SparsePoints
    table: Plane | None
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    error_px: float


def pose_photos(
    photos: Sequence[Photo], *, ordered: bool = False, seed: int = 0, progress: Progress = silent
) -> PosedPhotos:
    """Find the cameras of photos of one scene, or of an object that turns before a background that stands still.

    In the second case they are the cameras beside the object, as if it had stood still, and the photos say what moves.

    Raises:
        InputError: as `solve_cameras`.
    """
    moving = find_moving([photo.pixels for photo in photos])
    if moving is not None:
        photos = [dataclasses.replace(photo, moving=mask) for photo, mask in zip(photos, moving, strict=True)]
    solved = solve_cameras(photos, ordered=ordered, seed=seed, progress=progress)
    table = None if moving else support_plane(solved.points.positions, solved.T_world_camera, seed)
    T = level_world(solved.T_world_camera, table)
    placed = len(solved.views)
    upright = "up is along the axis that it turns about" if moving else "up is as the cameras were held"
    notes = [
        *([_TURNS] if moving else []),
        f"cameras of {placed} of {len(photos)} pictures found by structure from motion (COLMAP, {solved.mapper}"
        f" mapping), {solved.error_px:.2f} px of error",
        *(f"left out: {reason}" for reason in solved.left_out),
        "up is across the table that the object stands on" if table else upright,
    ]
    return PosedPhotos(
        tuple(photos[i] for i in solved.views),
        solved.views,
        moved_cameras(solved.T_world_camera, T),
        solved.lenses,
        solved.points.moved(T),
        None if table is None else table.moved(T),
        tuple(notes),
        solved.left_out,
        solved.error_px,
    )


def pose(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_size_px: int = 1600,
    max_views: int = 128,
    progress: Progress = silent,
) -> PosedPhotos:
    """Find the cameras of a folder of photos or of a film, and write what other programs and `load_views` read.

    ``out`` gets the pictures that could be placed (``images``, upright), ``sparse/0`` of COLMAP and transforms.json.

    Raises:
        InputError: as `solve_cameras`, or something cannot be read or written.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    with atomic_directory(out) as folder:
        photos, _, notes = read_photos(path, max_size_px, max_views)
        posed = pose_photos(photos, ordered=not path.is_dir(), progress=progress)
        names = [f"{number:04d}_{Path(photo.name).stem}.png" for number, photo in enumerate(posed.photos)]
        (folder / "images").mkdir()
        for photo, name in zip(posed.photos, names, strict=True):
            write_image(photo.pixels.float() / 255, folder / "images" / name)
            if photo.moving is not None:
                (folder / "masks").mkdir(exist_ok=True)
                write_image(photo.moving.float() / 255, folder / "masks" / name)
        write_posed(posed, names, folder)
    return dataclasses.replace(posed, notes=(*notes, *posed.notes))


def write_posed(posed: PosedPhotos, names: Sequence[str], folder: Path) -> None:
    """Write ``folder``/sparse/0 (COLMAP, text) and ``folder``/transforms.json of pictures ``images/NAME``."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    lenses = {lens: number for number, lens in enumerate(dict.fromkeys(posed.lenses), start=1)}
    (model / "cameras.txt").write_text("".join(f"{number} {_colmap_camera(lens)}\n" for lens, number in lenses.items()))
    features = [np.flatnonzero(posed.points.view == view) for view in range(len(names))]
    rank = np.empty(len(posed.points.view), dtype=np.int64)  # of an observation among those of its view
    lines = []
    for view, (name, mine) in enumerate(zip(names, features, strict=True)):
        rank[mine] = np.arange(len(mine))
        T_camera_world = np.linalg.inv(posed.T_world_camera[view] @ CV_TO_GL)
        x, y, z, w = Rotation.from_matrix(T_camera_world[:3, :3]).as_quat(canonical=True)
        pose = " ".join(f"{number:.12g}" for number in (w, x, y, z, *T_camera_world[:3, 3]))
        seen = " ".join(
            f"{x:.4f} {y:.4f} {point + 1}"
            for (x, y), point in zip(posed.points.px[mine], posed.points.point[mine], strict=True)
        )
        lines.append(f"{view + 1} {pose} {lenses[posed.lenses[view]]} {name}\n{seen}\n")
    (model / "images.txt").write_text("".join(lines))
    order = np.argsort(posed.points.point, kind="stable")
    ends = np.searchsorted(posed.points.point[order], np.arange(len(posed.points.positions) + 1))
    lines = []
    for number, xyz in enumerate(posed.points.positions):
        track = order[ends[number] : ends[number + 1]]
        shown = " ".join(f"{posed.points.view[k] + 1} {rank[k]}" for k in track)
        lines.append(f"{number + 1} {xyz[0]:.9g} {xyz[1]:.9g} {xyz[2]:.9g} 128 128 128 {posed.error_px:.3f} {shown}\n")
    (model / "points3D.txt").write_text("".join(lines))
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": T.tolist(), **_nerfstudio_lens(lens)}
        for name, T, lens in zip(names, posed.T_world_camera, posed.lenses, strict=True)
    ]
    content = {"camera_model": "OPENCV", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1))


def _colmap_camera(lens: Lens) -> str:
    k1, k2 = _two_radial_terms(lens)
    values = (lens.fx_px, lens.cx_px, lens.cy_px, k1, k2)
    return f"RADIAL {lens.width_px:g} {lens.height_px:g} " + " ".join(f"{value:.12g}" for value in values)


def _nerfstudio_lens(lens: Lens) -> dict[str, Any]:
    k1, k2 = _two_radial_terms(lens)
    focal = {"fl_x": lens.fx_px, "fl_y": lens.fy_px, "cx": lens.cx_px, "cy": lens.cy_px}
    return {**focal, "w": int(lens.width_px), "h": int(lens.height_px), "k1": k1, "k2": k2, "p1": 0.0, "p2": 0.0}


def _two_radial_terms(lens: Lens) -> tuple[float, float]:
    """Those of the only lenses that `solve_cameras` fits."""
    k1, k2 = (*getattr(lens.distortion, "radial", ()), 0.0, 0.0)[:2]
    return k1, k2
