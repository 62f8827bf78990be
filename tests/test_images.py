"""Pictures and films in and out, and objects cut from their backgrounds."""

import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from meshwright import images
from meshwright.capture.foreground import cut_from_background
from meshwright.errors import InputError
from meshwright.images import (
    depth_size,
    image_size,
    is_animation,
    read_depth,
    read_frames,
    read_image,
    resize,
    write_image,
    write_video,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "utils.npz")


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def moving_square(i: int, height: int = 32, width: int = 48) -> torch.Tensor:
    frame = torch.zeros(3, height, width)
    frame[:, 8:24, 4 + 2 * i : 20 + 2 * i] = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    return frame


# --- resize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 80])
def test_resize_is_the_published_one(size):
    resized = resize(torch.from_numpy(GOLDEN["resize_in"]), size, size)
    torch.testing.assert_close(resized, torch.from_numpy(GOLDEN[f"resize_{size}"]), atol=1e-6, rtol=0)


def test_resize_to_the_same_size_changes_nothing():
    original = torch.from_numpy(GOLDEN["resize_in"])
    assert resize(original, 48, 48) is original


def test_shrinking_keeps_the_mean_and_does_not_alias(tmp_path):
    """Stripes one pixel wide become grey, not wider stripes."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = read_image(tmp_path / "stripes.png", max_size_px=64)
    assert small.shape == (3, 64, 64)
    inner = small[:, :, 4:-4].float()
    assert (inner - 127.5).abs().max() < 3


def test_shrinking_premultiplies(tmp_path):
    """The colour of invisible pixels does not bleed into the object."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 1] = 255  # invisible green
    rgba[16:47, 16:47] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "red.png")
    small = read_image(tmp_path / "red.png", max_size_px=24).float()
    visible = small[3] > 8
    assert small[1][visible].max() <= 16
    assert small[0][visible].min() >= 239


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_written_png_reads_back_exactly(tmp_path, channels):
    original = torch.randint(0, 256, (channels, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_image(original.float() / 255, tmp_path / "picture.png")
    expected = original.expand(3, -1, -1) if channels == 1 else original
    assert torch.equal(read_image(tmp_path / "picture.png"), expected)


def test_exif_turns_pictures_upright(tmp_path):
    picture = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to see it upright
    picture.save(tmp_path / "turned.png", exif=exif)
    assert image_size(tmp_path / "turned.png") == (3, 2)
    turned = read_image(tmp_path / "turned.png")
    assert torch.equal(turned, torch.from_numpy(np.rot90(np.asarray(picture), -1).copy()).permute(2, 0, 1))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[0].tolist() == [[0, 100], [200, 255]]


def test_sixteen_bit_colours_are_scaled_not_clipped(tmp_path):
    """A PNG of 16 bits a channel, which Pillow cannot write, with alpha."""
    pixels = np.array([[[0, 257 * 100, 65535, 65535], [300, 257 * 128, 257, 257 * 9]]], dtype=">u2")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + pixels.tobytes())),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in (*chunks, (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    (tmp_path / "deep.png").write_bytes(content)
    assert read_image(tmp_path / "deep.png")[:, 0].tolist() == [[0, 1], [100, 128], [255, 1], [255, 9]]


def rgb_profile(primaries: np.ndarray, gamma: float, name: str = "wide") -> bytes:
    """An ICC profile (v2, matrix and gamma): columns of ``primaries`` are XYZ of red, green and blue, at D50."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + number(0.9642) + number(1.0) + number(0.8249),
    }
    for letter, column in zip((b"r", b"g", b"b"), primaries.T, strict=True):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(number, column))
        tags[letter + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + number(0.9642) + number(1.0) + number(0.8249)
    return head.ljust(128, b"\0") + table + body


# Display P3 (phones) and sRGB to XYZ, both adapted to D50.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_colours_of_another_profile_become_srgb(tmp_path, suffix):
    colors = np.array([[200, 120, 60], [90, 160, 90], [128, 128, 128], [40, 60, 150]], np.uint8)
    pixels = np.repeat(np.repeat(colors[None], 16, 0), 16, 1)
    lossless = {"png": {}, "jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}[suffix]
    path = tmp_path / f"wide.{suffix}"
    Image.fromarray(pixels).save(path, icc_profile=rgb_profile(P3, 2.0), **lossless)
    linear = np.linalg.solve(SRGB, P3 @ (colors.T / 255) ** 2.0).clip(0, 1)
    expected = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    found = read_image(path)[:, 8, 8::16].numpy()
    assert np.abs(found - expected).max() < 2.5
    assert np.abs(found.T.astype(float) - colors)[:2].max() > 10  # and that is not what was stored


def test_alpha_keeps_its_numbers_beside_a_profile(tmp_path):
    pixels = np.full((4, 4, 4), (200, 120, 60, 77), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=rgb_profile(P3, 2.0))
    found = read_image(tmp_path / "a.png")
    assert (found[3] == 77).all()
    assert (found[0] != 200).all()


@pytest.mark.parametrize("profile", [b"x", bytes(500), rgb_profile(P3, 2.0)[:200], rgb_profile(P3, 2.0, "my sRGB")])
def test_a_profile_that_is_none_or_srgb_changes_nothing(tmp_path, profile):
    pixels = np.full((4, 4, 3), (200, 120, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [200, 120, 60]


def test_heic_of_phones_is_read_with_its_extra(tmp_path):
    """golden/gradient.heic: red grows to the right by 4 a pixel, green downwards by 5 (libheif, quality 95)."""
    pytest.importorskip("pi_heif")
    found = read_image(Path(__file__).parent / "golden" / "gradient.heic")
    y, x = np.mgrid[:48, :64]
    assert image_size(Path(__file__).parent / "golden" / "gradient.heic") == (48, 64)
    assert np.abs(found.numpy() - np.stack([4 * x, 5 * y, np.full_like(x, 60)])).max() < 12
    damaged = (Path(__file__).parent / "golden" / "gradient.heic").read_bytes()[:600]
    (tmp_path / "cut.heic").write_bytes(damaged)
    with pytest.raises(InputError, match=r"cut\.heic"):
        read_image(tmp_path / "cut.heic")


def test_heic_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(InputError, match=r"meshwright\[heic\]"):
        read_image(Path(__file__).parent / "golden" / "gradient.heic")


def test_depth_keeps_sixteen_bits(tmp_path):
    steps = np.array([[0, 1000], [12345, 65535]], dtype=np.uint16)
    Image.fromarray(steps).save(tmp_path / "depth.png")
    torch.testing.assert_close(read_depth(tmp_path / "depth.png", 1e-3)[0], torch.from_numpy(steps / 1000).float())


def exr(depths: np.ndarray, form: str = "grayf32le") -> bytes:
    encoder = av.CodecContext.create("exr", "w")
    encoder.height, encoder.width = depths.shape
    encoder.pix_fmt, encoder.time_base = form, Fraction(1, 1)
    frame = av.VideoFrame(encoder.width, encoder.height, form)
    for number, plane in enumerate(frame.planes):  # green, blue, red: only red holds the depths
        rows = np.zeros((encoder.height, plane.line_size // 4), np.float32)
        rows[:, : encoder.width] = depths if number == len(frame.planes) - 1 else 7.0
        plane.update(rows.tobytes())
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("form", ["grayf32le", "gbrpf32le"])
def test_depths_of_an_exr_are_read(tmp_path, form):
    depths = np.linspace(0, 3, 15 * 12, dtype=np.float32).reshape(12, 15)
    (tmp_path / "depth.exr").write_bytes(exr(depths, form))
    torch.testing.assert_close(read_depth(tmp_path / "depth.exr", 2.0)[0], 2 * torch.from_numpy(depths))
    assert depth_size(tmp_path / "depth.exr") == (12, 15)


def test_depths_of_colmap_are_read(tmp_path):
    depths = np.linspace(-1, 3, 15 * 12, dtype=np.float32).reshape(12, 15)
    (tmp_path / "a.png.geometric.bin").write_bytes(b"15&12&1&" + depths.tobytes())
    expected = torch.from_numpy(depths.clip(min=0))
    torch.testing.assert_close(read_depth(tmp_path / "a.png.geometric.bin", 1.0)[0], expected)
    assert depth_size(tmp_path / "a.png.geometric.bin") == (12, 15)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("exr", b""),
        ("exr", b"v/1\x01" + bytes(500)),
        ("exr", exr(np.ones((12, 15), np.float32)).replace(b"\x0e\0\0\0\x0b\0\0\0", b"\xff\xff\xff\x3f\x0b\0\0\0")),
        ("bin", b""),
        ("bin", b"15&12&1"),
        ("bin", b"15&12&3&" + bytes(15 * 12 * 4)),
        ("bin", b"9999999&9999999&1&"),
        ("bin", b"15&12&1&" + bytes(15 * 12 * 4 - 1)),
        ("bin", b"-5&12&1&" + bytes(15 * 12 * 4)),
        ("bin", b"2&1&1&" + struct.pack("<2f", 1.0, float("nan"))),
    ],
)
def test_damaged_depths_are_one_clear_line(tmp_path, suffix, content):
    (tmp_path / f"depth.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"depth\.{suffix}") as caught:
        read_depth(tmp_path / f"depth.{suffix}", 1.0)
    assert "\n" not in str(caught.value)


def test_a_palette_picture_with_a_transparent_colour_has_alpha(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png")[3].tolist() == [[0, 255]]


@pytest.mark.parametrize(("width", "height"), [(20000, 20000), (12000, 8000), (100000, 1000)])
def test_a_header_that_promises_too_many_pixels_is_never_decoded(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    for read in (read_image, image_size, read_frames):
        with pytest.raises(InputError, match="more than 64 million pixels"):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize("content", [b"", b"not a picture", png_header(64, 64), b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_damaged_picture_is_one_clear_line(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "bad.png")
    assert str(caught.value).startswith(str(tmp_path / "bad.png"))
    assert "\n" not in str(caught.value)


def test_postscript_is_never_opened(tmp_path):
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(tmp_path / "program.png")


# --- films -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_film_taken_sideways_comes_upright(tmp_path, matrix, turns, suffix):
    """Phones note how they were held in the track's matrix: x' = a x + c y, y' = b x + d y, with y downwards."""
    frames = [moving_square(i) for i in range(3)]
    write_video(frames, tmp_path / "film.mp4")
    content = bytearray((tmp_path / "film.mp4").read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0: times, number, duration; reserved; layer, volume
    a, b, c, d = (part << 16 for part in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / f"turned.{suffix}").write_bytes(content)
    expected = torch.rot90(read_frames(tmp_path / "film.mp4").pictures[0], turns, (1, 2))
    assert torch.equal(read_frames(tmp_path / f"turned.{suffix}").pictures[0], expected)


def film_of_planes(path: Path, planes: list[np.ndarray], matrix: int, full_range: bool) -> None:
    """One lossless H.264 frame of Y, Cb and Cr, with the tags that say what they mean."""
    height, width = planes[0].shape
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", {"qp": "0"}
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full_range else 1
        values = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, width)
        frame = av.VideoFrame.from_ndarray(values, format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114)])
