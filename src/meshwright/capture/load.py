"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.capture.budget import CaptureBudget
from meshwright.capture.camera_files import (
    PosedPicture,
    find_camera_file,
    has_no_field_of_view,
    is_camera_file,
    read_camera_file,
)
from meshwright.capture.foreground import cut_from_background, cut_with_rembg
from meshwright.capture.orbit import estimate_orbit
from meshwright.capture.path import estimate_path
from meshwright.capture.rigs import ORBITS, ZERO123PLUS_VERSIONS, guess_rig, require_no_orbit, rig_cameras, split_sheet
from meshwright.errors import InputError
from meshwright.images import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Frames,
    Picture,
    check_held,
    image_size,
    is_animation,
    read_frames,
    read_image,
    resize,
)
from meshwright.options import ViewOptions, require_unset
from meshwright.progress import Progress, silent
from meshwright.views import Capture, Views

_MIN_SIZE_PX = 16
_FAR = 1e3  # distances from the origin, in those between cameras: float32 keeps 1e-4 of these


@dataclass(frozen=True, eq=False)
class _PosedPictures:
    """Decoded pictures with their cameras, before the object is cut out. ``cameras`` are those of each picture."""

    pictures: Sequence[Picture]
    names: Sequence[str]
    cameras: Cameras
    rig: str
    assumptions: tuple[str, ...]
    masks: Sequence[Path | None] | None = None
    capture: Capture | None = None
    sources: Sequence[PosedPicture] | None = None  # to which masks and depths are made like the pictures


