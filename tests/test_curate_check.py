"""Selecting objects by rules that give their reason, and checking what was rendered."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright.cameras import Cameras
from meshwright.curate import (
    CurateCheckOptions,
    CuratePreviewOptions,
    CurateRenderOptions,
    CurateSelectOptions,
    DrawOptions,
    RenderedObject,
    ViewSetOptions,
    check_dataset,
    draw,
    preview_dataset,
    render_objects,
    select_objects,
    view_set_cameras,
)
from meshwright.curate.check import check_object
from meshwright.errors import InputError
from meshwright.mesh import Mesh
from small_objects import colored_ball, textured_box, two_parts


@pytest.fixture(scope="module")
def rendered() -> RenderedObject:
    cameras = view_set_cameras(ViewSetOptions("random", 8, distance=(3.0, 4.0)), np.random.default_rng(1))
    return draw("parts", two_parts(), cameras, 96)


def test_a_sound_object_passes(rendered: RenderedObject) -> None:
    assert check_object(rendered) == []
    assert check_object(draw("box", textured_box(), rendered.cameras, 96)) == []


def changed(rendered: RenderedObject, **fields: object) -> RenderedObject:
    whole = {name: getattr(rendered, name) for name in ("name", "rgba", "depth_z", "normals", "cameras")}
    return RenderedObject(**{**whole, **fields})  # type: ignore[arg-type]


def moved_cameras(r: RenderedObject) -> RenderedObject:
    T = r.cameras.T_world_camera.clone()
    T[::2, 2, 3] += 0.15
    return changed(r, cameras=Cameras(T, r.cameras.intrinsics))


def painted(r: RenderedObject) -> RenderedObject:
    rgba = r.rgba.clone()
    rgba[::2, :3] = 255 - rgba[::2, :3]
    return changed(r, rgba=rgba)


def shifted_alpha(r: RenderedObject) -> RenderedObject:
    return changed(r, rgba=r.rgba.roll(6, dims=3))


def holed(r: RenderedObject) -> RenderedObject:
    """The 8 % of the object that lie in the middle are gone from every second view."""
    depth_z, rgba = r.depth_z.clone(), r.rgba.clone()
    for view in range(0, len(r), 2):
        pixels = (depth_z[view, 0] > 0).nonzero().float()
        nearest = (pixels - pixels.mean(0)).norm(dim=1).argsort()[: int(0.08 * len(pixels))]
        row, column = pixels[nearest].long().T
        depth_z[view, :, row, column] = 0
        rgba[view, :, row, column] = 0
    return changed(r, depth_z=depth_z, rgba=rgba)


FAULTS: dict[str, tuple[Callable[[RenderedObject], RenderedObject], str]] = {
    "depth in other units": (lambda r: changed(r, depth_z=r.depth_z * 2), "depth"),
    "depth a little off": (lambda r: changed(r, depth_z=r.depth_z * 0.95), "views"),
    "cameras moved": (moved_cameras, "views"),
    "cameras in another order": (lambda r: changed(r, cameras=r.cameras[[7, 0, 1, 2, 3, 4, 5, 6]]), "views"),
    "a hole in every second view": (holed, "views"),
    "alpha shifted": (shifted_alpha, "alpha"),
    "colours of every second view changed": (painted, "colours"),
    "normals inside out": (lambda r: changed(r, normals=-r.normals), "normals"),
    "normals missing": (lambda r: changed(r, normals=torch.zeros_like(r.normals)), "normals"),
    "an empty view": (lambda r: changed(r, rgba=r.rgba * (torch.arange(8) > 0)[:, None, None, None]), "empty"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_kind(rendered: RenderedObject, name: str) -> None:
    damage, kind = FAULTS[name]
    lines = check_object(damage(rendered))
    assert kind in [line.partition(":")[0] for line in lines]


def test_a_sheet_thinner_than_a_pixel_passes_and_its_moved_cameras_do_not(rendered: RenderedObject) -> None:
    """Views that see it edge-on miss it between their pixels."""
    sheet = draw("sheet", two_sided_sheet(), sheet_cameras(), 96)
    assert check_object(sheet) == []
    assert any(line.startswith("views") for line in check_object(moved_cameras(sheet)))


def test_wires_of_half_a_pixel_pass_and_their_faults_do_not(rendered: RenderedObject) -> None:
    wire = textured_box((0.016, 0.016, 1.8))
    turns = torch.linalg.qr(torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    wires = Mesh(
        torch.cat([wire.vertices @ turn for turn in turns]),
        torch.cat([wire.faces + 8 * k for k in range(12)]),
        torch.full((96, 3), 0.5),
    )
    thin = draw("wires", wires, rendered.cameras, 96)
    assert check_object(thin) == []
    assert any(line.startswith("alpha") for line in check_object(shifted_alpha(thin)))
    assert any(line.startswith("views") for line in check_object(moved_cameras(thin)))


def test_alpha_shifted_by_one_pixel_is_noticed(rendered: RenderedObject) -> None:
    lines = check_object(changed(rendered, rgba=rendered.rgba.roll(1, dims=3)))
    assert any(line.startswith("alpha") for line in lines)


def two_sided_sheet() -> Mesh:
    """Red above, blue below."""
    box = textured_box((1.8, 1.8, 0.004))
    corners = box.vertices[box.faces.flatten()]
    faces = torch.arange(len(corners)).view(-1, 3)
    above = (corners.view(-1, 3, 3)[:, :, 2].mean(1) > 0)[:, None, None]
    colors = torch.where(above, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])).expand(-1, 3, 3)
    return Mesh(corners, faces, colors.reshape(-1, 3).contiguous())


def sheet_cameras() -> Cameras:
    """From above, from the side, and from below."""
    return Cameras.spherical([20.0 * i for i in range(8)], [60.0, 50.0, 0.4, -50.0] * 2, 3.5, 40.0)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Objects with one of every fault; the manifest and the reasons by file."""
    folder = tmp_path_factory.mktemp("select")
    ball, box = colored_ball(), textured_box()
    twin = box.replace(vertices=box.vertices * 3 + 1, faces=box.faces.flip(0), uv_faces=box.uv_faces.flip(0))  # type: ignore[union-attr]
    far = Mesh(
        torch.cat([ball.vertices, ball.vertices + torch.tensor([4.0, 0, 0])]),
        torch.cat([ball.faces, ball.faces + len(ball.vertices)]),
        torch.cat([ball.vertex_colors, ball.vertex_colors]),  # type: ignore[list-item]
    )
    meshes = {
        "ball.glb": ball,
        "box.glb": box,
        "box_again.glb": twin,
        "flat.glb": textured_box((2.0, 1.0, 0.001)),
        "grey.glb": ball.replace(vertex_colors=None),
        "one_colour.glb": ball.replace(vertex_colors=torch.full_like(ball.vertices, 0.5)),
        "scene.glb": far,
        "small.glb": Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])),
        "large.glb": colored_ball(rounds=5),
        "parts.glb": two_parts(),
    }
    for name, mesh in meshes.items():
        mesh.save(folder / name)
    (folder / "broken.glb").write_bytes(b"not a mesh")
    selection = select_objects(CurateSelectOptions((folder,), folder / "chosen.json", most_faces=5000, workers=2))
    assert selection.kept == 3
    return folder / "chosen.json", dict(selection.rejected)


