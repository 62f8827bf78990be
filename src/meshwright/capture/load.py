"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
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
from meshwright.capture.gains import apply_gains, exposure_gains, observations_of_plane
from meshwright.capture.orbit import estimate_orbit
from meshwright.capture.path import estimate_path
from meshwright.capture.photos import PosedPhotos, pose_photos
from meshwright.capture.pictures import evenly, picture_files, read_photos, selection_note
from meshwright.capture.rigs import ORBITS, ZERO123PLUS_VERSIONS, guess_rig, require_no_orbit, rig_cameras, split_sheet
from meshwright.capture.segmentation import segment_together
from meshwright.capture.sfm import SparsePoints
from meshwright.capture.still_background import cut_out_moving
from meshwright.capture.turn import refine_turn
from meshwright.capture.undistort import pinhole_of, undistort_picture
from meshwright.capture.upright import Plane, support_plane
from meshwright.errors import InputError
from meshwright.images import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Frames,
    Picture,
    check_held,
    image_size,
    is_animation,
    read_focal_35mm,
    read_frames,
    read_image,
    resize,
    shrink_picture,
)
from meshwright.options import ViewOptions, require_unset
from meshwright.progress import Progress, silent
from meshwright.views import Capture, Outlines, Views

_MIN_SIZE_PX = 16
_LOOKS = 5  # pictures that are looked at
_LOOK_PX = 512  # pictures are looked at in that size to see what they are
_LEAST_TOGETHER = 3  # views in which the object can be found together
_EXPOSED_ALIKE = 0.01  # of the light


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
    points: Float[ndarray, "points 3"] | None = None  # on surfaces of the scene
    tracks: SparsePoints | None = None  # which views show which points
    table: Plane | None = None  # that the object stands on


