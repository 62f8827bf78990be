"""One rendered object as files: pictures, depth, normals, cameras and where it came from.

A folder (or, inside a shard, a set of members) holds

    000.png         RGBA, 8 bit, sRGB, straight alpha
    000_depth.png   16 bit grey: depth along the viewing axis in steps of ``depth_unit_scale_factor`` world units,
                    0 where the pixel's centre sees nothing
    000_normal.png  RGB, 8 bit: (n + 1) / 2 of the unit normal in the world, black where nothing is seen
    transforms.json cameras in the NeRF / nerfstudio dialect, so that the folder is an INPUT of `meshwright reconstruct`
    object.json     `ObjectRecord`

Nothing in them depends on when or how fast they were made: the same object and options give the same bytes.
"""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.errors import InputError

ReadFile = Callable[[str], bytes]
"""Gives the content of one of an object's files; raises InputError, naming it, when there is none."""

MAX_PICTURE_PX = 4096
_PNG_LEVEL = 1  # level 6 takes four times as long for 12 % less
_NOT_ORTHONORMAL = 1e-3
_NOT_UNIT = 0.02  # rounding to bytes changes a length by 0.007 at most


@dataclass(frozen=True)
class Normalization:
    """How an object was brought into [-1, 1]^3: p = (p_file - center) * scale, p_file in the mesh file, turned z up."""

    fit: str
    center: tuple[float, float, float]
    scale: float


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of a rendered object; the content of its object.json.

    ``bounds``: lower and upper corner of its box after normalization. ``renderer``: name and version.
    """

    name: str
    source_file: str
    sha256: str
    views: int
    size_px: int
    view_set: str
    seed: int
    renderer: str
    lighting: str
    normalization: Normalization
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]
    faces: int
    split: str = ""
    source: str = ""
    licence: str = ""
    credit: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: object) -> "ObjectRecord":
        """Raises: InputError: not such a record."""
        try:
            content = json.loads(text)
            normalization = content.pop("normalization")
            low, high = content.pop("bounds")
            return cls(
                **{**content, "warnings": tuple(content["warnings"])},
                normalization=Normalization(
                    normalization["fit"], _triple(normalization["center"]), float(normalization["scale"])
                ),
                bounds=(_triple(low), _triple(high)),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{where}: is no record of a rendered object ({type(error).__name__}); render it again"
            ) from None


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


@dataclass(frozen=True, eq=False)
class RenderedObject:
    """Pictures of one object from known cameras.

    ``rgba``: sRGB with straight alpha. ``depth_z`` (world units along the viewing axis) and ``normals`` (unit, in the
    world) belong to the pixel's centre; 0 where it sees nothing, or where the files do not say.
    """

    name: str
    rgba: UInt8[Tensor, "views 4 height width"]
    depth_z: Float[Tensor, "views 1 height width"]
    normals: Float[Tensor, "views 3 height width"]
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.rgba)


def depth_unit(farthest: float) -> float:
    """Length of a step of 16 bit depth that reaches ``farthest``: a power of two, so that files state it exactly."""
    return 2.0 ** math.ceil(math.log2(farthest / 65535))


def object_files(rendered: RenderedObject, record: ObjectRecord) -> dict[str, bytes]:
    """The files of an object by name, ready to be written to a folder or a shard."""
    unit = depth_unit(max(float(rendered.depth_z.max()), 1.0))
    files: dict[str, bytes] = {}
    for i in range(len(rendered)):
        files[f"{i:03d}.png"] = encode_png(rendered.rgba[i].permute(1, 2, 0).numpy())
        files[f"{i:03d}_depth.png"] = encode_png(encode_depth(rendered.depth_z[i, 0], unit))
        files[f"{i:03d}_normal.png"] = encode_png(encode_normals(rendered.normals[i]))
    height, width = rendered.rgba.shape[2:]
    files["transforms.json"] = _transforms_json(rendered.cameras, height, width, unit).encode()
    files["object.json"] = record.to_json().encode()
    return files


def encode_png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def encode_depth(depth_z: Float[Tensor, "height width"], unit: float) -> np.ndarray:
    """16 bit steps, 0 kept for "nothing": a surface nearer than half a step is one step away."""
    steps = (depth_z.double() / unit).round().clamp(0, 65535)
    return torch.where(depth_z > 0, steps.clamp(min=1), 0.0).numpy().astype(np.uint16)


def encode_normals(normals: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """(n + 1) / 2 in bytes, black where there is no normal; no unit normal is encoded as black."""
    known = (normals != 0).any(0, keepdim=True)
    levels = torch.where(known, ((normals + 1) * 127.5).round().clamp(0, 255), 0.0)
    return levels.to(torch.uint8).permute(1, 2, 0).numpy()


def decode_normals(levels: UInt8[np.ndarray, "height width channels"], where: str) -> Float[Tensor, "3 height width"]:
    """The inverse of `encode_normals` up to rounding, of unit length again.

    Raises:
        InputError: what is written there has not the length 1.
    """
    rgb = torch.from_numpy(levels).permute(2, 0, 1)
    known = (rgb != 0).any(0, keepdim=True)
    normals = rgb.float() / 127.5 - 1
    length = normals.norm(dim=0, keepdim=True)
    if bool((known & ((length - 1).abs() > _NOT_UNIT)).any()):
        raise InputError(f"{where}: holds normals that have not the length 1; render it again")
    return torch.where(known, normals / length.clamp(min=1e-6), 0.0)


def _transforms_json(cameras: Cameras, height: int, width: int, unit: float) -> str:
    frames = []
    for i, (T, (fx, fy, cx, cy)) in enumerate(
        zip(cameras.T_world_camera.tolist(), cameras.intrinsics.tolist(), strict=True)
    ):
        frames.append(
            {
                "file_path": f"{i:03d}.png",
                "depth_file_path": f"{i:03d}_depth.png",
                "normal_file_path": f"{i:03d}_normal.png",
                "fl_x": fx * width,
                "fl_y": fy * height,
                "cx": cx * width,
                "cy": cy * height,
                "transform_matrix": T,
            }
        )
    content = {"w": width, "h": height, "depth_unit_scale_factor": unit, "frames": frames}
    return json.dumps(content, indent=1) + "\n"


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Transforms:
    cameras: Cameras
    height: int
    width: int
    unit: float


def read_view_count(read: ReadFile, where: object) -> int:
    """How many views the object's transforms.json names. Raises: InputError."""
    return len(_read_transforms(read("transforms.json"), f"{where}/transforms.json").cameras)


