"""The layouts of the published code bases, read and written as their descriptions say.

InstantMesh (TencentARC)::

    ROOT/filtered_obj_name.json             {"good_objs": [UID, ...]}
    ROOT/rendering_random_32views/UID/      NNN.png RGBA; NNN_normal.png RGBA, world space, (n + 1) / 2, black outside;
                                            NNN_depth.png 8 bit grey, 255 is 6.0 away;
                                            cameras.npz: cam_poses, world-to-camera 3x4; field of view 50 degrees

MindOne (the MindSpore port)::

    ROOT/uid_set.txt or uid_set.pkl         one UID a line, or a pickled list
    ROOT/VIEWS/UID/                         NNN.png RGBA;
                                            meta.pkl: K, azimuths, elevations, distances, world-to-camera 3x4; no depth
"""

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras, focal_from_fov
from meshwright.capture import read_training_cameras, unpickle_numbers
from meshwright.curate.object_files import (
    RenderedObject,
    checked_cameras,
    decode_png,
    encode_normals,
    encode_png,
    folder_reader,
)
from meshwright.errors import InputError
from meshwright.untrusted import parse_json, read_untrusted

INSTANTMESH_FOLDER = "rendering_random_32views"
INSTANTMESH_FOV_DEG = 50.0
INSTANTMESH_FARTHEST = 6.0
_MINDONE_FOLDER = "renderings"
_MAX_LIST_BYTES = 64 << 20


class InstantMeshLayout:
    """Objects in the layout of TencentARC/InstantMesh."""

    def __init__(self, root: Path) -> None:
        self._root = root
        listed = root / "filtered_obj_name.json"
        content = parse_json(read_untrusted(listed, _MAX_LIST_BYTES, "a list of objects"), listed)
        uids = content.get("good_objs") if isinstance(content, dict) else None
        if not isinstance(uids, list):
            raise InputError(f'{listed}: holds no list "good_objs"; add it')
        self._names = _checked_names(uids, listed)

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def view_count(self, name: str) -> int:
        return len(self._cameras(name))

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        folder = self._root / INSTANTMESH_FOLDER / name
        cameras, read = self._cameras(name), folder_reader(folder)
        chosen = _chosen(len(cameras), views, folder)
        rgba = _read_rgba(folder, chosen)
        size = rgba.shape[2:]
        depth_z, normals = torch.zeros(len(chosen), 1, *size), torch.zeros(len(chosen), 3, *size)
        for row, i in enumerate(chosen):
            depth, normal = f"{i:03d}_depth.png", f"{i:03d}_normal.png"
            levels = decode_png(read(depth), f"{folder / depth}", "L", *size)
            depth_z[row, 0] = torch.from_numpy(levels.astype(np.float32) / 255 * INSTANTMESH_FARTHEST)
            normals[row] = _normals(decode_png(read(normal), f"{folder / normal}", "RGBA", *size))
        return RenderedObject(name, rgba, depth_z, normals, cameras[chosen])

    def _cameras(self, name: str) -> Cameras:
        path = self._root / INSTANTMESH_FOLDER / name / "cameras.npz"
        T, _ = read_training_cameras(path)
        focal = focal_from_fov(INSTANTMESH_FOV_DEG)
        return _cameras(T, torch.tensor([[focal, focal, 0.5, 0.5]]).repeat(len(T), 1), path)


def _normals(levels: np.ndarray) -> Float[Tensor, "3 height width"]:
    """(n + 1) / 2, made of unit length: their renderer mixes normals at edges. 0 where alpha is 0 or all is black."""
    pixels = torch.from_numpy(levels).permute(2, 0, 1)
    known = (pixels[3:] > 0) & (pixels[:3] != 0).any(0, keepdim=True)
    return torch.where(known, torch.nn.functional.normalize(pixels[:3].float() / 127.5 - 1, dim=0), 0.0)


def instantmesh_files(rendered: RenderedObject, where: object) -> dict[str, bytes]:
    """An object's files in this layout.

    Raises:
        InputError: the layout has no place for its cameras or its depth.
    """
    focal = focal_from_fov(INSTANTMESH_FOV_DEG)
    if (rendered.cameras.intrinsics - torch.tensor([focal, focal, 0.5, 0.5])).abs().max() > 1e-3:
        raise InputError(f"{where}: this layout has one lens, 50 degrees wide; render with `view_set='instantmesh'`")
    if rendered.depth_z.max() > INSTANTMESH_FARTHEST:
        raise InputError(f"{where}: this layout's depth ends at 6.0; render with `view_set='instantmesh'`")
    files: dict[str, bytes] = {}
    for i in range(len(rendered)):
        depth = (rendered.depth_z[i, 0] / INSTANTMESH_FARTHEST * 255).round().to(torch.uint8)
        normal = encode_normals(rendered.normals[i])
        alpha = (normal > 0).any(2, keepdims=True).astype(np.uint8) * 255
        files[f"{i:03d}.png"] = encode_png(rendered.rgba[i].permute(1, 2, 0).numpy())
        files[f"{i:03d}_depth.png"] = encode_png(depth.numpy())
        files[f"{i:03d}_normal.png"] = encode_png(np.concatenate([normal, alpha], axis=2))
    stream = io.BytesIO()
    np.savez(stream, cam_poses=rendered.cameras.T_camera_world[:, :3].numpy())
    files["cameras.npz"] = stream.getvalue()
    return files


