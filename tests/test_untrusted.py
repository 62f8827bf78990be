"""The door for strangers' bytes."""

import math
import os
import sys

import pytest
import torch
from PIL import Image

from meshwright.errors import InputError
from meshwright.images import decode_picture, read_depth, read_frames, read_image, write_video
from meshwright.untrusted import finite, open_untrusted, parse_json, printable, read_untrusted

posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of POSIX")


@posix
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            open_untrusted(path, 100)


def test_a_link_to_a_pipe_is_a_pipe_and_to_a_file_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_untrusted(tmp_path / "link", 3) == b"abc"


def test_what_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(InputError, match="20,480 MiB, more than the 1 MiB"):
        read_untrusted(tmp_path / "sparse", 1 << 20)


@pytest.mark.parametrize("name", ["missing", "nul\0", "x" * 300])
def test_names_without_a_file_are_one_error(tmp_path, name):
    with pytest.raises(InputError):
        open_untrusted(tmp_path / name, 100)


def test_integers_of_any_length_are_numbers():
    content = parse_json(b'{"small": 123456789012345678, "large": %s, "deep": [-%s]}' % (b"9" * 400, b"9" * 5000), "f")
    assert content == {"small": 123456789012345678, "large": math.inf, "deep": [-math.inf]}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b""])
def test_no_json_is_one_error(content):
    with pytest.raises(InputError, match=r"^f: is not valid JSON"):
        parse_json(content, "f")


@pytest.mark.parametrize("value", [10**400, math.inf, -math.inf, math.nan, True, "1", None, [1.0], 11.0, -1])
def test_only_finite_numbers_in_range_pass(value):
    with pytest.raises(InputError, match=r"^w "):
        finite(value, "w", 0.0, 10.0)


def test_printable_keeps_letters_and_shows_the_rest_as_escapes():
    assert printable("Bär 熊 🐻.png") == "Bär 熊 🐻.png"
    assert printable("a\x1b[31m\nb\u202ec\udcff") == "a\\x1b[31m\\nb\\u202ec\\udcff"


def _film(path):
    write_video(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), path)
    return path


@posix
@pytest.mark.parametrize("name", ["a:b.mp4", "file:x.mp4", "http:x.mp4", "concat:a|b.mp4", "data:x.mp4", "-i.mp4"])
def test_a_name_is_a_name_and_no_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _film(tmp_path / "plain.mp4").rename(tmp_path / name)
    assert read_frames(name).count == 4


@pytest.mark.parametrize(
    "content",
    [
        b"ffconcat version 1.0\nfile 'plain.mp4'\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nplain.mp4\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
        b"<?xml version='1.0'?><MPD></MPD>",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_films_that_are_lists_of_other_files_are_refused(tmp_path, monkeypatch, content, suffix):
    monkeypatch.chdir(tmp_path)
    _film(tmp_path / "plain.mp4")
    (tmp_path / f"list{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="no MP4"):
        read_frames(f"list{suffix}")


def test_text_in_a_film_that_is_no_text_does_no_harm(tmp_path):
    import av

    with av.open(str(tmp_path / "named.mp4"), "w") as film:
        film.metadata["title"] = "TITLETITLE"
        stream = film.add_stream("libx264", rate=30)
        stream.width = stream.height = 32
        for _ in range(4):
            film.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        film.mux(stream.encode())
    content = (tmp_path / "named.mp4").read_bytes()
    assert b"TITLETITLE" in content
    (tmp_path / "named.mp4").write_bytes(content.replace(b"TITLETITLE", b"\xff\xfe\x80TITLE\xc3\x28"))
    assert read_frames(tmp_path / "named.mp4").count == 4


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_formats_that_start_other_programs_are_no_pictures(tmp_path):
    (tmp_path / "eps.png").write_bytes(_EPS)
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "eps.png")
    with pytest.raises(InputError, match="not a picture"):
        decode_picture(_EPS, "texture", 4096)


def test_a_texture_that_is_too_large_is_not_decoded(monkeypatch):
    import io

    stream = io.BytesIO()
    Image.new("RGB", (300, 4)).save(stream, "PNG")
    assert decode_picture(stream.getvalue(), "texture", 300).shape == (4, 300, 3)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match="larger than 299 pixels"):
        decode_picture(stream.getvalue(), "texture", 299)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp"])
def test_animations_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, suffix, monkeypatch):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert read_frames(tmp_path / f"a{suffix}").count == 3
    monkeypatch.setattr("meshwright.images._MAX_ANIMATION_PIXELS", 1199)
    with pytest.raises(InputError, match="3 frames of 20x20 are too many"):
        read_frames(tmp_path / f"a{suffix}")
    monkeypatch.setattr("meshwright.images._MAX_ANIMATED_PIXELS", 399)
    with pytest.raises(InputError, match="make them smaller"):
        read_frames(tmp_path / f"a{suffix}")


def test_films_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    film = _film(tmp_path / "a.mp4")
    monkeypatch.setattr("meshwright.images._MAX_FILM_PIXELS", 4 * 32 * 32 - 1)
    with pytest.raises(InputError, match="too many pixels"):
        read_frames(film)


def test_depths_are_grey_and_possible(tmp_path):
    Image.new("I;16", (4, 4), 1000).save(tmp_path / "d.png")
    assert read_depth(tmp_path / "d.png", 1e-3).max() == 1.0
    for unit in (-1.0, 0.0, 1e308, math.nan):
        with pytest.raises(InputError, match="a depth step of"):
            read_depth(tmp_path / "d.png", unit)
    Image.new("P", (4, 4)).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="not a grey picture"):
        read_depth(tmp_path / "p.png", 1e-3)
    Image.new("F", (4, 4), 1e30).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match="depths beyond"):
        read_depth(tmp_path / "f.tif", 1.0)