def test_films_are_read_as_their_tags_say(tmp_path, matrix, kr, kb, full_range):
    # Colours change evenly from red to blue, 4 of 255 a pixel; samples of colour lie at the left of four pixels.
    x = np.broadcast_to((np.arange(64) * 4.0)[None], (32, 64)) / 255
    rgb = np.stack([0.9 - 0.8 * x, np.full_like(x, 0.4), 0.1 + 0.8 * x], axis=2)
    rgb[:8] = 1
    y = rgb @ np.array([kr, 1 - kr - kb, kb])
    b, r = (rgb[..., 2] - y) / (2 - 2 * kb), (rgb[..., 0] - y) / (2 - 2 * kr)
    sampled = [(plane[::2, ::2] + plane[1::2, ::2]) / 2 for plane in (b, r)]
    span, low = (255, 0) if full_range else (219, 16)
    planes = [low + span * y, *(128 + (255 if full_range else 224) * plane for plane in sampled)]
    film_of_planes(
        tmp_path / "film.mp4", [np.round(plane).clip(0, 255).astype(np.uint8) for plane in planes], matrix, full_range
    )
    read = read_frames(tmp_path / "film.mp4").pictures[0].permute(1, 2, 0).numpy()
    assert (np.abs(read[:3].astype(int) - 255) <= 1).all()  # white is no green
    inside = np.s_[14:, 4:-4]
    assert np.abs(read[inside] - 255 * rgb[inside]).max() < 2.5


