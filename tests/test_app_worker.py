"""The process of one job: what it makes of uploads, what it may touch, and that it walks the command line's road."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from meshwright.app import worker
from meshwright.app.inputs import lay_out, safe_parts
from meshwright.app.job_request import JobRequest
from meshwright.app.limits import Limits
from meshwright.app.worker import Channel, _for_the_client, audit_hook, run_job
from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.mesh_files import load_mesh
from meshwright.raster import render
from meshwright.views import Views
from small_objects import colored_ball

POSED = Path(__file__).parents[1] / "examples" / "demo" / "posed"


@pytest.fixture
def job(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """A job's folder with these files uploaded."""

    def make(files: dict[str, bytes]) -> Path:
        folder = tmp_path / "jobs" / "0" / "mine"
        (folder / "upload").mkdir(parents=True)
        for number, data in enumerate(files.values()):
            (folder / "upload" / f"{number:04d}").write_bytes(data)
        (folder / "names.json").write_text(json.dumps(list(files)))
        return folder

    return make


def archive(entries: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in entries.items():
            opened.writestr(name, data)
        if link is not None:
            entry = zipfile.ZipInfo("link.png")
            entry.external_attr = 0o120777 << 16
            opened.writestr(entry, link)
    return buffer.getvalue()


@given(st.text(max_size=300))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    for part in safe_parts(name):
        assert part not in ("", ".", "..")
        assert not set(part) & set('/\\:\0*?"<>|')
        assert part.isprintable()
        assert not part.startswith(".")
        assert len(part.encode()) <= 200


def test_a_tree_keeps_its_shape(job: Callable[[dict[str, bytes]], Path]) -> None:
    folder = job({"scan/transforms.json": b"{}", "scan/images/ä b.png": b"1", "scan/images/2.png": b"2"})
    source = lay_out(folder, Limits())
    assert source.name == "scan"
    assert (source / "images" / "ä b.png").read_bytes() == b"1"
    assert sorted(entry.name for entry in source.iterdir()) == ["images", "transforms.json"]


def test_archives_unpack_inside(job: Callable[[dict[str, bytes]], Path], tmp_path: Path) -> None:
    entries = {
        "../../../../evil.png": b"a",
        "/etc/evil.png": b"b",
        "C:\\evil\\x.png": b"c",
        "__MACOSX/x": b"d",
        "d/": b"",
    }
    folder = job({"pictures.ZIP": archive(entries, link="/etc/passwd")})
    source = lay_out(folder, Limits())
    found = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    assert set(found) == {"evil.png", "etc/evil.png", "C_/evil/x.png", "link.png"}
    assert not found["link.png"].is_symlink()
    outside = [path for path in tmp_path.rglob("*") if "evil" in path.name and not path.is_relative_to(source)]
    assert not outside


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"bomb.zip": archive({f"{n}.png": bytes(2 << 20) for n in range(4)})}, "unpacks to more than"),
        ({"many.zip": archive({f"{n}.png": b"" for n in range(50)})}, "more than 20 files"),
        ({"broken.zip": archive({"a.png": b"abc" * 1000})[:-30] + bytes(30)}, ""),
        ({"a.png": b"1", "./a.png": b"2"}, "two files have this name"),
        ({"a": b"1", "a/b.png": b"2"}, "both a file and a folder"),
    ],
)
def test_bad_uploads_are_refused(job: Callable[[dict[str, bytes]], Path], files: dict[str, bytes], word: str) -> None:
    folder = job(files)
    limits = replace(Limits(), unpacked_bytes=4 << 20, upload_files=20)
    if word:
        with pytest.raises(InputError, match=word):
            lay_out(folder, limits)
    else:  # no archive at all: it stays a file, which is no picture
        assert lay_out(folder, limits).name == "broken.zip"
    unpacked = sum(path.stat().st_size for path in folder.rglob("input/**/*") if path.is_file())
    assert unpacked <= limits.unpacked_bytes + (2 << 20)


