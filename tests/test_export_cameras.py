"""Cameras for other programs: what is written reads back, here and in pycolmap; results travel with their cameras."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright import cli
from meshwright.capture import load_views, read_colmap_points, with_reported_cameras, write_colmap, write_transforms
from meshwright.errors import InputError
from meshwright.mesh_files import load_mesh
from meshwright.raster import render
from meshwright.shape.refine.stages import STAGES
from meshwright.views import Views
from test_captures import HEIGHT, NAMES, POINTS, WIDTH, assert_same_cameras, some_cameras, write_pictures
from test_captures import write_colmap as write_their_colmap


@pytest.fixture
def capture(tmp_path) -> Path:
    """Pictures of two sizes, with alpha, distorted."""
    folder = tmp_path / "capture"
    write_pictures(folder, NAMES)
    Image.open(folder / NAMES[3]).resize((WIDTH * 2, HEIGHT * 2)).save(folder / NAMES[3])
    T = some_cameras().T_world_camera.tolist()
    frames = [{"file_path": name, "transform_matrix": matrix} for name, matrix in zip(NAMES, T, strict=True)]
    content = {"fl_x": 1.2 * WIDTH, "w": WIDTH, "h": HEIGHT, "k1": -0.1, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def meshwright(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["meshwright", *map(str, words)])
    cli.main()


def assert_same_views(actual: Views, expected: Views) -> None:
    assert actual.sizes_px.tolist() == expected.sizes_px.tolist()
    assert_same_cameras(actual.cameras, expected.cameras)
    torch.testing.assert_close(actual.alpha, expected.alpha, atol=0.5 / 255, rtol=0)
    torch.testing.assert_close(actual.images, expected.images, atol=1.01 / 255, rtol=0)


def test_transforms_read_back_as_the_views_they_were(capture, tmp_path):
    views = load_views(capture)
    (tmp_path / "out").mkdir()
    write_transforms(views, tmp_path / "out")
    assert_same_views(load_views(tmp_path / "out"), views)


def test_colmap_reads_back_as_the_views_they_were_with_their_points(capture, tmp_path):
    views = load_views(capture)
    points = torch.randn(9, 3, dtype=torch.float64)
    (tmp_path / "out").mkdir()
    write_colmap(views, tmp_path / "out", points)
    again = load_views(tmp_path / "out")
    assert_same_views(again, views)
    np.testing.assert_allclose(read_colmap_points(tmp_path / "out"), points.numpy(), rtol=1e-15)


def test_pycolmap_reads_what_is_written(capture, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    views = load_views(capture)
    (tmp_path / "out").mkdir()
    write_colmap(views, tmp_path / "out", torch.zeros(1, 3), torch.tensor([[1.0, 0.5, 0.0]]))
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    assert model.num_reg_images() == 5
    assert next(iter(model.points3D.values())).color.tolist() == [255, 128, 0]
    point = np.array([7.1, -1.8, 3.2])
    uv, _ = views.cameras.project(torch.from_numpy(point[None]).float())
    canvas = np.array([views.images.shape[3], views.images.shape[2]])
    for i, name in enumerate(views.names):
        image = model.find_image_with_name(name)
        camera = model.cameras[image.camera_id]
        assert (camera.height, camera.width) == tuple(views.sizes_px[i].tolist())
        np.testing.assert_allclose(image.project_point(point), uv[i, 0].numpy() * canvas, atol=1e-3)
        assert (tmp_path / "out" / "images" / name).is_file()


def test_names_that_would_fall_together_are_numbered(capture, tmp_path):
    views = dataclasses.replace(load_views(capture), names=("a.jpg", "a.png", "../x/b", "frame 003", "c/\x1bd.png"))
    (tmp_path / "out").mkdir()
    write_transforms(views, tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert written == [f"images/{name}.png" for name in ("a-0000", "a-0001", "c/_d-0004", "frame 003-0003", "x/b-0002")]
    assert len(load_views(tmp_path / "out")) == 5


def test_the_command_exports_a_capture_with_its_points(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in" / "images", NAMES)
    write_their_colmap(tmp_path / "in" / "sparse/0", some_cameras(), NAMES, ["OPENCV"])
    meshwright(monkeypatch, "export-cameras", tmp_path / "in", "--out", tmp_path / "out")
    assert_same_cameras(load_views(tmp_path / "out").cameras, load_views(tmp_path / "in").cameras)
    np.testing.assert_allclose(read_colmap_points(tmp_path / "out"), POINTS)
    meshwright(monkeypatch, "export-cameras", tmp_path / "in", "--out", tmp_path / "json", "--format", "transforms")
    assert_same_cameras(load_views(tmp_path / "json").cameras, load_views(tmp_path / "in").cameras)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """A result in the object's frame whose cameras were corrected, quickly; beside it the capture, ``in``."""
    folder = tmp_path_factory.mktemp("result")
    (stage, *_) = STAGES["fast"]
    write_pictures(folder / "in" / "images", NAMES)
    write_their_colmap(folder / "in" / "sparse/0", some_cameras(), NAMES, ["OPENCV"])
    options = ["--resolution", "24", "--refine-cameras", "--vertex-colors", "--start", "hull"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGES, "fast", (dataclasses.replace(stage, vertices=300, largest_px=48, steps=4),))
        meshwright(patch, "reconstruct", folder / "in", "--out", folder / "result", *options)
    return folder / "result"


