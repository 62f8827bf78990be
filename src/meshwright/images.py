"""Pictures and frames: decode, resize, encode. What decoders are fed may be hostile; what they return is bounded.

Files are opened here and handed to the decoders open, so that no name is ever read as an address or a protocol.

A decoded picture is a uint8 tensor (channels, height, width), sRGB (converted, where an ICC profile says that its
colours are others), with 3 channels or with 4 when it has an
alpha channel of its own (straight, not premultiplied).
"""

import contextlib
import io
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps, ImageSequence
from torch import Tensor

from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.untrusted import MIB, open_untrusted, read_untrusted

Picture = UInt8[Tensor, "_channels _height _width"]  # sizes may differ from picture to picture

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mov", ".mkv", ".m4v", ".avi"})

# Pillow can open formats that start other programs (EPS) or that nobody photographs with.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx"})
_MAX_PROFILE_BYTES = 1 * MIB  # profiles of cameras and screens have some kilobytes
_MAX_PICTURE_BYTES = 512 * MIB
_MAX_PIXELS = 64_000_000
_FOCAL_35MM = (5.0, 1500.0)  # mm: from fisheyes to telescopes
_MAX_DEPTH = 1e9  # world units
_MAX_FRAMES = 20_000
# Animations keep several whole frames in memory, and each frame costs time, whether it is kept or not.
_MAX_ANIMATED_PIXELS = 17_000_000
_MAX_ANIMATION_PIXELS = 2_000_000_000  # of all frames together
_MAX_FILM_BYTES = 16 * 1024 * MIB
_MAX_FILM_PIXELS = 16_000_000_000  # of all frames together: 32 s at 60 frames a second in 3840 x 2160
_MAX_HELD_PIXELS = 500_000_000  # of the reduced pictures of one object, which are held at once: 8 GB as float32
# How each kind of film begins, and what FFmpeg calls it. Kinds that are lists of other files, scripts or addresses
# (HLS, DASH, concat, SDP ...) are not among them.
_CONTAINERS = {b"\x1a\x45\xdf\xa3": "matroska,webm", b"RIFF": "avi"}
_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp"})
_COUNTER_CLOCKWISE = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
_RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC
_Scaling = av.video.reformatter.Interpolation
_SMOOTH_CHROMA = _Scaling.BICUBIC | _Scaling.FULL_CHR_H_INT | _Scaling.ACCURATE_RND
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames kept from a longer film: ``pictures[k]`` is frame ``indices[k]`` of ``count``."""

    pictures: tuple[Picture, ...]
    indices: tuple[int, ...]
    count: int


def read_image(path: str | os.PathLike[str], max_size_px: int | None = None, upright: bool = True) -> Picture:
    """Decode one picture file, with at most ``max_size_px`` on the longer side.

    It is turned upright by its EXIF tag, or left as it is stored.

    Raises:
        InputError: missing, not a picture, damaged, or more than 64 million pixels (which are never decoded).
    """
    with _opened(Path(path)) as image:
        is_upright = not upright or _orientation(image) == 1
        return _to_picture(image if is_upright else ImageOps.exif_transpose(image), max_size_px)


def image_size(path: str | os.PathLike[str], upright: bool = True) -> tuple[int, int]:
    """(height, width) in pixels of a picture file, turned upright by its EXIF tag or not, from its header alone.

    Raises:
        InputError: as ``read_image``.
    """
    with _opened(Path(path)) as image:
        sideways = upright and _orientation(image) >= 5
        if sideways and image.format == "TIFF":  # Pillow turns it: some versions say so before it is decoded
            sideways = image.getexif().get(ExifTags.Base.ImageWidth) == image.width
        return (image.width, image.height) if sideways else (image.height, image.width)


def quarter_turns(path: str | os.PathLike[str]) -> int:
    """Quarter turns to the left by which the EXIF tag makes a picture upright; 0 where it also mirrors it.

    Raises:
        InputError: as ``read_image``.
    """
    with _opened(Path(path)) as image:
        return {3: 2, 6: 3, 8: 1}.get(_orientation(image), 0)


def read_focal_35mm(path: str | os.PathLike[str]) -> tuple[float | None, str]:
    """What EXIF says of the lens: its focal length as on 36 mm x 24 mm film (mm; None if unknown), and the device.

    Raises:
        InputError: as ``read_image``.
    """
    with _opened(Path(path)) as image:
        tags = image.getexif()
        inner = tags.get_ifd(ExifTags.IFD.Exif)
        told = inner.get(ExifTags.Base.FocalLengthIn35mmFilm)
        device = " ".join(str(tags.get(tag, ""))[:40] for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        zoom = inner.get(ExifTags.Base.FocalLength)
    try:
        focal_mm = float(told) if told is not None else 0.0
        device += f" {float(zoom):.3g}" if zoom is not None else ""
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        focal_mm = 0.0
    return focal_mm if _FOCAL_35MM[0] <= focal_mm <= _FOCAL_35MM[1] else None, device.strip()


def shrink_picture(picture: Picture, max_size_px: int) -> Picture:
    """With at most ``max_size_px`` on the longer side, as ``read_image`` shrinks."""
    if max(picture.shape[1:]) <= max_size_px:
        return picture
    return _to_picture(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), max_size_px)


def is_animation(path: str | os.PathLike[str]) -> bool:
    """Whether a picture file (gif, webp, png) holds more than one frame.

    Raises:
        InputError: as ``read_image``.
    """
    with _opened(Path(path)) as image:
        return getattr(image, "n_frames", 1) > 1


def read_depth(path: str | os.PathLike[str], unit: float) -> Float[Tensor, "1 height width"]:
    """Decode a grey picture of 8, 16 or 32 bits whose steps are ``unit`` long; 0 stays unknown.

    Beside pictures: .exr (its red or only channel) and COLMAP's dense maps (.bin).

    Raises:
        InputError: as ``read_image``, the picture is coloured, or its depths are impossible.
    """
    if not 1e-9 <= unit <= 1e6:
        raise InputError(f"{path}: a depth step of {unit:g} world units is impossible; give one from 1e-9 to 1e6")
    suffix = Path(path).suffix.lower()
    if suffix in (".exr", ".bin"):
        content = read_untrusted(path, _MAX_PICTURE_BYTES, "a picture of depths")
        steps = _exr(content, path) if suffix == ".exr" else _colmap_depths(content, path)
    else:
        with _opened(Path(path)) as image:
            if image.mode not in ("L", "F") and not image.mode.startswith("I"):
                raise InputError(f"{path}: is not a grey picture of depths; give one or leave it out")
            steps = np.asarray(image)
    depths = steps.astype(np.float64) * unit
    if not np.isfinite(depths).all() or np.abs(depths).max(initial=0) > _MAX_DEPTH:
        raise InputError(f"{path}: holds depths beyond {_MAX_DEPTH:g} world units or no numbers; correct its unit")
    return torch.from_numpy(depths.astype(np.float32))[None]


def depth_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of a file for `read_depth`, from its header alone.

    Raises:
        InputError: as `read_depth`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".exr", ".bin"):
        return image_size(path, upright=False)
    with open_untrusted(path, _MAX_PICTURE_BYTES, "a picture of depths") as file:
        head = file.read(4096)
    if suffix == ".bin":
        return _colmap_sides(head, path)[:2]
    at = head.find(b"dataWindow\0box2i\0")
    if at < 0 or at + 37 > len(head):
        raise InputError(f"{path}: the picture of depths cannot be read; replace it or leave it out")
    left, top, right, bottom = struct.unpack_from("<4i", head, at + 21)
    return max(1, bottom - top + 1), max(1, right - left + 1)


def _colmap_sides(content: bytes, path: object) -> tuple[int, int, int]:
    """(height, width, where the floats begin)."""
    head = content[:60].split(b"&", 3)
    sides = [int(part) if part.isdigit() and len(part) < 8 else 0 for part in head[:3]]
    width, height, channels = (*sides, 0, 0, 0)[:3]
    if channels != 1 or not 0 < width * height <= _MAX_PIXELS:
        raise InputError(f"{path}: is no map of depths of COLMAP; export it again or remove it")
    return height, width, sum(map(len, head[:3])) + 3


def _exr(content: bytes, path: object) -> Float[np.ndarray, "height width"]:
    """The grey or red channel of an OpenEXR picture, by FFmpeg's decoder; what a cut file lacks is 0: unknown."""
    frames: list[Any] = []
    try:
        decoder = av.CodecContext.create("exr", "r")
        decoder.options = {"max_pixels": str(_MAX_PIXELS)}  # checked before room is made
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)]
    except Exception as error:  # as Pillow's decoders, PyAV's raise whatever they trip over
        raise InputError(f"{path}: the picture of depths cannot be read; replace it or leave it out") from error
    if len(frames) != 1 or frames[0].format.name not in ("grayf32le", "gbrpf32le", "gbrapf32le"):
        raise InputError(f"{path}: is not one picture of depths in floats; replace it or leave it out")
    frame = frames[0]
    plane = frame.planes[0 if frame.format.name.startswith("gray") else 2]  # stored as green, blue, red
    rows = np.frombuffer(plane, "<f4").reshape(-1, plane.line_size // 4)
    return np.nan_to_num(rows[: frame.height, : frame.width], nan=0.0, posinf=0.0, neginf=0.0)


def _colmap_depths(content: bytes, path: object) -> Float[np.ndarray, "height width"]:
    """A dense map of COLMAP: ``width&height&1&`` and floats, row by row; what is not above 0 is unknown."""
    height, width, start = _colmap_sides(content, path)
    data = content[start:]
    if len(data) != 4 * width * height:
        raise InputError(f"{path}: is no map of depths of COLMAP; export it again or remove it")
    return np.frombuffer(data, "<f4").reshape(height, width).clip(min=0)


def check_held(where: object, count: int, height_px: int, width_px: int) -> None:
    """Refuse more pictures than can be held at once, each on a canvas of this size.

    Raises:
        InputError: ``count`` pictures have more than 500 million pixels.
    """
    if count * height_px * width_px > _MAX_HELD_PIXELS:
        raise InputError(
            f"{where}: {count} pictures on a canvas of {width_px}x{height_px} are more than"
            f" {_MAX_HELD_PIXELS // 1_000_000} million pixels; choose a smaller `max_size_px` or `max_views`"
        )


def decode_picture(content: bytes, name: str, max_side_px: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode the bytes of a PNG, JPEG, WebP, BMP, GIF or TIFF to RGB as they are: alpha dropped, not turned.

    Raises:
        InputError: not such a picture, damaged, or a side longer than ``max_side_px``, which is never decoded.
    """
    with _decoded(io.BytesIO(content), name) as image:
        if max(image.size) > max_side_px:
            raise InputError(f"{name}: is larger than {max_side_px} pixels; shrink it first")
        return np.asarray(image.convert("RGB"))


def read_frames(
    path: str | os.PathLike[str], max_size_px: int | None = None, max_frames: int = 128, sharpest: bool = False
) -> Frames:
    """Decode a film (mp4, webm, ...) or an animation (gif, webp, png), one frame in memory at a time.

    Of a film with more than ``max_frames`` frames every second, fourth, eighth ... frame is kept, or with ``sharpest``
    the sharpest of each two, four, eight ... A picture file that does not move is a film of one frame.

    Raises:
        InputError: missing, not a film, breaks off early, or more than 20,000 frames or 16 billion pixels
            (animations: 2 billion, 17 million a frame).
    """
    path = Path(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with _opened(path) as image:
            _check_animation(path, image)
            frames = ImageSequence.Iterator(image)
            decoders = (lambda frame=frame: _to_picture(frame, max_size_px) for frame in frames)
            return (_sharpest if sharpest else _every_nth)(path, decoders, max_frames)
    return _read_video(path, max_size_px, max_frames, _sharpest if sharpest else _every_nth)


def write_image(image: Float[Tensor, "channels height width"], path: str | os.PathLike[str]) -> None:
    """Write an sRGB picture in [0, 1] with 1, 3 or 4 channels; the suffix says the format. Atomic.

    Raises:
        InputError: the place cannot be written.
    """
    pixels = (image.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(temporary)


def write_video(
    frames: Iterable[Float[Tensor, "3 height width"]], path: str | os.PathLike[str], fps: float = 30.0
) -> None:
    """Write sRGB frames in [0, 1] as H.264 (yuv420p, plays everywhere), streaming. Atomic.

    H.264 wants even sides: an odd last row or column is doubled.

    Raises:
        InputError: the suffix is not .mp4, or the place cannot be written.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path}: videos are written as .mp4; choose a name that ends so")
    with (
        atomic_path(path) as temporary,
        _encoding(),
        open(temporary, "wb") as file,
        av.open(file, "w", format="mp4") as container,
    ):
        stream: Any = None
        for frame in frames:
            height, width = frame.shape[1:]
            pixels = (frame.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "16"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


@contextlib.contextmanager
def _encoding() -> Iterator[None]:
    """What FFmpeg cannot write, such as on a full disk, is an error of the file system."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def resize(
    images: Float[Tensor, "views channels height width"], height: int, width: int
) -> Float[Tensor, "views channels {height} {width}"]:
    """Antialiased bicubic resize, clamped to [0, 1]: the published model's own (torch's antialiased kernel, a = -0.5).

    Colours with an alpha channel must be composited or premultiplied first.
    """
    if images.shape[2:] == (height, width):
        return images
    resized = torch.nn.functional.interpolate(
        images, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 1)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file lazily; turn whatever its decoder trips over, now or later, into an InputError."""
    with open_untrusted(path, _MAX_PICTURE_BYTES, "a picture") as file, _decoded(file, str(path)) as image:
        yield image


@contextlib.contextmanager
def _decoded(file: BinaryIO | io.BytesIO, name: str) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=(*_FORMATS, *_heif_if_needed(file, name)))
        with image:
            if image.width * image.height > _MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = _MAX_PIXELS // 1_000_000
        raise InputError(f"{name}: has more than {limit} million pixels; make it smaller") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name}: is not a picture that can be read; convert it to PNG or JPEG") from None
    except Exception as error:  # Pillow's decoders raise whatever their parsers hit
        raise InputError(f"{name}: the picture is damaged; replace it") from error


