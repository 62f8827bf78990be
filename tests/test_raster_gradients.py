"""Gradients of the rasteriser against finite differences, exact areas, and plain torch."""

import numpy as np
import pytest
import torch
import trimesh

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import (
    antialias,
    coverage,
    edge_partners,
    interpolate,
    mip_levels,
    rasterize,
    render,
    sample_texture,
    shading,
    silhouettes,
    textures,
)


@pytest.fixture
def plain_torch(monkeypatch):
    """Call it and from then on nothing compiled runs."""

    def switch() -> None:
        monkeypatch.setattr(coverage, "_rasterize_cpu", coverage._rasterize_torch)
        monkeypatch.setattr(shading, "_interpolate_cpu", shading._interpolate_torch)
        monkeypatch.setattr(textures, "_mip_levels_cpu", textures._mip_levels_torch)
        monkeypatch.setattr(
            textures.MipMaps,
            "sample",
            lambda self, uv, levels, repeat: textures._sample_torch(self._pictures, uv, levels, repeat),
        )
        monkeypatch.setattr(silhouettes, "_find_silhouettes_cpu", silhouettes._find_silhouettes_torch)

    return switch


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def sphere(subdivisions: int) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return Mesh(torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.long))


def soup(seed: int, faces: int, spread: float) -> Mesh:
    """Random triangles, each with texture coordinates of its own; every fifth shares its vertices with the next."""
    corners = torch.arange(3 * faces).view(faces, 3)
    shared = corners.clone()
    shared[1::5, :2] = corners[0::5, 1:]
    vertices = (random(seed, 3 * faces, 3) * 2 - 1) * spread
    return Mesh(
        vertices, shared, uv=random(seed + 1, 3 * faces, 2) * 3 - 1, uv_faces=corners, texture=random(2, 3, 40, 56)
    )


def mask_of(mesh: Mesh, vertices: torch.Tensor, cameras: Cameras, height: int, width: int) -> torch.Tensor:
    fragments = rasterize(vertices, mesh.faces, cameras, height, width)
    return antialias((fragments.face_ids >= 0).float()[..., None], fragments, mesh.faces)


def outline_area_px(vertices: torch.Tensor, cameras: Cameras, height: int, width: int) -> torch.Tensor:
    """Area of the polygon of the projected vertices."""
    uv, _ = cameras.project(vertices)
    xy = uv * torch.tensor([width, height])
    following = xy.roll(-1, 1)
    return ((xy[..., 0] * following[..., 1] - xy[..., 1] * following[..., 0]).sum(1) / 2).abs().sum()


SQUARE = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.5, 0.5], [0.0, -0.5, 0.5]])
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def turned_square(angle_deg: float, shift: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(angle_deg))
    R = torch.tensor([[1, 0, 0], [0, angle.cos(), -angle.sin()], [0, angle.sin(), angle.cos()]])
    return SQUARE @ R.T + torch.tensor([0.1, shift, 0.7 * shift])


