"""Rendering objects for training: what the files say of the object, and what a run leaves behind."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from meshwright import load_views
from meshwright.cameras import Cameras
from meshwright.curate import (
    VIEW_SETS,
    CurateRenderOptions,
    DrawnOnDemand,
    DrawOptions,
    Limits,
    RenderedFolder,
    SampleOptions,
    ViewSetOptions,
    batches,
    dataset_digest,
    draw,
    render_objects,
    view_set_cameras,
)
from meshwright.curate.inputs import find_objects
from meshwright.curate.isolate import run_isolated
from meshwright.curate.normalize import denormalized, normalization_of, normalized
from meshwright.errors import InputError
from meshwright.mesh_files import load_mesh
from small_objects import colored_ball, textured_box, two_parts, write_objects

SIZE_PX = 64
LINUX = sys.platform == "linux"


def options(objects: Path, out: Path, **changes: object) -> CurateRenderOptions:
    plain = CurateRenderOptions(
        (objects,), out, ViewSetOptions("instantmesh", 6), DrawOptions(SIZE_PX), Limits(60.0), workers=2
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meshes") / "objects"
    write_objects(folder)
    (folder / "broken.glb").write_bytes(b"glTF" + b"\0" * 40)
    (folder / "point.stl").write_text("solid point\nendsolid point\n")
    return folder


@pytest.fixture(scope="module")
def dataset(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "dataset"
    summary = render_objects(options(objects, out))
    assert (summary.rendered, summary.failed) == (4, 2)
    return out


def world_points(rendered_depth: torch.Tensor, cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """World points of pixels with depth, and which pixels these are."""
    depth = rendered_depth[:, 0]
    rays = cameras.rays(*depth.shape[1:])
    forward = -cameras.T_world_camera[:, :3, 2]
    distance = depth / torch.einsum("vhwi,vi->vhw", rays.directions, forward)
    return (rays.origins + rays.directions * distance[..., None])[depth > 0], depth > 0


def test_the_pictures_lie_on_the_mesh_of_the_file(objects: Path, dataset: Path) -> None:
    """Every pixel's depth is a point of the file's own box, and its normal is that of the side it lies on."""
    source = RenderedFolder(dataset)
    rendered, record = source.read("box"), source.record("box")
    points, seen = world_points(rendered.depth_z, rendered.cameras)
    file_points = denormalized(load_mesh(objects / "box.glb").replace(vertices=points), record.normalization).vertices
    local = (file_points - torch.tensor([5.0, -2.0, 1.0])) / (3 * torch.tensor([2.0, 1.0, 0.5]))
    assert local.abs().max() < 0.5 + 1e-3
    side = local.abs().argmax(1)
    assert (local.abs().amax(1) - 0.5).abs().max() < 1e-3
    normals = rendered.normals.permute(0, 2, 3, 1)[seen]
    outward = torch.nn.functional.one_hot(side, 3) * local.sign()
    clear = local.abs().sort(1).values[:, 1] < 0.49  # not on an edge, where either side may be seen
    assert clear.float().mean() > 0.8
    assert (normals * outward).sum(1)[clear].min() > 0.9999
    assert (rendered.rgba[:, 3][seen] > 0).all()


def test_colours_are_those_of_the_texture() -> None:
    cameras = Cameras.look_at(torch.tensor([[0.0, 0.0, 3.0]]), 50.0)
    rendered = draw("box", textured_box((2.0, 2.0, 2.0)), cameras, 128)
    inside = rendered.rgba[0, :, 40:88, 40:88].float() / 255
    assert (inside[3] == 1).all()
    assert 0.29 < inside[0].min() < inside[0].max() < 0.91
    # Red and blue run against each other across the whole texture.
    assert (inside[0] + inside[2] - 1.2).abs().max() < 0.01
    assert set(inside[1].unique().mul(10).round().int().tolist()) >= {2, 8}


def test_normals_look_at_the_camera_whichever_way_faces_are_wound() -> None:
    mesh = textured_box()
    inside_out = mesh.replace(faces=mesh.faces.flip(1), uv_faces=None, uv=None, texture=None)
    cameras = view_set_cameras(ViewSetOptions("instantmesh", 4), np.random.default_rng(0))
    right = draw("a", mesh.replace(uv_faces=None, uv=None, texture=None), cameras, 48)
    wrong = draw("b", inside_out, cameras, 48)
    assert torch.equal(right.normals, wrong.normals)
    directions = cameras.rays(48, 48).directions.permute(0, 3, 1, 2)
    assert ((right.normals * directions).sum(1)[right.depth_z[:, 0] > 0] < 0).all()


@pytest.mark.parametrize("lighting", ["unlit", "studio"])
def test_drawing_the_rectangle_around_the_object_is_drawing_the_whole(lighting: str) -> None:
    from meshwright.raster import render

    mesh = two_parts()
    cameras = view_set_cameras(
        ViewSetOptions("random", 5, distance=(1.5, 4.0), fov_deg=(20.0, 60.0)), np.random.default_rng(2)
    )
    ours = draw("parts", mesh, cameras, 96, lighting)  # type: ignore[arg-type]
    whole = render(mesh, cameras, 96, 96, background=0.0)
    assert (ours.rgba[:, 3].float() / 255 - whole.alpha[:, 0]).abs().mean() < 1e-3
    both = (ours.depth_z > 0) & (whole.depth_z > 0)
    assert ((ours.depth_z > 0) ^ (whole.depth_z > 0)).float().mean() < 1e-3
    assert (ours.depth_z - whole.depth_z)[both].abs().median() < 1e-5
    if lighting == "unlit":
        premultiplied = ours.rgba[:, :3].float() / 255 * whole.alpha
        assert (premultiplied - whole.rgb).abs().mean() < 2e-3


@pytest.mark.parametrize("fit", ["box", "sphere"])
def test_normalization_fills_the_cube_and_can_be_undone(fit: str) -> None:
    mesh = two_parts()
    mesh = mesh.replace(vertices=mesh.vertices * 7 + torch.tensor([100.0, -3.0, 8.0]))
    normalization = normalization_of(mesh, fit)  # type: ignore[arg-type]
    small = normalized(mesh, normalization)
    low, high = small.vertices.amin(0), small.vertices.amax(0)
    assert (low + high).abs().max() < 1e-5
    reached = small.vertices.norm(dim=1).max() if fit == "sphere" else (high - low).max() / 2
    assert abs(float(reached) - 1) < 1e-6
    assert (denormalized(small, normalization).vertices - mesh.vertices).abs().max() < 1e-4


@pytest.mark.parametrize("name", VIEW_SETS)
def test_every_view_set_looks_at_the_origin(name: str) -> None:
    views = ViewSetOptions(name)  # type: ignore[arg-type]
    cameras = view_set_cameras(views, np.random.default_rng(4))
    uv, depth_z = cameras.project(torch.zeros(1, 3))
    assert (uv - 0.5).abs().max() < 1e-5
    assert (depth_z[:, 0] - cameras.positions.norm(dim=1)).abs().max() < 1e-5
    again = view_set_cameras(views, np.random.default_rng(4))
    assert torch.equal(cameras.T_world_camera, again.T_world_camera)


def test_the_published_sets_keep_to_their_ranges() -> None:
    cameras = view_set_cameras(ViewSetOptions("instantmesh", 400), np.random.default_rng(0))
    distance, height = cameras.positions.norm(dim=1), cameras.positions[:, 2]
    assert distance.min() > 2.0
    assert distance.min() < 2.05
    assert distance.max() < 3.5
    assert distance.max() > 3.4
    assert height.min() > -0.75
    assert height.min() < -0.7
    assert height.max() < 1.6
    assert height.max() > 1.5
    assert torch.allclose(1 / (2 * cameras.intrinsics[:, 1]), torch.tan(torch.deg2rad(torch.tensor(25.0))), atol=1e-5)
    assert len(view_set_cameras(ViewSetOptions("mindone"), np.random.default_rng(0))) == 16
    circle = view_set_cameras(ViewSetOptions("circle"), np.random.default_rng(0))
    azimuth = torch.rad2deg(torch.atan2(circle.positions[:, 1], circle.positions[:, 0])) % 360
    assert (azimuth - 45 * torch.arange(8)).abs().max() < 1e-3
    assert torch.allclose(torch.rad2deg(torch.asin(circle.positions[:, 2] / 4)), torch.tensor(20.0), atol=1e-3)


def test_a_rendered_object_is_an_input_of_reconstruct(dataset: Path) -> None:
    views = load_views(dataset / "objects" / "ball")
    rendered = RenderedFolder(dataset).read("ball")
    assert torch.equal((views.alpha * 255).round().to(torch.uint8), rendered.rgba[:, 3:])
    assert views.depth_z is not None
    assert torch.allclose(views.depth_z, rendered.depth_z)
    assert torch.allclose(views.cameras.embedding(), rendered.cameras.embedding(), atol=1e-5)


def test_a_run_names_its_failures_and_writes_records(objects: Path, dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    names = [entry["name"] for entry in manifest["objects"]]
    assert names[:2] == ["ball", "box"]
    assert names[2] == "sub__grey"
    assert names[3].startswith("sub__two-parts-")  # what a name cannot hold is replaced, and told apart by a digest
    assert [entry["name"] for entry in manifest["failed"]] == ["broken", "point"]
    assert all(entry["kind"] == "input" and entry["reason"] for entry in manifest["failed"])
    record = RenderedFolder(dataset).record("sub__grey")
    assert record.warnings[0] == "the mesh has no colours: it is drawn grey"
    assert record.views == 6
    low, high = record.bounds
    assert np.allclose(low, -1, atol=0.01)
    assert np.allclose(high, 1, atol=0.01)


def test_a_second_run_does_nothing_and_other_options_are_refused(objects: Path, dataset: Path) -> None:
    before = dataset_digest(dataset)
    summary = render_objects(options(objects, dataset))
    assert (summary.rendered, summary.already_there) == (0, 6)
    assert dataset_digest(dataset) == before
    with pytest.raises(InputError, match=r"other options \(seed 0, not 1\)"):
        render_objects(options(objects, dataset, seed=1))


def test_a_set_from_before_an_option_existed_goes_on_with_its_default(
    objects: Path, dataset: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(dataset, tmp_path / "older")
    stated = json.loads((older / "dataset.json").read_text())
    del stated["draw"]["lighting"]  # unlit is its default
    (older / "dataset.json").write_text(json.dumps(stated))
    asked = options(objects, older)
    assert render_objects(asked).already_there == 6
    with pytest.raises(InputError, match=r"lighting unlit, not studio"):
        render_objects(dataclasses.replace(asked, draw=dataclasses.replace(asked.draw, lighting="studio")))
    (older / "dataset.json").write_text("[1]")
    with pytest.raises(InputError, match=r"dataset\.json: is not what a rendering run writes"):
        render_objects(asked)


def test_where_is_drawn_is_no_part_of_the_set(dataset: Path) -> None:
    stated = json.loads((dataset / "dataset.json").read_text())["draw"]
    assert stated.keys() == {"size_px", "fit", "lighting"}


def test_views_follow_from_content_and_seed_not_from_name_or_company(
    objects: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copy(objects / "box.glb", tmp_path / "renamed.glb")
    render_objects(options(tmp_path / "renamed.glb", tmp_path / "out"))
    ours, theirs = (
        RenderedFolder(tmp_path / "out").read("renamed"),
        RenderedFolder(dataset).read("box"),
    )
    assert torch.equal(ours.rgba, theirs.rgba)
    assert torch.equal(ours.cameras.T_world_camera, theirs.cameras.T_world_camera)


def test_manifests_say_what_to_render_and_what_is_known_of_it(objects: Path, tmp_path: Path) -> None:
    shutil.copytree(objects, tmp_path / "set")
    entry = {"path": "set/box.glb", "source": "made up", "licence": "CC0-1.0", "credit": "Nobody", "split": "train"}
    (tmp_path / "set" / "manifest.json").write_text(json.dumps([entry, {"path": "ball.ply"}]))
    found = find_objects((tmp_path / "set",), (".glb", ".ply"))
    assert [(item.name, item.source, item.split) for item in found] == [("ball", "", ""), ("box", "made up", "train")]
    (tmp_path / "set" / "manifest.json").write_text('[{"path": "gone.glb"}]')
    with pytest.raises(InputError, match="entry 0: there is no file"):
        find_objects((tmp_path / "set",), (".glb",))


@pytest.mark.parametrize(
    ("function", "arguments", "kind"),
    [
        (time.sleep, (60.0,), "time"),
        (bytearray, (1 << 40,), "memory"),
        (os.abort, (), "crash"),
        (int, ("no number",), "bug"),
        (load_mesh, ("/no/such/file.glb",), "input"),
    ],
)
def test_whatever_happens_in_a_process_of_its_own_stays_there(function: object, arguments: tuple, kind: str) -> None:
    if kind == "memory" and not LINUX:
        pytest.skip("memory is limited on Linux alone")
    limits = Limits(time_limit_s=1.0 if kind == "time" else 30.0, memory_limit_mib=1024)
    ((_, outcome),) = run_isolated(function, [arguments], 1, limits)  # type: ignore[arg-type]
    assert outcome.kind == kind
    assert outcome.reason


def children_of(pid: int) -> list[int]:
    """Process numbers of the direct children, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


