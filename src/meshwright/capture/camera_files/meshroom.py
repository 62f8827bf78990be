"""Structure-from-motion files in JSON: Meshroom (AliceVision's .sfm) and OpenMVG's sfm_data.json.

Both hold views, intrinsics and poses apart, tied by numbers. A pose is a world-to-camera rotation (OpenCV) and a
centre; AliceVision writes it column by column, OpenMVG row by row. AliceVision's principal point is measured from the
picture's corner before version 1.2.1 and from its middle since; the focal length is in pixels before 1.2.2 and in
millimetres of ``sensorWidth`` since. OpenMVG's is all in pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import CV_TO_GL, rigid
from meshwright.capture.camera_files.beside import last_part, mask_beside, pictures_by_label, with_missing_noted
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, PosedFiles, PosedPicture, fitted
from meshwright.capture.lens import Brown, Distortion, FieldOfView, Lens
from meshwright.errors import InputError
from meshwright.untrusted import finite, printable

_STRONGEST = 1e6  # coefficient
_MOST_POINTS = 5_000_000


def read_meshroom(content: dict[str, Any], path: Path) -> PosedFiles:
    """AliceVision's JSON; pictures beside it, in ``images``, or where undistorted ones lie.

    Raises:
        InputError: something in it cannot be used, or no picture is there.
    """
    version = tuple(int(_number(part, f"{path}: its version", 0.0, 1e6)) for part in _list(content.get("version"))[:3])
    intrinsics = {_key(entry.get("intrinsicId")): entry for entry in _dicts(content.get("intrinsics"))}
    poses = {_key(entry.get("poseId")): entry for entry in _dicts(content.get("poses"))}
    if any("rigId" in view for view in _dicts(content.get("views"))):
        raise InputError(f"{path}: has views of a rig of cameras, which are not read; export it without rigs")
    views = [
        (_text(view.get("path")), _key(view.get("intrinsicId")), _key(view.get("poseId")), _key(view.get("viewId")))
        for view in _dicts(content.get("views"))
    ]

    def pose_of(number: str, where: str) -> Float[ndarray, "4 4"] | None:
        entry = _dict(_dict(_dict(poses.get(number)).get("pose")).get("transform"))
        if not entry:
            return None
        columns = _numbers(entry.get("rotation"), 9, f"{where}: its rotation")
        return _pose(np.array(columns).reshape(3, 3).T, entry.get("center"), where)

    def lens_of(number: str, where: str) -> Lens:
        return _alicevision_lens(_dict(intrinsics.get(number)), version, where)

    points = [_dict(point).get("X") for point in _list(content.get("structure"))]
    return _posed(path, "Meshroom (AliceVision) sfm", views, pose_of, lens_of, points)


def read_openmvg(content: dict[str, Any], path: Path) -> PosedFiles:
    """OpenMVG's sfm_data.json; pictures beside it or in ``images``.

    Raises:
        InputError: as `read_meshroom`.
    """

    def values(name: str) -> dict[str, dict[str, Any]]:
        entries = _dicts(content.get(name))
        return {_key(entry.get("key")): _dict(entry.get("value")) for entry in entries}

    def data(value: dict[str, Any]) -> dict[str, Any]:
        return _dict(_dict(value.get("ptr_wrapper")).get("data"))

    intrinsics, extrinsics = values("intrinsics"), values("extrinsics")
    views = []
    for view in values("views").values():
        entry = data(view)
        view_id, intrinsic, pose = (_key(entry.get(name)) for name in ("id_view", "id_intrinsic", "id_pose"))
        views.append((_text(entry.get("filename")), intrinsic, pose, view_id))

    def pose_of(number: str, where: str) -> Float[ndarray, "4 4"] | None:
        entry = extrinsics.get(number)
        if not entry:
            return None
        rows = [_numbers(row, 3, f"{where}: its rotation") for row in _list(entry.get("rotation"))]
        if len(rows) != 3:
            raise InputError(f"{where}: its rotation is no 3x3 matrix; export it again")
        return _pose(np.array(rows), entry.get("center"), where)

    def lens_of(number: str, where: str) -> Lens:
        return _openmvg_lens(data(intrinsics.get(number, {})), where)

    points = [_dict(_dict(point).get("value")).get("X") for point in _list(content.get("structure"))]
    return _posed(path, "OpenMVG sfm_data.json", views, pose_of, lens_of, points)


def _posed(
    path: Path,
    kind: str,
    views: list[tuple[str, str, str, str]],
    pose_of: Any,
    lens_of: Any,
    points: list[Any],
) -> PosedFiles:
    """Put views together out of (path, number of the intrinsics, of the pose, of the view)."""
    if len(views) > MAX_CAMERAS or len(points) > _MOST_POINTS:
        raise InputError(f"{path}: holds more than {MAX_CAMERAS} views; leave some out")
    folders = [path.parent / "images", path.parent, path.parent.parent, path.parent.parent / "images"]
    by_label = pictures_by_label(folders)
    pictures, missing, unposed = [], [], 0
    lenses: dict[str, Lens] = {}
    for name, intrinsic, pose, view in views:
        file = last_part(name)
        where = f"{path}: view {printable(file)[:60]}"
        T = pose_of(pose, where)
        if T is None:
            unposed += 1
            continue
        picture = by_label.get(file.lower()) or by_label.get(Path(file).stem.lower() if file else "")
        picture = picture or by_label.get(view)  # PrepareDenseScene names pictures by their view
        if picture is None:
            missing.append(file)
            continue
        if intrinsic not in lenses:
            lenses[intrinsic] = lens_of(intrinsic, where)
        mask = mask_beside([path.parent / "masks"], picture.name) or mask_beside([path.parent / "masks"], f"{view}.png")
        pictures.append(fitted(PosedPicture(picture, T, lenses[intrinsic], mask, stored=True), where))
    notes = with_missing_noted(pictures, missing, path)
    if unposed:
        notes += (f"{unposed} views without a pose are left out",)
    usable = [_numbers(point, 3, f"{path}: a point of its structure") for point in points if point is not None]
    table = np.array(usable, np.float64).reshape(-1, 3) if usable else None
    return PosedFiles(tuple(pictures), kind, notes, table, own_axes=False)


def _alicevision_lens(entry: dict[str, Any], version: tuple[int, ...], where: str) -> Lens:
    if not entry:
        raise InputError(f"{where}: its intrinsics are not in the file; export it again")
    width_px, height_px = (_number(entry.get(side), f"{where}: {side}", 1.0, 1e6) for side in ("width", "height"))
    cx, cy = _numbers(entry.get("principalPoint"), 2, f"{where}: its principal point")
    if version >= (1, 2, 1):
        cx, cy = cx + width_px / 2, cy + height_px / 2
    if version < (1, 2, 2):
        focal = entry.get("pxFocalLength")
        fx, fy = _numbers(focal if isinstance(focal, list) else [focal, focal], 2, f"{where}: its focal length")
    else:
        sensor_mm = _number(entry.get("sensorWidth", 36), f"{where}: sensorWidth", 1e-6, 1e6)
        ratio = _number(entry.get("pixelRatio", 1), f"{where}: pixelRatio", 1e-6, 1e6)
        fx = _number(entry.get("focalLength"), f"{where}: its focal length", -1e9, 1e9) / sensor_mm * width_px
        fy = fx / ratio if version < (1, 2, 5) else fx * ratio
    if min(fx, fy) <= 0:
        raise InputError(f"{where}: the focal length is not positive; export it again")
    if any(_floats(entry.get("undistortionParams"), where)):
        raise InputError(f"{where}: its lens is of 3DEqualizer, which is not read; export undistorted pictures")
    kind = _text(entry.get("distortionType") or entry.get("type"))
    return Lens(
        width_px, height_px, fx, fy, cx, cy, _alicevision_distortion(kind, entry.get("distortionParams"), where)
    )


def _alicevision_distortion(kind: str, parameters: object, where: str) -> Distortion:
    k = _floats(parameters, where)
    match kind:
        case "pinhole" | "none" | "":
            return Brown()
        case "radial1" | "radial3" | "radialk1" | "radialk3":
            return Brown(tuple(k))
        case "brown" if len(k) == 5:
            return Brown(tuple(k[:3]), tangential=(k[3], k[4]))
        case "fisheye" | "fisheye4":
            return Brown(tuple(k), fisheye=True)
        case "fisheye1" if len(k) == 1:
            return FieldOfView(k[0])
    raise InputError(f"{where}: its lens {printable(kind)[:30]!r} is not read; export undistorted pictures")


def _openmvg_lens(entry: dict[str, Any], where: str) -> Lens:
    if "focal_length" not in entry:
        raise InputError(f"{where}: its intrinsics are no pinhole or fisheye of OpenMVG; export undistorted pictures")
    width_px, height_px = (_number(entry.get(side), f"{where}: {side}", 1.0, 1e6) for side in ("width", "height"))
    focal = _number(entry["focal_length"], f"{where}: its focal length", 1e-9, 1e9)
    cx, cy = _numbers(entry.get("principal_point"), 2, f"{where}: its principal point")
    distortion = Brown()
    if "disto_t2" in entry:
        k1, k2, k3, t1, t2 = _numbers(entry["disto_t2"], 5, f"{where}: its distortion")
        distortion = Brown((k1, k2, k3), tangential=(t1, t2))
    elif "fisheye" in entry:
        distortion = Brown(tuple(_numbers(entry["fisheye"], 4, f"{where}: its distortion")), fisheye=True)
    else:
        distortion = Brown(tuple(_floats(entry.get("disto_k3", entry.get("disto_k1")), where)))
    return Lens(width_px, height_px, focal, focal, cx, cy, distortion)


def _pose(R_camera_world: Float[ndarray, "3 3"], center: object, where: str) -> Float[ndarray, "4 4"]:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R_camera_world.T, _numbers(center, 3, f"{where}: its centre")
    return rigid(T, where) @ CV_TO_GL


def _key(value: object) -> str:
    return str(value)[:40] if isinstance(value, (str, int)) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return (entry for entry in _list(value) if isinstance(entry, dict))


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, str):  # AliceVision's numbers are texts
        try:
            value = float(value[:60])
        except ValueError:
            raise InputError(f"{where} is not a finite number; export it again") from None
    return finite(value, where, low, high)


def _numbers(value: object, count: int, where: str) -> list[float]:
    values = _list(value)
    if len(values) != count:
        raise InputError(f"{where} has {len(values)} numbers, not {count}; export it again")
    return [_number(entry, where, -1e12, 1e12) for entry in values]


def _floats(value: object, where: str) -> list[float]:
    return [_number(entry, f"{where}: its distortion", -_STRONGEST, _STRONGEST) for entry in _list(value)[:16]]
