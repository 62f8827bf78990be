"""Whole captures of each format that is read, of six discs: names and contents of files, for `generators` to break."""

import io
import json
import struct
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from meshwright import Cameras

KINDS = ("colmap-bin", "colmap-txt", "metashape", "realitycapture", "meshroom", "openmvg", "polycam", "record3d", "idr")
SIDE, FOCAL = 24, 45.0


def _poses() -> np.ndarray:
    """Camera to world, OpenGL."""
    cameras = Cameras.spherical([i * 60.0 for i in range(6)], [20.0, -30.0] * 3, 4.0, 30.0)
    return cameras.T_world_camera.numpy().astype(np.float64)


def _opencv() -> np.ndarray:
    return _poses() * [1, -1, -1, 1]


def whole(kind: str) -> tuple[dict[str, bytes], str]:
    """(files by name, the name of the one that holds numbers). Pictures 0.png ... 5.png lie beside them."""
    match kind:
        case "colmap-bin" | "colmap-txt":
            return _colmap(kind.endswith("bin")), "images.bin" if kind.endswith("bin") else "images.txt"
        case "metashape":
            return {"cameras.xml": _metashape()}, "cameras.xml"
        case "realitycapture":
            return {"rc.csv": _realitycapture()}, "rc.csv"
        case "meshroom":
            return {"cameras.sfm": json.dumps(meshroom()).encode()}, "cameras.sfm"
        case "openmvg":
            return {"sfm_data.json": json.dumps(openmvg()).encode()}, "sfm_data.json"
        case "record3d":
            return {"metadata.json": json.dumps(record3d()).encode()}, "metadata.json"
        case "polycam":
            cameras = {f"{i}.json": json.dumps(polycam(T)).encode() for i, T in enumerate(_poses())}
            return cameras, "3.json"
    stream = io.BytesIO()
    K = np.array([[FOCAL, 0, 11.5], [0, FOCAL, 11.5], [0, 0, 1]])
    projections = {
        f"world_mat_{i}": np.vstack([K @ np.linalg.inv(T)[:3], [0, 0, 0, 1]]) for i, T in enumerate(_opencv())
    }
    np.savez(stream, **projections)
    return {"cameras_sphere.npz": stream.getvalue()}, "cameras_sphere.npz"


def trees(kind: str) -> dict[str, Any] | None:
    """The JSON of a kind, to be changed in its structure; None if it has none."""
    makers = {"meshroom": meshroom, "openmvg": openmvg, "record3d": record3d, "polycam": lambda: polycam(_poses()[3])}
    return makers[kind]() if kind in makers else None


def _colmap(binary: bool) -> dict[str, bytes]:
    lens = [FOCAL, FOCAL, 12.0, 12.0, -0.05, 0.01, 0.001, 0.0]
    poses = []
    for T in np.linalg.inv(_opencv()):
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        poses.append([w, x, y, z, *T[:3, 3]])
    if not binary:
        images = "".join(
            f"{i + 1} {' '.join(f'{x:.9g}' for x in pose)} 1 {i}.png\n1 2 -1\n" for i, pose in enumerate(poses)
        )
        cameras = f"1 OPENCV {SIDE} {SIDE} {' '.join(map(str, lens))}\n"
        return {
            "cameras.txt": cameras.encode(),
            "images.txt": images.encode(),
            "points3D.txt": b"1 0 0 0 9 9 9 0.1 1 0\n",
        }
    images = struct.pack("<Q", 6)
    for i, pose in enumerate(poses):
        images += struct.pack("<I7dI", i + 1, *pose, 1) + f"{i}.png\0".encode() + struct.pack("<QddQ", 1, 1.0, 2.0, 1)
    return {
        "cameras.bin": struct.pack("<QIiQQ8d", 1, 1, 4, SIDE, SIDE, *lens),
        "images.bin": images,
        "points3D.bin": struct.pack("<QQ3d3BdQII", 1, 1, 0, 0, 0, 9, 9, 9, 0.1, 1, 1, 0),
    }


