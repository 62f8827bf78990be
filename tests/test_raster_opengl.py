"""The rasteriser against OpenGL, which has its own rounding, its own depth buffer and no author in common with ours."""

import numpy as np
import pytest
import torch
import trimesh

from meshwright import Cameras, Mesh
from meshwright.color import color_vertices
from meshwright.raster import antialias, interpolate, rasterize, render, sample_texture
from opengl import SUBPIXEL_PX, draw, photograph

pytestmark = pytest.mark.gl


def spiky_ball(seed: int) -> Mesh:
    """A ball whose vertices are pushed in at random, each with a colour of its own."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    generator = np.random.default_rng(seed)
    vertices = ball.vertices * generator.uniform(0.6, 1.0, (len(ball.vertices), 1))
    colors = generator.uniform(0, 1, vertices.shape)
    return Mesh(torch.tensor(vertices).float(), torch.tensor(ball.faces).long(), torch.tensor(colors).float())


def soup(seed: int) -> Mesh:
    generator = torch.Generator().manual_seed(seed)
    vertices, colors = torch.rand(2, 90, 3, generator=generator)
    return Mesh(vertices * 2 - 1, torch.arange(90).view(30, 3), colors)


def cameras(seed: int) -> Cameras:
    """Off-centre principal points and unequal focal lengths, so that no axis can be mistaken for another."""
    generator = np.random.default_rng(seed)
    positions = generator.normal(size=(3, 3))
    positions *= generator.uniform(2.5, 6.0, (3, 1)) / np.linalg.norm(positions, axis=1, keepdims=True)
    posed = Cameras.look_at(torch.tensor(positions).float(), 40.0, target=torch.tensor([0.1, -0.05, 0.1]))
    return Cameras(posed.T_world_camera, posed.intrinsics * torch.tensor([0.8, 1.1, 0.94, 1.07]))


def distance_to_edges_px(mesh: Mesh, posed: Cameras, view: int, pixels: torch.Tensor, size_px: tuple[int, int]):
    """How far pixel centres (row, column) are from the nearest edge of a face in the picture."""
    uv, _ = posed.project(mesh.vertices)
    xy = uv[view].double() * torch.tensor(size_px[::-1])
    start, end = xy[mesh.faces.flatten()], xy[mesh.faces.roll(-1, 1).flatten()]
    points = pixels.flip(1).double()[:, None] + 0.5
    along = end - start
    share = ((points - start) * along).sum(2) / along.square().sum(1).clamp(min=1e-12)
    return (points - start - share.clamp(0, 1)[..., None] * along).norm(dim=2).amin(1)


@pytest.mark.parametrize("make", [spiky_ball, soup])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_depth_and_colours_are_those_of_opengl(make, seed):
    mesh, posed = make(seed), cameras(seed)
    height, width = 150, 190
    theirs = draw(mesh, posed, height, width)
    fragments = rasterize(mesh.vertices, mesh.faces, posed, height, width)
    assert (fragments.face_ids >= 0).float().mean() > 0.05
    same = fragments.face_ids == theirs.face_ids
    assert (~same).float().mean() < 1e-3
    for view in range(3):
        differing = (~same[view]).nonzero()
        distance = distance_to_edges_px(mesh, posed, view, differing, (height, width))
        both = (fragments.face_ids[view] >= 0) & (theirs.face_ids[view] >= 0)
        gap = (fragments.depth_z[view] - theirs.depth_z[view]).abs()[tuple(differing.T)]
        touching = both[tuple(differing.T)] & (gap < 1e-4)  # two faces that cut through each other
        assert (touching | (distance < SUBPIXEL_PX)).all()
    seen = same & (theirs.face_ids >= 0)
    colors = interpolate(fragments, mesh.faces, mesh.vertex_colors)
    torch.testing.assert_close(fragments.depth_z[seen], theirs.depth_z[seen], atol=5e-5, rtol=0)
    torch.testing.assert_close(colors[seen], theirs.rgb[seen], atol=5e-4, rtol=0)


def test_a_texture_lies_on_the_mesh_as_in_opengl():
    mesh, posed = spiky_ball(0), cameras(3)
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(3 * len(mesh.faces), 2, generator=generator)
    texture = torch.rand(3, 24, 40, generator=generator)
    mesh = Mesh(mesh.vertices, mesh.faces, uv=uv, uv_faces=torch.arange(len(uv)).view(-1, 3), texture=texture)
    theirs = draw(mesh, posed, 200, 200)
    fragments = rasterize(mesh.vertices, mesh.faces, posed, 200, 200)
    seen = (fragments.face_ids == theirs.face_ids) & (theirs.face_ids >= 0)
    ours = sample_texture(texture, interpolate(fragments, mesh.uv_faces, uv)[seen])
    difference = (ours - theirs.rgb[seen]).abs()
    assert difference.flatten().quantile(0.99) < 1e-4
    assert difference.max() < 4e-3  # where a texel is much smaller than a pixel, rounding of uv shows


def test_finished_pictures_are_those_of_opengl():
    mesh, posed = spiky_ball(1), cameras(4)
    ours, theirs = render(mesh, posed, 96, 96, samples=4), photograph(mesh, posed, 96, samples=4)
    assert (ours.rgb - theirs.images).abs().mean() < 5e-5
    assert (ours.alpha - theirs.alpha).abs().max() <= 2 / 16  # two of the sixteen points of a pixel


def test_an_antialiased_mask_has_the_area_that_opengl_finds_with_many_samples():
    mesh, posed = spiky_ball(2), cameras(5)
    fragments = rasterize(mesh.vertices, mesh.faces, posed, 80, 80)
    seen = (fragments.face_ids >= 0).float()[..., None]
    ours = antialias(seen, fragments, mesh.faces)[..., 0]
    theirs = photograph(mesh, posed, 80, samples=16).alpha[:, 0]
    torch.testing.assert_close(ours.sum((1, 2)), theirs.sum((1, 2)), atol=0, rtol=0.008)
    error, error_of_hard_edges = ((mask - theirs).abs().sum() for mask in (ours, seen[..., 0]))
    assert error < 0.4 * error_of_hard_edges


def test_colours_are_found_again_in_pictures_by_opengl():
    mesh = spiky_ball(3)
    mesh = mesh.replace(vertex_colors=0.5 + 0.4 * torch.sin(2 * mesh.vertices))
    views = photograph(mesh, Cameras.spherical([i * 36.0 for i in range(10)], [-35.0, 35.0] * 5, 4.0, 35.0), 160)
    found = color_vertices(Mesh(mesh.vertices, mesh.faces), views).vertex_colors
    difference = (found - mesh.vertex_colors).abs().amax(1)
    assert difference.median() < 0.02
    assert difference.quantile(0.9) < 0.08