def _heif_if_needed(file: BinaryIO | io.BytesIO, name: str) -> tuple[str, ...]:
    """What phones take pictures in by default, for Pillow, if the file is such a one; read by the extra ``heic``."""
    head = file.read(12)
    file.seek(0)
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        return ()
    try:
        import pi_heif
    except ImportError:
        raise InputError(f"{name}: is HEIC; pip install 'meshwright[heic]', or convert it to JPEG") from None
    pi_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def _orientation(image: Image.Image) -> int:
    """How a picture that has not been decoded is to be turned, as its EXIF tag counts; 1 is upright."""
    # PNG's own getexif decodes the whole picture to look for a tag behind it.
    exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) else 1


def _check_animation(path: Path, image: Image.Image) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.width * image.height > _MAX_ANIMATED_PIXELS:
        limit = _MAX_ANIMATED_PIXELS // 1_000_000
        raise InputError(f"{path}: has frames of more than {limit} million pixels; make them smaller")
    if count > 1 and count * image.width * image.height > _MAX_ANIMATION_PIXELS:
        raise InputError(f"{path}: {count} frames of {image.width}x{image.height} are too many; make it a video")


def _to_picture(image: Image.Image, max_size_px: int | None) -> Picture:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    profile = image.info.get("icc_profile")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    image = image.convert("RGBA" if has_alpha else "RGB")
    longer_px = max(image.size)
    if max_size_px is not None and longer_px > max_size_px:
        width_px, height_px = (max(1, round(side * max_size_px / longer_px)) for side in image.size)
        # Bicubic in Pillow is antialiased and premultiplies; it works on bytes, so big pictures stay affordable.
        image = image.resize((width_px, height_px), Image.Resampling.BICUBIC)
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_PROFILE_BYTES:
        image = _in_srgb(image, profile)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB(A) whose colours a profile explains (Display P3 of phones, Adobe RGB of cameras) in sRGB; as it is if not."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB" and "sRGB" not in (source.profile.profile_description or ""):
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            alpha = image.getchannel("A") if image.mode == "RGBA" else None
            mapped = ImageCms.profileToProfile(image.convert("RGB"), source, srgb, _RELATIVE, outputMode="RGB")
            if mapped is not None:
                if alpha is not None:
                    mapped.putalpha(alpha)
                return mapped
    return image


