"""Captures of other programs, written by following their descriptions: cameras agree to 1e-5, bad files are told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from meshwright.cameras import Cameras
from meshwright.capture import load_views
from meshwright.capture.camera_files import find_camera_file, read_camera_file
from meshwright.capture.lens import Brown, FieldOfView, Lens
from meshwright.capture.undistort import pinhole_of
from meshwright.errors import InputError
from test_captures import CV, HEIGHT, NAMES, WIDTH, assert_same_cameras, some_cameras, write_pictures
from test_images import exr

K1, K2, K3, P1, P2 = -0.1, 0.03, 0.01, 0.002, -0.001
BROWN = Brown((K1, K2, K3), tangential=(P1, P2))
LENS = Lens(60.0, 48.0, 70.0, 70.0, 31.0, 23.0, BROWN)


def opencv_camera_to_world(cameras: Cameras) -> np.ndarray:
    return cameras.T_world_camera.numpy() @ CV


def expected_cameras(cameras: Cameras, lens: Lens) -> Cameras:
    intrinsics = torch.tensor(pinhole_of(lens).intrinsics, dtype=torch.float64).repeat(len(cameras), 1)
    return Cameras(cameras.T_world_camera, intrinsics)


def assert_capture(folder: Path, cameras: Cameras, lens: Lens, kind: str) -> None:
    """The folder is recognised; poses, lens and what the pictures became are what was written."""
    files = read_camera_file(find_camera_file(folder))
    assert kind in files.kind
    directions = np.random.default_rng(0).uniform(-0.35, 0.35, (40, 2))
    for picture in files.pictures:
        np.testing.assert_allclose(picture.lens.project(directions), lens.project(directions), rtol=0, atol=1e-5)
    views = load_views(folder)
    assert_same_cameras(views.cameras, expected_cameras(cameras, lens))
    assert views.rig == "posed"


# --- Metashape -------------------------------------------------------------------------------------------------------


def metashape(cameras: Cameras, scale: float = 1.0, lens: str = "", transform: str = "", more: str = "") -> str:
    poses = opencv_camera_to_world(cameras).copy()
    poses[:, :3, 3] /= scale
    entries = "".join(
        f'<camera id="{i}" sensor_id="0" component_id="0" label="{name.removesuffix(".png")}">'
        f"<transform>{' '.join(map(repr, T.ravel().tolist()))}</transform></camera>"
        for i, (name, T) in enumerate(zip(NAMES, poses, strict=True))
    )
    lens = lens or (f"<f>70</f><cx>1</cx><cy>-1</cy><k1>{K1}</k1><k2>{K2}</k2><k3>{K3}</k3><p1>{P2}</p1><p2>{P1}</p2>")
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<document version="2.0.0"><chunk label="Chunk 1" enabled="true"><sensors next_id="1">
<sensor id="0" label="phone" type="frame"><resolution width="{WIDTH}" height="{HEIGHT}"/>
<calibration type="frame" class="initial"><resolution width="{WIDTH}" height="{HEIGHT}"/><f>1</f></calibration>
<calibration type="frame" class="adjusted"><resolution width="{WIDTH}" height="{HEIGHT}"/>{lens}</calibration></sensor>
</sensors><components next_id="1"><component id="0" label="c">{transform}</component></components>
<cameras next_id="6">{entries}{more}</cameras></chunk></document>"""


def test_metashapes_cameras_and_lens_come_back(tmp_path):
    write_pictures(tmp_path / "images", NAMES)
    unaligned = '<camera id="9" sensor_id="0" label="blurred"/>'
    (tmp_path / "cameras.xml").write_text(metashape(some_cameras(), more=unaligned))
    assert_capture(tmp_path, some_cameras(), LENS, "Metashape")
    assert "1 cameras that Metashape did not align" in load_views(tmp_path).assumptions[0]


