"""The rasteriser against exact arithmetic, ray casting, its torch twin and its own laws."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import Delaunay

import checked_kernels
from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster import (
    Fragments,
    coverage,
    depth_tolerance,
    interpolate,
    mip_levels,
    rasterize,
    render,
    sample_texture,
)

SUBPIXEL = 4096


def picture_plane_camera() -> Cameras:
    """At the origin, looking along -z; the point (u - 0.5, 0.5 - v, -1) falls on exactly (u, v)."""
    return Cameras(torch.eye(4)[None], torch.tensor([[1.0, 1.0, 0.5, 0.5]]))


def on_picture(xy_px: np.ndarray, size: int, depth_z: float | np.ndarray = 1.0) -> torch.Tensor:
    uv = xy_px / size
    unit = np.stack([uv[:, 0] - 0.5, 0.5 - uv[:, 1], -np.ones(len(uv))], axis=1)
    return torch.from_numpy((unit * np.reshape(depth_z, (-1, 1))).astype(np.float32))


def soup(seed: int, faces: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = (torch.rand(3 * faces, 3, generator=generator) * 2 - 1) * spread
    return vertices, torch.arange(3 * faces).view(faces, 3)


def on_torch_path(monkeypatch: pytest.MonkeyPatch, *arguments) -> Fragments:
    with monkeypatch.context() as patch:
        patch.setattr(coverage, "_rasterize_cpu", coverage._rasterize_torch)
        return rasterize(*arguments)


def assert_identical(a: Fragments, b: Fragments) -> None:
    assert torch.equal(a.face_ids, b.face_ids)
    assert torch.equal(a.barycentrics, b.barycentrics)
    assert torch.equal(a.depth_z, b.depth_z)


def covers_exactly(corners: list[tuple[int, int]], x: Fraction, y: Fraction) -> bool:
    """Whether the point, nudged to the right and far less downwards, is strictly inside: the top-left rule."""
    x, y = x + Fraction(1, 10**30), y + Fraction(1, 10**60)
    sides = []
    for i in range(3):
        (ax, ay), (bx, by) = corners[i], corners[(i + 1) % 3]
        sides.append((bx - ax) * (y - ay) - (by - ay) * (x - ax))
    return all(side > 0 for side in sides) or all(side < 0 for side in sides)


def exact_depth_z(corners: np.ndarray, ray: np.ndarray) -> Fraction:
    """Where the ray (x, y, 1) * depth_z meets the plane of the corners, in rational numbers."""
    a, b, c = ([Fraction(float(value)) for value in corner] for corner in corners)
    ab, ac = [q - p for p, q in zip(a, b, strict=True)], [q - p for p, q in zip(a, c, strict=True)]
    normal = [ab[(i + 1) % 3] * ac[(i + 2) % 3] - ab[(i + 2) % 3] * ac[(i + 1) % 3] for i in range(3)]
    direction = [Fraction(float(ray[0])), Fraction(float(ray[1])), Fraction(1)]
    return sum(n * p for n, p in zip(normal, a, strict=True)) / sum(
        n * d for n, d in zip(normal, direction, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_pixel_shows_what_exact_arithmetic_says(seed):
    vertices, faces = soup(seed, 25)
    cameras = Cameras.orbit(2, 20.0 * seed)
    height, width = 14, 18
    fragments = rasterize(vertices, faces, cameras, height, width)
    homogeneous = cameras.to(dtype=torch.float64).project_homogeneous(vertices.double()).numpy()
    scaled = homogeneous * [width, height, 1]
    for view in range(2):
        snapped = np.rint(scaled[view, :, :2] / scaled[view, :, 2:] * SUBPIXEL).astype(int).tolist()
        for row in range(height):
            for col in range(width):
                x, y = Fraction(2 * col + 1, 2), Fraction(2 * row + 1, 2)
                depths = {
                    face: exact_depth_z(scaled[view, corners], np.array([col + 0.5, row + 0.5]))
                    for face, corners in enumerate(faces.tolist())
                    if covers_exactly([tuple(snapped[i]) for i in corners], x * SUBPIXEL, y * SUBPIXEL)
                }
                found = fragments.face_ids[view, row, col].item()
                assert (found == -1) == (not depths)
                if not depths:
                    assert fragments.depth_z[view, row, col] == 0
                    assert fragments.barycentrics[view, row, col].eq(0).all()
                    continue
                # Vertices are rounded for coverage only, so a centre within 1/8192 px of an edge has a
                # depth outside the face; the rasteriser keeps to the face.
                nearest = min(depths.values())
                assert float(depths[found]) <= float(nearest) * (1 + 1e-6)
                assert fragments.depth_z[view, row, col].item() == pytest.approx(float(depths[found]), rel=1e-4)
                weights = fragments.barycentrics[view, row, col].double().numpy()
                assert weights.min() >= 0
                assert weights.sum() == pytest.approx(1, abs=1e-6)
                projected = weights @ scaled[view, faces[found].numpy()]
                assert projected[:2] / projected[2] == pytest.approx([col + 0.5, row + 0.5], abs=1e-3)


@pytest.mark.parametrize("spread", [1.0, 6.0])
@pytest.mark.parametrize("candidates_at_once", [1 << 21, 64])
def test_the_torch_path_gives_the_same_bits(monkeypatch, spread, candidates_at_once):
    monkeypatch.setattr(coverage, "_CANDIDATES_AT_ONCE", candidates_at_once)
    vertices, faces = soup(3, 60, spread)  # spread 6 reaches behind the cameras
    arguments = (vertices, faces, Cameras.orbit(3, 10.0), 40, 33)
    assert_identical(rasterize(*arguments), on_torch_path(monkeypatch, *arguments))


def test_the_number_of_threads_changes_nothing():
    vertices, faces = soup(4, 300)
    arguments = (vertices, faces, Cameras.orbit(1), 61, 47)
    many = rasterize(*arguments)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 8):
            torch.set_num_threads(threads)
            assert_identical(rasterize(*arguments), many)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("step", [2, 4])
def test_a_triangulated_disc_covers_every_pixel_once(step):
    """Corners lie on pixel centres and pixel corners (half pixels), and between (quarter pixels)."""
    size = 32
    generator = np.random.default_rng(step)
    points = np.unique(generator.integers(0, size * step, (120, 2)), axis=0) / step
    points = points[np.hypot(*(points - size / 2).T) <= 14]
    triangles = Delaunay(points).simplices
    vertices = on_picture(points, size)
    faces = torch.from_numpy(triangles.astype(np.int64))
    flip = torch.arange(len(faces)) % 2 == 0  # the rule may not depend on the winding
    faces[flip] = faces[flip][:, [0, 2, 1]]
    camera = picture_plane_camera()
    count = sum((rasterize(vertices, face[None], camera, size, size).face_ids[0] >= 0).int() for face in faces)
    whole = rasterize(vertices, faces, camera, size, size).face_ids[0] >= 0
    assert torch.equal(count, whole.int())
    ring = Delaunay(points).convex_hull
    middles = points[ring].mean(1)
    assert len(middles) > 8
    rows, cols = np.mgrid[:size, :size] + 0.5
    inside = Delaunay(points).find_simplex(np.stack([cols.ravel(), rows.ravel()], 1)) >= 0
    # On the hull's own outline the rule decides; a nudge to the lower right settles it for the twin.
    nudged = Delaunay(points).find_simplex(np.stack([cols.ravel() + 1e-6, rows.ravel() + 1e-9], 1), tol=0) >= 0
    assert inside.sum() > 300
    assert np.array_equal(whole.numpy().ravel(), nudged)


def test_a_floor_under_the_camera_is_covered_once_up_to_the_horizon():
    """Triangles of a plane that reach behind the camera and far aside: clipped, watertight, right depth."""
    x = torch.tensor([-1e5, -3.0, -0.4, 0.1, 2.0, 5e4])
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), dim=2).flatten(0, 1)
    vertices = torch.cat([grid, torch.full((36, 1), -0.7)], dim=1)
    cell = torch.tensor([6 * i + j for i in range(5) for j in range(5)])
    faces = torch.cat([torch.stack([cell, cell + 6, cell + 7], dim=1), torch.stack([cell, cell + 7, cell + 1], dim=1)])
    camera = Cameras.look_at(torch.tensor([[0.05, 0.02, 0.0]]), 90.0, target=torch.tensor([1.0, 0.3, 0.0]))
    height, width = 48, 64
    count = sum((rasterize(vertices, face[None], camera, height, width).face_ids[0] >= 0).int() for face in faces)
    assert torch.equal(count[24:], torch.ones(24, width, dtype=torch.int32))
    assert count[:24].sum() == 0
    depth_z = rasterize(vertices, faces, camera, height, width).depth_z[0]
    rays = camera.rays(height, width)
    distance = -0.7 / rays.directions[0, 24:, :, 2]
    forward = -camera.T_world_camera[0, :3, 2]
    torch.testing.assert_close(depth_z[24:], distance * (rays.directions[0, 24:] @ forward), rtol=1e-3, atol=0)


@pytest.mark.parametrize("position", [[4.0, 0.0, 1.0], [0.1, 0.2, 0.05]], ids=["outside", "inside"])
def test_ray_casting_finds_the_same_faces(position):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    generator = np.random.default_rng(7)
    points = mesh.vertices * generator.uniform(0.4, 1.0, (len(mesh.vertices), 1))
    mesh = trimesh.Trimesh(points, mesh.faces, process=False)
    camera = Cameras.look_at(torch.tensor([position]), 50.0, target=torch.tensor([0.0, 0.01, 0.0]))
    vertices, faces = torch.tensor(points, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.long)
    fragments = rasterize(vertices, faces, camera, 64, 80)
    rays = camera.rays(64, 80)
    hit = mesh.ray.intersects_first(rays.origins.reshape(-1, 3).numpy(), rays.directions.reshape(-1, 3).numpy())
    found = fragments.face_ids.flatten().numpy()
    # A ray that meets an edge may go either way in single precision.
    assert (hit != found).mean() < 2e-3
    assert (hit >= 0).mean() > 0.15


def test_interpolated_positions_lie_on_the_rays_of_their_pixels():
    vertices, faces = soup(5, 40, 3.0)
    cameras = Cameras.orbit(3, 15.0)
    fragments = rasterize(vertices, faces, cameras, 30, 40)
    points = interpolate(fragments, faces, vertices)
    for view in range(3):
        seen = fragments.face_ids[view] >= 0
        uv, depth_z = cameras[[view]].project(points[view][seen])
        row, col = seen.nonzero().unbind(1)
        torch.testing.assert_close(depth_z[0], fragments.depth_z[view][seen], rtol=1e-4, atol=1e-5)
        pixel = torch.stack([(col + 0.5) / 40, (row + 0.5) / 30], dim=1)
        near = depth_z[0] > 0.1  # nearer, single precision itself moves the point by more
        torch.testing.assert_close(uv[0][near], pixel[near], rtol=0, atol=1e-4)
    assert points[fragments.face_ids < 0].eq(0).all()


@pytest.mark.parametrize("tilt_deg", [0.0, 30.0, 60.0, 70.0])
def test_depths_of_a_plane_stay_within_the_tolerance_from_pixel_to_pixel_and_use_most_of_it(tilt_deg):
    slope = np.tan(np.deg2rad(tilt_deg))
    corners = torch.tensor([[x, y, -4.0 - slope * x] for x, y in ((-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4))])
    camera = Cameras(torch.eye(4)[None], torch.tensor([[8.0, 8.0, 0.5, 0.5]]))  # a long lens: nearly parallel rays
    fragments = rasterize(corners.float(), torch.tensor([[0, 1, 2], [0, 2, 3]]), camera, 64, 64)
    depth_z = fragments.depth_z[0, 32][fragments.depth_z[0, 32] > 0]
    difference = depth_z.diff().abs()
    cos = torch.full_like(difference, float(np.cos(np.deg2rad(tilt_deg))))
    tolerance = depth_tolerance(depth_z[1:], cos, torch.tensor(8.0 * 64))
    assert len(difference) > 30
    assert (difference < tolerance).all()
    if tilt_deg >= 60:
        assert (difference > 0.5 * tolerance).all()


def test_homogeneous_projection_divides_to_project():
    vertices, _ = soup(6, 30)
    cameras = Cameras.orbit(4, 20.0, aspect=1.5)
    uv, depth_z = cameras.project(vertices)
    homogeneous = cameras.project_homogeneous(vertices)
    torch.testing.assert_close(homogeneous[..., :2] / homogeneous[..., 2:], uv, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(homogeneous[..., 2], depth_z, rtol=1e-5, atol=1e-6)


def test_the_worlds_up_is_towards_row_zero_and_the_cameras_right_towards_the_last_column():
    small = torch.tensor([[0.0, 0.0, 0.8], [0.0, 0.1, 0.6], [0.0, -0.1, 0.6]])
    up = rasterize(small, torch.tensor([[0, 1, 2]]), Cameras.orbit(1), 64, 64).face_ids[0]
    rows, cols = (up >= 0).nonzero().unbind(1)
    assert rows.max() < 20
    assert cols.float().mean().item() == pytest.approx(31.5, abs=0.5)
    right = small + torch.tensor([0.0, 0.7, -0.7])  # seen from +x, +y is on the right
    _, cols = (rasterize(right, torch.tensor([[0, 1, 2]]), Cameras.orbit(1), 64, 64).face_ids[0] >= 0).nonzero().T
    assert cols.min() > 40


def test_of_equal_faces_the_lowest_is_seen():
    vertices = on_picture(np.array([[2.0, 1.0], [13.0, 3.0], [5.0, 14.0]]), 16, np.array([1.0, 2.0, 3.0]))
    faces = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 1, 0]])
    ids = rasterize(vertices, faces, picture_plane_camera(), 16, 16).face_ids
    assert set(ids.unique().tolist()) == {-1, 0}


def test_faces_that_cannot_be_drawn_are_left_out(monkeypatch):
    nan, inf = float("nan"), float("inf")
    good = on_picture(np.array([[2.0, 1.0], [13.0, 3.0], [5.0, 14.0]]), 16)
    bad = torch.tensor([[nan, 0, -1], [inf, 0, -1], [0, -inf, -1], [0.1, 0.1, 0], [0, 0, 2.0], [0.3, 0.1, 1.0]])
    vertices = torch.cat([good, bad])
    line = [[0, 0, 1], [0, 0, 0]]
    not_finite = [[0, 1, 3], [4, 1, 2], [0, 5, 2]]
    behind = [[6, 7, 8]]
    faces = torch.tensor([*line, *not_finite, *behind, [0, 1, 2]])
    arguments = (vertices, faces, picture_plane_camera(), 16, 16)
    fragments = rasterize(*arguments)
    assert set(fragments.face_ids.unique().tolist()) == {-1, 6}
    assert_identical(fragments, on_torch_path(monkeypatch, *arguments))
    empty = rasterize(vertices, faces[:0], picture_plane_camera(), 16, 16)
    assert empty.face_ids.eq(-1).all()


def test_a_face_that_names_a_missing_vertex_is_refused():
    vertices, faces = soup(0, 3)
    for wrong in (9, -1):
        faces[1, 2] = wrong
        with pytest.raises(IndexError, match="there are 9 points"):
            rasterize(vertices, faces, Cameras.orbit(1), 8, 8)


def test_slivers_seen_edge_on_stay_within_their_corners():
    """A ribbon whose rounded width is not its true one must not throw depths or weights beyond its corners."""
    generator = np.random.default_rng(11)
    along = generator.integers(-4, 5, (400, 1, 2)) * np.array([0.0, 1.0, 3.0])[:, None]
    xy = generator.integers(8, 56, (400, 1, 2)) + 0.5 + along + generator.normal(0, 1e-4, (400, 3, 2))
    depth_z = generator.uniform(1, 3, 1200)
    vertices = on_picture(xy.reshape(-1, 2), 64, depth_z)
    faces = torch.arange(1200).view(400, 3)
    fragments = rasterize(vertices, faces, picture_plane_camera(), 64, 64)
    seen = fragments.face_ids >= 0
    assert seen.sum() > 20
    corners_z = -vertices[faces[fragments.face_ids[seen]]][:, :, 2]
    assert (fragments.depth_z[seen] >= corners_z.amin(1) * (1 - 1e-6)).all()
    assert (fragments.depth_z[seen] <= corners_z.amax(1) * (1 + 1e-6)).all()


def quad_in_the_picture(size: int, texture: torch.Tensor, tiles: float = 1.0, depth_z: float = 1.0) -> Mesh:
    """A square that fills the picture of ``picture_plane_camera``, its texture upright and ``tiles`` times across."""
    corners = np.array([[0.0, 0.0], [0.0, size], [size, size], [size, 0.0]])
    uv = torch.tensor([[0.0, tiles], [0.0, 0.0], [tiles, 0.0], [tiles, tiles]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(on_picture(corners, size, depth_z), faces, uv=uv, uv_faces=faces, texture=texture)


def random_texture(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))


def test_a_texture_seen_texel_by_pixel_is_the_picture():
    texture = random_texture(32, 32)
    rendered = render(quad_in_the_picture(32, texture), picture_plane_camera(), 32, 32, samples=1)
    torch.testing.assert_close(rendered.rgb[0], texture, atol=2e-5, rtol=0)
    assert rendered.alpha.eq(1).all()
    torch.testing.assert_close(rendered.depth_z, torch.ones(1, 1, 32, 32))
    torch.testing.assert_close(rendered.normals[0, 2], torch.ones(32, 32))


def test_a_repeated_texture_tiles_the_picture():
    texture = random_texture(16, 16)
    mesh = quad_in_the_picture(32, texture, tiles=2.0)
    rendered = render(mesh, picture_plane_camera(), 32, 32, samples=1, repeat=True)
    torch.testing.assert_close(rendered.rgb[0], texture.repeat(1, 2, 2), atol=2e-5, rtol=0)


@pytest.mark.parametrize("repeat", [False, True])
def test_bilinear_lookup_matches_a_loop(repeat):
    texture = random_texture(5, 7)
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(200, 2, generator=generator) * 4 - 2
    found = sample_texture(texture, uv, repeat=repeat)
    for (u, v), color in zip(uv.double().tolist(), found, strict=True):
        x, y = u * 7 - 0.5, (1 - v) * 5 - 0.5
        expected = torch.zeros(3)
        for row in range(int(np.floor(y)), int(np.floor(y)) + 2):
            for col in range(int(np.floor(x)), int(np.floor(x)) + 2):
                at = (row % 5, col % 7) if repeat else (min(max(row, 0), 4), min(max(col, 0), 6))
                expected += texture[:, at[0], at[1]] * (1 - abs(x - col)) * (1 - abs(y - row))
        torch.testing.assert_close(color, expected, atol=2e-5, rtol=0)


def test_mip_levels_count_texels_per_pixel():
    """A slanted quad in perspective: against differences of uv between neighbouring points."""
    texture = random_texture(256, 128)
    mesh = quad_in_the_picture(32, texture, depth_z=np.array([1.0, 1.5, 4.0, 2.0]))
    fine, coarse = (rasterize(mesh.vertices, mesh.faces, picture_plane_camera(), s, s) for s in (3200, 32))
    levels = mip_levels(coarse, mesh.faces, mesh.uv, mesh.uv_faces, 256, 128)
    uv = interpolate(fine, mesh.uv_faces, mesh.uv) * torch.tensor([128, 256])
    uv = uv[0, 45::100, 45::100], uv[0, 45::100, 55::100], uv[0, 55::100, 45::100]
    across, down = (uv[1] - uv[0]) * 10, (uv[2] - uv[0]) * 10
    expected = torch.maximum(across.norm(dim=2), down.norm(dim=2)).log2()
    one_face = (torch.arange(32)[:, None] - torch.arange(32)).abs() > 1
    assert (coarse.face_ids[0] >= 0).all()
    torch.testing.assert_close(levels[0][one_face], expected[one_face], atol=0.02, rtol=0)


def test_a_minified_texture_is_averaged_but_a_palette_is_not():
    checker = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    texture = checker.float().expand(3, -1, -1)
    small = render(quad_in_the_picture(32, texture), picture_plane_camera(), 32, 32, samples=1, smallest_mip_px=8)
    torch.testing.assert_close(small.rgb, torch.full_like(small.rgb, 0.5), atol=1e-4, rtol=0)
    palette = texture[:, :16, :16]
    uv = torch.full((4, 2), 0.5 / 16)
    levels = torch.tensor([0.0, 1.0, 3.0, 9.0])
    assert torch.equal(sample_texture(palette, uv, levels), sample_texture(palette, uv))
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
    assert sample_texture(texture, strange[:, None].expand(4, 2), strange).shape == (4, 3)  # and no crash


def test_lookup_between_levels_is_their_blend():
    texture = random_texture(64, 32)
    uv = torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
    half = torch.nn.functional.avg_pool2d(texture, 2)
    expected = 0.75 * sample_texture(texture, uv) + 0.25 * sample_texture(half, uv)
    found = sample_texture(texture, uv, torch.full((50,), 0.25), smallest_mip_px=8)
    torch.testing.assert_close(found, expected)


def test_supersampled_alpha_is_the_covered_share_and_colors_stand_on_the_background():
    corners = np.array([[4.0, 4.0], [4.0, 9.5], [9.5, 9.5], [9.5, 4.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    red = torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3)
    mesh = Mesh(on_picture(corners, 16), faces, vertex_colors=red)
    rendered = render(mesh, picture_plane_camera(), 16, 16, samples=2, background=0.2)
    expected = torch.zeros(16, 16)
    expected[4:10, 4:10] = 1
    expected[9, :] *= 0.5
    expected[:, 9] *= 0.5
    torch.testing.assert_close(rendered.alpha[0, 0], expected)
    torch.testing.assert_close(rendered.rgb[0, 0], expected * 1.0 + (1 - expected) * 0.2)
    torch.testing.assert_close(rendered.rgb[0, 1], (1 - expected) * 0.2)


def test_a_mesh_without_colors_is_drawn_as_clay():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    mesh = Mesh(torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(sphere.faces, dtype=torch.long))
    rendered = render(mesh, Cameras.orbit(2, fov_deg=35.0), 64, 64)
    assert rendered.rgb[:, :, 31:33, 31:33].sub(0.8).abs().max() < 0.02
    seen = rendered.depth_z > 0
    torch.testing.assert_close(rendered.normals.norm(dim=1, keepdim=True)[seen], torch.ones(int(seen.sum())))
    assert rendered.rgb[:, :, 0, 0].eq(1).all()


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_a_scene_of_another_unit_gives_the_same_pictures(scale):
    """Powers of two, so that nothing is rounded: not only the same within a tolerance."""
    sphere = trimesh.creation.icosphere(subdivisions=5)
    mesh = Mesh(torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(sphere.faces, dtype=torch.long))
    cameras = Cameras.orbit(2, 20.0)
    T = cameras.T_world_camera.clone()
    T[:, :3, 3] *= scale
    ours = render(mesh, cameras, 48, 48)
    scaled = render(mesh.replace(vertices=mesh.vertices * scale), Cameras(T, cameras.intrinsics), 48, 48)
    assert torch.equal(scaled.alpha, ours.alpha)
    assert torch.equal(scaled.depth_z, ours.depth_z * scale)
    torch.testing.assert_close(scaled.normals, ours.normals, atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.rgb, ours.rgb, atol=1e-5, rtol=0)


def test_impossible_coordinates_overflow_no_integer_and_leave_no_array():
    """Checked in plain Python, see checked_kernels.py; what is compiled sees the same faces in the same pixels."""
    checked = subprocess.run(
        [sys.executable, checked_kernels.__file__, "0", "40"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.strip() == checked_kernels.draw(0, 40)