def _every_nth(path: Path, frames: Iterable[Any], max_frames: int) -> Frames:
    """Keep every n-th of a stream of unknown length, n the smallest power of two that leaves <= max_frames.

    The stream holds functions that decode a frame, so that frames which are not kept cost nothing.
    """
    kept: list[Picture] = []
    stride, count = 1, 0
    for decode in frames:
        if count >= _MAX_FRAMES:
            raise InputError(f"{path}: has more than {_MAX_FRAMES} frames; cut it to one turn around the object")
        if count % stride == 0:
            if len(kept) == max_frames:
                kept, stride = kept[::2], stride * 2
            if count % stride == 0:
                kept.append(decode())
                check_held(path, len(kept), *kept[-1].shape[1:])
        count += 1
    return Frames(tuple(kept), tuple(range(0, count, stride)), count)


def _sharpest(path: Path, frames: Iterable[Any], max_frames: int) -> Frames:
    """The sharpest of each ``stride`` frames in turn, the stride the smallest power of two that leaves <= max_frames.

    Sharp is what has the largest mean square of the Laplacian of its brightness.
    """
    kept: list[tuple[float, int, Picture]] = []
    stride, count = 1, 0
    for decode in frames:
        if count >= _MAX_FRAMES:
            raise InputError(f"{path}: has more than {_MAX_FRAMES} frames; cut it to one turn around the object")
        if count % stride == 0 and len(kept) == max_frames:
            pairs = [kept[i : i + 2] for i in range(0, len(kept), 2)]
            kept, stride = [max(pair, key=lambda frame: frame[0]) for pair in pairs], stride * 2
        picture = decode()
        frame = (_sharpness(picture), count, picture)
        if count // stride == len(kept):
            kept.append(frame)
        elif frame[0] > kept[-1][0]:
            kept[-1] = frame
        count += 1
    return Frames(tuple(picture for _, _, picture in kept), tuple(index for _, index, _ in kept), count)