def test_metashapes_component_moves_turns_and_scales_its_cameras(tmp_path):
    write_pictures(tmp_path, NAMES)
    turn = Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()
    shift = np.array([5.0, 6.0, -7.0])
    transform = (
        f"<transform><rotation>{' '.join(map(repr, turn.ravel().tolist()))}</rotation>"
        f"<translation>{' '.join(map(repr, shift.tolist()))}</translation><scale>2.5</scale></transform>"
    )
    (tmp_path / "doc.xml").write_text(metashape(some_cameras(), 2.5, transform=transform))
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn, shift
    expected = Cameras(torch.from_numpy(moved) @ some_cameras().T_world_camera, some_cameras().intrinsics)
    assert_capture(tmp_path, expected, LENS, "Metashape")


def test_metashapes_b1_and_b2_are_unequal_focal_lengths_and_skew(tmp_path):
    write_pictures(tmp_path, NAMES)
    (tmp_path / "cameras.xml").write_text(metashape(some_cameras(), lens="<f>70</f><b1>2</b1><b2>-1.5</b2>"))
    picture = read_camera_file(tmp_path / "cameras.xml").pictures[0]
    assert picture.lens == Lens(60.0, 48.0, 72.0, 70.0, 30.0, 24.0, Brown((0.0,) * 4), -1.5)
    x, y = 0.1, -0.2
    np.testing.assert_allclose(picture.lens.project(np.array([x, y])), [30 + 70 * x + 2 * x - 1.5 * y, 24 + 70 * y])


