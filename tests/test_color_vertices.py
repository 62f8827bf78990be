"""Colours from pictures: which view a vertex believes, and what happens where no view sees."""

import dataclasses

import numpy as np
import pytest
import torch

from meshwright.cameras import Cameras
from meshwright.color import VisibleSurface, bake_texture, color_vertices, spread_colors
from meshwright.color.unseen import fill_unseen
from meshwright.mesh import Mesh
from meshwright.raster import render
from meshwright.views import Views

RED, BLUE, GREEN = (torch.tensor(c) for c in ([0.9, 0.1, 0.1], [0.1, 0.2, 0.8], [0.1, 0.7, 0.2]))


def box(half, cells=12):
    """A closed box with ``cells`` squares along each side, welded."""
    ticks = torch.linspace(-1, 1, cells + 1)
    vertices, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            a, b = torch.meshgrid(ticks, ticks, indexing="ij")
            side = torch.empty(*a.shape, 3)
            side[..., axis], side[..., (axis + 1) % 3], side[..., (axis + 2) % 3] = sign, a, b
            n = torch.arange((cells + 1) ** 2).view(cells + 1, cells + 1) + len(vertices) * (cells + 1) ** 2
            quads = torch.stack([n[:-1, :-1], n[1:, :-1], n[1:, 1:], n[:-1, 1:]], dim=-1).view(-1, 4)
            quads = quads if sign > 0 else quads.flip(1)
            vertices.append(side.view(-1, 3))
            faces.append(torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
    unique, index = torch.unique(torch.cat(vertices).round(decimals=5), dim=0, return_inverse=True)
    return Mesh(unique * torch.tensor(half), index[torch.cat(faces)])


def painted(mesh, color):
    return mesh.replace(vertex_colors=color.expand(len(mesh.vertices), 3).clone())


def join(a, b):
    return Mesh(
        torch.cat([a.vertices, b.vertices]),
        torch.cat([a.faces, b.faces + len(a.vertices)]),
        torch.cat([a.vertex_colors, b.vertex_colors]),
    )


def photograph(mesh, cameras, size_px=160):
    drawn = render(mesh, cameras, size_px, size_px, samples=4)
    sizes_px = torch.full((len(cameras), 2), size_px)
    return Views(drawn.rgb, drawn.alpha, cameras, sizes_px, tuple(str(i) for i in range(len(cameras))))


def test_a_box_is_closed():
    mesh = box([0.5, 0.4, 0.3])
    assert mesh.is_watertight()
    assert float(mesh.volume()) == pytest.approx(8 * 0.5 * 0.4 * 0.3)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_uniform_object_comes_out_uniform_also_where_nobody_looked(count):
    mesh = painted(box([0.5, 0.4, 0.3]), BLUE)
    cameras = Cameras.orbit(count, 20.0)
    found = color_vertices(dataclasses.replace(mesh, vertex_colors=None), photograph(mesh, cameras))
    torch.testing.assert_close(found.vertex_colors, mesh.vertex_colors, atol=2e-3, rtol=0)


def test_each_side_of_a_thin_slab_takes_the_colour_seen_on_its_side():
    slab = box([0.02, 0.6, 0.6], cells=24)
    front = slab.vertices[:, :1] > 0
    slab = slab.replace(vertex_colors=torch.where(front, RED, BLUE))
    found = color_vertices(slab, photograph(slab, Cameras.orbit(12, 10.0))).vertex_colors
    inner = slab.vertices[:, 1:].abs().amax(1) < 0.59
    torch.testing.assert_close(found[inner], slab.vertex_colors[inner], atol=0.01, rtol=0)


def test_what_stands_in_front_does_not_colour_what_is_behind():
    wall = painted(box([0.05, 0.8, 0.8], cells=40), GREEN)
    ball = painted(box([0.2, 0.25, 0.25]), RED)
    ball = ball.replace(vertices=ball.vertices + torch.tensor([0.6, 0.0, 0.0]))
    scene = join(wall, ball)
    cameras = Cameras.spherical([0.0, 25.0], [0.0, 10.0], 4.0, 30.0)
    found = color_vertices(scene, photograph(scene, cameras)).vertex_colors
    on_wall = torch.arange(len(scene.vertices)) < len(wall.vertices)
    torch.testing.assert_close(found[on_wall], scene.vertex_colors[on_wall], atol=0.02, rtol=0)
    facing_camera = ~on_wall & (scene.vertices[:, 0] > 0.79) & (scene.vertices[:, 1:].abs().amax(1) < 0.24)
    torch.testing.assert_close(found[facing_camera], scene.vertex_colors[facing_camera], atol=0.02, rtol=0)


def test_the_white_background_does_not_bleed_onto_a_dark_object():
    dark = painted(box([0.5, 0.4, 0.3]), torch.tensor([0.05, 0.05, 0.05]))
    larger = dark.replace(vertices=dark.vertices * 1.02)  # as a hull is: its rim lies on the outline or beyond
    found = color_vertices(larger, photograph(dark, Cameras.orbit(9, 20.0))).vertex_colors
    assert found.max() < 0.06


def test_the_straightest_view_dominates():
    mesh = box([0.5, 0.5, 0.5], cells=20)
    cameras = Cameras.spherical([0.0, 50.0], [0.0, 0.0], 4.0, 30.0)
    straight, oblique = photograph(painted(mesh, RED), cameras), photograph(painted(mesh, BLUE), cameras)
    views = dataclasses.replace(straight, images=torch.stack([straight.images[0], oblique.images[1]]))
    found = color_vertices(mesh, views).vertex_colors
    side = (mesh.vertices[:, 0] > 0.49) & (mesh.vertices[:, 1:].abs().amax(1) < 0.4)
    assert (found[side] - RED).abs().max() < 0.05
    turned = (mesh.vertices[:, 1] > 0.49) & (mesh.vertices[:, ::2].abs().amax(1) < 0.4)
    assert (found[turned] - BLUE).abs().max() < 0.05


def test_a_view_whose_silhouette_the_mesh_does_not_fill_is_hardly_believed():
    mesh = painted(box([0.5, 0.4, 0.3]), GREEN)
    views = photograph(mesh, Cameras.orbit(8, 20.0))
    wrong = views.images.clone()
    wrong[2] = photograph(painted(mesh, RED), views.cameras).images[2].roll(40, 2)
    alpha = views.alpha.clone()
    alpha[2] = alpha[2].roll(40, 2)
    found = color_vertices(mesh, dataclasses.replace(views, images=wrong, alpha=alpha)).vertex_colors
    assert ((found - GREEN).abs().amax(1) > 0.1).float().mean() < 0.02


def plate():
    """A square of two faces in the plane x = 0 that fills much of a picture from +x."""
    corners = torch.tensor([[0.0, -0.8, -0.8], [0.0, 0.8, -0.8], [0.0, 0.8, 0.8], [0.0, -0.8, 0.8]])
    return painted(Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]])), GREEN)


