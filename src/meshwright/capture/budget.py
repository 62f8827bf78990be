"""What all pictures of one capture may cost together, known from their headers before any is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.errors import InputError
from meshwright.images import check_held, depth_size, image_size

MAX_CAPTURE_PIXELS = 4_000_000_000  # decoded, one after the other: 128 photos of 31 million
MAX_CAPTURE_BYTES = 16 << 30


@dataclass
class CaptureBudget:
    """Adds up the pictures of one capture: every file counts as often as it is decoded.

    ``where``: what errors name.
    """

    where: Path
    _pixels: int = 0
    _bytes: int = 0
    _canvas: tuple[int, int, int] = (0, 0, 0)  # number of pictures, largest height and width
    _headers: dict[Path, tuple[int, int, int]] = field(default_factory=dict)

    def add_pictures(self, files: Iterable[Path], max_size_px: int) -> None:
        """Count pictures that are about to be decoded and kept, reduced to ``max_size_px``.

        Raises:
            InputError: as ``add``, or more pixels than can be held at once.
        """
        for file in files:
            self.add([file])
            height_px, width_px, _ = self._headers[file]
            scale = min(1.0, max_size_px / max(height_px, width_px))
            count, highest_px, widest_px = self._canvas
            reduced_px = round(height_px * scale), round(width_px * scale)
            self._canvas = count + 1, max(highest_px, reduced_px[0]), max(widest_px, reduced_px[1])
            check_held(self.where, *self._canvas)

    def add(self, files: Iterable[Path | None]) -> None:
        """Count pictures, masks or depths that are about to be decoded.

        Raises:
            InputError: a header cannot be read, or all files so far have more pixels or bytes than a capture may have.
        """
        for file in files:
            if file is None:
                continue
            if file not in self._headers:
                size_px = depth_size(file) if file.suffix.lower() in (".exr", ".bin") else image_size(file)
                self._headers[file] = (*size_px, file.stat().st_size)
            height_px, width_px, size = self._headers[file]
            self._pixels += height_px * width_px
            self._bytes += size
            if self._pixels > MAX_CAPTURE_PIXELS or self._bytes > MAX_CAPTURE_BYTES:
                raise InputError(
                    f"{self.where}: its pictures have more than {MAX_CAPTURE_PIXELS // 1_000_000:,} million pixels or"
                    f" {MAX_CAPTURE_BYTES >> 30} GiB in all; make them smaller or use fewer (`max_views`)"
                )