BOMB = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><document><chunk>&c;'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "declares types or entities"),
        ("<document><chunk><cameras>", "no valid XML"),
        ("<document><chunk></chunk></document>", "no cameras of Metashape"),
        ("<document>" + "<chunk>" * 5000 + "<cameras/>", "nested too deeply"),
        ("", "no valid XML"),
        (metashape(some_cameras()).encode("utf-16"), "declares types"),
        (metashape(some_cameras(), lens="<f>nan</f>"), "f of its lens is not a finite number"),
        (metashape(some_cameras(), lens="<f>-3</f>"), "focal length is not positive"),
        (metashape(some_cameras(), lens="<f>70</f><p3>0.1</p3>"), "p3 and p4"),
        (metashape(some_cameras(), lens="<f>70</f><k1>1e9</k1>"), "k1 of its lens is 1e"),
        (metashape(some_cameras()).replace('class="adjusted"', 'type="spherical"'), "duplicate|no valid XML"),
        (metashape(some_cameras()).replace('type="frame" class', 'type="spherical" class'), "not frame or fisheye"),
        (metashape(some_cameras()).replace('sensor_id="0"', 'sensor_id="7"'), "no calibration"),
        (metashape(some_cameras()).replace("<transform>", "<transform>x "), "not a finite number"),
        (metashape(some_cameras()).replace("<transform>", "<transform>1 "), "no 4x4 matrix"),
        (metashape(some_cameras()).replace("shot", "../../etc/passwd"), "none of its 5 pictures"),
        (metashape(some_cameras()).replace('width="60"', 'width="600"'), "says 600x48"),
        (metashape(some_cameras(), transform="<transform><scale>0</scale></transform>"), "its scale is 0"),
    ],
)
def test_a_bad_cameras_xml_is_one_clear_line(tmp_path, content, message):
    write_pictures(tmp_path, NAMES)
    (tmp_path / "cameras.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


# --- RealityCapture --------------------------------------------------------------------------------------------------

HEADER = "#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2"


def realitycapture(cameras: Cameras, k4: float = 0.0) -> str:
    lines = [HEADER]
    for name, T in zip(NAMES, cameras.T_world_camera.numpy(), strict=True):
        yaw, pitch, roll = Rotation.from_matrix(T[:3, :3]).as_euler("ZXY", degrees=True)
        mm = 36 / max(WIDTH, HEIGHT)
        values = [*T[:3, 3], -yaw, pitch, roll, 70 * mm, 1 * mm, -1 * mm, K1, K2, K3, k4, P1, P2]
        lines.append(",".join([f"C:\\pictures\\{name}", *map(repr, map(float, values))]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("k4", [0.0, 0.02])
def test_realitycaptures_table_comes_back_with_k4_in_the_polynomial(tmp_path, k4):
    write_pictures(tmp_path / "images", NAMES)
    (tmp_path / "registration.csv").write_text(realitycapture(some_cameras(), k4))
    lens = Lens(60.0, 48.0, 70.0, 70.0, 31.0, 23.0, Brown((K1, K2, K3, k4), tangential=(P1, P2)))
    assert_capture(tmp_path, some_cameras(), lens, "RealityCapture")


def test_realitycaptures_heading_pitch_and_roll_by_hand(tmp_path):
    """Level and heading 0 it looks north (+y) once pitched by 90 degrees; heading 90 turns it east (+x)."""
    write_pictures(tmp_path, NAMES[:2])
    row = "{},0,0,0,{},90,0,50,0,0,0,0,0,0,0,0\n"
    (tmp_path / "r.csv").write_text(HEADER + "\n" + row.format(NAMES[0], 0) + row.format(NAMES[1], 90))
    north, east = (picture.T_world_camera for picture in read_camera_file(tmp_path / "r.csv").pictures)
    np.testing.assert_allclose(-north[:3, 2], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(north[:3, 1], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(-east[:3, 2], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("heading", "azimuth") + "\n", "holds no cameras|neither a picture|lacks the column"),
        (HEADER + "\n", "none of its 0 pictures"),
        (HEADER + "\nnowhere.png,0,0,0,0,0,0,50,0,0,0,0,0,0,0,0\n", "none of its 1 pictures such as nowhere.png"),
        (HEADER + f"\n{NAMES[0]},0,0,0,0,0,0,-50,0,0,0,0,0,0,0,0\n", "focal length is not positive"),
        (HEADER + f"\n{NAMES[0]},0,0,0,0,0,0,wide,0,0,0,0,0,0,0,0\n", "f is not a finite number"),
        (HEADER + f"\n{NAMES[0]},0,0,inf,0,0,0,50,0,0,0,0,0,0,0,0\n", "alt is not a finite number"),
        (HEADER + f"\n{NAMES[0]},0,0\n", "alt is not a finite number"),
        (HEADER + f"\n{NAMES[0]},0,0,0,0,0,0,50,0,0,-1e5,0,0,0,0,0\n", "next to nothing"),
        (HEADER + '\n"unfinished', "is no table|none of its"),
    ],
)
def test_a_bad_table_is_one_clear_line(tmp_path, content, message):
    write_pictures(tmp_path, NAMES[:1])
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path / "r.csv")
    assert "\n" not in str(caught.value)


# --- Meshroom and OpenMVG --------------------------------------------------------------------------------------------

DISTORTIONS = {  # AliceVision's name before and after 1.2.7, its numbers, the lens
    "radial3": ("radialk3", [K1, K2, K3], Brown((K1, K2, K3))),
    "radial1": ("radialk1", [K1], Brown((K1,))),
    "brown": ("brown", [K1, K2, K3, P1, P2], BROWN),
    "fisheye4": ("fisheye4", [0.05, 0.01, 0.0, 0.0], Brown((0.05, 0.01, 0.0, 0.0), fisheye=True)),
    "fisheye1": ("fisheye1", [0.7], FieldOfView(0.7)),
    "pinhole": ("none", [], Brown()),
}


def meshroom(cameras: Cameras, version: tuple[int, int, int], kind: str = "brown") -> dict[str, Any]:
    newer, parameters, _ = DISTORTIONS[kind]
    intrinsic = {"intrinsicId": "77", "width": str(WIDTH), "height": str(HEIGHT), "serialNumber": "", "type": kind}
    center = [1.0, -1.0] if version >= (1, 2, 1) else [31.0, 23.0]
    intrinsic |= {"principalPoint": [repr(x) for x in center], "distortionParams": [repr(k) for k in parameters]}
    if version < (1, 2, 0):
        intrinsic |= {"pxFocalLength": "70"}
    elif version < (1, 2, 2):
        intrinsic |= {"pxFocalLength": ["70", "70"]}
    else:
        intrinsic |= {"sensorWidth": "24", "focalLength": repr(70 * 24 / WIDTH), "pixelRatio": "1"}
    if version >= (1, 2, 7):
        intrinsic |= {"distortionType": newer, "type": "pinhole"}
    views, poses = [], []
    for i, (name, T) in enumerate(zip(NAMES, opencv_camera_to_world(cameras), strict=True)):
        views.append({"viewId": str(100 + i), "poseId": str(i), "intrinsicId": "77", "path": f"/home/x/{name}"})
        rotation = [repr(x) for x in T[:3, :3].T.ravel(order="F").tolist()]  # of world to camera, column by column
        pose = {"transform": {"rotation": rotation, "center": [repr(x) for x in T[:3, 3].tolist()]}}
        poses.append({"poseId": str(i), "pose": pose | {"locked": "0"}})
    structure = [{"landmarkId": "0", "X": ["1", "2", "3"]}]
    version_texts = [str(part) for part in version]
    return {"version": version_texts, "views": views, "intrinsics": [intrinsic], "poses": poses, "structure": structure}


@pytest.mark.parametrize("version", [(1, 0, 0), (1, 2, 0), (1, 2, 1), (1, 2, 6), (1, 2, 11)])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_meshrooms_cameras_come_back_from_every_version(tmp_path, version, kind):
    write_pictures(tmp_path, NAMES)
    (tmp_path / "cameras.sfm").write_text(json.dumps(meshroom(some_cameras(), version, kind)))
    lens = Lens(60.0, 48.0, 70.0, 70.0, 31.0, 23.0, DISTORTIONS[kind][2])
    assert_capture(tmp_path, some_cameras(), lens, "Meshroom")
    assert read_camera_file(tmp_path / "cameras.sfm").points.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("version", "fy"), [((1, 2, 3), 35.0), ((1, 2, 5), 140.0)])
def test_meshrooms_pixel_ratio_meant_its_inverse_before_1_2_5(tmp_path, version, fy):
    write_pictures(tmp_path, NAMES)
    content = meshroom(some_cameras(), version, "pinhole")
    content["intrinsics"][0]["pixelRatio"] = "2"
    (tmp_path / "cameras.sfm").write_text(json.dumps(content))
    lens = read_camera_file(tmp_path / "cameras.sfm").pictures[0].lens
    assert (lens.fx_px, lens.fy_px) == pytest.approx((70.0, fy))


def openmvg(cameras: Cameras) -> dict[str, Any]:
    data = {"width": WIDTH, "height": HEIGHT, "focal_length": 70.0, "principal_point": [31.0, 23.0]}
    intrinsic = {"polymorphic_name": "pinhole_brown_t2", "ptr_wrapper": {"id": 1, "data": data}}
    data |= {"disto_t2": [K1, K2, K3, P1, P2]}
    views, poses = [], []
    for i, (name, T) in enumerate(zip(NAMES, opencv_camera_to_world(cameras), strict=True)):
        view = {"filename": name, "id_view": i, "id_intrinsic": 0, "id_pose": i}
        views.append({"key": i, "value": {"ptr_wrapper": {"id": 9, "data": view}}})
        poses.append({"key": i, "value": {"rotation": T[:3, :3].T.tolist(), "center": T[:3, 3].tolist()}})
    return {
        "sfm_data_version": "0.3", "root_path": "/home/x", "views": views, "extrinsics": poses,
        "intrinsics": [{"key": 0, "value": intrinsic}], "structure": [{"key": 0, "value": {"X": [1, 2, 3]}}],
    }  # fmt: skip


def test_openmvgs_cameras_come_back(tmp_path):
    write_pictures(tmp_path / "images", NAMES)
    content = openmvg(some_cameras())
    del content["extrinsics"][4]
    (tmp_path / "sfm_data.json").write_text(json.dumps(content))
    assert_capture(tmp_path, some_cameras()[:4], LENS, "OpenMVG")
    assert "1 views without a pose" in load_views(tmp_path).assumptions[0]


def changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *way, last = path.split(".")
    owner: Any = content
    for step in way:
        owner = owner[int(step)] if isinstance(owner, list) else owner[step]
    owner[int(last) if isinstance(owner, list) else last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("poses.1.pose.transform.rotation", ["1"] * 9, "not a rotation"),
        ("poses.1.pose.transform.rotation", ["1"] * 8, "has 8 numbers, not 9"),
        ("poses.1.pose.transform.rotation", ["x"] * 9, "not a finite number"),
        ("poses.1.pose.transform.center", [None] * 3, "not a finite number"),
        ("poses.1.pose.transform.center", ["1e300"] * 3, "its centre is 1e"),
        ("intrinsics.0.type", "3deanamorphic4", "is not read"),
        ("intrinsics.0.focalLength", "-3", "focal length is not positive"),
        ("intrinsics.0.width", "0", "width is 0"),
        ("intrinsics.0.width", "600", "says 600x48"),
        ("intrinsics.0.principalPoint", "middle", "has 0 numbers"),
        ("intrinsics.0.distortionParams", ["1e9"] * 5, "distortion is 1e"),
        ("intrinsics", [], "intrinsics are not in the file"),
        ("views", [], "none of its 0 pictures"),
        ("views.0.rigId", "3", "rig of cameras"),
        ("poses", {}, "none of its 0 pictures"),
        ("version", ["x"], "its version is not a finite number"),
        ("structure", [{"X": [1, 2]}], "has 2 numbers, not 3"),
        ("intrinsics.0.undistortionParams", ["0.1"], "3DEqualizer"),
    ],
)
def test_a_bad_sfm_is_one_clear_line(tmp_path, path, value, message):
    write_pictures(tmp_path, NAMES)
    content = changed(meshroom(some_cameras(), (1, 2, 6)), path, value)
    (tmp_path / "cameras.sfm").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("extrinsics.0.value.rotation", [[1, 0, 0]], "no 3x3 matrix"),
        ("extrinsics.0.value.rotation", "none", "no 3x3 matrix"),
        ("extrinsics.0.value.center", [1, 2, float("nan")], "not a finite number"),
        ("intrinsics.0.value.ptr_wrapper.data", {}, "no pinhole or fisheye"),
        ("intrinsics.0.value.ptr_wrapper.data.focal_length", 0, "focal length is 0"),
        ("intrinsics.0.value.ptr_wrapper.data.disto_t2", [1], "has 1 numbers, not 5"),
        ("views", 7, "none of its 0 pictures"),
    ],
)
def test_a_bad_sfm_data_is_one_clear_line(tmp_path, path, value, message):
    write_pictures(tmp_path, NAMES)
    (tmp_path / "sfm_data.json").write_text(json.dumps(changed(openmvg(some_cameras()), path, value)))
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