def test_every_rule_gives_its_reason(chosen: tuple[Path, dict[str, str]]) -> None:
    _, reasons = chosen
    assert {name: reason.partition(":")[0] for name, reason in reasons.items()} == {
        "box_again.glb": "duplicate",
        "broken.glb": "unreadable",
        "flat.glb": "flat",
        "grey.glb": "textureless",
        "large.glb": "huge",
        "one_colour.glb": "textureless",
        "scene.glb": "scene",
        "small.glb": "empty",
    }


def test_a_manifest_is_rendered_checked_and_shown(chosen: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    manifest, _ = chosen
    entries = json.loads(manifest.read_text())["objects"]
    assert [entry["name"] for entry in entries] == ["ball", "box", "parts"]
    views, drawing = ViewSetOptions("random", 5, distance=(3.0, 4.0)), DrawOptions(64)
    summary = render_objects(CurateRenderOptions((manifest,), tmp_path / "set", views, drawing, workers=2))
    assert summary.rendered == 3
    checked = check_dataset(CurateCheckOptions(tmp_path / "set"))
    assert (checked.objects, checked.views, checked.problems) == (3, 15, ())
    preview_dataset(CuratePreviewOptions(tmp_path / "set", tmp_path / "sheet.png", tile_px=32))
    assert Image.open(tmp_path / "sheet.png").size == (7 * 32, 3 * 32)
    (tmp_path / "set" / "objects" / "box" / "002.png").unlink()
    shutil.copytree(tmp_path / "set" / "objects" / "ball", tmp_path / "set" / "objects" / "renamed")
    checked = check_dataset(CurateCheckOptions(tmp_path / "set"))
    assert checked.kinds == {"files": 1, "record": 1}
    assert [name for name, _ in checked.problems] == ["box", "renamed"]


def test_held_out_sources_go_to_the_test_split(tmp_path: Path) -> None:
    colored_ball().save(tmp_path / "a.ply")
    (tmp_path / "manifest.json").write_text(json.dumps([{"path": "a.ply", "source": "ycb"}]))
    options = CurateSelectOptions((tmp_path,), tmp_path / "chosen.json", hold_out_sources=("ycb",))
    assert select_objects(options).splits == {"test": 1}


def test_a_data_set_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set"):
        check_dataset(CurateCheckOptions(tmp_path / "none"))
