"""Agisoft Metashape's cameras.xml (File > Export > Export Cameras).

A camera's transform takes OpenCV camera coordinates to those of its component (or chunk), whose own transform
(rotation, scale, translation) leads to the world. Lens (Metashape manual, appendix D): u = w/2 + cx + f x' + b1 x' +
b2 y', v = h/2 + cy + f y', with (x', y') after radial k1 to k4 and tangential p1, p2 (OpenCV's p2 and p1).
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from meshwright.cameras import CV_TO_GL, rigid
from meshwright.capture.camera_files.beside import first_bytes, mask_beside, pictures_by_label, with_missing_noted
from meshwright.capture.camera_files.posed_files import MAX_CAMERAS, PosedFiles, PosedPicture, fitted
from meshwright.capture.lens import Brown, Lens
from meshwright.errors import InputError
from meshwright.untrusted import MIB, finite, printable, read_untrusted

_MAX_BYTES = 64 * MIB
_MOST_ELEMENTS = 5_000_000
_DEEPEST = 100
_STRONGEST = 1e6  # coefficient


def is_metashape(path: Path) -> bool:
    """Whether a file looks like Metashape's: a document with chunks or cameras."""
    head = first_bytes(path, 4096)
    return b"<document" in head and (b"<chunk" in head or b"<cameras" in head or b"<sensor" in head)


def read_metashape(path: Path) -> PosedFiles:
    """Aligned cameras of the first chunk that has any; pictures beside the file or in ``images``, masks in ``masks``.

    Raises:
        InputError: not such a file, damaged, a lens that cannot be taken out, or no picture is there.
    """
    root = parse_xml(read_untrusted(path, _MAX_BYTES, "a camera file"), path)
    chunks = [root] if root.tag == "chunk" else list(root.iter("chunk"))
    chunk = next((chunk for chunk in chunks if chunk.find("cameras") is not None), None)
    if chunk is None:
        raise InputError(f"{path}: holds no cameras of Metashape; export them again as Agisoft XML")
    lenses = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
    components = {component.get("id"): component for component in chunk.iter("component")}
    world = _similarity(chunk.find("transform"), f"{path}: the transform of the chunk")
    folders = [path.parent / "images", path.parent, path.parent / "photos", path.parent.parent / "images"]
    by_label = pictures_by_label(folders)
    masks = [path.parent / "masks"]
    cameras = chunk.find("cameras")
    assert cameras is not None
    pictures: list[PosedPicture] = []
    missing: list[str] = []
    unaligned = 0
    known: dict[str | None, Lens] = {}
    for camera in cameras.iter("camera"):
        if len(pictures) >= MAX_CAMERAS:
            raise InputError(f"{path}: holds more than {MAX_CAMERAS} cameras; leave some out")
        label = camera.get("label") or ""
        where = f"{path}: camera {printable(label)[:60]}"
        transform = camera.findtext("transform")
        if transform is None or camera.get("enabled", "true").lower() in ("false", "0"):
            unaligned += 1
            continue
        picture = by_label.get(label.lower())
        if picture is None:
            missing.append(label)
            continue
        values = _numbers(transform, where)
        if len(values) != 16:
            raise InputError(f"{where}: its transform is no 4x4 matrix; export the cameras again")
        component = components.get(camera.get("component_id"))
        if component is None:
            to_world = world
        else:
            to_world = _similarity(component.find("transform"), f"{where}: the transform of its component")
        T = _moved(rigid(np.array(values).reshape(4, 4), where), to_world)
        sensor_id = camera.get("sensor_id")
        if sensor_id not in known:
            known[sensor_id] = _lens(lenses.get(sensor_id), where)
        mask = mask_beside(masks, picture.name)
        posed = PosedPicture(picture, T @ CV_TO_GL, known[sensor_id], mask, stored=True)
        pictures.append(fitted(posed, where))
    notes = with_missing_noted(pictures, missing, path)
    if unaligned:
        notes += (f"{unaligned} cameras that Metashape did not align are left out",)
    placed = any(owner.find("transform") is not None for owner in (chunk, *components.values()))
    return PosedFiles(tuple(pictures), "Metashape cameras.xml", notes, own_axes=placed)


