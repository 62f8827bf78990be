"""Files read in a child: the same bytes as without, and whatever a file does to its reader is one line here."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from meshwright.child import run_in_child
from meshwright.cli import main
from meshwright.errors import InputError
from meshwright.isolated import Parcel, file_readers, readers
from meshwright.isolated.parcel import DamagedParcel
from meshwright.limits import Limits
from meshwright.mesh import Mesh
from meshwright.options import ViewOptions
from meshwright.progress import silent
from meshwright.views import Capture, Outlines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children with limits are POSIX's")
EXAMPLE = Path(__file__).parents[1] / "examples" / "demo" / "posed"


@pytest.fixture(autouse=True)
def hostile_readers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def _run(name, limits=Limits(20.0, 256), progress=lambda *_: None, **arguments):
    with tempfile.TemporaryFile() as result:
        run_in_child(f"hostile_readers:{name}", arguments, result, "a.png", limits, progress)
        result.seek(0)
        return result.read()


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def test_a_child_hands_over_its_result_and_says_how_far_it_is():
    said = []
    assert _run("write", content="abc", progress=lambda *words: said.append(words)) == b"abc"
    assert said == [("views", number / 10, f"{number}.png") for number in range(11)]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"])
def test_a_crash_is_one_line(name):
    with pytest.raises(InputError, match=rf"^a.png: reading it crashed \({name}\), in a process of its own; [^\n]*$"):
        _run("crash", number=getattr(signal, name))


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_memory_is_limited():
    with pytest.raises(InputError, match=r"^a.png: reading it takes more than 256 MiB; [^\n]*$"):
        _run("eat_memory")


@pytest.mark.parametrize("name", ["hang", "hang_deaf"])
def test_time_is_limited_and_nothing_stays(name):
    others = _children() if sys.platform == "linux" else set()  # of other tests: servers that fork, say
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^a.png: reading it takes longer than 0.2 s; [^\n]*$"):
        _run(name, Limits(0.2, 256))
    assert time.monotonic() - began < 30
    if sys.platform == "linux":
        assert _children() <= others


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("start_a_program", "wants another program or a connection"),
        ("connect", "wants another program or a connection"),
        ("fork", "wants another program or a connection"),
        ("leave", "reading it crashed"),
        ("talk", "a.png"),
        ("refuse", "^a.png: is not a picture$"),
    ],
)
def test_what_a_reader_may_not_do_is_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        _run(name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_one_killed_from_outside_is_one_line():
    with pytest.raises(InputError, match="was killed, perhaps since memory ran out"):
        _run("crash", number=signal.SIGKILL)


def test_a_fault_of_ours_stays_one_with_its_traceback():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a fault of ours"):
        _run("break_down")


def test_the_child_ends_with_its_parent():
    code = (
        "import tempfile\nfrom meshwright.child import run_in_child\nfrom meshwright.limits import Limits\n"
        "run_in_child('hostile_readers:hang', {}, tempfile.TemporaryFile(), 'a.png', Limits(60, 256),"
        " lambda *words: print(words, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert b"views" in parent.stdout.readline()
    reader = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0])
    parent.kill()
    parent.communicate()
    for _ in range(200):
        if not Path(f"/proc/{reader}").exists() or "Z" in Path(f"/proc/{reader}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_code_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    for name in ("json.py", "torch.py", "hostile_readers.py", "meshwright.py"):
        (tmp_path / name).write_text("open('pwned', 'w')")
    monkeypatch.chdir(tmp_path)
    assert _run("write", content="abc") == b"abc"
    assert not (tmp_path / "pwned").exists()


# --- what is handed over ---------------------------------------------------------------------------------------------


def _written(parcel) -> bytes:
    with tempfile.TemporaryFile() as file:
        parcel.write(file)
        file.seek(0)
        return file.read()


def _read(content: bytes) -> Parcel:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return Parcel.read(file)


def test_a_parcel_comes_back_to_the_bit():
    tensors = {
        "a": torch.randn(3, 5).T, "empty": torch.empty(0, 4), "none": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.randn(7).bfloat16(), "whole": torch.arange(9).view(3, 3), "yes": torch.tensor([True, False]),
    }  # fmt: skip
    found = _read(_written(Parcel({"text": "Bär", "list": [1, None]}, tensors)))
    assert found.facts == {"text": "Bär", "list": [1, None]}
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert found.tensors["a"].data_ptr() % 64 == 0


@pytest.mark.parametrize(
    "row", [["float32", [-1, -4], 0], ["float32", [1 << 62, 4], 0], ["float32", [4], 1 << 40], ["float32", [4], 1],
            ["object", [1], 0], ["float32", [1.0], 0], ["float32", [True], 0], ["float32", 4, 0], [], None, 3],
)  # fmt: skip
def test_a_parcel_that_lies_is_refused(row):
    head = json.dumps({"facts": {}, "tensors": {"a": row}}).encode()
    with pytest.raises(DamagedParcel):
        _read(b"MWPARCEL" + len(head).to_bytes(8, "little") + head + bytes(4096))


@pytest.mark.parametrize("content", [b"", b"MWPARCEL", b"MWPARCEL" + b"\xff" * 8, b"MWPARCEL" + bytes(8), b"x" * 99])
def test_no_parcel_is_refused(content):
    with pytest.raises(DamagedParcel):
        _read(content)


# --- the readers themselves ------------------------------------------------------------------------------------------


def _same(a, b) -> None:
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other), field.name
        elif dataclasses.is_dataclass(one):
            _same(one, other)
        else:
            assert one == other, field.name


@pytest.fixture(scope="module")
def few_views(tmp_path_factory):
    """An orbit of small pictures, of which something is left to estimate."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("orbit")
    for number in range(4):
        with Image.open(EXAMPLE / f"{number:02d}.png") as picture:
            picture.resize((48, 48)).save(folder / f"{number}.png")
    return folder