def test_a_written_video_reads_back(tmp_path):
    frames = [moving_square(i) for i in range(7)]
    write_video(frames, tmp_path / "film.mp4", fps=24.0)
    film = read_frames(tmp_path / "film.mp4")
    assert film.count == 7
    assert film.indices == tuple(range(7))
    for i, (frame, picture) in enumerate(zip(frames, film.pictures, strict=True)):
        difference = (frame - picture.float() / 255).abs()
        assert difference[:, 12:20, 8 + 2 * i : 16 + 2 * i].max() < 0.04  # 4:2:0 blurs colours along the edges only
        assert difference.mean() < 0.02


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_film_that_was_taken_with_a_turned_camera_is_upright(tmp_path, quarters):
    """Phones write frames as the sensor lies, and into the track's header how to turn them (ISO 14496-12, tkhd)."""
    write_video([moving_square(i) for i in range(6)], tmp_path / "held.mp4")
    plain = read_frames(tmp_path / "held.mp4").pictures[2]
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]  # clockwise, of rows that run down
    content = bytearray((tmp_path / "held.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    rows = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *rows)
    (tmp_path / "held.mp4").write_bytes(content)
    assert torch.equal(read_frames(tmp_path / "held.mp4").pictures[2], torch.rot90(plain, -quarters, (1, 2)))


def test_odd_sides_are_doubled_at_the_edge(tmp_path):
    write_video([torch.full((3, 15, 17), 0.5)] * 2, tmp_path / "odd.mp4")
    assert read_frames(tmp_path / "odd.mp4").pictures[0].shape == (3, 16, 18)


def test_frames_beyond_the_limit_are_thinned_out_evenly(tmp_path):
    write_video([torch.full((3, 32, 32), i / 20) for i in range(21)], tmp_path / "film.mp4")
    film = read_frames(tmp_path / "film.mp4", max_frames=8)
    assert film.count == 21
    assert film.indices == (0, 4, 8, 12, 16, 20)
    for index, picture in zip(film.indices, film.pictures, strict=True):
        assert picture.float().mean() / 255 == pytest.approx(index / 20, abs=0.02)


def test_frames_are_made_small_one_by_one(tmp_path):
    write_video([torch.rand(3, 120, 200, generator=torch.Generator().manual_seed(0))] * 3, tmp_path / "film.mp4")
    film = read_frames(tmp_path / "film.mp4", max_size_px=50)
    assert all(picture.shape == (3, 30, 50) for picture in film.pictures)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_are_films(tmp_path, suffix):
    pictures = [Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)) for i in range(5)]
    pictures[0].save(tmp_path / f"film{suffix}", save_all=True, append_images=pictures[1:], duration=50)
    assert is_animation(tmp_path / f"film{suffix}")
    film = read_frames(tmp_path / f"film{suffix}")
    assert film.count == 5
    for i, picture in enumerate(film.pictures):
        assert (picture[:3].float() - 40 * i).abs().max() <= 3


