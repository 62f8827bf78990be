"""The functions that read files of strangers, each in this process or in a child of its own."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.capture import load_views
from meshwright.child import run_in_child
from meshwright.errors import InputError
from meshwright.isolated.parcel import DamagedParcel, Parcel
from meshwright.limits import Limits
from meshwright.mesh import Mesh
from meshwright.mesh_files import load_mesh
from meshwright.model import ModelConfig
from meshwright.options import ViewOptions
from meshwright.progress import Progress, silent
from meshwright.views import Capture, Outlines, Views
from meshwright.weights import Checkpoint, read_checkpoint

AnyPath = str | os.PathLike[str]
_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Readers:
    """How files are read: the signatures are those of the functions of these names."""

    load_views: Callable[..., Views]
    load_mesh: Callable[..., Mesh]
    read_checkpoint: Callable[..., Checkpoint]


def file_readers(isolate: bool, limits: Limits = Limits()) -> Readers:
    """Functions that read in this process, or with ``isolate`` each file in a child process within ``limits``.

    What they return is the same to the last bit.
    """
    if not isolate:
        return Readers(load_views, load_mesh, read_checkpoint)
    return Readers(
        functools.partial(_load_views, limits),
        functools.partial(_load_mesh, limits),
        functools.partial(_read_checkpoint, limits),
    )


def _load_views(
    limits: Limits, path: AnyPath, options: ViewOptions = ViewOptions(), *, progress: Progress = silent
) -> Views:
    given = asdict(options)
    given["masks"] = None if options.masks is None else os.fspath(options.masks)
    arguments = {"path": os.fspath(path), "options": given}
    parcel = _from_child(views_parcel, arguments, path, limits, progress)
    return _views_from(parcel, path)


def views_parcel(path: str, options: Mapping[str, Any], result: BinaryIO, progress: Progress) -> None:
    """What a child does for `load_views`."""
    views = load_views(path, ViewOptions(**options), progress=progress)
    capture = None if views.capture is None else asdict(views.capture)
    outlines = None if views.outlines is None else asdict(views.outlines)
    facts = {
        "names": views.names, "rig": views.rig, "assumptions": views.assumptions, "capture": capture,
        "outlines": outlines, "cameras_fitted": views.cameras_fitted,
    }  # fmt: skip
    cameras = {"T_world_camera": views.cameras.T_world_camera, "intrinsics": views.cameras.intrinsics}
    Parcel(facts, {**_tensors_of(views), **cameras}).write(result)


def _views_from(parcel: Parcel, path: AnyPath) -> Views:
    names, rig, assumptions = (parcel.facts.get(name) for name in ("names", "rig", "assumptions"))
    texts = [*names, rig, *assumptions] if isinstance(names, list) and isinstance(assumptions, list) else [None]
    _require(path, bool(names) and all(isinstance(text, str) for text in texts))
    count = len(names or ())
    tensors = dict(parcel.tensors)
    T, intrinsics = (_of_floats(tensors.pop(name, None), path) for name in ("T_world_camera", "intrinsics"))
    _require(path, T.shape == (count, 4, 4) and intrinsics.shape == (count, 4))
    images = _of_floats(tensors.get("images"), path)
    canvas = images.shape[2:]
    shapes = {
        "images": (count, 3, *canvas), "alpha": (count, 1, *canvas), "depth_z": (count, 1, *canvas),
        "normals": (count, 3, *canvas), "sizes_px": (count, 2),
    }  # fmt: skip
    for name, tensor in tensors.items():
        is_sound = name in shapes and tensor.shape == shapes[name]
        _require(path, is_sound and (tensor.dtype in _FLOATS if name != "sizes_px" else tensor.dtype == torch.int64))
    _require(path, {"images", "alpha", "sizes_px"} <= tensors.keys())
    limits_px = tensors["sizes_px"].new_tensor(list(canvas))
    _require(path, bool(((tensors["sizes_px"] >= 1) & (tensors["sizes_px"] <= limits_px)).all()))
    cameras_fitted = parcel.facts.get("cameras_fitted", False)
    _require(path, isinstance(cameras_fitted, bool))
    assert isinstance(cameras_fitted, bool)
    return Views(
        **tensors, cameras=Cameras(T, intrinsics), names=tuple(names or ()), rig=str(rig),
        assumptions=tuple(assumptions or ()), capture=_capture_from(parcel.facts.get("capture"), path),
        outlines=_outlines_from(parcel.facts.get("outlines"), path), cameras_fitted=cameras_fitted,
    )  # fmt: skip


def _outlines_from(stated: object, path: AnyPath) -> Outlines | None:
    if stated is None:
        return None
    _require(path, isinstance(stated, dict) and stated.keys() == {field.name for field in fields(Outlines)})
    assert isinstance(stated, dict)
    agreement, least, *lists = (stated[field.name] for field in fields(Outlines))
    _require(path, isinstance(agreement, float) and isinstance(least, float))
    for texts in lists:
        _require(path, isinstance(texts, list) and all(isinstance(text, str) for text in texts))
    return Outlines(agreement, least, tuple(lists[0]), tuple(lists[1]))


def _capture_from(stated: object, path: AnyPath) -> Capture | None:
    if stated is None:
        return None
    _require(path, isinstance(stated, dict) and stated.keys() == {field.name for field in fields(Capture)})
    assert isinstance(stated, dict)
    kind, up, own_axes = stated["kind"], stated["up"], stated["own_axes"]
    _require(path, isinstance(kind, str) and isinstance(own_axes, bool) and isinstance(up, list | None))
    if up is not None:
        _require(path, len(up) == 3 and all(isinstance(part, float) for part in up))
    return Capture(kind, None if up is None else tuple(up), own_axes)


def _load_mesh(limits: Limits, path: AnyPath) -> Mesh:
    parcel = _from_child(mesh_parcel, {"path": os.fspath(path)}, path, limits)
    tensors = parcel.tensors
    _require(path, tensors.keys() <= {field.name for field in fields(Mesh)} and {"vertices", "faces"} <= tensors.keys())
    for name, points in (("faces", "vertices"), ("uv_faces", "uv")):
        if name in tensors:
            numbers = tensors[name]
            _require(path, points in tensors and numbers.dtype == torch.int64 and numbers.shape[1:] == (3,))
            is_inside = (numbers >= 0) & (numbers < len(_of_floats(tensors[points], path)))
            _require(path, bool(is_inside.all()))
    widths = {"vertices": 3, "vertex_colors": 3, "uv": 2}
    _require(path, all(tensors[name].shape[1:] == (width,) for name, width in widths.items() if name in tensors))
    colors, texture = tensors.get("vertex_colors"), tensors.get("texture")
    _require(path, colors is None or (colors.dtype in _FLOATS and len(colors) == len(tensors["vertices"])))
    counts = tensors.get("view_counts")
    _require(path, counts is None or (counts.shape == (len(tensors["vertices"]),) and counts.dtype not in _FLOATS))
    has_texture = {"uv", "uv_faces", "texture"} & tensors.keys()
    _require(path, len(has_texture) in (0, 3) and (texture is None or (texture.dim() == 3 and len(texture) == 3)))
    _require(path, texture is None or (texture.dtype in _FLOATS and len(tensors["uv_faces"]) == len(tensors["faces"])))
    return Mesh(**tensors)


def mesh_parcel(path: str, result: BinaryIO, progress: Progress) -> None:
    """What a child does for `load_mesh`."""
    Parcel({}, _tensors_of(load_mesh(path))).write(result)


def _read_checkpoint(limits: Limits, path: AnyPath, config: ModelConfig | None = None) -> Checkpoint:
    arguments = {"path": os.fspath(path), "config": None if config is None else config.to_json()}
    parcel = _from_child(checkpoint_parcel, arguments, path, limits)
    form, stated = parcel.facts.get("form"), parcel.facts.get("config")
    _require(path, isinstance(form, str) and (stated is None or isinstance(stated, str)))
    return Checkpoint(Path(path), str(form), None if stated is None else ModelConfig.from_json(stated), parcel.tensors)


def checkpoint_parcel(path: str, config: str | None, result: BinaryIO, progress: Progress) -> None:
    """What a child does for `read_checkpoint`."""
    checkpoint = read_checkpoint(path, None if config is None else ModelConfig.from_json(config))
    stated = None if checkpoint.config is None else checkpoint.config.to_json()
    Parcel({"form": checkpoint.form, "config": stated}, checkpoint.tensors).write(result)


def _from_child(
    function: Callable[..., None],
    arguments: Mapping[str, Any],
    path: AnyPath,
    limits: Limits,
    progress: Progress = silent,
) -> Parcel:
    with tempfile.TemporaryFile() as result:
        run_in_child(f"{__name__}:{function.__name__}", arguments, result, path, limits, progress)
        try:
            return Parcel.read(result)
        except DamagedParcel:
            raise _broken(path) from None


def _tensors_of(value: Views | Mesh) -> dict[str, Tensor]:
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}


def _of_floats(tensor: Tensor | None, path: AnyPath) -> Tensor:
    if tensor is None or tensor.dtype not in _FLOATS or tensor.dim() < 2:
        raise _broken(path)
    return tensor


def _require(path: AnyPath, is_sound: bool) -> None:
    if not is_sound:
        raise _broken(path)


def _broken(path: AnyPath) -> InputError:
    return InputError(f"{path}: the process that reads it handed over what it should not; do not use this file")