RUN = """
import sys
from pathlib import Path
from meshwright.curate import CurateRenderOptions, DrawOptions, Limits, ViewSetOptions, render_objects
if __name__ == "__main__":
    objects, out = map(Path, sys.argv[1:])
    views, drawing = ViewSetOptions("instantmesh", 16), DrawOptions(256)
    render_objects(CurateRenderOptions((objects,), out, views, drawing, Limits(60.0), workers=1))
"""


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_killed_runs_and_workers_end_with_the_same_bytes(tmp_path: Path) -> None:
    write_objects(tmp_path / "objects")
    (tmp_path / "run.py").write_text(RUN)

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path / "objects", out])

    def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 60
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.002)

    assert start(tmp_path / "whole").wait(120) == 0
    # The whole run, while it draws its second object.
    killed = tmp_path / "killed"
    process = start(killed)
    wait_for(lambda: list(killed.glob("objects/ball")), process)
    process.kill()
    process.wait()
    time.sleep(1)  # the object that was being drawn ends with its process or comes to rest
    assert not (killed / "manifest.json").exists()
    assert start(killed).wait(120) == 0
    assert dataset_digest(killed) == dataset_digest(tmp_path / "whole")
    # One worker, in the same place; the run goes on by itself.
    wounded = tmp_path / "wounded"
    process = start(wounded)
    victims: list[int] = []

    def drawing_the_second() -> bool:
        victims[:] = [worker for server in children_of(process.pid) for worker in children_of(server)]
        return (wounded / "objects" / "ball").exists() and len(victims) == 1

    wait_for(drawing_the_second, process)
    for worker in victims:
        os.kill(worker, signal.SIGKILL)
    assert process.wait(120) == 0
    assert dataset_digest(wounded) == dataset_digest(tmp_path / "whole")
    assert "killed" not in (wounded / "manifest.json").read_text()