def parse_xml(content: bytes, path: Path) -> ET.Element:
    """The root element of XML without declarations of its own, not too large and not too deep.

    Raises:
        InputError: it is something else.
    """
    # Entities that expand without end, or name files, need a document type.
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content:
        raise InputError(f"{path}: declares types or entities, which a list of cameras does not need; export it again")
    parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(("start", "end"))
    depth = count = 0
    root: ET.Element | None = None
    try:
        for at in range(0, len(content), 1 << 16):
            parser.feed(content[at : at + (1 << 16)])
            events: Any = parser.read_events()
            for kind, element in events:
                root = element if root is None else root
                depth += 1 if kind == "start" else -1
                count += 1
                if depth > _DEEPEST or count > 2 * _MOST_ELEMENTS:
                    raise InputError(f"{path}: is nested too deeply or too long for a list of cameras; export it again")
        parser.close()
    except ET.ParseError as error:
        raise InputError(f"{path}: is no valid XML ({printable(error)[:80]}); export it again") from None
    if root is None:
        raise InputError(f"{path}: is empty; export it again")
    return root


def _lens(sensor: ET.Element | None, where: str) -> Lens:
    calibrations = [] if sensor is None else sensor.findall("calibration")
    if sensor is None or not calibrations:
        raise InputError(f"{where}: its sensor has no calibration; align the pictures and export the cameras again")
    calibration = next((c for c in calibrations if c.get("class") == "adjusted"), calibrations[0])
    kind = calibration.get("type") or sensor.get("type") or "frame"
    if kind not in ("frame", "fisheye"):
        raise InputError(f"{where}: its lens is {printable(kind)[:30]!r}, not frame or fisheye; undistort it first")
    resolution = calibration.find("resolution")
    resolution = sensor.find("resolution") if resolution is None else resolution
    if resolution is None:
        raise InputError(f"{where}: its sensor has no resolution; export the cameras again")
    width_px, height_px = (
        _number(resolution.get(side), f"{where}: its {side}", 1.0, 1e6) for side in ("width", "height")
    )

    def value(name: str, limit: float = _STRONGEST) -> float:
        text = calibration.findtext(name)
        return 0.0 if text is None else _number(text, f"{where}: {name} of its lens", -limit, limit)

    focal = value("f", 1e9) or value("fy", 1e9)
    b1 = value("b1") if calibration.find("fx") is None else value("fx", 1e9) - focal
    if min(focal, focal + b1) <= 0:
        raise InputError(f"{where}: the focal length is not positive; export the cameras again")
    if value("p3") or value("p4"):
        raise InputError(f"{where}: its lens has p3 and p4, which are not read; optimise without them and export again")
    radial = (value("k1"), value("k2"), value("k3"), value("k4"))
    brown = Brown(radial, tangential=(value("p2"), value("p1")), fisheye=kind == "fisheye")
    cx, cy = width_px / 2 + value("cx"), height_px / 2 + value("cy")
    return Lens(width_px, height_px, focal + b1, focal, cx, cy, brown, value("b2"))


def _similarity(transform: ET.Element | None, where: str) -> tuple[Float[ndarray, "4 4"], float]:
    """A rigid motion and the scale that goes before it; none of both where there is no transform."""
    T = np.eye(4)
    if transform is None:
        return T, 1.0
    rotation, translation, scale = (transform.findtext(name) for name in ("rotation", "translation", "scale"))
    if rotation is not None:
        values = _numbers(rotation, where)
        if len(values) != 9:
            raise InputError(f"{where}: its rotation is no 3x3 matrix; export the cameras again")
        T[:3, :3] = np.array(values).reshape(3, 3)
    if translation is not None:
        values = _numbers(translation, where)
        if len(values) != 3:
            raise InputError(f"{where}: its translation is no vector; export the cameras again")
        T[:3, 3] = values
    return rigid(T, where), 1.0 if scale is None else _number(scale, f"{where}: its scale", 1e-12, 1e12)


def _moved(T: Float[ndarray, "4 4"], to_world: tuple[Float[ndarray, "4 4"], float]) -> Float[ndarray, "4 4"]:
    motion, scale = to_world
    scaled = T.copy()
    scaled[:3, 3] *= scale
    return motion @ scaled


def _number(text: str | None, where: str, low: float, high: float) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise InputError(f"{where} is not a finite number; export it again") from None
    return finite(value, where, low, high)


def _numbers(text: str, where: str) -> list[float]:
    if len(text) > 4096:
        raise InputError(f"{where}: holds too many numbers; export the cameras again")
    return [_number(word, where, -1e12, 1e12) for word in text.split()]