def test_a_results_cameras_see_its_mesh_and_lead_back_to_the_capture(result, tmp_path, monkeypatch):
    meshwright(monkeypatch, "export-cameras", result, "--out", tmp_path / "out")
    views = load_views(tmp_path / "out")
    mesh = load_mesh(result / "mesh.glb")
    assert mesh.vertices.abs().max() < 1.5  # COLMAP's axes mean nothing, so the mesh is in the object's frame
    drawn = render(mesh, views.cameras, *views.images.shape[2:])
    both = (drawn.alpha * views.alpha).sum() / torch.maximum(drawn.alpha, views.alpha).sum()
    report = json.loads((result / "report.json").read_text())
    assert float(both) == pytest.approx(report["mean"]["silhouette_iou"], abs=0.1)
    # The matrix takes the corrected cameras to where the capture's are, but for the correction.
    matrix = torch.tensor(report["frame"]["T_input_mesh"], dtype=torch.float64)
    there = views.cameras.positions.double() @ matrix[:3, :3].T + matrix[:3, 3]
    distance = (there - some_cameras().positions).norm(dim=1)
    assert 1e-5 < distance.max() < 0.5
    points = read_colmap_points(tmp_path / "out")
    assert len(points) == 20_000
    assert float(np.abs(points).max()) == pytest.approx(float(mesh.vertices.abs().max()), abs=0.02)


def test_a_result_can_be_had_where_the_capture_is_and_textured_in_either_frame(result, tmp_path, monkeypatch):
    quick = ["--vertex-colors", "--resolution", "24", "--refine", "off"]
    meshwright(
        monkeypatch, "reconstruct", result.parent / "in", "--out", tmp_path / "world", "--frame", "input", *quick
    )
    report = json.loads((tmp_path / "world" / "report.json").read_text())
    assert report["frame"]["T_input_mesh"] == torch.eye(4).tolist()
    there = load_mesh(tmp_path / "world" / "mesh.glb").vertices
    assert float((there.mean(0) - torch.tensor([7.0, -2.0, 3.0])).abs().max()) < 0.5
    for folder, matrix_is_identity in ((tmp_path / "world", True), (result, False)):
        out = tmp_path / "textured"
        meshwright(monkeypatch, "texture", folder / "mesh.glb", result.parent / "in", "--out", out, "--vertex-colors")
        before, after = load_mesh(folder / "mesh.glb").vertices, load_mesh(out / "mesh.glb").vertices
        torch.testing.assert_close(after, before, atol=2e-4, rtol=0)
        matrix = json.loads((out / "report.json").read_text())["frame"]["T_input_mesh"]
        assert (matrix == torch.eye(4).tolist()) == matrix_is_identity


def test_a_result_without_its_pictures_or_cameras_is_one_clear_line(result, tmp_path, monkeypatch, capsys):
    report = json.loads((result / "report.json").read_text())
    result = tmp_path / "result"
    result.mkdir()
    cases = [
        ({"settings": report["settings"] | {"input": "/nowhere/to/be/found"}}, "are not there"),
        ({"settings": report["settings"] | {"input": "a\0b"}}, "are not there"),
        ({"settings": {}}, "says not which pictures"),
        ({"settings": report["settings"] | {"views": {"unknown": 1}}}, "another version"),
        ({"cameras": None}, "holds no cameras"),
        ({"cameras": report["cameras"][1:]}, "holds no camera for shot 0.png"),
    ]
    for changes, message in cases:
        (result / "report.json").write_text(json.dumps(report | changes))
        with pytest.raises(SystemExit) as stop:
            meshwright(monkeypatch, "export-cameras", result, "--out", tmp_path / "out")
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("transform_matrix", np.zeros((4, 4)).tolist(), "not a rotation"),
        ("transform_matrix", [[1]], "no 4x4 matrix"),
        ("transform_matrix", [["x"] * 4] * 4, "not a finite number"),
        ("fl_x", None, "fl_x is not a finite number"),
        ("fl_x", 1e-9, "field of view"),
    ],
)
def test_bad_cameras_in_a_report_are_one_clear_line(capture, tmp_path, key, value, message):
    views = load_views(capture)
    entries = [
        {"name": name, "fl_x": 50.0, "fl_y": 50.0, "cx": 30.0, "cy": 24.0, "transform_matrix": T.tolist()}
        for name, T in zip(views.names, views.cameras.T_world_camera, strict=True)
    ]
    entries[2][key] = value
    (tmp_path / "report.json").write_text(json.dumps({"cameras": entries}))
    with pytest.raises(InputError, match=message) as caught:
        with_reported_cameras(views, tmp_path / "report.json")
    assert "\n" not in str(caught.value)