@pytest.mark.slow
def test_a_rendered_object_is_reconstructed(tmp_path: Path) -> None:
    from meshwright import ColorOptions, FitOptions, ShapeOptions, reconstruct
    from meshwright.evaluate import silhouette_iou
    from meshwright.raster import render

    colored_ball().save(tmp_path / "ball.ply")
    render_objects(
        CurateRenderOptions((tmp_path / "ball.ply",), tmp_path / "out", ViewSetOptions("circle"), DrawOptions(96))
    )
    views = load_views(tmp_path / "out" / "objects" / "ball")
    mesh = reconstruct(
        views,
        shape=ShapeOptions(resolution=48),
        fit=FitOptions(refine="off"),
        color=ColorOptions(vertex_colors=True),
    )
    assert silhouette_iou(render(mesh, views.cameras, 96, 96).alpha, views.alpha).min() > 0.95


def test_views_drawn_on_demand_are_those_of_the_files(objects: Path, dataset: Path) -> None:
    written = RenderedFolder(dataset)
    drawn = DrawnOnDemand((objects,), ViewSetOptions("instantmesh", 6), DrawOptions(SIZE_PX))
    assert set(written.names) < set(drawn.names)
    for name in written.names:
        ours, theirs = drawn.read(name, [4, 1]), written.read(name, [4, 1])
        assert drawn.view_count(name) == written.view_count(name)
        assert torch.equal(ours.rgba, theirs.rgba)
        assert (ours.depth_z - theirs.depth_z).abs().max() < 1e-3
        assert (ours.normals - theirs.normals).abs().max() < 0.01
    with pytest.raises(InputError):
        drawn.read("broken")
    options = SampleOptions(inputs=2, targets=1, crop_px=32, render_px=(32, 64))
    in_process, elsewhere = (next(batches(drawn, options, 2, workers=count, most_broken=1.0)) for count in (0, 1))
    assert in_process.names == elsewhere.names
    assert torch.equal(in_process.target_images, elsewhere.target_images)