def load_views(
    path: str | os.PathLike[str], options: ViewOptions = ViewOptions(), *, progress: Progress = silent
) -> Views:
    """Read posed pictures of one object.

    ``path`` is one of
      - a film or animation of one turn around the object (rig ``sv3d`` or ``orbit``);
      - a Zero123++ sheet of 3 x 2 or 2 x 3 pictures (rig ``zero123plus`` or ``zero123plus-v1.1``);
      - a capture with cameras (rig ``posed``): a workspace of COLMAP, a transforms.json or a folder that holds one,
        cameras.npz or meta.pkl; distorted pictures are undistorted;
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
    budget = CaptureBudget(path)
    camera_file = _camera_file(path, options.rig)
    if camera_file is not None:
        posed = _read_posed(camera_file, options, budget)
    elif _is_still(path):
        posed = _read_sheet(path, options)
    else:
        posed = _read_rig(path, options, budget)
    folder = path if path.is_dir() else path.parent
    beside = folder / "masks" if path.is_dir() or camera_file is not None else None
    if options.masks is not None:
        posed = replace(posed, masks=_masks_by_name(Path(options.masks), posed.names))
    elif posed.masks is None and beside is not None and beside.is_dir():
        posed = replace(posed, masks=_masks_by_name(beside, posed.names))
    if posed.masks is not None:
        budget.add(posed.masks)
    views = _assemble(posed, options.background, options.max_size_px, progress)
    if posed.rig not in ORBITS:
        return views
    views = estimate_orbit(views, options.elevation_deg, options.clockwise, progress)
    if options.turn == "even":
        return views
    return estimate_path(views, keep_elevation=options.elevation_deg is not None, progress=progress)


def _camera_file(path: Path, rig: str) -> Path | None:
    if rig not in ("auto", "posed"):
        return None
    if path.is_file() and is_camera_file(path):
        return path
    found = find_camera_file(path) if path.is_dir() else None
    if found is None and rig == "posed":
        raise InputError(
            f"{path}: holds no cameras (COLMAP's sparse/0, transforms.json, cameras.npz or meta.pkl); add them or"
            " choose another `rig`"
        )
    return found


def _is_still(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES and not is_animation(path)


def _read_posed(camera_file: Path, options: ViewOptions, budget: CaptureBudget) -> _PosedPictures:
    what = f"{camera_file}, which holds the cameras"
    require_no_orbit(what, options)
    require_unset(what, radius=options.radius)
    if not has_no_field_of_view(camera_file):
        require_unset(what, fov_deg=options.fov_deg)
    files = read_camera_file(camera_file, options.fov_deg)
    chosen = _evenly(len(files.pictures), options.max_views)
    sources = [files.pictures[i] for i in chosen]
    budget.add_pictures((source.path for source in sources), options.max_size_px)
    budget.add(source.depth.path for source in sources if source.depth is not None)
    names = _unique_names([source.path for source in files.pictures])
    return _PosedPictures(
        [source.read(options.max_size_px) for source in sources],
        [names[i] for i in chosen],
        _in_float32(files.cameras[chosen]),
        "posed",
        files.assumptions + _selection_note(len(chosen), len(files.pictures)),
        [source.mask for source in sources] if any(source.mask for source in sources) else None,
        files.capture,
        sources,
    )


def _in_float32(cameras: Cameras) -> Cameras:
    """Unless they stand so far from the origin that float32 would lose where they stand to each other."""
    positions = cameras.positions
    spread = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    return cameras if float(positions.abs().max()) > _FAR * spread > 0 else cameras.to(dtype=torch.float32)


def _unique_names(pictures: Sequence[Path]) -> list[str]:
    """File names; where several folders hold pictures of one name, the paths from the folder around all of them."""
    if len({picture.stem for picture in pictures}) == len(pictures):
        return [picture.name for picture in pictures]
    folder = os.path.commonpath([picture.resolve().parent for picture in pictures])
    return [picture.resolve().relative_to(folder).as_posix() for picture in pictures]


def _evenly(count: int, limit: int) -> list[int]:
    return [i * count // limit for i in range(limit)] if count > limit else list(range(count))


def _selection_note(chosen: int, count: int) -> tuple[str, ...]:
    return () if chosen == count else (f"uses {chosen} of {count} pictures, evenly chosen",)


def _frames(path: Path, max_size_px: int, max_views: int, budget: CaptureBudget) -> tuple[Frames, list[str]]:
    """The pictures of a turn around the object, from a film or a folder."""
    if path.is_dir():
        files = _picture_files(path)
        if not files:
            raise InputError(f"{path}: holds no pictures; give a folder of PNG or JPEG files, a video or a sheet")
        chosen = _evenly(len(files), max_views)
        budget.add_pictures((files[i] for i in chosen), max_size_px)
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


def _read_rig(path: Path, options: ViewOptions, budget: CaptureBudget) -> _PosedPictures:
    """A film or a folder of pictures in the order of a rig."""
    frames, names = _frames(path, options.max_size_px, options.max_views, budget)
    notes = _selection_note(len(frames.pictures), frames.count)
    rig: str = options.rig
    if rig == "auto":
        rig, guess = guess_rig(path, frames.count, options)
        notes = (guess, *notes)
    cameras = rig_cameras(rig, frames.count, options, path)
    aspects = torch.tensor([picture.shape[2] / picture.shape[1] for picture in frames.pictures])
    wide = cameras[list(frames.indices)].cropped((1 - aspects) / 2, 0.0, aspects, 1.0)
    return _PosedPictures(frames.pictures, names, wide, rig, notes)


def _read_sheet(path: Path, options: ViewOptions) -> _PosedPictures:
    """The six pictures of a Zero123++ sheet, numbered row by row."""
    height_px, width_px = image_size(path)
    rows, columns = (3, 2) if height_px > width_px else (2, 3)
    rig: str = options.rig
    notes: tuple[str, ...] = ()
    if rig == "auto":
        if abs(width_px / columns / (height_px / rows) - 1) > 0.02:
            raise InputError(
                f"{path}: one picture of {width_px}x{height_px} is neither a film nor a Zero123++ sheet (3x2 squares);"
                " give a video, a folder of pictures or a sheet"
            )
        rig, notes = "zero123plus", ("the picture is taken for a sheet of Zero123++ v1.2 (else choose a `rig`)",)
    if rig not in ZERO123PLUS_VERSIONS:
        raise InputError(f"{path}: one picture is no turn around the object; give a video or a folder of pictures")
    cameras = rig_cameras(rig, 6, options, path)
    sheet = read_image(path, options.max_size_px * max(rows, columns))
    pictures, cameras = split_sheet(sheet, cameras, rows, columns)
    return _PosedPictures(pictures, [f"view {i}" for i in range(6)], cameras, rig, notes)


def _masks_by_name(folder: Path, names: Sequence[str]) -> list[Path]:
    """The mask of each picture, whatever its suffix: that of ``train/0.png`` is ``train/0.*`` in ``folder``."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder of masks; give one, with files named like the pictures")
    places = [folder / name for name in names]
    parents = {place.parent for place in places if place.parent.is_dir()}
    found = {file.with_suffix(""): file for parent in parents for file in _picture_files(parent)}
    for name, place in zip(names, places, strict=True):
        if place.with_suffix("") not in found:
            raise InputError(f"{folder}: holds no mask for {name}; name masks like the pictures")
    return [found[place.with_suffix("")] for place in places]