def load_views(
    path: str | os.PathLike[str], options: ViewOptions = ViewOptions(), *, progress: Progress = silent
) -> Views:
    """Read posed pictures of one object.

    ``path`` is one of
      - a film or animation of one turn around the object (rig ``sv3d`` or ``orbit``);
      - a Zero123++ sheet of 3 x 2 or 2 x 3 pictures (rig ``zero123plus`` or ``zero123plus-v1.1``);
      - a capture with cameras (rig ``posed``): a workspace of COLMAP, a transforms.json or a folder that holds one,
        cameras.npz or meta.pkl; distorted pictures are undistorted;
      - a folder of pictures, in the natural order of their names, for any of the first four rigs;
      - a folder of photos or a film of any one scene (rig ``photos``): cameras by structure from motion.

    Of an orbit, what ``options`` leave open is estimated from the pictures: direction and elevation by
    `estimate_orbit`, then all of that more closely, how unevenly the camera moved, and the field of view where the rig
    was guessed, by `refine_turn`; by `estimate_path` where the object has too little pattern. What they give is kept.
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
    elif options.rig == "photos":
        posed = _read_photos(path, options, progress)
    else:
        posed = _read_rig(path, options, budget, progress)
    folder = path if path.is_dir() else path.parent
    beside = folder / "masks" if path.is_dir() or camera_file is not None else None
    if options.masks is not None:
        posed = replace(posed, masks=_masks_by_name(Path(options.masks), posed.names))
    elif posed.masks is None and beside is not None and beside.is_dir():
        posed = replace(posed, masks=_masks_by_name(beside, posed.names))
    if posed.masks is not None:
        budget.add(posed.masks)
    views = _assemble(posed, options, progress)
    if posed.rig not in ORBITS:
        return views
    views = estimate_orbit(views, options.elevation_deg, options.clockwise, progress)
    if options.turn == "even":
        return views
    keep_elevation = options.elevation_deg is not None
    keep_focal = options.fov_deg is not None or options.rig != "auto"
    refined = refine_turn(views, keep_elevation=keep_elevation, keep_focal=keep_focal, progress=progress)
    if refined is not views:
        return refined
    return estimate_path(views, keep_elevation=keep_elevation, progress=progress)


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
    chosen = evenly(len(files.pictures), options.max_views)
    sources = [files.pictures[i] for i in chosen]
    budget.add_pictures((source.path for source in sources), options.max_size_px)
    budget.add(source.depth.path for source in sources if source.depth is not None)
    names = _unique_names([source.path for source in files.pictures])
    return _PosedPictures(
        [source.read(options.max_size_px) for source in sources],
        [names[i] for i in chosen],
        files.cameras[chosen].in_float32(),
        "posed",
        files.assumptions + selection_note(len(chosen), len(files.pictures)),
        [source.mask for source in sources] if any(source.mask for source in sources) else None,
        files.capture,
        sources,
        files.points,
    )


def _unique_names(pictures: Sequence[Path]) -> list[str]:
    """File names; where several folders hold pictures of one name, the paths from the folder around all of them."""
    if len({picture.stem for picture in pictures}) == len(pictures):
        return [picture.name for picture in pictures]
    folder = os.path.commonpath([picture.resolve().parent for picture in pictures])
    return [picture.resolve().relative_to(folder).as_posix() for picture in pictures]


def _frames(path: Path, max_size_px: int, max_views: int, budget: CaptureBudget) -> tuple[Frames, list[str]]:
    """The pictures of a turn around the object, from a film or a folder."""
    if path.is_dir():
        files = picture_files(path)
        if not files:
            raise InputError(f"{path}: holds no pictures; give a folder of PNG or JPEG files, a video or a sheet")
        chosen = evenly(len(files), max_views)
        budget.add_pictures((files[i] for i in chosen), max_size_px)
        pictures = tuple(read_image(files[i], max_size_px) for i in chosen)
        return Frames(pictures, tuple(chosen), len(files)), [files[i].name for i in chosen]
    if path.suffix.lower() not in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        kinds = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(f"{path}: is neither a picture nor a video (known: {kinds}); convert it")
    frames = read_frames(path, max_size_px, max_views)
    return frames, [f"frame {index:03d}" for index in frames.indices]


def _read_photos(path: Path, options: ViewOptions, progress: Progress) -> _PosedPictures:
    """A film or a folder of photos of one scene, with the cameras that structure from motion finds."""
    what = "photos, whose cameras are found in the pictures"
    require_no_orbit(what, options)
    require_unset(what, fov_deg=options.fov_deg, radius=options.radius)
    photos, files, notes = read_photos(path, options.max_size_px, options.max_views)
    posed = pose_photos(photos, ordered=files is None, progress=progress)
    sources = None if files is None else _sources(posed, files)
    pinholes = [pinhole_of(lens).intrinsics for lens in posed.lenses]
    cameras = Cameras(torch.from_numpy(posed.T_world_camera), torch.tensor(pinholes, dtype=torch.float64))
    turns = posed.photos[0].moving is not None
    cut = turns and options.masks is None and options.background == "auto"
    straight = [undistort_picture(photo.pixels, lens) for photo, lens in zip(posed.photos, posed.lenses, strict=True)]
    pictures = _cut_out_moving(straight, posed, cameras) if cut else straight
    return _PosedPictures(
        pictures,
        [photo.name for photo in posed.photos],
        cameras.to(dtype=torch.float32),
        "posed",
        (*notes, *posed.notes),
        capture=Capture("photos", None if posed.table is None else (0.0, 0.0, 1.0), own_axes=False),
        sources=sources,
        tracks=None if turns else posed.points,  # light that moves along with the object tells no exposure
        table=posed.table,
    )


def _cut_out_moving(pictures: Sequence[Picture], posed: PosedPhotos, cameras: Cameras) -> list[Picture]:
    """Undistorted pictures, whose alpha is what moves: cut out more closely, now that the cameras are known."""
    moving = [
        undistort_picture(photo.moving, lens)
        for photo, lens in zip(posed.photos, posed.lenses, strict=True)
        if photo.moving is not None
    ]
    whole = [torch.cat([picture[:3], mask]) for picture, mask in zip(pictures, moving, strict=True)]
    if len({picture.shape for picture in whole}) != 1:  # of several lenses: their places do not lie upon each other
        return whole
    height, width = whole[0].shape[1:]
    check_held("photos", len(whole), height, width)
    values = torch.stack(whole).float() / 255
    sizes_px = torch.tensor([[height, width]] * len(values))
    names = tuple(photo.name for photo in posed.photos)
    views = Views(values[:, :3], values[:, 3:], cameras.to(dtype=torch.float32), sizes_px, names)
    cut = cut_out_moving(views)
    return list((torch.cat([cut.images, cut.alpha], dim=1).clamp(0, 1) * 255).round().to(torch.uint8))


def _sources(posed: PosedPhotos, files: Sequence[Path]) -> list[PosedPicture]:
    return [
        PosedPicture(files[i], T, lens)
        for i, T, lens in zip(posed.views, posed.T_world_camera, posed.lenses, strict=True)
    ]


def _stands_free(pictures: Sequence[Picture]) -> bool:
    """Whether pictures have alpha or a flat background, as pictures for rigs have: all of some that are looked at."""
    for i in sorted({k * (len(pictures) - 1) // (_LOOKS - 1) for k in range(_LOOKS)}):
        if min(pictures[i].shape[1:]) < _MIN_SIZE_PX:
            return True  # refused further on, in its own words
        values = shrink_picture(pictures[i], _LOOK_PX).float() / 255
        has_alpha = len(values) == 4 and bool(values[3].amin() < 1)
        if not has_alpha and cut_from_background(values[:3]) is None:
            return False
    return True


def _by_a_camera(path: Path, pictures: Sequence[Picture]) -> bool:
    """Whether EXIF names the lens or the device of a folder's first picture, which has no alpha."""
    if not path.is_dir() or len(pictures[0]) == 4:
        return False
    focal_mm, device = read_focal_35mm(picture_files(path)[0])
    return focal_mm is not None or device != ""