# --- phones ----------------------------------------------------------------------------------------------------------

PINHOLE = Lens(60.0, 48.0, 70.0, 71.0, 31.0, 23.0)


def write_polycam(folder: Path, cameras: Cameras, prefix: str = "", **changes: object) -> None:
    write_pictures(folder / "keyframes" / f"{prefix}images", NAMES)
    (folder / "keyframes" / f"{prefix}cameras").mkdir()
    for name, T in zip(NAMES, cameras.T_world_camera.tolist(), strict=True):
        content = {f"t_{i}{j}": T[i][j] for i in range(3) for j in range(4)}
        content |= {"fx": 70.0, "fy": 71.0, "cx": 31.0, "cy": 23.0, "width": WIDTH, "height": HEIGHT, "blur_score": 9}
        path = folder / "keyframes" / f"{prefix}cameras" / name.replace(".png", ".json")
        path.write_text(json.dumps(content | changes))


def test_polycams_corrected_cameras_go_before_and_its_depths_come_along(tmp_path):
    write_polycam(tmp_path, Cameras.orbit(5))
    write_polycam(tmp_path, some_cameras(), "corrected_")
    (tmp_path / "keyframes" / "depth").mkdir()
    depth = Image.fromarray(np.full((12, 15), 1500, np.uint16))
    depth.save(tmp_path / "keyframes" / "depth" / NAMES[2])
    assert_capture(tmp_path, some_cameras(), PINHOLE, "Polycam keyframes, corrected")
    views = load_views(tmp_path)
    assert views.depth_z is not None
    assert (views.depth_z[2] == 1.5).all()
    assert (views.depth_z[1] == 0).all()
    assert read_camera_file(find_camera_file(tmp_path)).up.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_00": None}, "t_00 is not a finite number"),
        ({"t_00": 7.0}, "not a rotation"),
        ({"fx": -1.0}, "focal length is not positive"),
        ({"width": 0}, "width is 0"),
        ({"width": 480}, "says 480x48"),
        ({"cx": "x"}, "cx is not a finite number"),
    ],
)
def test_bad_polycam_cameras_are_one_clear_line(tmp_path, changes, message):
    write_polycam(tmp_path, some_cameras(), **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


def record3d(cameras: Cameras) -> dict[str, Any]:
    T = cameras.T_world_camera.numpy()
    poses = np.concatenate([Rotation.from_matrix(T[:, :3, :3]).as_quat(), T[:, :3, 3]], axis=1)
    return {"w": WIDTH, "h": HEIGHT, "K": [70.0, 0, 0, 0, 71.0, 0, 31.0, 23.0, 1], "fps": 60, "poses": poses.tolist()}


def test_record3d_comes_back(tmp_path):
    write_pictures(tmp_path / "rgb", [f"{i}.png" for i in range(5)])
    (tmp_path / "metadata.json").write_text(json.dumps(record3d(some_cameras())))
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.full((12, 15), 1.25, np.float32)).save(tmp_path / "depth" / "3.tiff")
    (tmp_path / "depth" / "1.exr").write_bytes(exr(np.full((12, 15), 0.75, np.float32)))
    assert_capture(tmp_path, some_cameras(), PINHOLE, "Record3D")
    views = load_views(tmp_path)
    assert (views.depth_z[3] == 1.25).all()
    assert (views.depth_z[1] == 0.75).all()


