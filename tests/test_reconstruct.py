"""The road with a model: the published models see what the views show, where the views show it."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meshwright import Cameras, ColorOptions, FitOptions, InputError, Views, reconstruct
from meshwright.cli import main
from meshwright.color import bake_field
from meshwright.mesh_files import load_mesh
from meshwright.model import InstantNeRF
from meshwright.raster import sample_texture
from meshwright.reconstruct import StartShape, finish, model_shape
from meshwright.shape import grid, marching_cubes
from meshwright.shape.refine import Refined
from meshwright.weights import save_model
from small_models import golden, small_mesh, small_nerf


def golden_views(height: int = 320, width: int = 320) -> Views:
    """The pictures of the golden numbers, enlarged, on the rig that they belong to."""
    images = golden("small_mesh")["images"][0]
    images = torch.nn.functional.interpolate(images, (height, width), mode="nearest")
    return Views(
        images=images,
        alpha=torch.ones(6, 1, height, width),
        cameras=Cameras.zero123plus(),
        sizes_px=torch.tensor([[height, width]] * 6),
        names=tuple(f"{i}" for i in range(6)),
    )


@torch.no_grad()
def test_the_model_gets_pictures_and_cameras_as_it_was_trained_on_them():
    views, model = golden_views(), small_mesh()
    mesh = model_shape(model, views).mesh
    triplane = model.planes(views.images[None], golden("small_mesh")["cameras"])
    expected = model.extract_mesh(triplane)[0]
    torch.testing.assert_close(mesh.vertices, expected.vertices, atol=1e-4, rtol=0)
    assert torch.equal(mesh.faces, expected.faces)


@torch.no_grad()
def test_the_model_sees_the_same_in_a_world_of_another_unit_and_place():
    views, model = golden_views(), small_mesh()
    T = views.cameras.T_world_camera.double()
    T[:, :3, 3] = T[:, :3, 3] * 1000 + 5000
    moved = dataclasses.replace(views, cameras=Cameras(T, views.cameras.intrinsics.double()))
    start, found = model_shape(model, views), model_shape(model, moved)
    assert start.color_field is not None
    assert found.color_field is not None
    assert surface_distance((found.mesh.vertices - 5000) / 1000, start.mesh.vertices) < 1e-3
    points = start.mesh.vertices[::50]
    torch.testing.assert_close(
        found.color_field(points.double() * 1000 + 5000), start.color_field(points), rtol=0, atol=1e-3
    )


def surface_distance(points: torch.Tensor, others: torch.Tensor) -> float:
    """Mean distance of vertices to the nearest of the other ones."""
    return float(torch.cdist(points.float(), others.float()).amin(1).mean())


def test_a_wide_picture_is_squared_without_moving_its_cameras():
    """The same scene on a canvas with white to the right gives the model the same rays through the same colours."""
    from meshwright.reconstruct import _model_input

    square = golden_views()
    images = torch.nn.functional.pad(square.images, (0, 0, 0, 80), value=1.0)
    intrinsics = square.cameras.intrinsics * torch.tensor([1.0, 320 / 400, 1.0, 320 / 400])
    tall = Views(
        images=images,
        alpha=torch.ones(6, 1, 400, 320),
        cameras=Cameras(square.cameras.T_world_camera, intrinsics),
        sizes_px=torch.tensor([[320, 320]] * 6),
        names=square.names,
    )
    pictures, embedding = _model_input(tall)
    assert pictures.shape == (6, 3, 320, 320)
    torch.testing.assert_close(embedding[:, :12], square.cameras.embedding()[:, :12])
    torch.testing.assert_close(embedding[:, 12:], square.cameras.intrinsics * 320 / 400)
    reference = torch.nn.functional.interpolate(square.images, (256, 256), mode="area")
    inner = pictures[:, :, 8:248, 8:248] - reference[:, :, 8:248, 8:248]
    assert inner.abs().mean() < 0.02


@pytest.mark.parametrize(
    ("rig", "fitted", "asked", "expected"),
    [
        ("sv3d", False, None, True),
        ("orbit", False, None, True),
        ("orbit", True, None, False),
        ("posed", False, None, False),
        ("sv3d", False, False, False),
        ("orbit", True, True, True),
        ("posed", False, True, True),
    ],
)
def test_cameras_of_orbits_may_move_unless_points_say_where_they_are(monkeypatch, rig, fitted, asked, expected):
    told = []

    def refine_best(meshes, views, *, refine_cameras, **_):
        told.append(refine_cameras)
        return Refined(meshes[0], views, 1.0, 1.0, torch.ones(len(views)))

    monkeypatch.setattr(sys.modules["meshwright.reconstruct"], "refine_best", refine_best)
    views = dataclasses.replace(golden_views(32, 32), rig=rig, cameras_fitted=fitted)
    ball = marching_cubes((grid(12, 2.0).norm(dim=1) - 0.7).reshape(13, 13, 13), scale=2.0)
    finish(StartShape(ball), views, fit=FitOptions(refine_cameras=asked), color=ColorOptions(vertex_colors=True))
    assert told == [expected]


def test_a_field_without_density_is_one_clear_error():
    model = small_nerf()
    with torch.no_grad():
        model.decoder.net[6].bias[0] -= 1000.0
    assert isinstance(model, InstantNeRF)
    with pytest.raises(InputError, match="sees no object"):
        reconstruct(golden_views(), model=model, device="cpu")


def run_with_model(monkeypatch, tmp_path, model, views, *options):
    """`meshwright reconstruct` with a model's file, and posed pictures of the views."""
    save_model(model, tmp_path / "model.safetensors")
    folder = tmp_path / "in"
    folder.mkdir()
    frames = []
    for i, image in enumerate(views.images):
        rgba = torch.cat([image, (image.mean(0, keepdim=True) < 0.999).float()])
        Image.fromarray((rgba.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{i}.png")
        matrix = views.cameras.T_world_camera[i].tolist()
        frames.append({"file_path": f"{i}.png", "transform_matrix": matrix})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": float(np.radians(30)), "frames": frames}))
    arguments = ["reconstruct", folder, "--out", tmp_path / "out", "--model", tmp_path / "model.safetensors"]
    arguments += options
    monkeypatch.setattr(sys, "argv", ["meshwright", *(str(argument) for argument in arguments)])
    main()
    return load_mesh(tmp_path / "out" / "mesh.glb")


@pytest.mark.parametrize("kind", ["nerf", "mesh"])
def test_the_command_line_runs_a_model_from_its_file(monkeypatch, tmp_path, kind):
    model, views = small_nerf() if kind == "nerf" else small_mesh(), golden_views()
    options = ("--refine", "off", "--colors", "model", "--texture-size", 512)
    mesh = run_with_model(monkeypatch, tmp_path, model, views, *options)
    assert len(mesh.faces) > 500
    assert mesh.vertices.abs().max() < 1.1
    shape = model_shape(model, views)
    assert mesh.texture is not None
    points, face, weights = mesh.sample_surface(5000)
    shown = sample_texture(mesh.texture, (mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1))
    torch.testing.assert_close(shown.mean(0), shape.color_field(points).mean(0), atol=0.02, rtol=0)
    assert (shown - shape.color_field(points)).abs().quantile(0.95) < 0.06


def test_the_command_line_colours_the_vertices_of_what_a_model_sees(monkeypatch, tmp_path):
    """From the pictures, and from the model's own field, which is differentiable, where no picture looks."""
    mesh = run_with_model(monkeypatch, tmp_path, small_mesh(), golden_views(), "--refine", "off", "--vertex-colors")
    assert mesh.texture is None
    assert mesh.vertex_colors is not None
    assert mesh.vertex_colors.std(0).min() > 0.01


@pytest.mark.parametrize("vertex_colors", [False, True])
def test_colours_of_the_model_replace_those_that_the_mesh_had(vertex_colors):
    ball = marching_cubes((grid(12, 2.0).norm(dim=1) - 0.7).reshape(13, 13, 13), scale=2.0)
    textured = bake_field(ball, lambda points: torch.full_like(points, 0.9), texture_size_px=128)
    textured = textured.replace(vertex_colors=torch.full_like(textured.vertices, 0.9))
    start = StartShape(textured, lambda points: points / 4 + 0.5)
    color = ColorOptions(colors="model", vertex_colors=True)
    if not vertex_colors:
        color = ColorOptions(colors="model", texture_size_px=256)
    mesh = finish(start, golden_views(32, 32), fit=FitOptions(refine="off"), color=color).mesh
    assert (mesh.texture is None) == (mesh.uv is None) == (mesh.uv_faces is None) == vertex_colors
    if vertex_colors:
        torch.testing.assert_close(mesh.vertex_colors, mesh.vertices / 4 + 0.5)
    else:
        assert mesh.vertex_colors is None
        assert mesh.texture.max() < 0.75


@pytest.mark.parametrize(
    ("name", "remedy"), [("instant-mesh-large", "--model none"), ("instant-mesh-huge", "instant-mesh-large")]
)
def test_a_model_that_cannot_be_had_is_one_line(monkeypatch, capfd, tmp_path, name, remedy):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    posed = Path(__file__).parents[1] / "examples" / "demo" / "posed"
    arguments = ["reconstruct", posed, "--out", tmp_path / "o", "--model", name]
    monkeypatch.setattr(sys, "argv", ["meshwright", *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert name in line
    assert remedy in line
    assert not (tmp_path / "o").exists()