def _sharpness(picture: Picture) -> float:
    grey = picture[:3].float().mean(dim=0)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).square().mean()) if min(grey.shape) > 2 else 0.0


def _read_video(path: Path, max_size_px: int | None, max_frames: int, choose: Callable[..., Frames]) -> Frames:
    count = 0
    try:
        with (
            open_untrusted(path, _MAX_FILM_BYTES, "a video") as file,
            av.open(
                file,
                "r",
                format=_container_format(path, file),
                # What an element of the film names is not fetched: no protocol, no file beside it.
                container_options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
                metadata_errors="replace",
            ) as container,
        ):
            if not container.streams.video:
                raise InputError(f"{path}: holds no pictures; give a video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"{path}: the video is coded in a way that is not known here; re-encode it as mp4")
            _check_film(path, stream.width * stream.height, max(stream.frames, 1))
            stream.thread_type = "AUTO"
            end_s = -math.inf
            pixels = 0

            def decoders() -> Iterator[Any]:
                nonlocal count, end_s, pixels
                for frame in container.decode(stream):
                    if frame.time is not None:
                        end_s = max(end_s, frame.time + float(frame.duration or 0) * float(frame.time_base or 0))
                    count += 1
                    pixels += frame.width * frame.height
                    _check_film(path, max(frame.width * frame.height, -(-pixels // count)), count)
                    yield lambda frame=frame: _to_picture(_upright(frame), max_size_px)

            frames = choose(path, decoders(), max_frames)
            promised_s = _duration_s(container, stream)
    except av.error.FFmpegError as error:
        if count:
            raise InputError(_breaks_off(path, count)) from error
        raise InputError(f"{path}: the video cannot be read ({error.strerror}); re-encode it as mp4") from error
    except InputError:
        raise
    except Exception as error:  # as Pillow's decoders, PyAV's raise whatever they trip over
        raise InputError(f"{path}: the video is damaged; re-encode it as mp4") from error
    if not frames.count:
        raise InputError(f"{path}: the video holds no frames; re-encode it or pass a folder of pictures")
    # A file that was cut short often just ends; only its header still knows how long it was.
    if promised_s is not None and math.isfinite(end_s) and promised_s - end_s > 0.75 * promised_s / frames.count:
        raise InputError(_breaks_off(path, frames.count))
    return frames


def _container_format(path: Path, file: BinaryIO) -> str:
    """FFmpeg's name of the film's kind, by its first bytes; what else FFmpeg knows is never tried."""
    head = file.read(16)
    file.seek(0)
    if head[4:8] in _ATOMS:
        return "mov"
    for magic, name in _CONTAINERS.items():
        if head.startswith(magic) and (name != "avi" or head[8:12] == b"AVI "):
            return name.split(",")[0]
    raise InputError(f"{path}: the video is no MP4, MOV, WebM, MKV or AVI; re-encode it as mp4")


def _check_film(path: Path, frame_pixels: int, count: int) -> None:
    if frame_pixels > _MAX_PIXELS:
        raise InputError(f"{path}: has more than {_MAX_PIXELS // 1_000_000} million pixels; make it smaller")
    if frame_pixels * count > _MAX_FILM_PIXELS:
        raise InputError(f"{path}: has too many pixels in all its frames; make it shorter or smaller")


def _upright(frame: Any) -> Image.Image:
    """A film's frame in RGB, turned as its display matrix says: phones film sideways and note how they were held.

    FFmpeg goes by the film's own colour matrix and range (BT.601, limited, where it does not tell). Unless it is asked
    otherwise it repeats each sample of colour, of which there is one for four pixels, and rounds white to green.
    """
    turned = _COUNTER_CLOCKWISE.get(round(frame.rotation) % 360)
    image = frame.to_image(interpolation=_SMOOTH_CHROMA)
    return image if turned is None else image.transpose(turned)


def _duration_s(container: Any, stream: Any) -> float | None:
    """When the last picture should end, as the header says; None where it says nothing about the pictures."""
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if container.duration is not None and not container.streams.audio:
        return (container.duration + (container.start_time or 0)) / av.time_base
    return None


def _breaks_off(path: Path, count: int) -> str:
    return f"{path}: the video breaks off after {count} frames; re-encode it or pass a folder of pictures"
