"""Textures baked from pictures drawn by the package itself."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from meshwright import Cameras, Mesh, Views
from meshwright.color import bake_texture, color_vertices
from meshwright.color.atlas import unwrap
from meshwright.raster import render, sample_texture
from meshwright.shape import grid, marching_cubes
from meshwright.shape.simplify import decimate
from test_color_vertices import WORLDS, in_world

SIZE_PX, TEXTURE_PX = 128, 512
GREY = torch.tensor([0.6, 0.45, 0.3])
ORBIT = Cameras.spherical([i * 45.0 for i in range(8)], [-35.0, 35.0] * 4, 4.0, 30.0)
BETWEEN = Cameras.spherical([20.0, 110.0, 200.0, 290.0], [10.0, -20.0, 0.0, 20.0], 4.0, 30.0)


def torus():
    """A torus around z, which no single view sees wholly."""
    points = grid(28, 2.2)
    ring = torch.stack([points[:, :2].norm(dim=1) - 0.6, points[:, 2]], dim=1).norm(dim=1) - 0.28
    return marching_cubes(ring.reshape(29, 29, 29), scale=2.2)


def cube():
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return Mesh(corners, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))


@functools.cache
def painted(shape, color_of_point):
    """The mesh with a texture of 1024 px that shows a function of the place, carried on beyond the charts."""
    mesh = unwrap(shape(), 1024)
    points, uv = [], []
    for seed in range(4):
        samples, face, weights = mesh.sample_surface(400_000, seed)
        points.append(samples)
        uv.append((mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1))
    row, column = np.indices((1024, 1024)).reshape(2, -1)
    centres = np.stack([(column + 0.5) / 1024, 1 - (row + 0.5) / 1024], axis=1)
    nearest = torch.from_numpy(cKDTree(torch.cat(uv).numpy()).query(centres)[1])
    return mesh.replace(texture=color_of_point(torch.cat(points)[nearest]).T.reshape(3, 1024, 1024))


def uniform(mesh):
    return mesh.replace(vertex_colors=GREY.expand(len(mesh.vertices), 3).clone())


def stripes(points):
    """Fine stripes in three directions, one a channel."""
    return 0.5 + 0.35 * torch.sin(points * torch.tensor([40.0, 33.0, 36.0]))


def slow_colors(points):
    return 0.5 + 0.3 * torch.sin(points * torch.tensor([2.0, 1.5, 3.0]))


def faintly_striped(points):
    return slow_colors(points) + 0.04 * torch.sin(points * torch.tensor([0.0, 30.0, 0.0])).sum(1, keepdim=True)


def faintly_striped_the_other_way(points):
    return 2 * slow_colors(points) - faintly_striped(points)


def field_in_world(world):
    """`slow_colors`, carried into another world."""
    scale, shift, turn_deg = WORLDS[world]
    cos, sin = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    R = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    return lambda points: slow_colors(((points.double() - torch.tensor(shift).double()) / scale @ R).float())


def photograph(mesh, cameras=ORBIT):
    drawn = render(mesh, cameras, SIZE_PX, SIZE_PX, samples=4)
    names = tuple(str(i) for i in range(len(cameras)))
    return Views(drawn.rgb, drawn.alpha, cameras, torch.full((len(cameras), 2), SIZE_PX), names)


def exposed(views, gains):
    """The same pictures of the object, each brighter or darker; the background stays white."""
    gains = torch.tensor(gains).view(-1, 1, 1, 1)
    return dataclasses.replace(views, images=(views.images - 1 + views.alpha) * gains + 1 - views.alpha)


def bare(mesh):
    return Mesh(mesh.vertices, mesh.faces)


def bake(mesh, views, **options):
    return bake_texture(bare(mesh), views, **{"texture_size_px": TEXTURE_PX, **options})


def on_surface(mesh, count=20_000):
    """Points of the surface and the texture there."""
    points, face, weights = mesh.sample_surface(count)
    uv = (mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1)
    return points, sample_texture(mesh.texture, uv)


def both_sides_of_seams(mesh):
    """The texture on either side of the edges where the texture coordinates of two faces part."""
    ends = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].view(-1, 2)
    uv = mesh.uv[mesh.uv_faces[:, [[0, 1], [1, 2], [2, 0]]].view(-1, 2)]
    half_edge = {(int(a), int(b)): number for number, (a, b) in enumerate(ends)}
    pairs = [(n, half_edge[b, a]) for (a, b), n in half_edge.items() if a < b and (b, a) in half_edge]
    here, there = torch.tensor(pairs).unbind(1)
    here, there = uv[here], uv[there].flip(1)
    parted = (here != there).flatten(1).any(1)
    assert parted.sum() > 10
    along = torch.linspace(0.05, 0.95, 7).view(-1, 1, 1)
    return tuple(
        sample_texture(mesh.texture, torch.lerp(side[parted, 0], side[parted, 1], along).view(-1, 2))
        for side in (here, there)
    )


def psnr_on_object(mesh, truth):
    ours, true = render(mesh, BETWEEN, SIZE_PX, SIZE_PX, samples=4), render(truth, BETWEEN, SIZE_PX, SIZE_PX, samples=4)
    wholly = (true.alpha > 0.999).expand_as(true.rgb)
    return float(-10 * (ours.rgb - true.rgb)[wholly].square().mean().log10())


@pytest.mark.parametrize("optimise", [False, True])
def test_exposure_that_varies_leaves_no_seams_and_the_mean_it_had(optimise):
    mesh = uniform(torus())
    gains = [1.1, 0.9, 1.05, 0.95, 0.92, 1.08, 1.0, 1.0]
    baked = bake(mesh, exposed(photograph(mesh), gains), optimise=optimise)
    here, there = both_sides_of_seams(baked)
    assert (here - there).abs().max() < 2 / 255
    _, colors = on_surface(baked)
    torch.testing.assert_close(colors.mean(0), GREY, atol=1 / 255, rtol=0)
    assert (colors - GREY).abs().quantile(0.999) < 2 / 255
    assert (colors - GREY).abs().max() < 4 / 255


def test_pictures_exposed_differently_give_the_texture_of_even_ones():
    truth = painted(torus, slow_colors)
    views = photograph(truth)
    gains = [1.1, 0.9, 1.05, 0.95, 0.92, 1.08, 1.0, 1.0]
    _, even = on_surface(bake(truth, views, optimise=False))
    _, varied = on_surface(bake(truth, exposed(views, gains), optimise=False))
    torch.testing.assert_close(varied.mean(0), even.mean(0), atol=1 / 255, rtol=0)
    assert (varied - even).abs().mean() < 1 / 255


def test_light_that_falls_off_across_each_picture_is_evened_out():
    mesh = uniform(torus())
    views = photograph(mesh)
    fall = torch.linspace(0.92, 1.08, SIZE_PX)
    shaded = dataclasses.replace(views, images=(views.images - 1 + views.alpha) * fall + 1 - views.alpha)
    baked = bake(mesh, shaded)
    here, there = both_sides_of_seams(baked)
    assert (here - there).abs().quantile(0.99) < 2 / 255
    assert (here - there).abs().max() < 3 / 255


@pytest.mark.parametrize("shape", [torus, cube])
def test_fine_detail_is_kept_that_vertices_cannot_hold(shape):
    truth = painted(shape, stripes)
    views = photograph(truth)
    blend = psnr_on_object(bake(truth, views, optimise=False), truth)
    fitted = psnr_on_object(bake(truth, views), truth)
    assert blend > psnr_on_object(color_vertices(bare(truth), views), truth) + 3
    assert fitted > blend + 1


def test_a_fit_to_pictures_that_have_nothing_in_common_is_not_taken():
    """Each picture shows blotches of its own: a fit comes nearer, but not by what one true texture would."""
    views = photograph(uniform(torus()))
    blotches = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blotches = torch.nn.functional.interpolate(blotches, size=(SIZE_PX, SIZE_PX), mode="bilinear")
    views = dataclasses.replace(views, images=blotches * views.alpha + 1 - views.alpha)
    fitted, blend = (bake(torus(), views, texture_size_px=256, optimise=fit) for fit in (True, False))
    assert torch.equal(fitted.texture, blend.texture)


def test_detail_is_taken_from_the_straightest_view_alone():
    """The oblique view shows the same slow colours, but the faint stripes on them the other way round."""
    straight, oblique = (
        photograph(painted(cube, color), Cameras.spherical([angle], [0.0], 4.0, 30.0))
        for color, angle in ((faintly_striped, 0.0), (faintly_striped_the_other_way, 50.0))
    )
    cameras = Cameras(
        torch.cat([straight.cameras.T_world_camera, oblique.cameras.T_world_camera]),
        torch.cat([straight.cameras.intrinsics, oblique.cameras.intrinsics]),
    )
    views = Views(
        torch.cat([straight.images, oblique.images]),
        torch.cat([straight.alpha, oblique.alpha]),
        cameras,
        torch.full((2, 2), SIZE_PX),
        ("straight", "oblique"),
    )
    points, colors = on_surface(bake(cube(), views, optimise=False))
    inner = (points[:, 0] > 0.49) & (points[:, 1:].abs().amax(1) < 0.35)
    ours, theirs = ((values - slow_colors(points))[inner] for values in (colors, faintly_striped(points)))
    assert (ours * theirs).sum() / theirs.square().sum() > 0.8  # 0.64 if both views counted by their cosine alone


@pytest.mark.slow
def test_a_fit_to_views_that_contradict_each_other_costs_next_to_nothing():
    truth = painted(torus, stripes)
    views = photograph(truth)
    rotation = torch.eye(4)  # by 2.9 degrees: the stripes of every second view are half a stripe off
    rotation[:2, :2] = torch.tensor([[0.99875, -0.05], [0.05, 0.99875]])
    turned = Cameras(torch.cat([rotation @ ORBIT.T_world_camera[::2], ORBIT.T_world_camera[1::2]]), ORBIT.intrinsics)
    contradicting = dataclasses.replace(views[[0, 2, 4, 6, 1, 3, 5, 7]], cameras=turned)
    fitted, blend = (psnr_on_object(bake(truth, contradicting, optimise=fit), truth) for fit in (True, False))
    assert fitted > blend - 0.3


@pytest.mark.parametrize("optimise", [False, True])
def test_one_wrong_picture_leaves_no_scar(optimise):
    truth = painted(torus, slow_colors)
    views = photograph(truth)
    wrong = views.images.clone()
    wrong[3] = torch.where(views.alpha[3] > 0, 1 - wrong[3], wrong[3])
    _, colors = on_surface(bake(truth, dataclasses.replace(views, images=wrong), optimise=optimise))
    _, right = on_surface(bake(truth, views, optimise=optimise))
    assert ((colors - right).abs().amax(1) > 0.1).float().mean() < 0.02


def test_where_no_view_looks_the_texture_is_the_field():
    mesh = cube()
    away = Cameras.look_at(torch.tensor([[0.0, 0.0, 4.0]]), 30.0, target=torch.tensor([0.0, 0.0, 9.0]))
    nothing = Views(torch.ones(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), away, torch.tensor([[32, 32]]), ("0",))
    baked = bake(mesh, nothing, field=slow_colors)
    points, colors = on_surface(baked)
    torch.testing.assert_close(colors, slow_colors(points), atol=0.01, rtol=0)
    here, there = both_sides_of_seams(baked)
    assert (here - there).abs().max() < 0.015


def test_a_field_of_another_exposure_joins_the_pictures_without_a_border():
    truth = painted(torus, slow_colors)
    front = photograph(truth, Cameras.spherical([0.0, 40.0, 320.0], [30.0, -30.0, 0.0], 4.0, 30.0))
    points, colors = on_surface(bake(truth, front, field=lambda points: slow_colors(points) - 0.15))
    assert (colors - slow_colors(points)).abs().quantile(0.99) < 0.06


def test_unseen_parts_take_on_the_colours_around_them():
    truth = painted(torus, slow_colors)
    front = photograph(truth, Cameras.spherical([0.0, 30.0], [20.0, -20.0], 4.0, 30.0))
    _, colors = on_surface(bake(truth, front))
    assert (colors > 0.15).all()
    assert (colors < 0.85).all()


def test_gutters_of_eight_texels_hold_the_colour_of_the_nearest_texel_of_a_chart():
    truth = painted(torus, slow_colors)
    baked = bake(truth, photograph(truth), optimise=False)
    # The same surface samples the same colours when each is looked up with the eight texels around it.
    _, face, weights = baked.sample_surface(20_000)
    uv = (baked.uv[baked.uv_faces[face]] * weights[:, :, None]).sum(1)
    pooled = torch.nn.functional.avg_pool2d(baked.texture[None], 7, stride=1, padding=3, count_include_pad=False)[0]
    assert (sample_texture(pooled, uv) - sample_texture(baked.texture, uv)).abs().max() < 0.05


def test_a_face_smaller_than_a_texel_has_its_own_colour():
    speck = Mesh(torch.tensor([[0.0, 0, 0], [1e-3, 0, 0], [0, 1e-3, 0]]), torch.tensor([[0, 1, 2]]))
    plate = Mesh(torch.tensor([[-1.0, -1, -1], [1, -1, -1], [1, 1, -1]]), torch.tensor([[0, 1, 2]]))
    mesh = Mesh(torch.cat([plate.vertices, speck.vertices]), torch.cat([plate.faces, speck.faces + 3]))
    away = Cameras.look_at(torch.tensor([[0.0, 0.0, 4.0]]), 30.0, target=torch.tensor([0.0, 0.0, 9.0]))
    nothing = Views(torch.ones(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), away, torch.tensor([[32, 32]]), ("0",))
    baked = bake(mesh, nothing, field=lambda points: torch.where(points[:, 2:] < -0.5, 0.2, 0.9).expand(-1, 3))
    centre = baked.uv[baked.uv_faces].mean(1)
    torch.testing.assert_close(sample_texture(baked.texture, centre)[:, 0], torch.tensor([0.2, 0.9]))


def test_the_shape_stays_and_fewer_faces_can_be_asked_for():
    truth = painted(torus, slow_colors)
    views = photograph(truth)
    baked = bake(truth, views, optimise=False)
    assert torch.equal(baked.vertices, truth.vertices)
    assert baked.vertex_colors is None
    simplified = bake(decimate(truth, 1000), views, optimise=False)
    assert 900 < len(simplified.faces) < 1100
    assert simplified.is_watertight()


@pytest.mark.parametrize("world", ["turned", "all of it, large", "all of it, small"])
def test_the_texture_does_not_depend_on_the_worlds_unit_place_and_direction(world):
    """On the surface: charts are cut along the axes of the world, so a turned mesh has others, of other texels."""
    truth = painted(torus, slow_colors)
    views = photograph(truth, ORBIT[::2])
    mesh, views_there = in_world(bare(truth), views, *WORLDS[world])
    here, there = bake(truth, views, field=slow_colors), bake(mesh, views_there, field=field_in_world(world))
    assert torch.equal(there.vertices, mesh.vertices)
    assert torch.equal(there.faces, here.faces)
    _, face, weights = here.sample_surface(20_000)
    colors = [
        sample_texture(mesh.texture, (mesh.uv[mesh.uv_faces[face]] * weights[:, :, None]).sum(1))
        for mesh in (here, there)
    ]
    difference = (colors[0] - colors[1]).abs().amax(1)
    assert difference.mean() < 1e-3
    assert difference.quantile(0.99) < 6e-3
    assert difference.max() < 0.03


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    truth = painted(torus, stripes)
    views = photograph(truth)
    state = torch.get_rng_state()
    once, again = (bake(truth, views, texture_size_px=256, seed=3) for _ in range(2))
    assert torch.equal(once.texture, again.texture)
    assert torch.equal(torch.get_rng_state(), state)
