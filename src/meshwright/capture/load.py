"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from meshwright.cameras import SV3D_FOV_DEG, Cameras, framing_radius
from meshwright.capture.camera_files.posed import DepthFile, find_camera_file, read_posed
from meshwright.capture.foreground import cut_from_background, cut_with_rembg
from meshwright.capture.orbit import estimate_orbit, estimate_path
from meshwright.errors import InputError
from meshwright.images import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Frames,
    Picture,
    image_size,
    is_animation,
    read_depth,
    read_frames,
    read_image,
    resize,
)
from meshwright.options import ViewOptions, require_unset
from meshwright.progress import Progress, silent
from meshwright.views import Views

_ZERO123PLUS_VERSIONS = {"zero123plus": "1.2", "zero123plus-v1.1": "1.1"}
_ORBITS = ("sv3d", "orbit")
_MIN_SIZE_PX = 16


@dataclass(frozen=True, eq=False)
class _Shots:
    """Decoded pictures with their cameras, before the object is cut out. ``cameras`` are those of each picture."""

    pictures: Sequence[Picture]
    names: Sequence[str]
    cameras: Cameras
    rig: str
    assumptions: tuple[str, ...]
    masks: Sequence[Path | None] | None = None
    depths: Sequence[DepthFile | None] | None = None


def load_views(
    path: str | os.PathLike[str], options: ViewOptions = ViewOptions(), *, progress: Progress = silent
) -> Views:
    """Read posed pictures of one object.

    ``path`` is one of
      - a film or animation of one turn around the object (rig ``sv3d`` or ``orbit``);
      - a Zero123++ sheet of 3 x 2 or 2 x 3 pictures (rig ``zero123plus`` or ``zero123plus-v1.1``);
      - a transforms.json, or a folder that holds one, or cameras.npz or meta.pkl (rig ``posed``);
      - a folder of pictures, in the natural order of their names, for any of the first four rigs.

    Of an orbit, what ``options`` leave open is estimated from the pictures: direction and elevation by
    `estimate_orbit`, then how unevenly the camera moved by `estimate_path`. What they give is kept.
    ``Views.assumptions`` says what was estimated or taken for granted.

    Raises:
        InputError: ``path`` cannot be read or makes no sense, or an option has no effect on it; says what to do.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the path")
    camera_file = _camera_file(path, options.rig)
    if camera_file is not None:
        shots = _posed_shots(camera_file, options)
    elif _is_still(path):
        shots = _sheet_shots(path, options)
    else:
        shots = _rig_shots(path, options)
    folder = path if path.is_dir() else path.parent
    beside = folder / "masks" if path.is_dir() or camera_file is not None else None
    if options.masks is not None:
        shots = replace(shots, masks=_masks_by_name(Path(options.masks), shots.names))
    elif shots.masks is None and beside is not None and beside.is_dir():
        shots = replace(shots, masks=_masks_by_name(beside, shots.names))
    views = _assemble(shots, options.background, options.max_size_px, progress)
    if shots.rig not in _ORBITS:
        return views
    views = estimate_orbit(views, options.elevation_deg, options.clockwise, progress)
    if options.turn == "even":
        return views
    return estimate_path(views, keep_elevation=options.elevation_deg is not None, progress=progress)


def _lens(options: ViewOptions, rig_fov_deg: float) -> tuple[float, float]:
    """(field of view, radius): those given, else the rig's own and the radius that frames the object with it."""
    fov_deg = rig_fov_deg if options.fov_deg is None else options.fov_deg
    return fov_deg, framing_radius(fov_deg) if options.radius is None else options.radius


def _require_no_orbit(what: str, options: ViewOptions) -> None:
    """Raise if an option is given that says how a camera went around the object."""
    turn = None if options.turn == ViewOptions.turn else options.turn
    require_unset(what, elevation_deg=options.elevation_deg, clockwise=options.clockwise, turn=turn)


def _camera_file(path: Path, rig: str) -> Path | None:
    if rig not in ("auto", "posed"):
        return None
    if path.suffix.lower() == ".json":
        return path
    found = find_camera_file(path) if path.is_dir() else None
    if found is None and rig == "posed":
        raise InputError(f"{path}: holds no transforms.json, cameras.npz or meta.pkl; add one or choose another `rig`")
    return found