def test_a_job_opens_its_own_files_only(tmp_path: Path) -> None:
    mine, other = tmp_path / "jobs" / "a", tmp_path / "jobs" / "b"
    for folder in (mine, other):
        folder.mkdir(parents=True)
    check = audit_hook(mine, None)
    (mine / "link.png").symlink_to(other / "secret.png")
    for path in (mine / "x.png", Path(sys.prefix) / "pyvenv.cfg", Path(os.__file__), Path("/proc/self/status")):
        check("open", (str(path), "r", 0))
    for path in (other / "secret.png", mine / ".." / "b" / "secret.png", mine / "link.png", tmp_path / "jobs.sqlite3"):
        with pytest.raises(PermissionError):
            check("open", (str(path), "r", 0))
        with pytest.raises(PermissionError):
            check("open", (os.fsencode(path), "w", 0))
    with pytest.raises(PermissionError):
        check("subprocess.Popen", ("gs",))
    with pytest.raises(PermissionError):
        check("socket.connect", (None, ("10.0.0.1", 80)))
    check("open", (3, "r", 0))  # a file that is open already


def test_a_wrong_file_is_named_as_the_client_knows_it(
    job: Callable[[dict[str, bytes]], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = job({"film.mp4": b"this is no film"})
    with pytest.raises(InputError) as caught:
        run_job(folder, JobRequest("inspect"), Limits(), Channel(io.StringIO()))
    message = _for_the_client(str(caught.value), folder)
    assert message.startswith("film.mp4: ")
    assert str(tmp_path) not in message
    assert not (folder / "result").exists()
    assert not (folder / "input").exists()


def test_the_mesh_is_shown_while_it_is_fitted_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = colored_ball()
    cameras = Cameras.orbit(3)
    drawn = render(mesh, cameras, 64, 64)
    views = Views(drawn.rgb, drawn.alpha, cameras, torch.full((3, 2), 64), ("a", "b", "c"))
    said = io.StringIO()
    monkeypatch.setattr(worker, "_SHOW_SHARE", 1e9)  # no pause between two
    show = worker._FitShown(views, tmp_path, Channel(said))
    show(mesh)
    show(mesh.replace(vertices=0.5 * mesh.vertices, vertex_colors=None))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fit-002.glb", "live.jpg"]
    shown = load_mesh(tmp_path / "fit-002.glb")
    assert shown.has_colors
    assert float(shown.vertices.norm(dim=1).max()) == pytest.approx(0.5, abs=1e-3)
    assert [json.loads(line)["show"] for line in said.getvalue().splitlines()] == ["fit-001.glb", "fit-002.glb"]
    monkeypatch.setattr(worker, "_SHOW_SHARE", 1e-9)
    patient = worker._FitShown(views, tmp_path, Channel(said))
    patient(mesh)
    patient(mesh)
    assert len(said.getvalue().splitlines()) == 3


@pytest.mark.slow
def test_a_job_makes_what_the_command_line_makes(job: Callable[[dict[str, bytes]], Path], tmp_path: Path) -> None:
    folder = job({f"posed/{file.name}": file.read_bytes() for file in sorted(POSED.iterdir())})
    options = {"options": {"refine": "off", "texture-size": 256, "format": ["glb", "obj"]}, "exclude": []}
    task = {
        "folder": str(folder),
        "task": "reconstruct",
        "options": options,
        "limits": vars(Limits()),
        "model_dir": None,
    }
    command_of_worker = [sys.executable, "-P", "-m", "meshwright.app.worker"]
    with subprocess.Popen(command_of_worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        messages = [json.loads(line) for line in process.stdout]
    assert messages[-1] == {"end": "done"}
    assert {"show": "start.glb"} in messages
    copy = tmp_path / "posed"
    shutil.copytree(POSED, copy)
    command = [sys.executable, "-m", "meshwright", "reconstruct", copy, "--out", tmp_path / "out"]
    flags = ["--refine", "off", "--texture-size", "256", "--format", "glb,obj"]
    subprocess.run([*command, *flags], check=True, capture_output=True, timeout=500)
    for name in ("mesh.glb", "mesh.obj", "preview.png"):
        assert (folder / "result" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with zipfile.ZipFile(folder / "result" / "mesh-obj.zip") as packed:
        assert sorted(packed.namelist()) == ["mesh.mtl", "mesh.obj", "mesh.png"]