def test_record3ds_lens_of_each_frame_goes_before_the_films(tmp_path):
    write_pictures(tmp_path / "rgb", [f"{i}.png" for i in range(5)])
    each = {"perFrameIntrinsicCoeffs": [[80.0 + i, 80.0 + i, 30.0, 24.0] for i in range(5)]}
    (tmp_path / "metadata.json").write_text(json.dumps(record3d(some_cameras()) | each))
    assert [picture.lens.fx_px for picture in read_camera_file(tmp_path).pictures] == [80, 81, 82, 83, 84]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("poses", None, "no list of poses"),
        ("poses", [[0, 0, 0, 0, 1, 2, 3]], "no rotation and position"),
        ("poses", [[0, 0, 0, 1]], "no list of 7 numbers"),
        ("poses", [[0, 0, 0, 1, 1, 2, float("nan")]], "no list of 7 numbers"),
        ("K", [1, 2, 3], "K is no list of 9 numbers"),
        ("K", [0] * 9, "focal length is not positive"),
        ("w", "wide", "w is not a finite number"),
    ],
)
def test_a_bad_metadata_is_one_clear_line(tmp_path, name, value, message):
    write_pictures(tmp_path / "rgb", ["0.png"])
    (tmp_path / "metadata.json").write_text(json.dumps(record3d(some_cameras()) | {name: value}))
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