@pytest.mark.parametrize("angle_deg", [0.0, 7.0, 30.0, 45.0, 80.0])
@pytest.mark.parametrize("shift", [0.0, 0.013])
def test_a_masks_sum_is_the_squares_area_in_value_and_gradient(angle_deg, shift):
    vertices = turned_square(angle_deg, shift).requires_grad_()
    camera = Cameras.orbit(1, 10.0, fov_deg=25.0)
    mesh = Mesh(vertices.detach(), SQUARE_FACES)
    total = mask_of(mesh, vertices, camera, 160, 160).sum()
    (gradient,) = torch.autograd.grad(total, vertices)
    area = outline_area_px(vertices, camera, 160, 160)
    (expected,) = torch.autograd.grad(area, vertices)
    assert total.item() == pytest.approx(area.item(), rel=2e-3)
    assert (gradient - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("subdivisions", [1, 3, 6], ids=["faces of many pixels", "of a few pixels", "below a pixel"])
def test_a_growing_sphere_gains_the_area_it_should(subdivisions):
    mesh = sphere(subdivisions)
    cameras = Cameras.orbit(2, 25.0, fov_deg=38.0)
    scale = torch.tensor(0.9, requires_grad=True)
    total = mask_of(mesh, scale * mesh.vertices, cameras, 96, 128).sum()
    (gradient,) = torch.autograd.grad(total, scale)
    areas = []
    for step in (-0.02, 0.02):
        grown = Mesh((0.9 + step) * mesh.vertices, mesh.faces)
        areas.append(render(grown, cameras, 96, 128, samples=12).alpha.sum().item())
    assert total.item() == pytest.approx(np.mean(areas), rel=3e-3)
    assert gradient.item() == pytest.approx((areas[1] - areas[0]) / 0.04, rel=0.03)


def test_a_moving_camera_changes_the_mask_as_finite_differences_say():
    mesh = sphere(4)
    position = torch.tensor([[3.9, 0.3, 0.8]])

    def camera_at(offset: torch.Tensor) -> Cameras:
        camera = Cameras.look_at(position, 40.0)
        T = camera.T_world_camera.clone()
        T[:, :3, 3] = T[:, :3, 3] + offset
        return Cameras(T, camera.intrinsics)

    offset = torch.zeros(3, requires_grad=True)
    weight = torch.linspace(0, 1, 80)[None, None, :, None] * torch.linspace(1, 2, 60)[None, :, None, None]
    loss = (mask_of(mesh, mesh.vertices, camera_at(offset), 60, 80) * weight).sum()
    (gradient,) = torch.autograd.grad(loss, offset)
    difference = torch.zeros(3)
    for axis in range(3):
        for sign in (-1, 1):
            moved = camera_at(sign * 0.02 * torch.eye(3)[axis])
            alpha = render(mesh, moved, 60, 80, samples=8).alpha
            difference[axis] += sign * (alpha[..., None] * weight[:, None]).sum() / 0.04
    assert (gradient - difference).norm() < 0.03 * difference.norm()


def test_antialiased_coverage_is_near_the_true_one():
    mesh = sphere(5)
    cameras = Cameras.orbit(2, 25.0)
    truth = render(mesh, cameras, 90, 110, samples=16).alpha[:, 0]
    hard = (rasterize(mesh.vertices, mesh.faces, cameras, 90, 110).face_ids >= 0).float()
    soft = mask_of(mesh, mesh.vertices, cameras, 90, 110)[..., 0]
    outline = (truth > 0) & (truth < 1)
    assert (hard - truth)[outline].square().mean().sqrt() > 0.2
    assert (soft - truth)[outline].square().mean().sqrt() < 0.05
    far = torch.nn.functional.max_pool2d(outline.float()[:, None], 3, 1, 1)[:, 0] == 0
    assert torch.equal(soft[far], truth[far])


def test_antialiasing_stays_within_its_colors_and_keeps_a_flat_picture():
    mesh = soup(3, 80, 1.0)
    fragments = rasterize(mesh.vertices, mesh.faces, Cameras.orbit(2), 60, 50)
    image = random(5, 2, 60, 50, 3)
    smooth = antialias(image, fragments, mesh.faces)
    assert not torch.equal(smooth, image)
    assert smooth.min() >= image.min()
    assert smooth.max() <= image.max()
    flat = torch.full((2, 60, 50, 1), 0.3)
    assert torch.equal(antialias(flat, fragments, mesh.faces), flat)


def test_only_the_nearer_of_two_squares_feels_the_edge_between_them():
    front, back = turned_square(10.0, 0.0) + torch.tensor([0.6, 0, 0]), 4 * turned_square(20.0, 0.0)
    vertices = torch.cat([front, back]).requires_grad_()
    faces = torch.cat([SQUARE_FACES, SQUARE_FACES + 4])
    fragments = rasterize(vertices, faces, Cameras.orbit(1, 5.0, fov_deg=30.0), 100, 100)
    assert (fragments.face_ids >= 0).all()
    image = (fragments.face_ids < 2).float()[..., None]
    (gradient,) = torch.autograd.grad(antialias(image, fragments, faces).sum(), vertices)
    expected = torch.autograd.grad(
        outline_area_px(vertices[:4], Cameras.orbit(1, 5.0, fov_deg=30.0), 100, 100), vertices
    )[0]
    assert (gradient - expected).norm() < 0.03 * expected.norm()
    assert gradient[4:].eq(0).all()


def test_no_silhouette_is_seen_on_an_inner_edge():
    """A picture of face numbers stays sharp where faces of one surface meet."""
    mesh = sphere(2)
    fragments = rasterize(mesh.vertices, mesh.faces, Cameras.orbit(1, fov_deg=18.0), 80, 80)
    assert (fragments.face_ids >= 0).all()
    image = fragments.face_ids.float()[..., None]
    assert torch.equal(antialias(image, fragments, mesh.faces), image)


@pytest.mark.parametrize("quantity", ["barycentrics", "depth_z", "colors"])
def test_inside_faces_gradients_are_finite_differences(quantity):
    vertices = torch.tensor([[0.2, -0.9, -0.7], [-0.5, 0.8, -0.6], [0.6, 0.1, 0.9]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    camera = Cameras.orbit(1, 10.0)
    inside = rasterize(vertices, faces, camera, 24, 24).barycentrics.amin(3) > 0.05
    weight = random(4, 1, 24, 24, 3) * inside[..., None]
    colors = random(6, 3, 3)

    def loss(vertices: torch.Tensor) -> torch.Tensor:
        fragments = rasterize(vertices, faces, camera, 24, 24)
        values = {
            "barycentrics": fragments.barycentrics,
            "depth_z": fragments.depth_z[..., None],
            "colors": interpolate(fragments, faces, colors),
        }[quantity]
        return (values.double() * weight).sum()

    parameter = vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(parameter), parameter)
    for i in range(3):
        for axis in range(3):
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[i, axis] = 1e-3
            difference = (loss(vertices + step) - loss(vertices - step)).item() / 2e-3
            assert gradient[i, axis].item() == pytest.approx(difference, rel=2e-3, abs=2e-2)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_compiled_and_plain_paths_have_equal_values_and_gradients(plain_torch, repeat, spread):
    mesh = soup(7, 60, spread)  # spread 5 reaches behind the cameras
    cameras = Cameras.orbit(3, 12.0)
    weight = random(8, 3, 36, 44, 5)

    def run() -> list[torch.Tensor]:
        vertices, uv, texture = (value.clone().requires_grad_() for value in (mesh.vertices, mesh.uv, mesh.texture))
        T = cameras.T_world_camera.clone().requires_grad_()
        posed = Cameras(T, cameras.intrinsics)
        fragments = rasterize(vertices, mesh.faces, posed, 36, 44)
        levels = mip_levels(fragments, mesh.faces, mesh.uv, mesh.uv_faces, 40, 56)
        uv_image = interpolate(fragments, mesh.uv_faces, uv)
        color = sample_texture(texture, uv_image.flatten(0, 2), levels.flatten(), repeat, smallest_mip_px=8)
        seen = (fragments.face_ids >= 0).float()
        layers = [seen, fragments.depth_z.clamp(max=9)]
        image = torch.cat([color.view(3, 36, 44, 3), torch.stack(layers, dim=3)], dim=3)
        image = antialias(image, fragments, mesh.faces)
        return [image.detach(), *torch.autograd.grad((image * weight).sum(), [vertices, uv, texture, T])]

    compiled = run()
    plain_torch()
    for a, b in zip(compiled, run(), strict=True):
        assert a.isfinite().all()
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4 * float(b.abs().max()))


def test_both_paths_find_the_same_silhouettes(plain_torch):
    for mesh in (soup(9, 200, 1.0), soup(10, 100, 4.0), sphere(4)):
        fragments = rasterize(mesh.vertices, mesh.faces, Cameras.orbit(3, 30.0), 40, 60)
        partners = edge_partners(mesh.faces)
        compiled = silhouettes._find_silhouettes_cpu(fragments, mesh.faces, partners)
        assert (compiled >= 0).sum() > 20
        assert torch.equal(compiled, silhouettes._find_silhouettes_torch(fragments, mesh.faces, partners))


def test_gradients_do_not_depend_on_the_number_of_threads():
    mesh = soup(12, 100, 1.0)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            vertices, uv = mesh.vertices.clone().requires_grad_(), mesh.uv.clone().requires_grad_()
            fragments = rasterize(vertices, mesh.faces, Cameras.orbit(1), 70, 70)
            image = antialias(interpolate(fragments, mesh.uv_faces, uv), fragments, mesh.faces)
            results.append(torch.autograd.grad(image.square().sum(), [vertices, uv]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[1], results[0][1])
        torch.testing.assert_close(other[0], results[0][0], rtol=1e-5, atol=1e-5)  # torch's own sums over vertices


def test_a_texture_is_recovered_from_its_pictures():
    """A step against the gradient of a quadratic lowers it: the lookup's gradient is its transpose."""
    texture = random(14, 3, 32, 48)
    uv = random(15, 300, 2)
    levels = random(16, 300) * 3 - 1
    weight = random(17, 300, 3)

    def lookup(texture: torch.Tensor) -> torch.Tensor:
        return sample_texture(texture, uv, levels, smallest_mip_px=4)

    parameter = texture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((lookup(parameter) * weight).sum(), parameter)
    # Linear in the texture: <gradient, texture> is the value itself, for any texture.
    for seed in (18, 19):
        other = random(seed, 3, 32, 48)
        assert (gradient * other).sum().item() == pytest.approx((lookup(other) * weight).sum().item(), rel=1e-4)


def test_edge_partners_ring_the_faces_around_each_edge():
    fan = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4], [2, 1, 5]])  # three faces on edge 0-1, two on 1-2
    for faces in (fan, sphere(2).faces):
        partners = edge_partners(faces).flatten().tolist()
        edges = [frozenset(e) for f in faces.tolist() for e in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))]
        assert sorted(partners) == list(range(len(edges)))
        for start, edge in enumerate(edges):
            ring, at = {start}, partners[start]
            while at != start:
                ring.add(at)
                at = partners[at]
            assert ring == {i for i, other in enumerate(edges) if other == edge}