def read_record(read: ReadFile, where: object) -> ObjectRecord:
    """Raises: InputError: missing or no such record."""
    return ObjectRecord.from_json(read("object.json"), f"{where}/object.json")


def read_object(name: str, read: ReadFile, where: object, views: Sequence[int] | None = None) -> RenderedObject:
    """The chosen views of an object (all of them when ``views`` is None).

    Raises:
        InputError: a file is missing, damaged, of another size or kind than transforms.json says, or a camera in it
            is not a rotation and a position.
    """
    transforms = _read_transforms(read("transforms.json"), f"{where}/transforms.json")
    count = len(transforms.cameras)
    chosen = list(range(count)) if views is None else list(views)
    if any(not 0 <= i < count for i in chosen):
        raise InputError(f"{where}: has {count} views, no number {max(chosen)}; render it again with more views")
    height, width = transforms.height, transforms.width
    rgba = torch.empty(len(chosen), 4, height, width, dtype=torch.uint8)
    depth_z, normals = torch.empty(len(chosen), 1, height, width), torch.empty(len(chosen), 3, height, width)
    for row, i in enumerate(chosen):
        color, depth, normal = f"{i:03d}.png", f"{i:03d}_depth.png", f"{i:03d}_normal.png"
        rgba[row] = torch.from_numpy(decode_png(read(color), f"{where}/{color}", "RGBA", height, width)).permute(
            2, 0, 1
        )
        steps = decode_png(read(depth), f"{where}/{depth}", "I;16", height, width)
        depth_z[row, 0] = torch.from_numpy(steps.astype(np.float32) * np.float32(transforms.unit))
        levels = decode_png(read(normal), f"{where}/{normal}", "RGB", height, width)
        normals[row] = decode_normals(levels, f"{where}/{normal}")
    return RenderedObject(name, rgba, depth_z, normals, transforms.cameras[chosen])


def decode_png(
    data: bytes, where: str, mode: str, height: int | None = None, width: int | None = None
) -> UInt8[np.ndarray, "_height _width channels"] | np.ndarray:
    """Pixels of a PNG that must be of one mode and size; its header is looked at before anything is unpacked.

    Raises:
        InputError: it is not.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # 16 bit grey is "I;16" or "I" by Pillow's version
            found = "I;16" if image.mode in ("I", "I;16", "I;16B") else image.mode
            if found != mode:
                raise InputError(f"{where}: is a picture of kind {found}, not {mode}; render it again")
            size = (image.height, image.width)
            if size != (height or size[0], width or size[1]) or max(size) > MAX_PICTURE_PX:
                raise InputError(f"{where}: is {size[1]}x{size[0]} px, not {width}x{height}; render it again")
            return np.array(image)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parsers hit
        raise InputError(f"{where}: the picture is damaged ({type(error).__name__}); render it again") from None


def _read_transforms(text: bytes, where: str) -> _Transforms:
    try:
        content: dict[str, Any] = json.loads(text)
        width, height = content["w"], content["h"]
        unit = float(content["depth_unit_scale_factor"])
        T = torch.tensor([frame["transform_matrix"] for frame in content["frames"]], dtype=torch.float32)
        intrinsics = torch.tensor(
            [
                [frame["fl_x"] / width, frame["fl_y"] / height, frame["cx"] / width, frame["cy"] / height]
                for frame in content["frames"]
            ],
            dtype=torch.float32,
        )
    except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError) as error:
        raise InputError(
            f"{where}: is not what `curate render` writes ({type(error).__name__}: {error}); render it again"
        ) from None
    if T.ndim != 3 or T.shape[1:] != (4, 4) or not 0 < unit < 1 or min(width, height) < 1:
        raise InputError(f"{where}: sizes or matrices are not those of a rendered object; render it again")
    return _Transforms(checked_cameras(T, intrinsics, where), int(height), int(width), unit)


def checked_cameras(
    T_world_camera: Float[Tensor, "views 4 4"], intrinsics: Float[Tensor, "views 4"], where: str
) -> Cameras:
    """Raises: InputError: a camera is not a rotation and a position, or has no focal length."""
    R = T_world_camera[:, :3, :3]
    error = (R @ R.mT - torch.eye(3)).abs().flatten(1).amax(1)
    flawed = ~((error < _NOT_ORTHONORMAL) & (torch.linalg.det(R.nan_to_num()) > 0))  # NaN compares as false
    flawed |= ~T_world_camera.isfinite().all(2).all(1) | ~intrinsics.isfinite().all(1) | (intrinsics[:, :2] <= 0).any(1)
    if bool(flawed.any()):
        number = int(flawed.nonzero()[0])
        raise InputError(f"{where}: camera {number} is not a rotation, a position and a focal length; render it again")
    return Cameras(T_world_camera, intrinsics)


def folder_reader(folder: Path) -> ReadFile:
    """Reads an object's files from its folder."""

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            raise InputError(f"{folder / name}: {reason}; render the object again") from None

    return read