def _metashape() -> bytes:
    cameras = "".join(
        f'<camera id="{i}" sensor_id="0" label="{i}"><transform>'
        f"{' '.join(f'{x:.9g}' for x in T.ravel())}</transform></camera>"
        for i, T in enumerate(_opencv())
    )
    size = f'<resolution width="{SIDE}" height="{SIDE}"/>'
    lens = (
        f'<calibration type="frame">{size}<f>{FOCAL}</f><cx>0</cx><cy>0</cy><k1>-0.05</k1><p1>0.001</p1></calibration>'
    )
    return (
        f'<?xml version="1.0"?><document><chunk><sensors><sensor id="0" type="frame">{size}{lens}</sensor></sensors>'
        f"<cameras>{cameras}</cameras></chunk></document>"
    ).encode()


def _realitycapture() -> bytes:
    lines = ["#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2"]
    for i, T in enumerate(_poses()):
        yaw, pitch, roll = Rotation.from_matrix(T[:3, :3]).as_euler("ZXY", degrees=True)
        values = [*T[:3, 3], -yaw, pitch, roll, FOCAL * 36 / SIDE, 0, 0, -0.05, 0, 0, 0, 0, 0]
        lines.append(",".join([f"{i}.png", *(f"{value:.9g}" for value in values)]))
    return ("\n".join(lines) + "\n").encode()


def meshroom() -> dict[str, Any]:
    views, poses = [], []
    for i, T in enumerate(_opencv()):
        views.append({"viewId": str(i), "poseId": str(i), "intrinsicId": "0", "path": f"/x/{i}.png"})
        transform = {"rotation": [f"{x:.9g}" for x in T[:3, :3].ravel()], "center": [f"{x:.9g}" for x in T[:3, 3]]}
        poses.append({"poseId": str(i), "pose": {"transform": transform}})
    intrinsic = {"intrinsicId": "0", "width": "24", "height": "24", "sensorWidth": "24", "focalLength": str(FOCAL)}
    intrinsic |= {"type": "radial3", "principalPoint": ["0", "0"], "distortionParams": ["-0.05", "0", "0"]}
    structure = [{"X": ["0", "0", "0"]}]
    return {
        "version": ["1", "2", "6"],
        "views": views,
        "intrinsics": [intrinsic],
        "poses": poses,
        "structure": structure,
    }


def openmvg() -> dict[str, Any]:
    views, poses = [], []
    for i, T in enumerate(_opencv()):
        data = {"filename": f"{i}.png", "id_view": i, "id_intrinsic": 0, "id_pose": i}
        views.append({"key": i, "value": {"ptr_wrapper": {"id": i, "data": data}}})
        poses.append({"key": i, "value": {"rotation": T[:3, :3].T.round(6).tolist(), "center": T[:3, 3].tolist()}})
    lens = {"width": 24, "height": 24, "focal_length": FOCAL, "principal_point": [12, 12], "disto_k3": [-0.05, 0, 0]}
    intrinsics = [{"key": 0, "value": {"ptr_wrapper": {"id": 1, "data": lens}}}]
    return {"sfm_data_version": "0.3", "views": views, "intrinsics": intrinsics, "extrinsics": poses, "structure": []}


def record3d() -> dict[str, Any]:
    poses = [[*Rotation.from_matrix(T[:3, :3]).as_quat().tolist(), *T[:3, 3].tolist()] for T in _poses()]
    return {"w": 24, "h": 24, "K": [FOCAL, 0, 0, 0, FOCAL, 0, 12, 12, 1], "poses": poses}


def polycam(T: np.ndarray) -> dict[str, Any]:
    content = {f"t_{i}{j}": round(float(T[i, j]), 6) for i in range(3) for j in range(4)}
    return content | {"fx": FOCAL, "fy": FOCAL, "cx": 12.0, "cy": 12.0, "width": 24, "height": 24}