def _is_still(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES and not is_animation(path)


def _posed_shots(camera_file: Path, options: ViewOptions) -> _Shots:
    what = f"{camera_file}, which holds the cameras"
    _require_no_orbit(what, options)
    require_unset(what, radius=options.radius)
    if camera_file.suffix == ".json":
        require_unset(what, fov_deg=options.fov_deg)
    files = read_posed(camera_file, options.fov_deg)
    chosen = _evenly(len(files.pictures), options.max_views)
    pictures = [read_image(files.pictures[i], options.max_size_px) for i in chosen]
    names = _unique_names(files.pictures, camera_file.parent)
    return _Shots(
        pictures,
        [names[i] for i in chosen],
        files.cameras[chosen],
        "posed",
        files.assumptions + _selection_said(len(chosen), len(files.pictures)),
        [files.masks[i] for i in chosen] if any(files.masks) else None,
        [files.depths[i] for i in chosen] if any(files.depths) else None,
    )


def _unique_names(pictures: Sequence[Path], folder: Path) -> list[str]:
    """File names; where several folders hold pictures of one name, the paths from ``folder``."""
    if len({picture.stem for picture in pictures}) == len(pictures):
        return [picture.name for picture in pictures]
    return [Path(os.path.relpath(picture, folder)).as_posix() for picture in pictures]


def _evenly(count: int, limit: int) -> list[int]:
    return [i * count // limit for i in range(limit)] if count > limit else list(range(count))


def _selection_said(chosen: int, count: int) -> tuple[str, ...]:
    return () if chosen == count else (f"uses {chosen} of {count} pictures, evenly chosen",)


def _frames(path: Path, max_size_px: int, max_views: int) -> tuple[Frames, list[str]]:
    """The pictures of a turn around the object, from a film or a folder."""
    if path.is_dir():
        files = _picture_files(path)
        if not files:
            raise InputError(f"{path}: holds no pictures; give a folder of PNG or JPEG files, a video or a sheet")
        chosen = _evenly(len(files), max_views)
        pictures = tuple(read_image(files[i], max_size_px) for i in chosen)
        return Frames(pictures, tuple(chosen), len(files)), [files[i].name for i in chosen]
    if path.suffix.lower() not in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        kinds = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(f"{path}: is neither a picture nor a video (known: {kinds}); convert it")
    frames = read_frames(path, max_size_px, max_views)
    return frames, [f"frame {index:03d}" for index in frames.indices]


def _picture_files(folder: Path) -> list[Path]:
    """Pictures in the natural order of their names: view2 before view10."""

    def natural(file: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]

    pictures = (file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())
    return sorted((file for file in pictures if not file.name.startswith(".")), key=natural)


def _rig_shots(path: Path, options: ViewOptions) -> _Shots:
    """Cameras for pictures in the order of a rig."""
    frames, names = _frames(path, options.max_size_px, options.max_views)
    said = _selection_said(len(frames.pictures), frames.count)
    rig: str = options.rig
    if rig == "auto":
        rig, guess = _guess_rig(path, frames.count, options)
        said = (guess, *said)
    if rig in _ZERO123PLUS_VERSIONS:
        if frames.count != 6:
            raise InputError(f"{path}: holds {frames.count} pictures, but rig {rig} has six; choose `rig='orbit'`")
        _require_no_orbit(f"rig {rig}, whose cameras are fixed", options)
        fov_deg, radius = _lens(options, 30.0)
        cameras = Cameras.zero123plus(_ZERO123PLUS_VERSIONS[rig], radius, fov_deg)
    else:
        if frames.count < 3:
            raise InputError(f"{path}: holds {frames.count} pictures, too few for a turn around the object; give more")
        fov_deg, radius = _lens(options, SV3D_FOV_DEG if rig == "sv3d" else 30.0)
        cameras = Cameras.orbit(frames.count, options.elevation_deg or 0.0, radius, fov_deg, bool(options.clockwise))
    aspects = torch.tensor([picture.shape[2] / picture.shape[1] for picture in frames.pictures])
    wide = cameras[list(frames.indices)].cropped((1 - aspects) / 2, 0.0, aspects, 1.0)
    return _Shots(frames.pictures, names, wide, rig, said)


def _guess_rig(path: Path, count: int, options: ViewOptions) -> tuple[str, str]:
    """A rig for pictures without cameras, and a sentence that says so."""
    if count == 6 and path.is_dir():
        return "zero123plus", "six pictures are taken for the views of Zero123++ v1.2 (else choose a `rig`)"
    rig = "sv3d" if options.fov_deg is None and options.radius is None else "orbit"
    fov_deg, radius = _lens(options, SV3D_FOV_DEG)
    return rig, (
        f"the {count} pictures are taken for one turn of the camera, field of view {fov_deg:g} deg, radius {radius:.3g}"
    )


def _sheet_shots(path: Path, options: ViewOptions) -> _Shots:
    """The six pictures of a Zero123++ sheet, numbered row by row."""
    height_px, width_px = image_size(path)
    rows, columns = (3, 2) if height_px > width_px else (2, 3)
    rig: str = options.rig
    said: tuple[str, ...] = ()
    if rig == "auto":
        if abs(width_px / columns / (height_px / rows) - 1) > 0.02:
            raise InputError(
                f"{path}: one picture of {width_px}x{height_px} is neither a film nor a Zero123++ sheet (3x2 squares);"
                " give a video, a folder of pictures or a sheet"
            )
        rig, said = "zero123plus", ("the picture is taken for a sheet of Zero123++ v1.2 (else choose a `rig`)",)
    if rig not in _ZERO123PLUS_VERSIONS:
        raise InputError(f"{path}: one picture is no turn around the object; give a video or a folder of pictures")
    _require_no_orbit(f"rig {rig}, whose cameras are fixed", options)
    fov_deg, radius = _lens(options, 30.0)
    cameras = Cameras.zero123plus(_ZERO123PLUS_VERSIONS[rig], radius, fov_deg)
    sheet = read_image(path, options.max_size_px * max(rows, columns))
    pictures, cameras = split_sheet(sheet, cameras, rows, columns)
    return _Shots(pictures, [f"view {i}" for i in range(6)], cameras, rig, said)


def split_sheet(sheet: Picture, cameras: Cameras, rows: int, columns: int) -> tuple[list[Picture], Cameras]:
    """Cut a sheet into rows x columns pictures of one size, row by row, without resampling.

    ``cameras`` are those of the exact cells. Where the sheet's sides cannot be divided, the pictures are the whole
    pixels inside the cells, and the returned cameras are moved by the fractions that were cut away.
    """
    cell_height, cell_width = sheet.shape[1] / rows, sheet.shape[2] / columns
    height, width = int(cell_height), int(cell_width)
    tops = torch.arange(rows).repeat_interleave(columns) * cell_height
    lefts = torch.arange(columns).repeat(rows) * cell_width
    tops_px, lefts_px = tops.round().long(), lefts.round().long()
    pictures = [
        sheet[:, top : top + height, left : left + width]
        for top, left in zip(tops_px.tolist(), lefts_px.tolist(), strict=True)
    ]
    exact = cameras.cropped(
        (lefts_px - lefts) / cell_width, (tops_px - tops) / cell_height, width / cell_width, height / cell_height
    )
    return pictures, exact


def _masks_by_name(folder: Path, names: Sequence[str]) -> list[Path]:
    """The mask of each picture, whatever its suffix: that of ``train/0.png`` is ``train/0.*`` in ``folder``."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder of masks; give one, with files named like the pictures")
    masks = []
    for name in names:
        place = folder / name
        found = (
            [file for file in _picture_files(place.parent) if file.stem == place.stem] if place.parent.is_dir() else []
        )
        if not found:
            raise InputError(f"{folder}: holds no mask for {name}; name masks like the pictures")
        masks.append(found[0])
    return masks


def _assemble(shots: _Shots, background: str, max_size_px: int, progress: Progress) -> Views:
    """Cut the object out of every picture and put all on one canvas."""
    sizes_px = torch.tensor([picture.shape[1:] for picture in shots.pictures])
    height, width = sizes_px.amax(dim=0).tolist()
    count = len(shots.pictures)
    images = torch.ones(count, 3, height, width)
    alpha = torch.zeros(count, 1, height, width)
    depth_z = torch.zeros(count, 1, height, width) if shots.depths is not None else None
    for i, (picture, name) in enumerate(zip(shots.pictures, shots.names, strict=True)):
        progress("views", i / count, name)
        h, w = picture.shape[1:]
        mask = None if shots.masks is None else shots.masks[i]
        rgb, coverage = _cut_out(picture, name, mask, background, max_size_px)
        if coverage.amax() < 0.5:
            raise InputError(f"{name}: shows no object (its alpha is empty everywhere); remove it or mend its alpha")
        images[i, :, :h, :w] = rgb * coverage + (1 - coverage)
        alpha[i, :, :h, :w] = coverage
        depth_file = None if shots.depths is None else shots.depths[i]
        if depth_z is not None and depth_file is not None:
            depth = read_depth(depth_file.path, depth_file.unit)
            depth_z[i, :, :h, :w] = torch.nn.functional.interpolate(depth[None], size=(h, w), mode="nearest-exact")[0]
    progress("views", 1.0)
    cameras = shots.cameras.cropped(0.0, 0.0, width / sizes_px[:, 1], height / sizes_px[:, 0])
    return Views(images, alpha, cameras, sizes_px, tuple(shots.names), shots.rig, shots.assumptions, depth_z)


def _cut_out(
    picture: UInt8[Tensor, "channels height width"], name: str, mask: Path | None, background: str, max_size_px: int
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
    """Straight colours and coverage: from the picture's alpha, else its mask, else its background."""
    height, width = picture.shape[1:]
    if min(height, width) < _MIN_SIZE_PX:
        raise InputError(f"{name}: is {width}x{height} pixels, too small to show anything; give larger pictures")
    values = picture.float() / 255
    if len(values) == 4 and values[3].amin() < 1:
        return values[:3], values[3:]
    if mask is not None:
        return values[:3], _read_mask(mask, height, width, max_size_px)
    cutout = cut_with_rembg(values[:3]) if background == "rembg" else cut_from_background(values[:3])
    if cutout is None:
        raise InputError(
            f"{name}: the object does not stand before a background of one colour;"
            " give pictures with alpha, `masks`, or `background='rembg'`"
        )
    return cutout.rgb, cutout.alpha


def _read_mask(path: Path, height: int, width: int, max_size_px: int) -> Float[Tensor, "1 height width"]:
    mask = read_image(path, max_size_px).float() / 255
    coverage = mask[3:] if len(mask) == 4 and mask[3].amin() < 1 else mask[:3].mean(dim=0, keepdim=True)
    return resize(coverage[None], height, width)[0]