def test_a_film_that_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_MAX_FRAMES", 10)
    write_video([torch.zeros(3, 16, 16)] * 11, tmp_path / "long.mp4")
    with pytest.raises(InputError, match="more than 10 frames"):
        read_frames(tmp_path / "long.mp4")


def faststart_video(path: Path, count: int = 40) -> None:
    """A video whose index comes first, so that half of it can be read."""
    noise = torch.Generator().manual_seed(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(count):
            pixels = torch.randint(0, 256, (64, 64, 3), generator=noise, dtype=torch.uint8).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_a_truncated_video_is_refused_wherever_it_was_cut(tmp_path, share):
    write_video([moving_square(i % 8) for i in range(20)], tmp_path / "index_last.mp4")
    faststart_video(tmp_path / "index_first.mp4")
    for name in ("index_last.mp4", "index_first.mp4"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"breaks off after \d+ frames|cannot be read|holds no frames"):
            read_frames(tmp_path / name)


def test_a_whole_faststart_video_is_not_taken_for_a_truncated_one(tmp_path):
    faststart_video(tmp_path / "film.mp4")
    assert read_frames(tmp_path / "film.mp4").count == 40


def test_webm_is_read(tmp_path):
    with av.open(str(tmp_path / "film.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(9):
            pixels = np.full((64, 64, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert read_frames(tmp_path / "film.webm").count == 9


def test_a_film_in_a_coding_that_nobody_knows_is_refused(tmp_path):
    write_video([moving_square(i) for i in range(3)], tmp_path / "film.mp4")
    content = (tmp_path / "film.mp4").read_bytes()
    assert b"avc1" in content
    (tmp_path / "film.mp4").write_bytes(content.replace(b"avc1", b"zzzz"))
    with pytest.raises(InputError, match=r"film\.mp4"):
        read_frames(tmp_path / "film.mp4")


def test_sound_alone_is_no_film(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="holds no pictures"):
        read_frames(tmp_path / "sound.mp4")


def test_videos_are_only_written_as_mp4_and_leave_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"\.mp4"):
        write_video([torch.zeros(3, 16, 16)], tmp_path / "film.gif")

    def breaks():
        yield torch.zeros(3, 16, 16)
        raise RuntimeError("renderer failed")

    with pytest.raises(RuntimeError):
        write_video(breaks(), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


# --- the object and its background -----------------------------------------------------------------------------------


def soft_disc(size: int = 128, radius: float = 38.3) -> torch.Tensor:
    """Coverage of a disc, exact to about 1/100 by counting 16 x 16 samples a pixel."""
    fine = (torch.arange(size * 16) + 0.5) / 16
    inside = ((fine[None] - size / 2 - 3.3) ** 2 + (fine[:, None] - size / 2 + 1.7) ** 2 < radius**2).float()
    return torch.nn.functional.avg_pool2d(inside[None], 16)


def shaded(size: int = 128) -> torch.Tensor:
    """Smoothly changing colours, far from the backgrounds used below."""
    ramp = torch.linspace(0, 1, size)
    return torch.stack([(0.55 + 0.2 * ramp).expand(size, size), (0.25 + 0.2 * ramp[:, None]).expand(size, size),
                        torch.full((size, size), 0.35)])  # fmt: skip


BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "green": (0.1, 0.8, 0.2), "grey": (0.7, 0.7, 0.7)}


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_alpha_before_any_flat_colour_is_accurate_to_a_fraction_of_a_pixel(background):
    alpha, colour = soft_disc(), shaded()
    flat = torch.tensor(BACKGROUNDS[background])[:, None, None]
    cut = cut_from_background(alpha * colour + (1 - alpha) * flat)
    assert (cut.alpha - alpha).abs().max() < 0.06
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.02  # pixels along the outline
    edge = (alpha > 0.1) & (alpha < 0.9)
    assert (cut.rgb - colour).abs()[edge.expand(3, -1, -1)].max() < 0.06  # no fringe of the background's colour


def test_noise_moves_the_outline_by_less_than_a_tenth_of_a_pixel():
    alpha, colour = soft_disc(), shaded()
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 / 255
    cut = cut_from_background((alpha * colour + (1 - alpha) + noise).clamp(0, 1))
    assert (cut.alpha.sum() - alpha.sum()).abs() / (2 * np.pi * 38.3) < 0.1
    assert (cut.alpha - alpha).abs().max() < 0.15
    assert (cut.alpha[alpha == 0] == 0).all()


@pytest.mark.parametrize("crf", ["18", "28"])
def test_video_compression_moves_the_outline_by_less_than_a_quarter_of_a_pixel(tmp_path, crf):
    alpha, colour = soft_disc(), shaded()
    pixels = ((alpha * colour + 1 - alpha) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 128, "yuv420p", {"crf": crf}
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    cut = cut_from_background(read_frames(tmp_path / "film.mp4").pictures[0].float() / 255)
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.25
    assert (cut.alpha.sum() - alpha.sum()).abs() / (2 * np.pi * 38.3) < 0.2


def test_palette_dithering_is_no_object(tmp_path):
    alpha, colour = soft_disc(), shaded()
    pixels = ((alpha * colour + (1 - alpha) * 0.98) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).quantize(64, dither=Image.Dither.FLOYDSTEINBERG).save(tmp_path / "dithered.gif")
    cut = cut_from_background(read_image(tmp_path / "dithered.gif").float() / 255)
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.25


def test_a_soft_shadow_is_no_object():
    alpha, colour = soft_disc(), shaded()
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    shadow = 1 - 0.2 * torch.exp(-(((x - 80) / 22) ** 2) - ((y - 100) / 9) ** 2)
    cut = cut_from_background(alpha * colour + (1 - alpha) * shadow)
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.15


def test_holes_are_holes_and_white_parts_are_not():
    """A ring keeps its hole; a white but shaded patch inside the object stays."""
    outer, inner = soft_disc(radius=50.0), soft_disc(radius=18.0)
    ring = outer - inner
    cut = cut_from_background(ring * shaded() + 1 - ring)
    assert (cut.alpha - ring).abs().max() < 0.08
    pale = shaded() * (1 - inner) + inner * (
        0.96 - 0.02 * torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1))
    )
    cut = cut_from_background(outer * pale + 1 - outer)
    assert cut.alpha[inner == 1].min() == 1


def test_a_white_object_with_shading_stands_before_white():
    alpha = soft_disc()
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    light = 0.97 - 0.35 * (((x - 67.3) ** 2 + (y - 62.3) ** 2) / 38.3**2).clamp(0, 1)
    cut = cut_from_background(alpha * light + (1 - alpha).expand(3, -1, -1))
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.1


def test_a_bright_object_stands_before_grey_beside_its_shadow():
    alpha = soft_disc()
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    shadow = 0.6 - 0.1 * torch.exp(-(((x - 80) / 22) ** 2) - ((y - 100) / 9) ** 2)
    cut = cut_from_background((alpha * 0.95 + (1 - alpha) * shadow).expand(3, -1, -1))
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.25


@pytest.mark.parametrize("darkness", [0.08, 0.12, 0.2])
def test_flat_white_parts_of_a_dark_object_stand_before_white(darkness):
    """No light fades over them as over a shadow: they begin with a step, however low."""
    alpha, colour = soft_disc(), shaded()
    colour[:, 48:80] = 1 - darkness
    cut = cut_from_background(alpha * colour + 1 - alpha)
    assert (cut.alpha - alpha).abs().sum() / (2 * np.pi * 38.3) < 0.1


@pytest.mark.parametrize("rim_px", [3.0, 5.0])
def test_a_pale_rim_of_a_dark_object_is_no_mixture_with_the_background(rim_px):
    alpha, inside = soft_disc(), soft_disc(radius=38.3 - rim_px)
    colour = inside * 0.4 + (1 - inside) * 0.85
    colour[:, :64] = 0.4  # were it all around, it could as well be blur
    cut = cut_from_background((alpha * colour + 1 - alpha).expand(3, -1, -1))
    assert (cut.alpha.sum() - alpha.sum()).abs() / (2 * np.pi * 38.3) < 0.25


def test_the_outline_of_a_blurred_picture_is_where_coverage_is_half():
    alpha, colour = soft_disc(), shaded()
    blurred = torch.from_numpy(ndimage.gaussian_filter((alpha * colour + 1 - alpha).numpy(), (0, 0.8, 0.8)))
    cut = cut_from_background(blurred)
    assert (cut.alpha.sum() - alpha.sum()).abs() / (2 * np.pi * 38.3) < 0.25


@pytest.mark.parametrize("width_px", [3, 6, 10])
def test_a_gap_between_pale_limbs_stays_a_gap(width_px):
    alpha, colour = soft_disc(), shaded()
    colour[:, 40:90] = 0.93
    alpha[:, 46:84, 64 : 64 + width_px] = 0
    cut = cut_from_background(alpha * colour + 1 - alpha)
    assert cut.alpha[:, 46:84, 64 : 64 + width_px].max() < 0.1
    assert cut.alpha[:, 50:80, 56:64].min() > 0.9


def test_a_hairline_along_the_border_is_no_object():
    alpha, colour = soft_disc(), shaded()
    picture = alpha * colour + 1 - alpha
    picture[:, 0] = 0.84
    picture[:, :, -1] = 0.5
    cut = cut_from_background(picture)
    assert (cut.alpha - alpha).abs().max() < 0.06


def test_an_object_cut_by_the_border_keeps_its_border():
    alpha = torch.zeros(1, 64, 64)
    alpha[:, 20:, 16:48] = 1
    cut = cut_from_background(alpha * 0.4 + (1 - alpha).expand(3, -1, -1))
    assert (cut.alpha - alpha).abs().max() < 0.05


def test_pictures_without_a_flat_background_or_without_an_object_are_not_cut():
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert cut_from_background(noise) is None
    assert cut_from_background(torch.ones(3, 64, 64)) is None
    assert cut_from_background(torch.ones(3, 1, 1)) is None


def test_the_size_of_a_picture_is_known_without_decoding_it(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways
    for suffix in ("png", "jpg", "webp", "tif"):
        Image.new("RGB", (30, 20)).save(tmp_path / f"turned.{suffix}", exif=exif)
        Image.new("RGB", (30, 20)).save(tmp_path / f"upright.{suffix}")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    for suffix in ("png", "jpg", "webp", "tif"):
        assert image_size(tmp_path / f"turned.{suffix}") == (30, 20), suffix
        assert image_size(tmp_path / f"upright.{suffix}") == (20, 30), suffix


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_held_sideways_is_turned(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / f"turned.{suffix}", exif=exif)
    assert read_image(tmp_path / f"turned.{suffix}").shape == (3, 30, 20)
