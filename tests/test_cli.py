"""The command line as a user meets it: results that hold, and one clear line for every mistake."""

import errno
import json
import math
import pickle
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import meshwright
from drawn_orbits import draw
from meshwright import (
    Cameras,
    ColorOptions,
    FitOptions,
    Mesh,
    ShapeOptions,
    ViewOptions,
    load_views,
    reconstruct,
)
from meshwright.cli import main
from meshwright.images import write_image, write_video
from meshwright.mesh_files import load_mesh
from meshwright.raster import render
from meshwright.shape import grid, marching_cubes

SMALL = ("--resolution", 48, "--texture-size", 256)
QUICK = ("--resolution", 32, "--refine", "off", "--vertex-colors")
DEMO = Path(__file__).parents[1] / "examples" / "demo"


@pytest.fixture(scope="session")
def posed_folder(tmp_path_factory):
    """Eight pictures of an off-centre egg, red on one side and blue on the other, with a transforms.json."""
    points = grid(40, 2.0)
    field = ((points - torch.tensor([0.1, 0.0, 0.2])) / torch.tensor([0.5, 0.4, 0.6])).norm(dim=1) - 1
    egg = marching_cubes(field.reshape(41, 41, 41), scale=2.0)
    red, blue = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.9])
    egg = egg.replace(vertex_colors=torch.where(egg.vertices[:, 1:2] > 0, red, blue))
    elevations_deg = [20.0, -30.0, 50.0, -10.0, 5.0, 35.0, -55.0, 15.0]
    cameras = Cameras.spherical([i * 137.0 for i in range(8)], elevations_deg, 4.0, 30.0)
    rendered = render(egg, cameras, 96, 96, samples=4)
    folder = tmp_path_factory.mktemp("egg")
    frames = []
    for i in range(8):
        rgba = torch.cat([rendered.rgb[i], rendered.alpha[i]]).permute(1, 2, 0)
        Image.fromarray((rgba.clamp(0, 1) * 255).round().byte().numpy()).save(folder / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": cameras.T_world_camera[i].tolist()})
    focal = 2 * np.arctan(0.5 / float(cameras.intrinsics[0, 0]))
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": focal, "frames": frames}))
    return folder


def run(monkeypatch, *arguments: object) -> int:
    """Exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["meshwright", *(str(argument) for argument in arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="session")
def result(tmp_path_factory, posed_folder):
    """What `reconstruct` makes of the egg."""
    out = tmp_path_factory.mktemp("result") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "reconstruct", posed_folder, "--out", out, "--format", "glb,obj,ply,stl", *SMALL) == 0
    return out


def test_reconstruct_writes_what_it_promises(result):
    assert {p.name for p in result.iterdir()} == {
        "mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png", "mesh.ply", "mesh.stl", "preview.png", "report.json",
    }  # fmt: skip
    report = json.loads((result / "report.json").read_text())
    assert report["mesh"]["watertight"] is True
    assert report["mesh"]["components"] == 1
    assert report["mean"]["silhouette_iou"] > 0.98
    assert report["mean"]["psnr_db"] > max(30, report["start"]["mean"]["psnr_db"])
    assert report["refinement"]["withheld_error_after"] < report["refinement"]["withheld_error_before"]
    assert [view["camera_turned_deg"] for view in report["refinement"]["views"]] == [0.0] * 8
    assert report["input"]["rejected_silhouettes"] == []
    assert report["settings"]["fit"]["refine"] == "fast"
    assert [stage["name"] for stage in report["stages"]] == [
        "views", "hull", "carve", "refine", "atlas", "bake", "sharpen", "files",
    ]  # fmt: skip
    assert all(stage["seconds"] >= 0 and stage["peak_memory_mib"] > 0 for stage in report["stages"])
    mesh = load_mesh(result / "mesh.glb")
    assert len(mesh.faces) == report["mesh"]["triangles"]
    assert mesh.texture is not None
    assert mesh.texture.shape == (3, 256, 256)
    assert torch.allclose(mesh.vertices.amax(0), torch.tensor([0.6, 0.4, 0.8]), atol=0.03)
    assert torch.allclose(mesh.vertices.amin(0), torch.tensor([-0.4, -0.4, -0.4]), atol=0.03)


def test_colours_land_on_the_right_side(posed_folder):
    mesh = reconstruct(
        load_views(posed_folder),
        shape=ShapeOptions(resolution=48),
        fit=FitOptions(refine="off"),
        color=ColorOptions(vertex_colors=True),
    )
    assert mesh.vertex_colors is not None
    left, right = mesh.vertices[:, 1] < -0.1, mesh.vertices[:, 1] > 0.1
    assert (mesh.vertex_colors[left].mean(0) - torch.tensor([0.1, 0.2, 0.9])).abs().max() < 0.05
    assert (mesh.vertex_colors[right].mean(0) - torch.tensor([0.8, 0.1, 0.1])).abs().max() < 0.05


def test_the_same_seed_gives_the_same_file(monkeypatch, tmp_path, posed_folder, result):
    assert run(monkeypatch, "reconstruct", posed_folder, "--out", tmp_path / "again", *SMALL) == 0
    assert (tmp_path / "again" / "mesh.glb").read_bytes() == (result / "mesh.glb").read_bytes()


@pytest.fixture(scope="session")
def plain_ball(tmp_path_factory):
    """A green ball file where the egg is, too large."""
    points = grid(32, 2.0) - torch.tensor([0.1, 0.0, 0.2])
    ball = marching_cubes((points.norm(dim=1) - 0.65).reshape(33, 33, 33), scale=2.0)
    path = tmp_path_factory.mktemp("ball") / "ball.glb"
    ball.replace(vertex_colors=torch.tensor([0.2, 0.7, 0.2]).expand(len(ball.vertices), 3)).save(path)
    return path


def test_a_mesh_of_ones_own_is_fitted_to_its_pictures(monkeypatch, tmp_path, posed_folder, plain_ball):
    arguments = ("--texture-size", 256, "--faces", 2000, "--seed", 5)
    assert run(monkeypatch, "refine", plain_ball, posed_folder, "--out", tmp_path / "o", *arguments) == 0
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["start"]["mean"]["silhouette_iou"] < 0.7
    assert report["mean"]["silhouette_iou"] > 0.97
    assert abs(report["mesh"]["triangles"] - 2000) < 50
    assert report["settings"]["run"]["seed"] == 5
    mesh = load_mesh(tmp_path / "o" / "mesh.glb")
    assert mesh.texture is not None


def test_a_mesh_of_ones_own_is_textured_as_it_is_and_keeps_its_colours_unseen(
    monkeypatch, tmp_path, posed_folder, plain_ball
):
    one_view = tmp_path / "one"
    one_view.mkdir()
    _transforms(one_view, posed_folder, lambda content: content.update(frames=content["frames"][:1]))
    arguments = ("--vertex-colors", "--format", "ply")
    assert run(monkeypatch, "texture", plain_ball, one_view, "--out", tmp_path / "o", *arguments) == 0
    given, mesh = load_mesh(plain_ball), load_mesh(tmp_path / "o" / "mesh.ply")
    assert torch.allclose(given.vertices, mesh.vertices, atol=1e-5)
    assert mesh.vertex_colors is not None
    green = torch.tensor([0.2, 0.7, 0.2])
    camera = load_views(one_view).cameras.positions[0]
    front = (mesh.vertex_normals() * torch.nn.functional.normalize(camera, dim=0)).sum(1)
    assert (mesh.vertex_colors[front > 0.9] - green).abs().amax(1).min() > 0.2
    assert json.loads((tmp_path / "o" / "report.json").read_text())["refinement"] is None


def test_unseen_parts_keep_the_detail_they_had(posed_folder, plain_ball):
    """A membrane moves the old colours as a whole, so their pattern stays."""
    from meshwright.color import color_vertices, surface_field

    mesh = load_mesh(plain_ball)
    stripes = 0.5 + 0.2 * torch.sin(mesh.vertices * 25)
    field = surface_field(mesh.replace(vertex_colors=stripes))
    views = load_views(posed_folder)[[0]]
    colors = color_vertices(mesh, views, field).vertex_colors
    away = (mesh.vertex_normals() * torch.nn.functional.normalize(views.cameras.positions[0], dim=0)).sum(1) < -0.7
    ours, theirs = (values[away] - values[away].mean(0) for values in (colors, stripes))
    assert (ours * theirs).sum() / (ours.norm() * theirs.norm()) > 0.8


def test_a_mesh_that_lies_elsewhere_is_refused(monkeypatch, capfd, tmp_path, posed_folder, plain_ball):
    away = load_mesh(plain_ball)
    away.replace(vertices=away.vertices * 0.2 + 3).save(tmp_path / "away.ply")
    assert run(monkeypatch, "texture", tmp_path / "away.ply", posed_folder, "--out", tmp_path / "o") == 2
    assert "where the views look" in capfd.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_existing_folder_keeps_its_other_files(monkeypatch, tmp_path, posed_folder):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mesh.glb").write_text("old")
    assert run(monkeypatch, "reconstruct", posed_folder, "--out", tmp_path, *QUICK) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "mesh.glb").read_bytes()[:4] == b"glTF"


def film(folder: Path) -> tuple[Path, list[str], ViewOptions]:
    write_video(draw(Cameras.sv3d(8, 20.0, clockwise=True), size=48).images, folder / "orbit.mp4")
    return folder / "orbit.mp4", [], ViewOptions()


def folder_of_pictures(folder: Path) -> tuple[Path, list[str], ViewOptions]:
    views = draw(Cameras.orbit(7, 10.0, 3.0, 40.0, clockwise=True), size=48)
    for i, image in enumerate(views.images):
        write_image(torch.cat([image, views.alpha[i]]), folder / f"{i}.png")
    flags = ["--rig", "orbit", "--elevation", "10", "--clockwise", "--turn", "even", "--fov", "40", "--radius", "3"]
    options = ViewOptions(rig="orbit", elevation_deg=10.0, clockwise=True, turn="even", fov_deg=40.0, radius=3.0)
    return folder, flags, options


def sheet(folder: Path) -> tuple[Path, list[str], ViewOptions]:
    cells = draw(Cameras.zero123plus(), size=48).images
    rows = [torch.cat([cells[i], cells[i + 1]], dim=2) for i in (0, 2, 4)]
    write_image(torch.cat(rows, dim=1), folder / "sheet.png")
    return folder / "sheet.png", ["--max-size", "40"], ViewOptions(max_size_px=40)


def transforms_json(folder: Path) -> tuple[Path, list[str], ViewOptions]:
    views = draw(Cameras.zero123plus(), size=48)
    frames = []
    for i, T_world_camera in enumerate(views.cameras.T_world_camera):
        write_image(views.images[i], folder / f"{i}.png")
        write_image(views.alpha[i], folder / f"mask_{i}.png")
        frames.append(
            {"file_path": f"{i}.png", "mask_path": f"mask_{i}.png", "transform_matrix": T_world_camera.tolist()}
        )
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": math.radians(30.0), "frames": frames}))
    return folder / "transforms.json", [], ViewOptions()


def cameras_npz(folder: Path) -> tuple[Path, list[str], ViewOptions]:
    views = draw(Cameras.zero123plus(), size=48)
    for i, image in enumerate(views.images):
        write_image(torch.cat([image, views.alpha[i]]), folder / f"{i:03d}.png")
    np.savez(folder / "cameras.npz", cam_poses=views.cameras.T_camera_world[:, :3].numpy())
    return folder, ["--fov", "30"], ViewOptions(fov_deg=30.0)


@pytest.mark.parametrize("make", [film, folder_of_pictures, sheet, transforms_json, cameras_npz])
def test_python_and_the_command_line_make_the_same_bytes(monkeypatch, tmp_path, make):
    path, flags, options = make(tmp_path)
    flags += ["--resolution", "32", "--refine", "off", "--vertex-colors", "--faces", "500", "--format", "ply"]
    assert run(monkeypatch, "reconstruct", path, "--out", tmp_path / "out", *flags) == 0
    mesh = reconstruct(
        load_views(path, options),
        shape=ShapeOptions(resolution=32),
        fit=FitOptions(refine="off", faces=500),
        color=ColorOptions(vertex_colors=True),
    )
    mesh.save(tmp_path / "python.ply")
    assert (tmp_path / "python.ply").read_bytes() == (tmp_path / "out" / "mesh.ply").read_bytes()


def test_turntable_turns_once(monkeypatch, tmp_path, posed_folder):
    import av

    arguments = ("reconstruct", posed_folder, "--out", tmp_path / "o", *QUICK, "--turntable")
    assert run(monkeypatch, *arguments) == 0
    with av.open(str(tmp_path / "o" / "turntable.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 90
    middle = np.abs(frames[0].astype(int) - frames[45].astype(int)).mean()
    last = np.abs(frames[0].astype(int) - frames[-1].astype(int)).mean()
    assert last < middle  # after 89 of 90 steps it is nearly back where it began


def test_info_says_what_was_recognised(monkeypatch, capsys, posed_folder):
    assert run(monkeypatch, "info", posed_folder) == 0
    text = capsys.readouterr().out
    assert "8 views" in text
    assert "96 x 96" in text
    assert "30.0°" in text


def test_doctor_names_versions_and_devices(monkeypatch, capsys):
    assert run(monkeypatch, "doctor") == 0
    text = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in text
    assert "auto means cpu" in text


class _RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def _transforms(folder: Path, posed: Path, change) -> Path:
    """A copy of the posed folder whose transforms.json has been changed."""
    for picture in posed.glob("*.png"):
        (folder / picture.name).write_bytes(picture.read_bytes())
    content = json.loads((posed / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def _missing(folder, posed):
    return folder / "nothing.mp4"


def _empty_folder(folder, posed):
    return folder


def _truncated_mp4(folder, posed):
    whole = (DEMO / "orbit.mp4").read_bytes()
    (folder / "orbit.mp4").write_bytes(whole[: len(whole) // 2])
    return folder / "orbit.mp4"


def _one_pixel(folder, posed):
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    return folder / "dot.png"


def _header_bomb(folder, posed):
    (folder / "bomb.png").write_bytes(_png_header(20000, 20000))
    return folder / "bomb.png"


def _nan_matrix(folder, posed):
    def change(content):
        content["frames"][3]["transform_matrix"][0][0] = float("nan")

    return _transforms(folder, posed, change)


def _singular_matrix(folder, posed):
    def change(content):
        content["frames"][3]["transform_matrix"] = [[0.0] * 4] * 3 + [[0.0, 0.0, 0.0, 1.0]]

    return _transforms(folder, posed, change)


def _wrong_count(folder, posed):
    def change(content):
        content["frames"].append({**content["frames"][0], "file_path": "99.png"})

    return _transforms(folder, posed, change)


def _empty_alpha(folder, posed):
    folder = _transforms(folder, posed, lambda content: None)
    for picture in folder.glob("*.png"):
        Image.new("RGBA", (96, 96), (255, 0, 0, 0)).save(picture)
    return folder


def _evil_pickle(folder, posed):
    Image.open(posed / "0.png").save(folder / "000.png")
    (folder / "meta.pkl").write_bytes(pickle.dumps(_RunsCode()))
    return folder


BAD_INPUTS = [
    _missing, _empty_folder, _truncated_mp4, _one_pixel, _header_bomb, _nan_matrix, _singular_matrix, _wrong_count,
    _empty_alpha, _evil_pickle,
]  # fmt: skip


@pytest.mark.parametrize("make", BAD_INPUTS, ids=lambda make: make.__name__.strip("_"))
def test_bad_input_is_one_line_and_leaves_nothing(monkeypatch, capfd, tmp_path, posed_folder, make):
    folder, out = tmp_path / "in", tmp_path / "deep" / "out"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    path = make(folder, posed_folder)
    assert run(monkeypatch, "reconstruct", path, "--out", out) == 2
    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    errors = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in lines]
    assert sum(line.startswith("error: ") for line in errors) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert {entry.name for entry in tmp_path.iterdir()} == {"in"}


def test_an_output_folder_that_is_a_file_is_refused(monkeypatch, capfd, tmp_path, posed_folder):
    (tmp_path / "out").write_text("mine")
    assert run(monkeypatch, "reconstruct", posed_folder, "--out", tmp_path / "out") == 2
    assert "error: " in capfd.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_no_space_left_leaves_the_old_result(monkeypatch, capfd, tmp_path, posed_folder):
    (tmp_path / "mesh.glb").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Mesh, "save", full)
    assert run(monkeypatch, "reconstruct", posed_folder, "--out", tmp_path, *QUICK) == 2
    assert "no space left on device" in capfd.readouterr().err.lower()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("mesh.glb", "old")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "glb,fbx"),
        ("--device", "warp"),
        ("--device", "cuda:99"),
        ("--colors", "model"),
        ("--time-budget", "0"),
    ],
)
def test_bad_settings_are_one_line(monkeypatch, capfd, tmp_path, posed_folder, arguments):
    assert run(monkeypatch, "reconstruct", posed_folder, "--out", tmp_path / "o", *arguments) == 2
    said = capfd.readouterr().err
    assert f"error: {arguments[0]}" in said
    assert arguments[1].split(",")[-1] in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--out"),
        (["--out", "o", "--rig", "spiral"], "--rig"),
        (["--out", "o", "--resolution", "many"], "--resolution"),
        (["--out", "o", "--resolution", "5"], "--resolution: 5 is impossible; give a number between 16 and 512"),
        (["--out", "o", "--max-size", "9" * 400], "--max-size"),
        (["--out", "o", "--colour", "views"], "--colour"),
        (["--out", "o", "--fov"], "--fov"),
        (["--out", "o", "--refine", "off", "--keep-cameras"], "--refine-cameras: has no effect"),
        (["--out", "o", "--refine", "off", "--time-budget", "9"], "--time-budget: has no effect"),
        (["--out", "o", "--vertex-colors", "--texture-size", "512"], "--texture-size: has no effect"),
        (["--out", "o", "--revision", "main"], "--revision: has no effect"),
        (["--out", "o", "--elevation", "20"], "--elevation: has no effect"),
        (["--out", "o", "--fov", "20"], "--fov: has no effect"),
    ],
)
def test_every_mistake_on_the_command_line_is_one_line(monkeypatch, capfd, posed_folder, arguments, expected):
    assert run(monkeypatch, "reconstruct", posed_folder, *arguments) == 2
    captured = capfd.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert expected in line
    assert captured.out == ""


def test_options_that_another_command_knows_are_refused(monkeypatch, capfd, tmp_path):
    assert run(monkeypatch, "texture", "mesh.glb", "views", "--out", tmp_path / "o", "--time-budget", "5") == 2
    assert "--time-budget" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["reconstruct", "refine", "texture", "info", "convert", "doctor"])
def test_help_says_what_every_option_does(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, command, "--help") == 0
    text = capsys.readouterr().out
    assert "None" not in text
    assert "--out" in text or command in ("info", "convert", "doctor")
    assert ("Degrees of an orbit's cameras above the horizon" in text) == (command not in ("convert", "doctor"))


def test_the_list_of_commands_has_one_paragraph_each_and_the_version_is_told(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, "--help") == 0
    listed = capsys.readouterr().out
    assert "judge the meshes by others" in listed
    assert "objects.jsonl" not in listed  # that is for those who ask
    assert run(monkeypatch, "evaluate", "--help") == 0
    text = capsys.readouterr().out
    assert "objects.jsonl" in text
    assert "default: )" not in text
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"meshwright {meshwright.__version__}\n"


def test_a_mistyped_command_is_told_from_a_mistyped_option(monkeypatch, capfd):
    assert run(monkeypatch, "recontruct", "pictures") == 2
    assert capfd.readouterr().err == "error: recontruct: there is no such command; did you mean reconstruct?\n"
    assert run(monkeypatch, "frobnicate") == 2
    assert "use one of reconstruct, refine" in capfd.readouterr().err


def test_completion_is_printed_for_a_shell(monkeypatch, capsys):
    assert run(monkeypatch, "--tyro-print-completion", "bash") == 0
    assert "--texture-size" in capsys.readouterr().out


@pytest.mark.parametrize(
    "code",
    [
        "import meshwright",
        "import meshwright.options",
        "import sys; sys.argv = ['meshwright', 'reconstruct', '--help']; from meshwright.cli import main\n"
        "try: main()\nexcept SystemExit: pass",
        "import sys; sys.argv = ['meshwright', 'reconstruct', 'x']; from meshwright.cli import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
    ids=["import", "options", "help", "mistake"],
)
def test_nobody_waits_for_torch_who_does_not_need_it(code):
    heavy = "torch", "numpy", "scipy", "numba", "PIL"
    ask = f"{code}\nimport sys\nprint('loaded', sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_public_names_are_there_and_stay_what_they_are():
    code = (
        "import meshwright, meshwright.reconstruct, importlib\n"
        "missing = [name for name in meshwright.__all__ if not hasattr(meshwright, name)]\n"
        "assert not missing, missing\n"
        "assert set(meshwright.__all__) <= set(dir(meshwright))\n"
        "from meshwright import reconstruct\n"
        "from meshwright.reconstruct import finish\n"
        "module = importlib.import_module('meshwright.reconstruct')\n"
        "assert callable(reconstruct) and module.finish is finish and module.reconstruct is reconstruct\n"
        "try: meshwright.reconstrukt\n"
        "except AttributeError: pass\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_installed_command_reports_mistakes_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "meshwright", "reconstruct", "missing.mp4", "--out", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: missing.mp4")
    assert done.stdout == ""