def test_views_are_the_same_to_the_bit(few_views):
    options = ViewOptions(rig="orbit", elevation_deg=10.0, turn="even")
    _same(file_readers(False).load_views(few_views, options), file_readers(True).load_views(few_views, options))


def test_what_a_capture_says_beside_its_cameras_comes_along(tmp_path):
    views = file_readers(False).load_views(EXAMPLE, ViewOptions(max_size_px=64))
    for capture in (None, Capture("COLMAP", (0.0, 0.6, 0.8), False), Capture("phone")):
        outlines = None if capture is None else Outlines(0.9, 0.5, ("00.png",), ("a doubt",))
        fitted = capture is None
        said = dataclasses.replace(views, capture=capture, outlines=outlines, cameras_fitted=fitted)
        with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr(readers, "load_views", lambda *_, said=said, **__: said)
            readers.views_parcel("x", dataclasses.asdict(ViewOptions()), file, silent)
            _same(readers._views_from(Parcel.read(file), "x"), said)


def test_meshes_are_the_same_to_the_bit(tmp_path):
    vertices, faces = torch.rand(9, 3), torch.arange(9).view(3, 3)
    Mesh(vertices, faces, uv=torch.rand(9, 2), uv_faces=faces, texture=torch.rand(3, 8, 8)).save(tmp_path / "m.glb")
    _same(file_readers(False).load_mesh(tmp_path / "m.glb"), file_readers(True).load_mesh(tmp_path / "m.glb"))


def test_weights_are_the_same_to_the_bit(tmp_path):
    from meshwright.weights import save_model
    from small_models import small_mesh

    save_model(small_mesh(), tmp_path / "w.safetensors")
    here, there = (file_readers(isolate).read_checkpoint(tmp_path / "w.safetensors") for isolate in (False, True))
    assert (here.form, here.config, here.path) == (there.form, there.config, there.path)
    assert here.tensors.keys() == there.tensors.keys()
    assert all(torch.equal(here.tensors[name], there.tensors[name]) for name in here.tensors)


def test_errors_are_the_same(tmp_path):
    (tmp_path / "m.glb").write_bytes(b"glTF" + bytes(20))
    said = []
    for isolate in (False, True):
        with pytest.raises(InputError) as caught:
            file_readers(isolate).load_mesh(tmp_path / "m.glb")
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "change",
    [
        {"faces": torch.tensor([[0, 1, 3]])}, {"faces": torch.tensor([[0, 1, -1]])}, {"vertices": torch.rand(3, 2)},
        {"faces": torch.tensor([[0, 1, 2]], dtype=torch.int32)}, {"uv": torch.rand(3, 2)}, {"other": torch.rand(3)},
        {"vertex_colors": torch.rand(2, 3)}, {"view_counts": torch.tensor([1, 2])},
    ],
)  # fmt: skip
def test_a_child_that_is_no_longer_ours_hands_over_no_mesh_that_leads_outside_of_its_arrays(monkeypatch, change):
    tensors = {"vertices": torch.rand(3, 3), "faces": torch.tensor([[0, 1, 2]])}
    handed = []
    monkeypatch.setattr("meshwright.isolated.readers.run_in_child", lambda *a: handed[-1].write(a[2]))
    handed.append(Parcel({}, tensors))
    assert len(file_readers(True).load_mesh("m.glb").faces) == 1
    handed.append(Parcel({}, tensors | change))
    with pytest.raises(InputError, match="handed over what it should not"):
        file_readers(True).load_mesh("m.glb")


@pytest.mark.parametrize(
    ("facts", "tensors"),
    [
        ({"names": ["a"]}, {}), ({"names": []}, {}), ({"names": "ab"}, {}), ({"rig": 3}, {}),
        ({"assumptions": None}, {}),
        ({}, {"images": torch.rand(2, 3, 4, 5)}), ({}, {"alpha": torch.rand(2, 1, 4, 5)}),
        ({}, {"sizes_px": torch.tensor([[4, 9], [4, 4]])}), ({}, {"T_world_camera": torch.rand(3, 4, 4)}),
        ({}, {"depth_z": torch.rand(2, 1, 4, 9)}), ({}, {"other": torch.rand(2)}),
        ({"capture": {"kind": "x"}}, {}), ({"capture": {"kind": "x", "up": [1, 2], "own_axes": True}}, {}),
    ],
)  # fmt: skip
def test_a_child_that_is_no_longer_ours_hands_over_no_views_that_contradict_themselves(monkeypatch, facts, tensors):
    sound_facts = {"names": ["a", "b"], "rig": "posed", "assumptions": []}
    sound = {
        "images": torch.rand(2, 3, 4, 4), "alpha": torch.rand(2, 1, 4, 4), "sizes_px": torch.full((2, 2), 4),
        "T_world_camera": torch.eye(4).repeat(2, 1, 1), "intrinsics": torch.rand(2, 4),
    }  # fmt: skip
    handed = []
    monkeypatch.setattr("meshwright.isolated.readers.run_in_child", lambda *a: handed[-1].write(a[2]))
    handed.append(Parcel(sound_facts, sound))
    assert len(file_readers(True).load_views("x")) == 2
    handed.append(Parcel(sound_facts | facts, sound | tensors))
    with pytest.raises(InputError, match="handed over what it should not"):
        file_readers(True).load_views("x")


def test_the_command_line_says_what_the_child_says(tmp_path, monkeypatch, capfd):
    (tmp_path / "0.png").write_bytes(b"x")
    monkeypatch.setattr(sys, "argv", ["meshwright", "info", str(tmp_path), "--isolate"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "is not a picture" in capfd.readouterr().err