def test_3d_scanner_app_comes_back_and_dropped_frames_are_noted(tmp_path):
    write_pictures(tmp_path, [f"frame_{i:05d}.png" for i in range(4)])
    for i, T in enumerate(some_cameras().T_world_camera):
        content = {"cameraPoseARFrame": T.flatten().tolist(), "intrinsics": [70.0, 0, 31.0, 0, 71.0, 23.0, 0, 0, 1]}
        (tmp_path / f"frame_{i:05d}.json").write_text(json.dumps(content))
    Image.fromarray(np.full((12, 15), 700, np.uint16)).save(tmp_path / "depth_00001.png")
    (tmp_path / "info.json").write_text("{}")
    assert_capture(tmp_path, some_cameras()[:4], PINHOLE, "3D Scanner App")
    views = load_views(tmp_path)
    assert "1 of 5 pictures are not there" in views.assumptions[0]
    torch.testing.assert_close(views.depth_z[1], torch.full_like(views.depth_z[1], 0.7))


# --- DTU, BlendedMVS -------------------------------------------------------------------------------------------------


def idr(cameras: Cameras) -> dict[str, np.ndarray]:
    K = np.array([[70.0, 0, 30.5], [0, 71.0, 22.5], [0, 0, 1]])  # whole numbers are pixel centres
    arrays = {}
    for i, T in enumerate(opencv_camera_to_world(cameras)):
        P = np.eye(4)
        P[:3] = K @ np.linalg.inv(T)[:3] * (-1) ** i * (2.0 + i)  # a projection has no scale and no sign
        arrays |= {f"world_mat_{i}": P, f"scale_mat_{i}": np.diag([3.0, 3, 3, 1])}
    return arrays