def _read_rig(path: Path, options: ViewOptions, budget: CaptureBudget, progress: Progress) -> _PosedPictures:
    """A film or a folder of pictures in the order of a rig, or of photos where they cannot be that."""
    frames, names = _frames(path, options.max_size_px, options.max_views, budget)
    notes = selection_note(len(frames.pictures), frames.count)
    rig: str = options.rig
    masked = options.masks is not None or (path / "masks").is_dir()
    cut = masked or options.background == "rembg"
    if rig == "auto" and (_by_a_camera(path, frames.pictures) or not (cut or _stands_free(frames.pictures))):
        try:
            return _read_photos(path, options, progress)
        except InputError as error:
            raise InputError(f"{path}: taken for photos, as there is no flat background or alpha: {error}") from None
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
    found = {file.with_suffix(""): file for parent in parents for file in picture_files(parent)}
    for name, place in zip(names, places, strict=True):
        if place.with_suffix("") not in found:
            raise InputError(f"{folder}: holds no mask for {name}; name masks like the pictures")
    return [found[place.with_suffix("")] for place in places]


def _assemble(posed: _PosedPictures, options: ViewOptions, progress: Progress) -> Views:
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
    background = options.background
    if background == "auto" and posed.rig == "posed" and count >= _LEAST_TOGETHER:
        # Photos that needed structure from motion stand in a scene, however even its border looks.
        on_table = posed.tracks is not None and posed.table is not None
        background = "multiview" if on_table or not _stands_free(posed.pictures) else "auto"
    flat, uncut = [], []
    for i, (picture, name) in enumerate(zip(posed.pictures, posed.names, strict=True)):
        progress("views", i / count, name)
        h, w = picture.shape[1:]
        mask = None if posed.masks is None else posed.masks[i]
        cut = _cut_out(picture, name, mask, sources[i], background, options.max_size_px)
        if cut is None:
            uncut.append(i)
            continue
        rgb, coverage, by_background = cut
        flat += [i] if by_background else []
        if coverage.amax() < 0.5:
            raise InputError(f"{name}: shows no object (its alpha is empty everywhere); remove it or mend its alpha")
        images[i, :, :h, :w] = rgb
        alpha[i, :, :h, :w] = coverage
        source = sources[i]
        depth = None if source is None else source.read_depth()
        if depth_z is not None and depth is not None:
            depth_z[i, :, :h, :w] = torch.nn.functional.interpolate(depth[None], size=(h, w), mode="nearest-exact")[0]
    progress("views", 1.0)
    cameras = posed.cameras.cropped(0.0, 0.0, width / sizes_px[:, 1], height / sizes_px[:, 0])
    views = Views(
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
    if uncut and background == "auto":  # what is flat in some pictures only is no background
        uncut = sorted({*uncut, *flat})
    if not uncut:
        require_unset("pictures whose object is cut out one by one", box=options.box)
    if uncut or posed.tracks is not None:
        views = _together(posed, views, uncut, options, progress)
    return replace(views, images=views.images * views.alpha + (1 - views.alpha))


def _together(posed: _PosedPictures, views: Views, uncut: list[int], options: ViewOptions, progress: Progress) -> Views:
    """Expose the pictures alike; find the object in all of them if it is not found in ``uncut``.

    ``views.images`` are straight colours, not yet on white.

    Raises:
        InputError: without known cameras, or where no object is found.
    """
    if uncut and (posed.rig != "posed" or len(views) < _LEAST_TOGETHER):
        raise _no_flat_background(posed.names[uncut[0]])
    shown = views.images.clone()  # background and all
    for i, picture in enumerate(posed.pictures):
        h, w = picture.shape[1:]
        shown[i, :, :h, :w] = picture[:3].float() / 255
    images, notes = views.images.clone(), []
    images[uncut] = shown[uncut]
    T_world_camera = views.cameras.T_world_camera.double().numpy()
    table = posed.table
    if table is None and posed.points is not None:
        table = support_plane(posed.points, T_world_camera)
    if posed.tracks is not None:
        uv, _ = views.cameras.project(torch.from_numpy(posed.tracks.positions).to(views.cameras.intrinsics))
        view, point = torch.from_numpy(posed.tracks.view), torch.from_numpy(posed.tracks.point)
        gains = exposure_gains(shown, uv[view, point].float(), posed.tracks.view, posed.tracks.point)
    elif table is not None:
        gains = exposure_gains(shown, *observations_of_plane(views.cameras, table.grid_below(T_world_camera)))
    else:
        gains = torch.ones(len(views), 3)
    if float((gains - 1).abs().max()) > _EXPOSED_ALIKE:
        images, shown = apply_gains(images, gains), apply_gains(shown, gains)
        low, high = gains.mean(dim=1).amin(), gains.mean(dim=1).amax()
        notes.append(f"exposures evened out: light multiplied by {low:.2f} to {high:.2f}")
    views = replace(views, images=images)
    if uncut:
        allowed = views.seen
        if options.box_px is not None:
            allowed = allowed * _inside_box(options.box_px, posed, options.max_size_px, views)
        segmented = segment_together(shown, views.cameras, allowed, table, progress=progress)
        alpha = views.alpha.clone()
        alpha[uncut] = segmented.alpha[uncut]
        empty = [i for i in uncut if alpha[i].amax() < 0.5]
        if len(empty) == len(uncut):
            raise InputError("no object was found that all pictures show; give `masks`, or a `box` around it")
        notes.append(
            f"the object was found in {len(uncut)} pictures together; each by itself agrees with all by"
            f" {segmented.agreement.mean():.2f} (mean IoU)"
        )
        if segmented.doubts:
            notes.append(
                f"the outlines are doubtful: {'; '.join(segmented.doubts)}; see the pictures"
                " beside the mesh in preview.png, and give a `box` around the object in the first picture, or `masks`"
            )
        wrong = [posed.names[i] for i in segmented.disagreeing if i in uncut]
        if wrong:
            notes.append(f"outlines that disagree with the other pictures: {', '.join(wrong)}")
        mean, least = float(segmented.agreement.mean()), float(segmented.agreement.min())
        outlines = Outlines(mean, least, tuple(wrong), tuple(segmented.doubts))
        views = replace(views, alpha=alpha, outlines=outlines)
        if empty:
            notes.append(f"left out, for they do not show the object: {', '.join(posed.names[i] for i in empty)}")
            views = views[[i for i in range(len(views)) if i not in empty]]
    return replace(views, assumptions=(*views.assumptions, *notes))


def _inside_box(
    box_px: tuple[float, float, float, float], posed: _PosedPictures, max_size_px: int, views: Views
) -> Float[Tensor, "views 1 height width"]:
    """0 outside of a box in pixels of the first picture's file, or of the picture where there is no file."""
    height, width = posed.pictures[0].shape[1:]
    source = None if posed.sources is None else posed.sources[0]
    file_height, file_width = (height, width) if source is None else image_size(source.path)
    left, top, right, bottom = box_px
    if right > file_width or bottom > file_height:
        raise InputError(f"`box`: reaches beyond {posed.names[0]}, {file_width}x{file_height}; give one inside it")
    x, y = width / file_width, height / file_height
    inside = torch.ones_like(views.alpha)
    inside[0] = 0
    inside[0, :, round(top * y) : round(bottom * y), round(left * x) : round(right * x)] = 1
    return inside


def _cut_out(
    picture: UInt8[Tensor, "channels height width"],
    name: str,
    mask: Path | None,
    source: PosedPicture | None,
    background: str,
    max_size_px: int,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"], bool] | None:
    """Straight colours and coverage, and whether by the background: by alpha, else a mask, else that; None without."""
    height, width = picture.shape[1:]
    if min(height, width) < _MIN_SIZE_PX:
        raise InputError(f"{name}: is {width}x{height} pixels, too small to show anything; give larger pictures")
    values = picture.float() / 255
    if len(values) == 4 and values[3].amin() < 1:
        return values[:3], values[3:], False
    if mask is not None:
        return values[:3], _read_mask(mask, source, height, width, max_size_px), False
    if background == "multiview":
        return None
    cutout = cut_with_rembg(values[:3]) if background == "rembg" else cut_from_background(values[:3])
    if cutout is None and background == "flat":
        raise _no_flat_background(name)
    return None if cutout is None else (cutout.rgb, cutout.alpha, True)


def _no_flat_background(name: str) -> InputError:
    return InputError(
        f"{name}: the object does not stand before a background of one colour;"
        " give pictures with alpha, `masks`, or `background='rembg'`"
    )


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
