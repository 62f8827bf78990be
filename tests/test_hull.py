"""The visual hull against cones in closed form, direct projection and brute force."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.cameras import Cameras
from meshwright.errors import InputError
from meshwright.evaluate import Scored
from meshwright.options import ColorOptions, ShapeOptions
from meshwright.raster import rasterize
from meshwright.reconstruct import finish, start_shape
from meshwright.shape import VisualHull, outline_distances_px, visual_hull
from meshwright.shape.hull import agreement
from meshwright.shape.hull.agreement import agreeing_views
from meshwright.shape.hull.cones import Silhouettes, ViewingCones
from meshwright.shape.hull.outlines import _outline_segments
from meshwright.shape.refine import Refined
from meshwright.shape.refine.pyramid import Pictures
from meshwright.views import Views

RADIUS = 0.7
SIZE_PX = 128


def ring(count=21, elevations_deg=(-15.0, 15.0, 45.0), radius=4.0, fov_deg=30.0):
    azimuths_deg = [i * 360 / count for i in range(count)]
    elevations = [elevations_deg[i % len(elevations_deg)] for i in range(count)]
    return Cameras.spherical(azimuths_deg, elevations, radius, fov_deg)


def views_of(alpha, cameras):
    sizes_px = torch.tensor([alpha.shape[2:]] * len(alpha))
    images = (1 - alpha).expand(-1, 3, -1, -1)
    return Views(images, alpha, cameras, sizes_px, tuple(str(i) for i in range(len(alpha))))


def ball_views(cameras, centre=(0.0, 0.0, 0.0), radius=RADIUS, size_px=SIZE_PX, samples=4):
    """Pictures of a ball: the coverage of each pixel by its silhouette, from rays that meet the ball or do not."""
    rays = cameras.rays(size_px * samples, size_px * samples)
    to_centre = torch.tensor(centre) - rays.origins
    along = (to_centre * rays.directions).sum(3)
    passing = (to_centre.square().sum(3) - along.square()).clamp(min=0).sqrt()
    hit = ((passing < radius) & (along > 0)).float()[:, None]
    return views_of(torch.nn.functional.avg_pool2d(hit, samples), cameras)


def distance_to_ball_cones(points, cameras, radius=RADIUS):
    """Exact distance to each cone that touches the ball at the origin: (views, points)."""
    from_camera = points - cameras.positions[:, None].double()
    distance = from_camera.norm(dim=2)
    axis = -torch.nn.functional.normalize(cameras.positions.double(), dim=1)
    angle = ((from_camera * axis[:, None]).sum(2) / distance).clamp(-1, 1).acos()
    opening = (radius / cameras.positions.double().norm(dim=1, keepdim=True)).asin()
    return distance * (angle - opening).sin()


def silhouette_iou(mesh, views):
    height, width = views.alpha.shape[2:]
    drawn = rasterize(mesh.vertices, mesh.faces, views.cameras, height, width).face_ids >= 0
    given_ = views.alpha[:, 0] >= 0.5
    return (drawn & given_).sum((1, 2)) / (drawn | given_).sum((1, 2))


# --- outlines in a picture


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 2 * math.pi), st.floats(8, 24), st.floats(8, 24))
def test_the_distance_to_a_straight_soft_edge_is_right_to_a_twentieth_of_a_pixel(angle, x, y):
    rows, columns = np.mgrid[:32, :32]
    distance = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
    alpha = torch.tensor(0.5 - distance / 100).float()[None, None]
    found = outline_distances_px(alpha, torch.tensor([[32, 32]]))[0, 0].numpy()
    foot_y, foot_x = rows - distance * math.sin(angle), columns - distance * math.cos(angle)
    line_is_in_picture = (foot_y > 0.1) & (foot_y < 30.9) & (foot_x > 0.1) & (foot_x < 30.9)
    np.testing.assert_allclose(found[line_is_in_picture], distance[line_is_in_picture], atol=0.05)


def test_the_distance_to_a_disc_is_right_to_a_tenth_of_a_pixel():
    rows, columns = np.mgrid[:100, :120]
    distance = np.hypot(columns - 57.3, rows - 48.8) - 30.4
    alpha = torch.tensor(np.clip(0.5 - distance, 0, 1)).float()[None, None]
    found = outline_distances_px(alpha, torch.tensor([[100, 120]]))[0, 0].numpy()
    assert np.abs(found - distance).max() < 0.11  # the bilinear interpolant of a clipped ramp is off by up to 0.09


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_propagated_distances_equal_the_minimum_over_all_segments(seed):
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.rand(1, 1, 6, 7, generator=generator)
    alpha = torch.nn.functional.interpolate(blobs, (40, 50), mode="bicubic").clamp(0, 1)
    found = outline_distances_px(alpha, torch.tensor([[40, 50]]))[0, 0]
    segments = torch.from_numpy(_outline_segments((alpha[0, 0] - 0.5).numpy()))
    pixels = torch.cartesian_prod(torch.arange(40.0), torch.arange(50.0))[:, None]
    start, along = segments[:, 2:4], segments[:, 4:6]
    t = (((pixels - start) * along).sum(2) / along.square().sum(1).clamp(min=1e-12)).clamp(0, 1)
    brute = (pixels - start - t[..., None] * along).norm(dim=2).amin(1).view(40, 50)
    assert torch.equal(found < 0, alpha[0, 0] > 0.5)
    # A distance transform by propagation misses the nearest segment now and then, by far less than a pixel.
    torch.testing.assert_close(found.abs(), brute, atol=0.1, rtol=0)
    assert (found.abs() - brute).abs().mean() < 1e-3


def test_pictures_without_an_outline_are_all_inside_or_all_outside():
    alpha = torch.stack([torch.zeros(1, 8, 6), torch.ones(1, 8, 6)])
    found = outline_distances_px(alpha, torch.tensor([[8, 6]] * 2))
    torch.testing.assert_close(found, torch.tensor([10.0, -10.0])[:, None, None, None].expand_as(found))


def test_beyond_its_border_a_picture_goes_on_as_it_ends():
    cameras = ring(1)
    alpha = torch.zeros(1, 1, 40, 50)
    alpha[:, :, 10:30, :20] = 1  # a 40 x 30 picture on a larger canvas; the object leaves it to the left
    views = dataclasses.replace(views_of(alpha, cameras), sizes_px=torch.tensor([[40, 30]]))
    silhouettes = Silhouettes.from_views(views)
    canvas = torch.tensor([50.0, 40.0])
    outside_px = torch.tensor([[[-9.0, 20.0], [-9.0, 2.0], [45.0, 20.0], [5.0, 77.0]]])
    border_px = torch.tensor([[[0.5, 20.0], [0.5, 2.0], [29.5, 20.0], [5.0, 39.5]]])
    found = silhouettes.distances_at(outside_px / canvas)
    torch.testing.assert_close(found, silhouettes.distances_at(border_px / canvas))
    assert (found < 0).tolist() == [[True, False, False, False]]


# --- cones


def test_a_point_is_inside_exactly_when_every_silhouette_contains_its_projection():
    cameras = ring(9)
    silhouettes = Silhouettes.from_views(ball_views(cameras))
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = distance_to_ball_cones(points, cameras)
    found = silhouettes.distances_to_cones(points)
    fifth_of_a_pixel = 0.2 * 4 / (SIZE_PX * float(cameras.intrinsics[0, 0]))
    sure = (exact.abs() > fifth_of_a_pixel).all(0)
    assert sure.float().mean() > 0.9
    assert torch.equal((found.amax(0) < 0)[sure], (exact < 0).all(0)[sure])


def test_near_its_surface_the_field_is_the_distance_to_the_cone():
    cameras = ring(5)
    silhouettes = Silhouettes.from_views(ball_views(cameras))
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    exact = distance_to_ball_cones(points, cameras).float()
    near = exact.abs() < 0.05
    found = silhouettes.distances_to_cones(points)
    pixel = 4 / (SIZE_PX * float(cameras.intrinsics[0, 0]))
    assert (found - exact)[near].abs().max() < 0.1 * 0.05 + 0.2 * pixel


def test_what_is_behind_a_camera_is_outside_of_its_cone():
    cameras = ring(1, elevations_deg=(0.0,))
    silhouettes = Silhouettes.from_views(ball_views(cameras))
    found = silhouettes.distances_to_cones(torch.tensor([[6.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert found[0, 0] == pytest.approx(2.0)
    assert found[0, 1] >= 0
    assert found[0, 2] < 0


def test_moving_object_and_cameras_moves_the_field():
    cameras = ring(7)
    silhouettes = Silhouettes.from_views(ball_views(cameras))
    offset = torch.tensor([5.0, -3.0, 2.0])
    T_moved = cameras.T_world_camera.clone()
    T_moved[:, :3, 3] += offset
    moved = dataclasses.replace(silhouettes, cameras=Cameras(T_moved, cameras.intrinsics))
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(
        moved.distances_to_cones(points + offset), silhouettes.distances_to_cones(points), atol=1e-4, rtol=1e-4
    )


# --- the field on a grid


def test_the_field_is_exact_at_every_cube_that_the_surface_crosses_and_right_in_sign_elsewhere():
    views = ball_views(ring())
    hull = visual_hull(views, resolution=48)
    shape = hull.values.shape
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1).view(-1, 3)
    points = hull.origin + hull.cell_size * index
    everywhere = Silhouettes.from_views(views).distances_to_cones(points).amax(0).view(shape)
    assert torch.equal(hull.values < 0, everywhere < 0)
    crossed = everywhere.abs() < hull.cell_size * math.sqrt(3)
    torch.testing.assert_close(hull.values[crossed], everywhere[crossed], atol=2e-6, rtol=1e-5)


def test_the_grid_fits_the_object_and_spends_about_the_cells_it_was_given():
    hull = visual_hull(ball_views(ring()), resolution=48)
    assert 48**3 / 2 < hull.values.numel() < 48**3 * 2
    sides = torch.tensor(hull.values.shape) * hull.cell_size
    assert (sides < 2 * RADIUS * 1.5).all()
    for axis in range(3):
        assert hull.values.index_select(axis, torch.tensor([0, hull.values.shape[axis] - 1])).min() > 0


@pytest.mark.parametrize("surface", ["flexicubes", "marching-cubes"])
def test_the_hull_of_a_ball_is_where_its_cones_meet(surface):
    cameras = ring()
    hull = visual_hull(ball_views(cameras), resolution=64)
    mesh = hull.mesh(surface)
    assert mesh.is_watertight()
    assert mesh.genus() == 0
    assert mesh.volume() > 0
    assert hull.rejected_views == ()
    assert hull.ignored_per_point == 0
    points, _, _ = mesh.sample_surface(5000)
    error = distance_to_ball_cones(points, cameras).amax(0).abs()
    assert error.mean() < 0.05 * hull.cell_size
    assert error.max() < 0.5 * hull.cell_size
    assert points.norm(dim=1).min() > RADIUS - 0.1 * hull.cell_size  # the object is inside its hull


def test_six_far_views_along_the_axes_make_a_cube_of_a_cube():
    distance, half = 40.0, 0.5
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    cameras = Cameras.look_at(axes * distance, fov_deg=3.0)
    rays = cameras.rays(SIZE_PX * 4, SIZE_PX * 4)
    slabs = torch.stack([(-half - rays.origins) / rays.directions, (half - rays.origins) / rays.directions])
    hit = (slabs.amax(0).amin(3) > slabs.amin(0).amax(3)).float()[:, None]
    hull = visual_hull(views_of(torch.nn.functional.avg_pool2d(hit, 4), cameras), resolution=64)
    mesh = hull.mesh()
    assert mesh.is_watertight()
    widest = half * distance / (distance - half)  # the cones part a little behind the front face
    assert mesh.vertices.abs().max() == pytest.approx(widest, abs=0.5 * hull.cell_size)
    assert 1.0 < float(mesh.volume()) < (2 * widest) ** 3
    flat = (mesh.vertices.abs().amax(1) - half).abs()
    assert flat.mean() < 0.5 * hull.cell_size


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.05, (0.2, 0.1, -0.3)), (20.0, (0.0, 0.0, 0.0)), (3.0, (50.0, 9.0, 0.0))]
)
def test_objects_of_any_size_and_place_get_the_same_hull(scale, offset):
    views = ball_views(ring())
    T = views.cameras.T_world_camera.clone()
    T[:, :3, 3] = T[:, :3, 3] * scale + torch.tensor(offset)
    moved = dataclasses.replace(views, cameras=Cameras(T, views.cameras.intrinsics))
    mesh, twin = visual_hull(moved, resolution=48).mesh(), visual_hull(views, resolution=48).mesh()
    assert mesh.is_watertight()
    assert float(mesh.volume()) / scale**3 == pytest.approx(float(twin.volume()), rel=0.003)
    torch.testing.assert_close(
        (mesh.vertices.mean(0) - torch.tensor(offset)) / scale, twin.vertices.mean(0), atol=0.01, rtol=0
    )


def test_the_same_views_give_the_same_hull():
    views = ball_views(ring(7))
    a, b = visual_hull(views, resolution=32), visual_hull(views, resolution=32)
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.origin, b.origin)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_views_give_a_closed_shape_that_fills_their_silhouettes(count):
    views = ball_views(ring(count))
    mesh = visual_hull(views, resolution=64).mesh()
    assert mesh.is_watertight()
    assert silhouette_iou(mesh, views).min() > 0.97
    assert mesh.vertices.abs().max() <= 1.05


# --- views that do not agree


def wrong_silhouettes(alpha):
    noise = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {
        "shifted": alpha.roll(SIZE_PX // 6, 2),
        "empty": torch.zeros_like(alpha),
        "noise": torch.nn.functional.interpolate(noise, (SIZE_PX, SIZE_PX), mode="bicubic").clamp(0, 1)[0],
    }


@pytest.mark.parametrize("kind", ["shifted", "empty", "noise"])
def test_one_wrong_silhouette_of_21_leaves_no_scar(kind):
    cameras = ring()
    views = ball_views(cameras)
    alpha = views.alpha.clone()
    alpha[4] = wrong_silhouettes(alpha[4])[kind]
    hull = visual_hull(dataclasses.replace(views, alpha=alpha), resolution=48)
    assert hull.rejected_views == (4,)
    points, _, _ = hull.mesh().sample_surface(3000)
    others = cameras[[i for i in range(21) if i != 4]]
    assert distance_to_ball_cones(points, others).amax(0).abs().mean() < 0.05 * hull.cell_size


def test_two_wrong_silhouettes_of_21_are_both_found():
    views = ball_views(ring())
    alpha = views.alpha.clone()
    alpha[4], alpha[11] = alpha[4].roll(30, 2), alpha[11].roll(-20, 1)
    hull = visual_hull(dataclasses.replace(views, alpha=alpha), resolution=48)
    assert hull.rejected_views == (4, 11)


def without_disc(views, view, u, v, radius_px):
    """A mask in which a disc about the place (u, v), in picture widths and heights, is background."""
    alpha = views.alpha.clone()
    height, width = alpha.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = (rows + 0.5 - v * height).square() + (columns + 0.5 - u * width).square() < radius_px**2
    alpha[view, 0, disc] = 0
    return dataclasses.replace(views, alpha=alpha), disc


@pytest.mark.parametrize(("count", "u", "v"), [(6, 0.5, 0.22), (10, 0.72, 0.4)])
def test_where_a_mask_lacks_a_piece_the_hull_is_that_of_the_other_views(count, u, v):
    cameras = ring(count)
    views = ball_views(cameras)
    bitten, disc = without_disc(views, 3, u, v, SIZE_PX // 8)
    hull = visual_hull(bitten, resolution=48)
    assert hull.rejected_views == ()
    assert hull.unknown[:, 0].any(2).any(1).nonzero().tolist() == [[3]]
    unknown = hull.unknown[3, 0]
    assert unknown[(views.alpha[3, 0] >= 0.5) & disc].all()
    assert (unknown & ~disc).sum() < 0.6 * disc.sum()
    points, _, _ = hull.mesh().sample_surface(3000)
    distances = distance_to_ball_cones(points, cameras)
    column, row = (cameras[[3]].project(points)[0][0] * SIZE_PX).long().unbind(1)
    assert unknown[row, column].float().mean() > 0.03
    distances[3, unknown[row, column]] = -1
    assert distances.amax(0).abs().quantile(0.95) < 0.3 * hull.cell_size


def test_what_a_mask_lacks_is_neither_fitted_nor_withheld_and_people_are_told(monkeypatch):
    bitten, _ = without_disc(ball_views(ring(6)), 3, 0.5, 0.22, SIZE_PX // 8)
    fitted = []

    def refine_best(meshes, views, **_):
        fitted.append(views)
        return Refined(meshes[0], views, 1.0, 1.0, torch.ones(len(views)))

    monkeypatch.setattr(sys.modules["meshwright.reconstruct"], "refine_best", refine_best)
    start = start_shape(bitten, shape=ShapeOptions(start="hull", resolution=32))
    done = finish(start, bitten, color=ColorOptions(vertex_colors=True))
    (views,) = fitted
    unknown = visual_hull(bitten, resolution=32).unknown
    assert torch.equal(views.unknown, unknown)
    assert torch.equal(done.views.unknown, unknown)
    pictures = Pictures.of(views[[3, 0]], SIZE_PX, 0)
    assert not ((pictures.kept | pictures.withheld)[0] & unknown[3, 0]).any()
    assert (pictures.kept | pictures.withheld)[1].all()
    (warning,) = Scored.of(done.mesh, done.views).warnings()
    assert "'3' lacks a piece" in warning


def test_where_outlines_are_off_everywhere_nobodys_is_mended(monkeypatch):
    """One frame of a generated clip lacks a third of its mask by that measure: all of them contradict each other."""
    bitten, _ = without_disc(ball_views(ring(6)), 3, 0.5, 0.22, SIZE_PX // 8)
    silhouettes = Silhouettes.from_views(bitten)
    assert set(agreeing_views(silhouettes).unknown) == {3}
    monkeypatch.setattr(agreement, "_choose_ignored", lambda *_: (1, 0.9))
    left = agreeing_views(silhouettes)
    assert left.unknown == {}
    assert torch.equal(left.silhouettes.distances_px, silhouettes.distances_px)


@pytest.mark.parametrize("turn_deg", [0.0, 1.0])
def test_gaps_between_parts_are_no_missing_pieces_even_if_cameras_are_off(turn_deg):
    cameras = ring(8)
    balls = [
        ball_views(cameras, (x, y, z), 0.25).alpha for x, y, z in ((0.45, 0, 0), (-0.3, 0.4, 0.2), (0, -0.5, -0.3))
    ]
    turns = torch.eye(4).repeat(8, 1, 1)
    angle = math.radians(turn_deg) * torch.tensor([1.0, -1.0]).repeat(4)
    turns[:, 0, 0], turns[:, 0, 2], turns[:, 2, 0], turns[:, 2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    off = Cameras(turns @ cameras.T_world_camera, cameras.intrinsics)
    silhouettes = Silhouettes.from_views(views_of(torch.stack(balls).amax(0), off))
    found = agreeing_views(silhouettes)
    assert found.unknown == {}
    assert torch.equal(found.silhouettes.distances_px, silhouettes.distances_px)


def test_pictures_that_all_disagree_a_little_still_fill_their_silhouettes():
    views = ball_views(ring(), radius=0.3)
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(-4, 5, (21, 2), generator=generator).tolist()
    alpha = torch.stack([a.roll(shift, (1, 2)) for a, shift in zip(views.alpha, shifts, strict=True)])
    shaken = dataclasses.replace(views, alpha=alpha)
    found = agreeing_views(Silhouettes.from_views(shaken))
    assert found.kept == list(range(21))  # nobody stands out
    assert 1 <= found.ignored_per_point <= 4
    assert agreeing_views(Silhouettes.from_views(views)).ignored_per_point == 0
    hull = visual_hull(shaken, resolution=48)
    plain = VisualHull(_field_of_all(shaken, hull), hull.origin, hull.cell_size)
    assert silhouette_iou(hull.mesh(), shaken).mean() > silhouette_iou(plain.mesh(), shaken).mean() + 0.02


def _field_of_all(views, hull):
    points = torch.stack(torch.meshgrid(*(torch.arange(n) for n in hull.values.shape), indexing="ij"), dim=-1)
    cones = Silhouettes.from_views(views).distances_to_cones(hull.origin + hull.cell_size * points.view(-1, 3))
    return cones.amax(0).view(hull.values.shape)


def test_views_that_share_no_point_say_what_to_check():
    cameras = Cameras.look_at(torch.tensor([[4.0, 0, 0], [0, 4.0, 0]]), 30.0)
    up, down = ball_views(cameras, (0.0, 0, 0.6), 0.2), ball_views(cameras, (0.0, 0, -0.6), 0.2)
    alpha = torch.stack([up.alpha[0], down.alpha[1]])
    with pytest.raises(InputError, match="check the rig"):
        visual_hull(views_of(alpha, cameras), resolution=32)


def test_views_of_nothing_say_so():
    with pytest.raises(InputError, match="no object"):
        visual_hull(views_of(torch.zeros(3, 1, 16, 16), ring(3)))


# --- the mesh


def field_of_balls(balls, n=48):
    """Union of balls (centre, radius) as a field; a negative radius is a bubble cut out."""
    points = torch.stack(torch.meshgrid(*(torch.arange(n + 0.0),) * 3, indexing="ij"), dim=-1)
    field = torch.full((n,) * 3, math.inf)
    for centre, radius in balls:
        distance = (points - torch.tensor(centre)).norm(dim=-1) - abs(radius)
        field = torch.minimum(field, distance) if radius > 0 else torch.maximum(field, -distance)
    return VisualHull(field, torch.zeros(3), 1.0)


def test_crumbs_and_bubbles_go_and_real_parts_stay():
    big, crumb, part = ((16.0, 16, 16), 12.0), ((40.2, 40, 40), 1.1), ((36.0, 16, 36), 5.0)
    mesh = field_of_balls([big, crumb, part, ((16.3, 16, 16), -1.2)]).mesh()
    assert mesh.is_watertight()
    assert int(mesh.components().max()) + 1 == 2
    assert float(mesh.volume()) == pytest.approx(4 / 3 * math.pi * (12**3 + 5**3), rel=0.02)


# --- any lens


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4))
def test_at_a_saddle_the_outline_leaves_the_middle_to_those_corners_whose_side_it_is_on(corners):
    """Bilinear interpolation says what the middle is; each piece of the outline then cuts off one of the others."""
    a, b, c, d = corners
    level = np.array([[0.5 + a / 2, 0.5 - b / 2], [0.5 - c / 2, 0.5 + d / 2]], np.float32) - np.float32(0.5)
    for cell in (level, np.ascontiguousarray(level[::-1])):
        segments = _outline_segments(cell)
        assert len(segments) == 2
        middle_inside = cell.mean() >= 0
        cut_off = set()
        for start_y, start_x, dy, dx in segments[:, 2:]:
            # Both ends lie on the sides at one corner: it is the nearest whole place in y and x that they share.
            ends = ((start_y, start_x), (start_y + dy, start_x + dx))
            (row,) = {round(float(y)) for y, _ in ends if float(y).is_integer()}
            (column,) = {round(float(x)) for _, x in ends if float(x).is_integer()}
            cut_off.add((row, column))
        assert len(cut_off) == 2
        assert all((cell[corner] >= 0) != middle_inside for corner in cut_off)


def near_cameras(fov_deg: float) -> Cameras:
    """So near to the ball that it fills the pictures: at the sides its image moves much faster than in the middle."""
    fill = math.atan(0.9 * math.tan(math.radians(fov_deg) / 2))
    return ring(6, radius=RADIUS / math.sin(fill), fov_deg=fov_deg)


@pytest.mark.parametrize("fov_deg", [90.0, 125.0])
def test_wide_lenses_lose_no_part_of_the_field_near_the_surface(fov_deg):
    views = ball_views(near_cameras(fov_deg))
    hull = visual_hull(views, resolution=48)
    shape = hull.values.shape
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1).view(-1, 3)
    points = hull.origin + hull.cell_size * index
    everywhere = Silhouettes.from_views(views).distances_to_cones(points).amax(0).view(shape)
    box = points[(everywhere < 0).view(-1)]
    assert torch.equal(hull.values < 0, everywhere < 0)
    assert box.norm(dim=1).max() > RADIUS
    # Nothing of the hull lies outside the grid either.
    far = torch.rand(50_000, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    inside = Silhouettes.from_views(views).distances_to_cones(far).amax(0) < 0
    low, high = hull.origin, hull.origin + hull.cell_size * (torch.tensor(shape) - 1)
    assert ((far[inside] >= low) & (far[inside] <= high)).all()


@pytest.mark.parametrize("fov_deg", [30.0, 90.0, 125.0])
def test_the_field_changes_no_faster_than_its_bound_says(fov_deg):
    cones = ViewingCones(Silhouettes.from_views(ball_views(near_cameras(fov_deg))))
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(50_000, 3, generator=generator), dim=1) * RADIUS
    step = torch.nn.functional.normalize(torch.randn(50_000, 3, generator=generator), dim=1) * 0.02
    change = (cones(points + step) - cones(points - step)).abs() / 0.04
    assert change.max() <= cones.lipschitz
    assert change.max() > cones.lipschitz / 3


def test_a_long_object_that_fills_wide_pictures_of_a_long_lens_is_whole():
    """Its pictures end close above it and go on as they end: in large cells that looks like more of the object."""
    half = torch.tensor([0.5, 1.9, 0.4])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    cameras = Cameras.spherical([float(a) for a in range(0, 360, 15)], [15.0] * 24, 15.0, 5.5)
    cameras = Cameras(cameras.T_world_camera, cameras.intrinsics * torch.tensor([0.3, 1.0, 1.0, 1.0]))
    depth = rasterize(signs * half, faces, cameras, 72, 240)
    alpha = (depth.face_ids >= 0)[:, None].float()
    hull = visual_hull(views_of(alpha, cameras), 48)
    mesh = hull.mesh()
    torch.testing.assert_close(mesh.vertices.amax(0)[:2], half[:2], atol=0.1, rtol=0)
    torch.testing.assert_close(mesh.vertices.amin(0)[:2], -half[:2], atol=0.1, rtol=0)