def test_dtu_as_idr_has_it_comes_back_with_its_masks(tmp_path):
    names = [f"{i:06d}.png" for i in range(5)]
    write_pictures(tmp_path / "image", names)
    (tmp_path / "mask").mkdir()
    for i, name in enumerate(names):
        Image.open(tmp_path / "image" / name).convert("RGB").save(tmp_path / "image" / name)
        mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        mask[: 10 + i] = 255
        Image.fromarray(mask).save(tmp_path / "mask" / f"{i:03d}.png")
    np.savez(tmp_path / "cameras_sphere.npz", **idr(some_cameras()))
    assert_capture(tmp_path, some_cameras(), PINHOLE, "DTU")
    views = load_views(tmp_path)
    assert [float(alpha.sum()) / WIDTH for alpha in views.alpha] == pytest.approx([10, 11, 12, 13, 14])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_mat_1": np.zeros((4, 4))}, "no projection of a camera"),
        ({"world_mat_1": np.full((4, 4), np.nan)}, "no 4x4 matrix of numbers"),
        ({"world_mat_1": np.zeros((3, 4))}, "no 4x4 matrix of numbers"),
        ({"world_mat_1": np.array(["x"])}, "cannot be read"),
        ({"world_mat_1": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_a_bad_cameras_sphere_is_one_clear_line(tmp_path, changes, message):
    write_pictures(tmp_path / "image", NAMES)
    np.savez(tmp_path / "cameras_sphere.npz", **(idr(some_cameras()) | changes))
    with pytest.raises(InputError, match=message) as caught:
        load_views(tmp_path)
    assert "\n" not in str(caught.value)


def test_dtu_without_enough_cameras_or_pictures_is_told(tmp_path):
    np.savez(tmp_path / "cameras_sphere.npz", **idr(some_cameras(2)))
    with pytest.raises(InputError, match="no folder image"):
        load_views(tmp_path)
    write_pictures(tmp_path / "image", NAMES)
    with pytest.raises(InputError, match="holds 2 cameras for 5 pictures"):
        load_views(tmp_path)