def _assemble(posed: _PosedPictures, background: str, max_size_px: int, progress: Progress) -> Views:
    """Cut the object out of every picture and put all on one canvas."""
    sizes_px = torch.tensor([picture.shape[1:] for picture in posed.pictures])
    height, width = sizes_px.amax(dim=0).tolist()
    count = len(posed.pictures)
    check_held(posed.names[0], count, height, width)
    images = torch.ones(count, 3, height, width)
    alpha = torch.zeros(count, 1, height, width)
    sources = [None] * count if posed.sources is None else posed.sources
    any_depth = any(source is not None and source.depth is not None for source in sources)
    depth_z = torch.zeros(count, 1, height, width) if any_depth else None
    for i, (picture, name) in enumerate(zip(posed.pictures, posed.names, strict=True)):
        progress("views", i / count, name)
        h, w = picture.shape[1:]
        mask = None if posed.masks is None else posed.masks[i]
        rgb, coverage = _cut_out(picture, name, mask, sources[i], background, max_size_px)
        if coverage.amax() < 0.5:
            raise InputError(f"{name}: shows no object (its alpha is empty everywhere); remove it or mend its alpha")
        images[i, :, :h, :w] = rgb * coverage + (1 - coverage)
        alpha[i, :, :h, :w] = coverage
        source = sources[i]
        depth = None if source is None else source.read_depth()
        if depth_z is not None and depth is not None:
            depth_z[i, :, :h, :w] = torch.nn.functional.interpolate(depth[None], size=(h, w), mode="nearest-exact")[0]
    progress("views", 1.0)
    cameras = posed.cameras.cropped(0.0, 0.0, width / sizes_px[:, 1], height / sizes_px[:, 0])
    return Views(
        images,
        alpha,
        cameras,
        sizes_px,
        tuple(posed.names),
        posed.rig,
        posed.assumptions,
        depth_z,
        capture=posed.capture,
    )


def _cut_out(
    picture: UInt8[Tensor, "channels height width"],
    name: str,
    mask: Path | None,
    source: PosedPicture | None,
    background: str,
    max_size_px: int,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
    """Straight colours and coverage: from the picture's alpha, else its mask, else its background."""
    height, width = picture.shape[1:]
    if min(height, width) < _MIN_SIZE_PX:
        raise InputError(f"{name}: is {width}x{height} pixels, too small to show anything; give larger pictures")
    values = picture.float() / 255
    if len(values) == 4 and values[3].amin() < 1:
        return values[:3], values[3:]
    if mask is not None:
        return values[:3], _read_mask(mask, source, height, width, max_size_px)
    cutout = cut_with_rembg(values[:3]) if background == "rembg" else cut_from_background(values[:3])
    if cutout is None:
        raise InputError(
            f"{name}: the object does not stand before a background of one colour;"
            " give pictures with alpha, `masks`, or `background='rembg'`"
        )
    return cutout.rgb, cutout.alpha


def _read_mask(
    path: Path, source: PosedPicture | None, height: int, width: int, max_size_px: int
) -> Float[Tensor, "1 height width"]:
    """Coverage out of a mask; that of a posed picture has its camera's distortion, and lies as that is stored."""
    mask = read_image(
        path, max_size_px if source is None else 2 * max_size_px, upright=source is None or not source.stored
    )
    mask = mask.float() / 255
    coverage = mask[3:] if len(mask) == 4 and mask[3].amin() < 1 else mask[:3].mean(dim=0, keepdim=True)
    if source is not None:
        coverage = source.straighten(coverage)
    return resize(coverage[None], height, width)[0]