def test_near_an_outline_a_view_counts_for_little():
    views = photograph(plate(), Cameras.orbit(1))
    pixel = 2.144 / 160  # of the rig's pictures at the origin
    points = torch.tensor([[0.0, 0.8 - n * pixel, 0.0] for n in (1.0, 8.0, 30.0)])
    normals = torch.tensor([1.0, 0.0, 0.0]).expand(3, 3)
    _, quality = VisibleSurface.of(plate(), views).sample_view(points, normals)
    assert 0 < quality[0] < 0.3 * quality[1]
    assert quality[1] == pytest.approx(float(quality[2]), rel=0.1)


def test_what_lies_outside_a_picture_is_not_seen_by_it():
    views = photograph(plate(), Cameras.orbit(1))
    half = dataclasses.replace(views, sizes_px=torch.tensor([[160, 80]]))  # the canvas beyond it was never a picture
    points = torch.tensor([[0.0, y, 0.0] for y in (-0.4, 0.4, 5.0)])
    normals = torch.tensor([1.0, 0.0, 0.0]).expand(3, 3)
    _, quality = VisibleSurface.of(plate(), half).sample_view(points, normals)
    assert (quality > 0).tolist() == [True, False, False]


def test_the_view_that_shows_the_surface_largest_dominates():
    near, far = (photograph(painted(plate(), c), Cameras.orbit(1, radius=r)) for c, r in ((RED, 4.0), (BLUE, 8.0)))
    cameras = Cameras(
        torch.cat([near.cameras.T_world_camera, far.cameras.T_world_camera]), near.cameras.intrinsics.expand(2, 4)
    )
    images, alpha = torch.cat([near.images, far.images]), torch.cat([near.alpha, far.alpha])
    views = Views(images, alpha, cameras, torch.full((2, 2), 160), ("near", "far"))
    found = color_vertices(box([0.01, 0.7, 0.7]), views).vertex_colors
    inner = box([0.01, 0.7, 0.7]).vertices
    inner = (inner[:, 0] > 0) & (inner[:, 1:].abs().amax(1) < 0.5)
    assert (found[inner] - RED).abs().max() < 0.05