class MindOneLayout:
    """Objects in the layout of mindspore-lab/mindone, examples/instantmesh."""

    def __init__(self, root: Path) -> None:
        self._root = root
        text, pickled = root / "uid_set.txt", root / "uid_set.pkl"
        lists = [text] if text.is_file() else sorted(root.glob("*.txt"))
        if lists:
            uids = read_untrusted(lists[0], _MAX_LIST_BYTES, "a list of objects").decode("utf-8", "replace").split()
            self._names = _checked_names(uids, lists[0])
        elif pickled.is_file():
            content = unpickle_numbers(pickled)
            if not isinstance(content, (list, tuple, set)):
                raise InputError(f"{pickled}: is no list of objects; write it again")
            self._names = _checked_names(sorted(content) if isinstance(content, set) else list(content), pickled)
        else:
            raise InputError(f"{root}: holds no uid_set.txt or uid_set.pkl; add the list of objects")

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def view_count(self, name: str) -> int:
        return len(read_training_cameras(self._folder(name) / "meta.pkl")[0])

    def read(self, name: str, views: Sequence[int] | None = None) -> RenderedObject:
        folder = self._folder(name)
        T, K = read_training_cameras(folder / "meta.pkl")
        assert K is not None  # a meta.pkl without it is refused
        chosen = _chosen(len(T), views, folder)
        rgba = _read_rgba(folder, chosen)
        height, width = rgba.shape[2:]
        lens = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
        cameras = _cameras(T, torch.tensor([lens], dtype=torch.float32).repeat(len(T), 1), folder / "meta.pkl")
        unknown = torch.zeros(len(chosen), 1, height, width)
        return RenderedObject(name, rgba, unknown, unknown.repeat(1, 3, 1, 1), cameras[chosen])

    def _folder(self, name: str) -> Path:
        """Their configuration names the folder of the pictures; the one that holds the object is taken."""
        found = [meta.parent for meta in sorted(self._root.glob(f"*/{name}/meta.pkl"))]
        found += [self._root / name] if (self._root / name / "meta.pkl").is_file() else []
        if not found:
            raise InputError(f"{self._root}: holds no folder {name} with a meta.pkl; add it or take it off the list")
        return found[0]


def mindone_files(rendered: RenderedObject, where: object) -> dict[str, bytes]:
    """An object's files in this layout; depth and normals have no place there. Angles are in radians.

    Raises:
        InputError: the views have different lenses.
    """
    intrinsics = rendered.cameras.intrinsics
    if (intrinsics - intrinsics[0]).abs().max() > 1e-5:
        raise InputError(f"{where}: this layout has one lens for all views; render with a single field of view")
    height, width = rendered.rgba.shape[2:]
    fx, fy, cx, cy = intrinsics[0].double().tolist()
    K = np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]])
    positions = rendered.cameras.positions.double().numpy()
    distances = np.linalg.norm(positions, axis=1)
    azimuths, elevations = np.arctan2(positions[:, 1], positions[:, 0]), np.arcsin(positions[:, 2] / distances)
    poses = rendered.cameras.T_camera_world[:, :3].numpy()
    files = {f"{i:03d}.png": encode_png(rendered.rgba[i].permute(1, 2, 0).numpy()) for i in range(len(rendered))}
    # Protocol 2 is what every reader of that time understands.
    files["meta.pkl"] = pickle.dumps([K, azimuths, elevations, distances, poses], protocol=2)
    return files


def write_instantmesh_list(root: Path, names: Sequence[str]) -> None:
    (root / "filtered_obj_name.json").write_text(json.dumps({"good_objs": list(names)}) + "\n", encoding="utf-8")


def write_mindone_list(root: Path, names: Sequence[str]) -> None:
    (root / "uid_set.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def instantmesh_folder(root: Path, name: str) -> Path:
    return root / INSTANTMESH_FOLDER / name


def mindone_folder(root: Path, name: str) -> Path:
    return root / _MINDONE_FOLDER / name


def _checked_names(uids: Sequence[object], where: Path) -> tuple[str, ...]:
    """Names of folders inside the set, and nothing that leads out of it."""
    for uid in uids:
        if not isinstance(uid, str) or not uid or uid in (".", "..") or any(c in uid for c in "/\\\0*?["):
            raise InputError(f"{where}: {str(uid)[:80]!r} is no name of an object; take it off the list")
    return tuple(str(uid) for uid in uids)


def _chosen(count: int, views: Sequence[int] | None, where: Path) -> list[int]:
    chosen = list(range(count)) if views is None else list(views)
    if any(not 0 <= i < count for i in chosen):
        raise InputError(f"{where}: has {count} views, no number {max(chosen)}")
    return chosen


def _read_rgba(folder: Path, views: Sequence[int]) -> Tensor:
    read = folder_reader(folder)
    pictures: list[np.ndarray] = []
    for i in views:
        size = pictures[0].shape[:2] if pictures else (None, None)
        pictures.append(decode_png(read(f"{i:03d}.png"), f"{folder / f'{i:03d}.png'}", "RGBA", *size))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _cameras(T: np.ndarray, intrinsics: Tensor, where: Path) -> Cameras:
    return checked_cameras(torch.from_numpy(T).float(), intrinsics, str(where))
