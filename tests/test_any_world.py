"""The road from views to a coloured mesh in any unit, at any place, any direction; also where there is no float64."""

import dataclasses
import math

import pytest
import torch
from scipy.spatial import cKDTree

from meshwright import Cameras, Mesh, Views
from meshwright.color import color_vertices
from meshwright.raster import render
from meshwright.shape import refine, visual_hull
from meshwright.shape.refine.stages import STAGES
from small_objects import egg_with_nose

SIZE_PX = 48


@pytest.fixture(scope="module")
def thing() -> Mesh:
    return egg_with_nose()


@pytest.fixture(scope="module")
def views(thing: Mesh) -> Views:
    """Taken with a rig unlike the usual ones, so that even the unmoved world is not the object's frame."""
    azimuths_deg, elevations_deg = [i * 137.5 for i in range(7)], [-20.0, 35.0, 5.0, 60.0, -5.0, 20.0, 45.0]
    cameras = Cameras.spherical(azimuths_deg, elevations_deg, 3.3, 40.0)
    drawn = render(thing, cameras, SIZE_PX, SIZE_PX, samples=4)
    names = tuple(map(str, range(7)))
    return Views(drawn.rgb, drawn.alpha, cameras, torch.full((7, 2), SIZE_PX), names, depth_z=drawn.depth_z)


def moved(views: Views, scale: float = 1.0, turn_deg: float = 0.0, shift: float = 0.0) -> Views:
    """The world turned about z, then scaled, then shifted by so many times its new unit; cameras in float64."""
    angle = math.radians(turn_deg)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    T = turn @ views.cameras.T_world_camera.double()
    T[:, :3, 3] = T[:, :3, 3] * scale + shift * scale
    depth_z = None if views.depth_z is None else views.depth_z * scale
    return dataclasses.replace(views, cameras=Cameras(T, views.cameras.intrinsics.double()), depth_z=depth_z)


def in_float32(views: Views) -> Views:
    cameras = Cameras(views.cameras.T_world_camera.float(), views.cameras.intrinsics.float())
    return dataclasses.replace(views, cameras=cameras)


def road(views: Views) -> tuple[Mesh, Cameras]:
    hull = visual_hull(views, resolution=20).mesh()
    refined = refine(hull, views, refine_cameras=True)
    return color_vertices(refined.mesh, refined.views), refined.views.cameras


