"""RealityCapture / RealityScan's CSV "Internal/External camera parameters".

Columns #name, x, y, alt, heading, pitch, roll, f, px, py, k1 to k4, t1, t2: angles in degrees, lengths in the world's
unit, f, px and py in millimetres of a 35 mm film, whose 36 mm are the picture's longer side. T_world_camera (OpenGL)
turns by roll about y, then pitch about x, then -heading about z. Two traps: the CSV says nothing about whether the
pictures that were exported beside it are undistorted already, and k4 belongs to one polynomial, not to OpenCV's
quotient (nerfstudio #3118, #3355). Registrations exported with undistorted pictures have all coefficients 0.
"""

import csv
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.capture.camera_files.beside import (
    first_bytes,
    last_part,
    mask_beside,
    pictures_by_label,
    with_missing_noted,
)
from meshwright.capture.camera_files.posed_files import (
    MAX_CAMERA_FILE_BYTES,
    MAX_CAMERAS,
    PosedFiles,
    PosedPicture,
    fitted,
)
from meshwright.capture.lens import Brown, Lens
from meshwright.errors import InputError
from meshwright.images import image_size
from meshwright.untrusted import finite, printable, read_untrusted

_FILM_MM = 36.0
_POSE = ("x", "y", "alt", "heading", "pitch", "roll")
_LENS = ("f", "px", "py", "k1", "k2", "k3", "k4", "t1", "t2")


def is_realitycapture(path: Path) -> bool:
    """Whether a file begins as RealityCapture's table of cameras does."""
    head = first_bytes(path, 256)
    return head.lstrip(b"\xef\xbb\xbf").startswith(b"#name") and b"heading" in head


def read_realitycapture(path: Path) -> PosedFiles:
    """Cameras of the table; pictures beside it or in ``images``, masks in ``masks``.

    Raises:
        InputError: no such table, numbers that are none, or no picture is there.
    """
    text = read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a camera file").decode("utf-8-sig", "replace")
    try:
        rows = csv.DictReader(text.splitlines(), strict=True)
        header = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = header
        lacking = [name for name in ("#name", *_POSE, *_LENS[:1]) if name not in header]
        if lacking:
            raise InputError(
                f"{path}: lacks the column {lacking[0]}; export it again as Internal/External camera parameters"
            )
        table = list(rows)
    except csv.Error as error:
        raise InputError(f"{path}: is no table ({printable(error)[:80]}); export it again") from None
    if len(table) > MAX_CAMERAS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} cameras; leave some out")
    by_label = pictures_by_label([path.parent / "images", path.parent, path.parent.parent / "images"])
    pictures, missing = [], []
    for row in table:
        name = last_part(row["#name"] or "")
        where = f"{path}: camera {printable(name)[:60]}"
        picture = by_label.get(name.lower()) or by_label.get(Path(name).stem.lower() if name else "")
        if picture is None:
            missing.append(name)
            continue
        pose = {key: _number(row.get(key), f"{where}: {key}", 1e12) for key in _POSE}
        lens = {key: _number(row.get(key) or "0", f"{where}: {key}", 1e6) for key in _LENS}
        if lens["f"] <= 0:
            raise InputError(f"{where}: the focal length is not positive; export it again")
        mask = mask_beside([path.parent / "masks"], picture.name)
        posed = PosedPicture(picture, _pose(pose), _lens(lens, picture), mask, stored=True)
        pictures.append(fitted(posed, where))
    return PosedFiles(tuple(pictures), "RealityCapture table of cameras", with_missing_noted(pictures, missing, path))


def _pose(values: dict[str, float]) -> Float[ndarray, "4 4"]:
    heading, pitch, roll = (math.radians(values[key]) for key in ("heading", "pitch", "roll"))
    sin, cos = math.sin, math.cos
    about_z = np.array([[cos(heading), sin(heading), 0], [-sin(heading), cos(heading), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]])
    about_y = np.array([[cos(roll), 0, sin(roll)], [0, 1, 0], [-sin(roll), 0, cos(roll)]])
    T = np.eye(4)
    T[:3, :3] = about_z @ about_x @ about_y
    T[:3, 3] = values["x"], values["y"], values["alt"]
    return T


def _lens(values: dict[str, float], picture: Path) -> Lens:
    height_px, width_px = (float(side) for side in image_size(picture, upright=False))
    pixels_a_mm = max(width_px, height_px) / _FILM_MM
    focal = values["f"] * pixels_a_mm
    center = width_px / 2 + values["px"] * pixels_a_mm, height_px / 2 + values["py"] * pixels_a_mm
    brown = Brown((values["k1"], values["k2"], values["k3"], values["k4"]), tangential=(values["t1"], values["t2"]))
    return Lens(width_px, height_px, focal, focal, *center, brown)


def _number(text: object, where: str, limit: float) -> float:
    try:
        value = float(str(text)[:60])
    except ValueError:
        raise InputError(f"{where} is not a finite number; export it again") from None
    return finite(value, where, -limit, limit)