def strip(cells=12):
    """A band of squares along y."""
    y = torch.arange(cells + 1.0)
    vertices = torch.cat([torch.stack([torch.zeros_like(y), y, torch.full_like(y, z)], dim=1) for z in (0.0, 1.0)])
    n = torch.arange(cells)
    faces = torch.cat([torch.stack(f, dim=1) for f in ((n, n + 1, n + cells + 2), (n, n + cells + 2, n + cells + 1))])
    return Mesh(vertices, faces)


def test_unseen_parts_are_a_membrane_between_the_seen_ones():
    """Along a band that is seen at its two ends, colours run evenly from one to the other."""
    mesh = strip()
    share = mesh.vertices[:, 1:2] / 12
    truth = RED + share * (BLUE - RED)
    seen = (share[:, 0] == 0) | (share[:, 0] == 1)
    found = spread_colors(mesh, torch.where(seen[:, None], truth, 0.0), seen)
    torch.testing.assert_close(found, truth, atol=0.04, rtol=0)


def test_unseen_parts_follow_what_is_expected_of_them():
    """What is known is the expected, only darker: so is the rest then, its detail kept."""
    mesh = strip()
    expected = 0.5 + 0.3 * torch.sin(5 * mesh.vertices)
    seen = mesh.vertices[:, 1] < 4
    found = fill_unseen(mesh, torch.where(seen[:, None], expected - 0.1, 0.0), seen, expected)
    torch.testing.assert_close(found, expected - 0.1, atol=1e-5, rtol=0)
    assert torch.equal(fill_unseen(mesh, expected, torch.zeros_like(seen), expected), expected)


def test_filled_in_colours_lie_between_the_seen_ones():
    mesh = box([0.5, 0.4, 0.3])
    top = mesh.vertices[:, 2:] > 0.2
    mesh = mesh.replace(vertex_colors=torch.where(top, RED, BLUE))
    views = photograph(mesh, Cameras.orbit(1, 35.0))
    found = color_vertices(mesh, views).vertex_colors
    low, high = torch.minimum(RED, BLUE), torch.maximum(RED, BLUE)
    assert (found >= low - 2e-3).all()
    assert (found <= high + 2e-3).all()
    bottom_near_blue_front = (mesh.vertices[:, 2] < -0.29) & (mesh.vertices[:, 0] > 0.4)
    torch.testing.assert_close(
        found[bottom_near_blue_front], BLUE.expand(int(bottom_near_blue_front.sum()), 3), atol=0.2, rtol=0
    )


def test_a_part_that_nobody_sees_takes_the_mean_colour():
    shell = painted(box([0.5, 0.5, 0.5]), GREEN)
    hidden = painted(box([0.1, 0.1, 0.1], cells=3), RED)
    scene = join(shell, hidden)
    found = color_vertices(scene, photograph(scene, Cameras.orbit(6, 20.0))).vertex_colors
    torch.testing.assert_close(found, GREEN.expand_as(found), atol=5e-3, rtol=0)


