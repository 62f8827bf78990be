"""Pictures of a folder in the order of their names; photos of a folder or a film, with what EXIF tells of the lens."""

import re
from pathlib import Path

from meshwright.capture.budget import CaptureBudget
from meshwright.capture.sfm import Photo
from meshwright.errors import InputError
from meshwright.images import PICTURE_SUFFIXES, read_focal_35mm, read_frames, read_image

_MOST_FRAMES = 64  # of a film that structure from motion gets


def evenly(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` numbers."""
    return [i * count // limit for i in range(limit)] if count > limit else list(range(count))


def selection_note(chosen: int, count: int) -> tuple[str, ...]:
    """What to say of an even choice."""
    return () if chosen == count else (f"uses {chosen} of {count} pictures, evenly chosen",)


def picture_files(folder: Path) -> list[Path]:
    """Pictures in the natural order of their names: view2 before view10."""

    def natural(file: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]

    pictures = (file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())
    return sorted((file for file in pictures if not file.name.startswith(".")), key=natural)


def read_photos(path: Path, max_size_px: int, max_views: int) -> tuple[list[Photo], list[Path] | None, tuple[str, ...]]:
    """Photos of a folder, with their files; or the sharpest frames of a film. And what there is to say of the choice.

    Raises:
        InputError: they cannot be read.
    """
    if path.is_dir():
        files = picture_files(path)
        if not files:
            raise InputError(f"{path}: holds no pictures; give a folder of JPEG or PNG files, or a film")
        chosen = [files[i] for i in evenly(len(files), max_views)]
        CaptureBudget(path).add_pictures(chosen, max_size_px)
        photos = [Photo(read_image(file, max_size_px), file.name, *read_focal_35mm(file)) for file in chosen]
        return photos, chosen, selection_note(len(chosen), len(files))
    frames = read_frames(path, max_size_px, min(max_views, _MOST_FRAMES), sharpest=True)
    names = [f"frame {index:03d}" for index in frames.indices]
    photos = [Photo(picture, name) for picture, name in zip(frames.pictures, names, strict=True)]
    few = len(photos) < frames.count
    return photos, None, (f"uses the {len(photos)} sharpest of {frames.count} frames",) if few else ()