def moved_back(mesh: Mesh, scale: float, shift: float) -> Mesh:
    return mesh.replace(vertices=(mesh.vertices.double() / scale - shift).float())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage that moves cameras by some degrees."""
    (stage, *_) = STAGES["fast"]
    monkeypatch.setitem(STAGES, "fast", (dataclasses.replace(stage, vertices=500, largest_px=SIZE_PX, steps=8),))


def surface_distance(mesh: Mesh, other: Mesh) -> float:
    """Mean distance of the vertices of one to the other, in units, found 0.003 too large: samples are so dense."""
    return float(cKDTree(other.sample_surface(200_000)[0].numpy()).query(mesh.vertices.numpy())[0].mean())


@pytest.mark.parametrize(("scale", "shift"), [(0.001, -1000.0), (1000.0, 1000.0)])
def test_scale_and_place_of_the_world_change_the_hull_by_rounding_only(views, scale, shift):
    hull, found = visual_hull(moved(views), resolution=20), visual_hull(moved(views, scale, shift=shift), resolution=20)
    assert found.cell_size / scale == pytest.approx(hull.cell_size, rel=1e-6)
    torch.testing.assert_close(found.origin / scale - shift, hull.origin, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.values / scale, hull.values, rtol=0, atol=1e-5)
    mesh, found_mesh = hull.mesh(), found.mesh()
    assert torch.equal(found_mesh.faces, mesh.faces)
    torch.testing.assert_close(found_mesh.vertices / scale - shift, mesh.vertices, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("hasty")
def test_scale_and_place_of_the_world_change_the_refined_mesh_little_more(views):
    """A fit makes more of rounding: its remeshing decides, and Adam's first steps follow a gradient's sign alone."""
    mesh, cameras = road(moved(views))
    assert (cameras.T_world_camera - moved(views).cameras.T_world_camera).abs().max() > 1e-3  # they were refined
    for scale, shift in ((0.001, -1000.0), (1000.0, 1000.0)):
        found, found_cameras = road(moved(views, scale, shift=shift))
        back = moved_back(found, scale, shift)
        assert surface_distance(back, moved_back(mesh, 1.0, 0.0)) < 0.003 + 0.001
        assert abs(float(found.vertex_colors.mean() - mesh.vertex_colors.mean())) < 2e-3
        torch.testing.assert_close(found_cameras.positions / scale - shift, cameras.positions, rtol=0, atol=0.02)


@pytest.mark.usefixtures("hasty")
def test_in_float32_far_away_the_surface_is_the_same_to_what_float32_resolves_there(views):
    mesh, _ = road(moved(views))
    found, _ = road(in_float32(moved(views, shift=1000.0)))
    assert found.vertices.dtype == torch.float32
    # 1000 units away float32 has steps of 6e-5 units; cameras that are off by that are nearly as good as true ones.
    assert surface_distance(moved_back(found, 1.0, 1000.0), moved_back(mesh, 1.0, 0.0)) < 0.003 + 0.001


@pytest.mark.usefixtures("hasty")
def test_turning_the_world_about_z_leaves_the_surface_to_a_part_of_a_cell(views):
    """The grid of the hull keeps to the axes of the world, so its samples lie elsewhere on the object."""
    mesh, _ = road(in_float32(moved(views)))
    found, _ = road(in_float32(moved(views, turn_deg=33.0)))
    angle = math.radians(33.0)
    back = torch.tensor([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    cell = 1.5 / 20
    turned_back = found.replace(vertices=found.vertices @ back.T)
    assert surface_distance(turned_back, mesh) < 0.003 + 0.15 * cell


def test_no_tensor_becomes_float64_where_the_work_is_done(views, monkeypatch):
    """Some devices (MPS) have no float64: only what was taken to the CPU first may become it."""
    double, cpu, on_cpu = torch.Tensor.double, torch.Tensor.cpu, set()

    def noted_cpu(tensor: torch.Tensor) -> torch.Tensor:
        host = cpu(tensor).view_as(tensor)
        on_cpu.add(id(host))
        kept.append(host)  # or its id may be another's
        return host

    def checked_double(tensor: torch.Tensor) -> torch.Tensor:
        assert id(tensor) in on_cpu, "float64 on a device"
        return double(tensor)

    kept: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "cpu", noted_cpu)
    monkeypatch.setattr(torch.Tensor, "double", checked_double)
    (stage, *_) = STAGES["fast"]
    monkeypatch.setitem(STAGES, "fast", (dataclasses.replace(stage, vertices=300, largest_px=SIZE_PX, steps=2),))
    mesh = refine(visual_hull(views, resolution=16).mesh(), views, refine_cameras=True).mesh
    assert mesh.vertices.dtype == torch.float32
    mesh.sample_surface(10)


# --- many vertices ----------------------------------------------------------------------------------------------


def test_numbers_of_edges_do_not_overflow_in_meshes_with_faces_in_int32():
    """A torus of 250 x 250 vertices: 62,500 squared is more than an int32 holds."""
    from meshwright.mesh import subdivide
    from meshwright.shape.refine.smoother import Smoother

    n = 250
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    corner = [(((i + a) % n) * n + (j + b) % n).flatten() for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    faces = torch.cat([torch.stack([corner[0], corner[k], corner[k + 1]], dim=1) for k in (1, 2)])
    around, along = 2 * math.pi * i / n, 2 * math.pi * j / n
    radius = 1 + 0.3 * along.cos()
    vertices = torch.stack([radius * around.cos(), radius * around.sin(), 0.3 * along.sin()], dim=2).view(-1, 3)
    mesh = Mesh(vertices, faces.int())
    assert mesh.is_watertight()
    assert mesh.genus() == 1
    assert len(mesh.unique_edges()[0]) == 3 * n * n
    fine, fine_faces = subdivide(vertices, faces.int())
    assert len(fine) == 4 * n * n
    assert Mesh(fine, fine_faces).is_watertight()
    latent = Smoother(faces.int(), len(vertices), 2.0).to_latent(vertices)
    torch.testing.assert_close(latent, Smoother(faces, len(vertices), 2.0).to_latent(vertices))
    assert (latent - vertices).norm(dim=1).max() < 1  # neighbours are near