WORLDS = {
    "turned": (1.0, (0.0, 0.0, 0.0), 73.0),
    "in kilometres": (0.001, (0.0, 0.0, 0.0), 0.0),
    "in millimetres": (1000.0, (0.0, 0.0, 0.0), 0.0),
    "a thousand sizes away": (1.0, (1000.0, -700.0, 500.0), 0.0),
    "all of it, large": (1000.0, (1e6, 2e5, -4e5), 200.0),
    "all of it, small": (0.001, (0.3, 1.0, -0.5), -31.0),
}


def in_world(mesh, views, scale, shift, turn_deg):
    """The same scene in another world: turned about z, scaled, then shifted, in float32 as files have it."""
    cos, sin = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    R = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    T = views.cameras.T_world_camera.double()
    T[:, :3, :3] = R @ T[:, :3, :3]
    T[:, :3, 3] = T[:, :3, 3] @ R.T * scale + torch.tensor(shift).double()
    vertices = mesh.vertices.double() @ R.T * scale + torch.tensor(shift).double()
    cameras = Cameras(T.float(), views.cameras.intrinsics)
    return mesh.replace(vertices=vertices.float()), dataclasses.replace(views, cameras=cameras)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_colours_do_not_depend_on_the_worlds_unit_place_and_direction(world):
    """To what float32 leaves: a thousand sizes away it holds places to 1/30,000 of a size."""
    mesh = box([0.5, 0.4, 0.3])
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 0.5).clamp(0, 1))
    views = photograph(mesh, Cameras.orbit(5, 20.0))
    elsewhere, views_elsewhere = in_world(mesh, views, *world)
    expected, found = color_vertices(mesh, views), color_vertices(elsewhere, views_elsewhere)
    assert torch.equal(found.vertices, elsewhere.vertices)
    difference = (found.vertex_colors - expected.vertex_colors).abs().amax(1)
    assert difference.max() < 5e-4 if any(world[1]) else 5e-6


def test_the_order_of_the_views_does_not_matter():
    mesh = painted(box([0.5, 0.4, 0.3]), GREEN)
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 0.5).clamp(0, 1))
    views = photograph(mesh, Cameras.orbit(5, 20.0))
    a, b = color_vertices(mesh, views), color_vertices(mesh, views[[3, 0, 4, 2, 1]])
    torch.testing.assert_close(a.vertex_colors, b.vertex_colors, atol=1e-5, rtol=0)


def test_how_many_views_see_each_vertex_and_what_share_of_the_surface_none_does():
    """Four cameras around a box, level: each of its four sides is seen by one, top and bottom by none."""
    half = [0.5, 0.4, 0.3]
    mesh = painted(box(half), GREEN)
    views = photograph(mesh, Cameras.spherical([0.0, 90.0, 180.0, 270.0], [0.0] * 4, 4.0, 30.0))
    baked = bake_texture(mesh, views, texture_size_px=256, optimise=False)
    colored = color_vertices(mesh, views)
    x, y, z = (2 * side for side in half)
    share = x * y / (x * y + x * z + y * z)
    for found in (colored, baked):
        inner = (mesh.vertices / torch.tensor(half)).abs() < 0.9
        assert found.view_counts.shape == (len(mesh.vertices),)
        assert (found.view_counts[inner[:, 2] & (inner[:, 0] | inner[:, 1])] == 1).all()
        assert (found.view_counts[inner[:, 0] & inner[:, 1]] == 0).all()
        assert found.unseen_share() == pytest.approx(share, abs=0.06)  # edges belong to both sides
    assert mesh.unseen_share() is None
    kept = colored.keep_faces(colored.view_counts[mesh.faces].amin(1) > 0)
    assert kept.unseen_share() == 0
    assert (kept.view_counts > 0).all()
