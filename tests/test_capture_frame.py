"""Scaling, turning and moving a capture moves its mesh with it and changes nothing else."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from meshwright import Cameras, Mesh, Views
from meshwright.errors import InputError
from meshwright.evaluate import Scored
from meshwright.options import ColorOptions, FitOptions, OutputOptions, ShapeOptions
from meshwright.raster import render
from meshwright.reconstruct import finish, in_output_frame, start_shape
from meshwright.results import start_from_mesh
from meshwright.views import Capture, ObjectFrame
from small_objects import egg_with_nose

SIZE_PX = 48
SIMILARITIES = [(1.0, 0, (0.0, 0.0, 0.0)), (0.01, 1, (3.0, -5.0, 2.0)), (250.0, 2, (-4000.0, 100.0, 900.0))]


def turn(seed: int) -> torch.Tensor:
    """Any rotation; that of seed 0 is none."""
    if seed == 0:
        return torch.eye(3, dtype=torch.float64)
    return torch.from_numpy(Rotation.random(random_state=seed).as_matrix())


@pytest.fixture(scope="module")
def thing() -> Mesh:
    return egg_with_nose()


@pytest.fixture(scope="module")
def views(thing: Mesh) -> Views:
    """Hand-held: cameras at uneven heights, each rolled by a few degrees; in float64."""
    azimuths_deg, elevations_deg = [20 + i * 51.4 for i in range(7)], [-20.0, 35.0, 5.0, 60.0, -5.0, 20.0, 45.0]
    cameras = Cameras.spherical(azimuths_deg, elevations_deg, 3.3, 40.0)
    rolls = torch.from_numpy(Rotation.from_euler("z", [[4], [-3], [2], [-5], [1], [0], [3]], degrees=True).as_matrix())
    T = cameras.T_world_camera.double()
    T[:, :3, :3] = T[:, :3, :3] @ rolls
    cameras = Cameras(T, cameras.intrinsics.double())
    drawn = render(thing, cameras.to(dtype=torch.float32), SIZE_PX, SIZE_PX, samples=4)
    names = tuple(map(str, range(7)))
    return Views(drawn.rgb, drawn.alpha, cameras, torch.full((7, 2), SIZE_PX), names, depth_z=drawn.depth_z)


def moved(views: Views, scale: float, seed: int, shift: tuple[float, float, float]) -> Views:
    """The world scaled and turned, then shifted."""
    T = views.cameras.T_world_camera.clone()
    T[:, :3, 3] = scale * T[:, :3, 3] @ turn(seed).T + torch.tensor(shift, dtype=torch.float64)
    T[:, :3, :3] = turn(seed) @ T[:, :3, :3]
    cameras = Cameras(T, views.cameras.intrinsics)
    return dataclasses.replace(views, cameras=cameras, depth_z=views.depth_z * scale)


def moved_points(points: torch.Tensor, scale: float, seed: int, shift: tuple[float, float, float]) -> torch.Tensor:
    return scale * points.double() @ turn(seed).T + torch.tensor(shift, dtype=torch.float64)


# --- up --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("elevation_deg", [-40.0, 0.0, 20.0, 75.0])
def test_up_of_level_cameras_is_exact_in_any_world(seed, elevation_deg):
    cameras = Cameras.orbit(9, elevation_deg)
    T = cameras.T_world_camera.double()
    T[:, :3] = turn(seed) @ T[:, :3]
    up = Cameras(T, cameras.intrinsics.double()).up()
    torch.testing.assert_close(up, turn(seed)[:, 2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("quarter", [1.0, -1.0])
def test_up_of_cameras_lying_on_their_sides_is_up(quarter):
    cameras = Cameras.spherical([i * 30.0 for i in range(12)], [10.0, 40.0] * 6, 4.0, 30.0)
    on_side = torch.tensor([[0.0, quarter, 0, 0], [-quarter, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    up = Cameras(cameras.T_world_camera @ on_side, cameras.intrinsics).up()
    torch.testing.assert_close(up, torch.tensor([0.0, 0, 1], dtype=torch.float64), atol=1e-6, rtol=0)


def test_up_of_one_camera_is_the_top_of_its_picture():
    camera = Cameras.spherical([30.0], [25.0], 4.0, 30.0)
    torch.testing.assert_close(camera.up(), camera.T_world_camera[0, :3, 1].double())


def test_up_of_hand_held_cameras_is_a_few_degrees_off_at_most(views):
    assert float(views.cameras.up()[2]) > np.cos(np.radians(3))


def test_a_capture_that_knows_gravity_is_believed(views):
    up = (0.0, 0.6, 0.8)
    frame = ObjectFrame.upright(dataclasses.replace(views, capture=Capture("phone", up)))
    torch.testing.assert_close(frame.R_object_world[2], torch.tensor(up, dtype=torch.float64))
    normalized = frame.normalize_views(dataclasses.replace(views, capture=Capture("phone", up)))
    assert normalized.capture.up == pytest.approx((0, 0, 1))


# --- the frame -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_normalised_views_are_the_same_whatever_the_world(views, similarity):
    frame, found = ObjectFrame.upright(views), ObjectFrame.upright(moved(views, *similarity))
    expected, normalized = frame.normalize_views(views), found.normalize_views(moved(views, *similarity))
    T, T_expected = normalized.cameras.T_world_camera, expected.cameras.T_world_camera
    torch.testing.assert_close(T, T_expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(normalized.depth_z, expected.depth_z, atol=2e-5, rtol=1e-5)
    points = torch.randn(5, 3)
    matrix = found.T_world_object
    there = points.double() @ matrix[:3, :3].T + matrix[:3, 3]
    torch.testing.assert_close(found.restore_points(points), there)
    torch.testing.assert_close(there, moved_points(frame.restore_points(points), *similarity), atol=0, rtol=1e-4)
    torch.testing.assert_close(found.normalize_points(there), points, atol=1e-5, rtol=0)
    back = found.restore_cameras(normalized.cameras).T_world_camera
    torch.testing.assert_close(
        back, moved(views, *similarity).cameras.T_world_camera, atol=1e-5 * similarity[0], rtol=1e-6
    )


def test_normals_turn_with_the_frame(views):
    normals = torch.nn.functional.normalize(torch.randn(7, 3, SIZE_PX, SIZE_PX), dim=1)
    frame = ObjectFrame.upright(dataclasses.replace(views, normals=normals))
    turned = frame.normalize_views(dataclasses.replace(views, normals=normals)).normals
    expected = normals.permute(0, 2, 3, 1) @ frame.R_object_world.float().T
    torch.testing.assert_close(turned.permute(0, 2, 3, 1), expected)


def test_an_upright_frame_of_normalised_views_is_the_world(views):
    normalized = ObjectFrame.upright(views).normalize_views(views)
    assert ObjectFrame.upright(normalized).is_identity


@pytest.mark.parametrize("similarity", SIMILARITIES[1:])
def test_the_start_moves_with_its_capture_and_keeps_every_triangle(views, similarity):
    shape = ShapeOptions(resolution=24)
    mesh = start_shape(views, shape=shape).mesh
    found = start_shape(moved(views, *similarity), shape=shape).mesh
    assert torch.equal(found.faces, mesh.faces)
    expected = moved_points(mesh.vertices, *similarity)
    torch.testing.assert_close(found.vertices.double(), expected, atol=5e-5 * similarity[0], rtol=0)


@pytest.mark.parametrize("similarity", SIMILARITIES[1:])
def test_colours_and_texture_move_with_their_capture(views, similarity):
    options = {"fit": FitOptions(refine="off"), "color": ColorOptions(texture_size_px=256)}
    plain = finish(start_shape(views, shape=ShapeOptions(resolution=24)), views, **options)
    there = moved(views, *similarity)
    found = finish(start_shape(there, shape=ShapeOptions(resolution=24)), there, **options)
    assert found.views is there
    assert torch.equal(found.mesh.faces, plain.mesh.faces)
    torch.testing.assert_close(found.mesh.uv, plain.mesh.uv, atol=1e-3, rtol=0)
    assert (found.mesh.texture - plain.mesh.texture).abs().mean() < 2e-3


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_auto_keeps_a_world_that_somebody_chose_and_leaves_one_that_a_program_found(views):
    near = dataclasses.replace(views, cameras=views.cameras.to(dtype=torch.float32))
    for capture, kept in ((None, True), (Capture("a"), True), (Capture("b", own_axes=False), False)):
        given, frame = in_output_frame(dataclasses.replace(near, capture=capture))
        assert frame.is_identity == kept
        assert (given.cameras is near.cameras) == kept
    given, frame = in_output_frame(views)  # in float64, since it is far away
    assert not frame.is_identity
    assert given.cameras.T_world_camera.dtype == torch.float32


def test_the_frame_can_be_asked_for(views):
    found = dataclasses.replace(views, capture=Capture("b", own_axes=False))
    assert in_output_frame(found, "input")[0] is found
    given, frame = in_output_frame(views, "object")
    assert not frame.is_identity
    assert given.cameras.positions.norm(dim=1).max() < 6
    rig = dataclasses.replace(views, rig="orbit")
    assert in_output_frame(rig, "object")[0] is rig
    with pytest.raises(InputError, match="frame"):
        OutputOptions(frame="here")


# --- a mesh as the start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["auto", "input", "object"])
@pytest.mark.parametrize("mesh_in", ["input", "object"])
def test_a_mesh_is_found_in_the_world_and_in_the_objects_frame(thing, views, mesh_in, asked):
    """As a frame that was asked for says, and by itself in the frame that the mesh came in."""
    similarity = (0.4, 1, (3.0, -5.0, 2.0))
    world_views = moved(views, *similarity)
    world_views = dataclasses.replace(world_views, cameras=world_views.cameras.to(dtype=torch.float32))
    mesh = thing.replace(vertices=moved_points(thing.vertices, *similarity).float())
    own = ObjectFrame.upright(world_views)
    if mesh_in == "object":
        mesh = own.normalize_mesh(mesh)
    start, placed, frame = start_from_mesh(mesh, "thing.ply", world_views, asked, torch.device("cpu"))
    assert frame.is_identity == ((mesh_in if asked == "auto" else asked) == "input")
    assert Scored.of(start.mesh, placed).silhouette_iou > 0.98
    same = start.mesh if not frame.is_identity else own.normalize_mesh(start.mesh)
    torch.testing.assert_close(
        same.vertices, own.normalize_points(moved_points(thing.vertices, *similarity).float()), atol=1e-4, rtol=0
    )
    assert start.color_field is not None


def test_a_mesh_that_lies_elsewhere_or_has_no_triangles_is_refused(thing, views):
    for wrong, complaint in (
        (thing.replace(vertices=thing.vertices + 50), "thing.ply: does not lie where the views look"),
        (Mesh(thing.vertices, thing.faces[:0]), "thing.ply: has no triangles"),
    ):
        with pytest.raises(InputError, match=complaint):
            start_from_mesh(wrong, "thing.ply", views, "auto", torch.device("cpu"))
