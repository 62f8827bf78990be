"""Refinement against pictures drawn by the package itself."""

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from meshwright import Cameras, Mesh, Views
from meshwright.errors import InputError
from meshwright.evaluate import ShapeScores, SurfaceSamples, compare_shapes
from meshwright.mesh import subdivide
from meshwright.raster import render
from meshwright.shape import grid, marching_cubes, visual_hull
from meshwright.shape.refine import Refined, fit, refine, refine_best
from meshwright.shape.refine.smoother import Smoother
from meshwright.shape.refine.stages import STAGES
from meshwright.shape.remesh import edge_length_for, remesh

SIZE_PX = 64
GOLDEN_ANGLE_DEG = 137.508


def rig(count: int, lowest_deg: float = -30.0, highest_deg: float = 75.0) -> Cameras:
    """Cameras all around, high and low ones in turn."""
    elevations_deg = [lowest_deg + (highest_deg - lowest_deg) * (i * 5 % count) / (count - 1) for i in range(count)]
    return Cameras.spherical([i * GOLDEN_ANGLE_DEG for i in range(count)], elevations_deg, 4.0, 30.0)


def sphere(p: torch.Tensor) -> torch.Tensor:
    return p.norm(dim=1) - 0.7


def cube(p: torch.Tensor) -> torch.Tensor:
    return p.abs().amax(1) - 0.52


def torus(p: torch.Tensor) -> torch.Tensor:
    return torch.stack([p[:, :2].norm(dim=1) - 0.6, p[:, 2]]).norm(dim=0) - 0.22


def cup(p: torch.Tensor) -> torch.Tensor:
    """A cylinder open above, its wall thinner than a tenth of its width."""
    across, z = p[:, :2].norm(dim=1), p[:, 2]
    outside = torch.maximum(across - 0.55, z.abs() - 0.5)
    inside = torch.maximum(across - 0.46, -(z + 0.4))
    return torch.maximum(outside, -inside)


def bowl(p: torch.Tensor) -> torch.Tensor:
    return torch.maximum(p.norm(dim=1) - 0.7, 0.6 - (p - torch.tensor([0.0, 0.0, 0.5])).norm(dim=1))


SHAPES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "cube": (cube, 0),
    "sphere": (sphere, 0),
    "torus": (torus, 1),
    "cup": (cup, 0),
}


@cache
def solid(field: Callable[[torch.Tensor], torch.Tensor], cells: int = 64) -> Mesh:
    """A shape whose colours differ from place to place, so that points can be found again in other pictures."""
    mesh = marching_cubes(field(grid(cells, 2.0)).view(cells + 1, cells + 1, cells + 1), scale=2.0)
    x = mesh.vertices
    waves = 0.5 + 0.3 * torch.sin(7 * x + torch.tensor([0.0, 1.0, 2.0])) + 0.15 * torch.sin(17 * x.roll(1, 1))
    return mesh.replace(vertex_colors=waves.clamp(0, 1))


def photographed(mesh: Mesh, cameras: Cameras, with_depth: bool = False, size_px: int = SIZE_PX) -> Views:
    rendered = render(mesh, cameras, size_px, size_px, samples=4)
    return Views(
        rendered.rgb,
        rendered.alpha,
        cameras,
        torch.full((len(cameras), 2), size_px),
        tuple(str(i) for i in range(len(cameras))),
        depth_z=rendered.depth_z if with_depth else None,
    )


def against(mesh: Mesh, truth: Mesh) -> ShapeScores:
    return compare_shapes(SurfaceSamples.of(mesh, 20_000), SurfaceSamples.of(truth, 20_000), [0.02])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps with few vertices: for laws that hold however long the fit is."""
    stages = tuple(dataclasses.replace(stage, vertices=stage.vertices // 5, steps=5) for stage in STAGES["fast"])
    monkeypatch.setitem(STAGES, "fast", stages)


# --- what comes back --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_comes_back_closed_with_its_genus_and_nearer_to_the_truth_than_its_hull(name):
    field, genus = SHAPES[name]
    truth = solid(field)
    views = photographed(truth, rig(12))
    hull = visual_hull(views, resolution=48).mesh()
    refined = refine(hull, views).mesh
    assert hull.genus() == genus
    assert refined.is_watertight()
    assert refined.genus() == genus
    assert refined.volume() > 0
    before, after = against(hull, truth), against(refined, truth)
    assert after.chamfer < before.chamfer
    assert after.f_scores[0] > before.f_scores[0]


@pytest.mark.slow
@pytest.mark.parametrize(("shown_by", "times_nearer"), [("colours", 3), ("depth", 3), ("normals", 2)])
def test_the_hollow_of_a_bowl_that_no_silhouette_shows_comes_out(shown_by, times_nearer):
    truth = solid(bowl)
    views = photographed(truth, rig(8, lowest_deg=20.0, highest_deg=80.0), with_depth=shown_by == "depth")
    hull = visual_hull(views, resolution=48).mesh()
    if shown_by != "colours":
        views = dataclasses.replace(views, images=1 - 0.5 * views.alpha.expand(-1, 3, -1, -1))  # one grey
    if shown_by == "normals":
        drawn = render(truth, views.cameras, SIZE_PX, SIZE_PX)
        views = dataclasses.replace(views, normals=drawn.normals)
    refined = refine(hull, views).mesh
    assert refined.is_watertight()
    before, after = against(hull, truth), against(refined, truth)
    assert after.chamfer < before.chamfer / times_nearer
    assert after.f_scores[0] > before.f_scores[0] + 0.15


@pytest.mark.slow
def test_one_wrong_frame_among_many_is_found_and_leaves_no_scar():
    truth, cameras = solid(torus), rig(14, highest_deg=60.0)
    views = photographed(truth, cameras)
    wrong = photographed(solid(cube), cameras[[5]])
    images, alpha = views.images.clone(), views.alpha.clone()
    images[5], alpha[5] = wrong.images[0], wrong.alpha[0]
    spoilt = dataclasses.replace(views, images=images, alpha=alpha)
    others = [i for i in range(14) if i != 5]
    hull = visual_hull(views[others], resolution=48).mesh()
    without, refined = refine(hull, views[others]), refine(hull, spoilt)
    assert refined.view_weights[5] < 0.1
    assert refined.view_weights[others].min() > 0.5
    assert against(refined.mesh, without.mesh).f_scores[0] > 0.98


# --- cameras ----------------------------------------------------------------------------------------------------


def shaken(cameras: Cameras, turn_deg: float, seed: int) -> Cameras:
    """Cameras moved about the origin by about ``turn_deg`` each."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randn(len(cameras), 3, generator=generator) * math.radians(turn_deg)
    turns = turns - turns.mean(dim=0)
    generators = torch.zeros(len(cameras), 4, 4)
    for row, column, axis, sign in (
        (0, 1, 2, -1),
        (1, 0, 2, 1),
        (0, 2, 1, 1),
        (2, 0, 1, -1),
        (1, 2, 0, -1),
        (2, 1, 0, 1),
    ):
        generators[:, row, column] = sign * turns[:, axis]
    return Cameras(torch.matrix_exp(generators) @ cameras.T_world_camera, cameras.intrinsics)


def shape_from_views(views: Views) -> torch.Tensor:
    """Where the origin and the axes' ends fall in the pictures."""
    return views.cameras.project(torch.cat([torch.eye(3), -torch.eye(3)]) * 0.7)[0]


@pytest.mark.slow
def test_small_errors_of_cameras_are_put_right_when_asked():
    truth = solid(cube)
    views = photographed(truth, rig(14, highest_deg=60.0), size_px=96)
    given = dataclasses.replace(views, cameras=shaken(views.cameras, 1.0, seed=0))
    hull = visual_hull(given, resolution=48).mesh()
    refined = refine(hull, given, refine_cameras=True)
    wanted = shape_from_views(views)
    before = (shape_from_views(given) - wanted).square().mean().sqrt()
    after = (shape_from_views(refined.views) - wanted).square().mean().sqrt()
    assert after < before / 3


def test_cameras_stay_as_they_are_to_the_bit_when_not_asked(hasty):
    views = photographed(solid(cube), rig(6))
    refined = refine(visual_hull(views, resolution=24).mesh(), views)
    assert torch.equal(refined.views.cameras.T_world_camera, views.cameras.T_world_camera)
    assert torch.equal(refined.views.cameras.intrinsics, views.cameras.intrinsics)


# --- laws -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_leaves_the_random_numbers_of_others_alone(hasty):
    views = photographed(solid(torus), rig(8))
    hull = visual_hull(views, resolution=24).mesh()
    state = torch.random.get_rng_state()
    shown: list[Mesh] = []
    first = refine(hull, views, refine_cameras=True, seed=3)
    second = refine(hull, views, refine_cameras=True, seed=3, observe=shown.append)  # who looks on changes nothing
    assert shown
    assert all(mesh.is_watertight() for mesh in shown)
    assert not torch.equal(shown[-1].vertices, hull.vertices)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.mesh.vertices, second.mesh.vertices)
    assert torch.equal(first.mesh.faces, second.mesh.faces)
    assert torch.equal(first.views.cameras.T_world_camera, second.views.cameras.T_world_camera)
    assert torch.equal(first.view_weights, second.view_weights)
    assert (first.error_before, first.error_after) == (second.error_before, second.error_after)


def perfect() -> tuple[Mesh, Views]:
    truth = solid(sphere)
    return truth, photographed(truth, rig(6))


def nonsense() -> tuple[Mesh, Views]:
    truth, views = perfect()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(views.images.shape, generator=generator)
    alpha = torch.rand(views.alpha.shape, generator=generator)
    return truth, dataclasses.replace(views, images=images, alpha=alpha)


def empty() -> tuple[Mesh, Views]:
    truth, views = perfect()
    return truth, dataclasses.replace(views, images=torch.ones_like(views.images), alpha=torch.zeros_like(views.alpha))


def single() -> tuple[Mesh, Views]:
    truth, views = perfect()
    return truth, views[[0]]


def mixed_sizes() -> tuple[Mesh, Views]:
    """Every other picture fills only the top left part of the canvas."""
    truth, views = perfect()
    images, alpha, sizes_px = torch.ones_like(views.images), torch.zeros_like(views.alpha), views.sizes_px.clone()
    small, part = photographed(truth, views.cameras, size_px=40), [1, 3, 5]
    images[part, :, :40, :40], alpha[part, :, :40, :40], sizes_px[part] = small.images[part], small.alpha[part], 40
    images[::2], alpha[::2] = views.images[::2], views.alpha[::2]
    canvas = views.cameras[part].cropped(0.0, 0.0, SIZE_PX / 40, SIZE_PX / 40)
    intrinsics = views.cameras.intrinsics.clone()
    intrinsics[part] = canvas.intrinsics
    cameras = Cameras(views.cameras.T_world_camera, intrinsics)
    return truth, Views(images, alpha, cameras, sizes_px, views.names)


def several_parts() -> tuple[Mesh, Views]:
    def field(p: torch.Tensor) -> torch.Tensor:
        apart = torch.tensor([0.45, 0.0, 0.0])
        return torch.minimum((p - apart).norm(dim=1), (p + apart).norm(dim=1)) - 0.3

    views = photographed(solid(field), rig(6))
    return visual_hull(views, resolution=24).mesh(), views


def open_border() -> tuple[Mesh, Views]:
    truth, views = perfect()
    return truth.keep_faces(truth.vertices[truth.faces].mean(dim=1)[:, 2] > -0.3), views


@pytest.mark.parametrize(
    ("case", "refine_cameras"),
    [(case, False) for case in (perfect, nonsense, empty, single, mixed_sizes, several_parts, open_border)]
    + [(case, True) for case in (perfect, nonsense, empty, single)],
)
def test_nothing_worse_than_the_start_comes_back(hasty, case, refine_cameras):
    start, views = case()
    refined = refine(start, views, refine_cameras=refine_cameras)
    assert refined.error_after <= refined.error_before + 0.02**2
    assert math.isfinite(refined.error_before)
    assert bool(refined.mesh.vertices.isfinite().all())
    assert bool(refined.views.cameras.T_world_camera.isfinite().all())
    assert refined.mesh.is_watertight() == start.is_watertight()
    assert refined.mesh.components().max() == start.components().max()
    assert bool(((refined.view_weights >= 0) & (refined.view_weights <= 1)).all())


def test_what_comes_back_is_as_good_as_it_is_said_to_be(hasty):
    """Judging the result anew, as a start, gives the error that was promised."""
    truth = solid(torus)
    start = truth.replace(vertices=1.2 * truth.vertices)
    refined = refine(start, photographed(truth, rig(8)))
    assert refined.error_after < refined.error_before
    again = refine(refined.mesh, refined.views, time_budget_s=1e-9)
    assert again.error_before == pytest.approx(refined.error_after, rel=1e-6)


@pytest.mark.parametrize(
    ("worse", "lost", "kept"),
    [(-1e-4, 0.03, "fit"), (0.0002, 0.01, "fit"), (0.0002, 0.03, "start"), (0.0005, 0.0, "start")],
)
def test_a_start_is_kept_if_clearly_better_in_all_or_if_its_fit_has_lost_parts(hasty, monkeypatch, worse, lost, kept):
    truth = solid(torus)
    start = truth.replace(vertices=1.2 * truth.vertices)
    monkeypatch.setattr(fit, "validation_error", lambda mesh, *_: 0.01 + worse * is_fitted(mesh))
    monkeypatch.setattr(fit, "coverage_error", lambda mesh, *_: lost**2 * is_fitted(mesh))

    def is_fitted(mesh: Mesh) -> bool:
        return len(mesh.vertices) != len(start.vertices)

    assert is_fitted(refine(start, photographed(truth, rig(8))).mesh) == (kept == "fit")


def test_a_time_budget_ends_the_work_and_the_best_so_far_comes_back(hasty, monkeypatch):
    views = photographed(solid(cube), rig(6))
    hull = visual_hull(views, resolution=24).mesh()
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))  # a second a look
    shares: list[float] = []

    def steps(budget_s: float) -> tuple[int, Refined]:
        shares.clear()
        refined = refine(hull, views, time_budget_s=budget_s, progress=lambda stage, share, *said: shares.append(share))
        return len(shares), refined

    none, start = steps(1e-9)
    few, short = steps(12.0)
    every, long = steps(1e9)
    assert none == 1  # the end alone is told
    assert torch.equal(start.mesh.vertices, hull.vertices)
    assert start.error_after == start.error_before
    assert none < few < 12 < every
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    for refined in (short, long):
        assert refined.mesh.is_watertight()
        assert refined.error_after <= refined.error_before + 0.02**2


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan])
def test_a_time_budget_must_be_positive(budget_s):
    start, views = perfect()
    with pytest.raises(InputError, match="time budget"):
        refine(start, views, time_budget_s=budget_s)


@pytest.mark.parametrize("faces", [torch.zeros(0, 3, dtype=torch.long), torch.tensor([[0, 1, 1]])], ids=len)
def test_a_mesh_without_surface_is_refused(faces):
    _, views = perfect()
    with pytest.raises(InputError, match="no surface"):
        refine(Mesh(torch.eye(3), faces), views)


# --- of several starts ------------------------------------------------------------------------------------------


def apart(distance: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Two balls one behind the other."""
    middle = torch.tensor([distance, 0.0, 0.0])
    return lambda p: torch.minimum((p - middle).norm(dim=1), (p + middle).norm(dim=1)) - 0.3


def test_of_two_starts_the_one_that_predicts_the_pictures_is_kept_whatever_their_order(monkeypatch):
    """Two balls, and a bar that fills the gap between them, which only colours contradict from these cameras."""
    (stage, *_) = STAGES["fast"]
    monkeypatch.setitem(STAGES, "fast", (dataclasses.replace(stage, vertices=600, largest_px=SIZE_PX, steps=4),))
    balls = apart(0.4)
    truth = solid(balls)
    cameras = Cameras.spherical([-25.0, -8.0, 8.0, 25.0], [0.0, 12.0, -12.0, 0.0], 4.0, 30.0)
    views = photographed(truth, cameras)
    sound = solid(balls, 32)
    webbed = solid(
        lambda p: torch.minimum(balls(p), torch.maximum(p[:, 1:].norm(dim=1) - 0.3, p[:, 0].abs() - 0.4)), 32
    )
    for meshes in ([sound, webbed], [webbed, sound]):
        refined = refine_best(meshes, views)
        assert meshes[refined.start] is sound
        assert refined.prediction_errors[refined.start] == min(refined.prediction_errors)
        assert int(refined.mesh.components().max()) + 1 == 2
    assert torch.equal(refined.mesh.vertices, refine(sound, views).mesh.vertices)


def test_of_equal_starts_the_first_is_kept_and_refined_as_if_it_were_alone(hasty):
    mesh, views = visual_hull(photographed(solid(cube), rig(6)), 24).mesh(), photographed(solid(cube), rig(6))
    shares: list[float] = []
    both = refine_best([mesh, mesh], views, progress=lambda stage, share, *said: shares.append(share))
    assert both.start == 0
    assert both.prediction_errors[0] == both.prediction_errors[1]
    alone = refine(mesh, views)
    assert alone.prediction_errors == ()
    assert torch.equal(both.mesh.vertices, alone.mesh.vertices)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_time_budget_holds_for_all_starts_together(hasty, monkeypatch):
    views = photographed(solid(cube), rig(6))
    hull = visual_hull(views, resolution=24).mesh()
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))  # a second a look
    looks: list[float] = []
    refine_best([hull, hull], views, time_budget_s=20.0, progress=lambda stage, share, *said: looks.append(share))
    assert 2 < len(looks) < 22


# --- even triangles ---------------------------------------------------------------------------------------------


def edge_lengths(mesh: Mesh) -> torch.Tensor:
    a, b = mesh.vertices[mesh.unique_edges()[0]].unbind(1)
    return (a - b).norm(dim=1)


@pytest.mark.parametrize("count", [800, 4000])
@pytest.mark.parametrize("name", SHAPES)
def test_remeshing_keeps_a_surface_closed_its_handles_its_orientation_and_its_place(name, count):
    field, genus = SHAPES[name]
    start = solid(field, 48)
    length = edge_length_for(start.vertices, start.faces, count)
    even = Mesh(*remesh(start.vertices, start.faces, length))
    assert even.is_watertight()
    assert even.genus() == genus
    assert even.components().max() == 0
    # Flat faces on a round surface lose what is of second order in their size.
    assert (even.volume() - start.volume()).abs() < length**2 * start.area()
    assert 0.75 * count < len(even.vertices) < 1.33 * count
    lengths = edge_lengths(even) / length
    assert ((lengths > 0.7) & (lengths < 1.4)).float().mean() > 0.95
    assert lengths.min() > 0.4
    assert lengths.max() < 2.0


@pytest.mark.parametrize("length", [0.1, 0.2, 0.4])
def test_a_ring_thinner_than_the_triangles_asked_for_stays_a_ring(length):
    """Collapsing an edge of a neck of three edges would pinch it: the link condition forbids it."""

    def thin(p: torch.Tensor) -> torch.Tensor:
        return ((p[:, :2].norm(dim=1) - 0.6) ** 2 + p[:, 2] ** 2).sqrt() - 0.06

    start = solid(thin, 48)
    even = Mesh(*remesh(start.vertices, start.faces, length))
    assert len(even.vertices) < len(start.vertices) / 4
    assert even.is_watertight()
    assert (even.genus(), int(even.components().max())) == (1, 0)


def test_remeshing_leaves_an_open_border_where_it_is():
    ball = solid(sphere, 48)
    cap = ball.keep_faces(ball.vertices[ball.faces].mean(dim=1)[:, 2] > 0.2)
    even = Mesh(*remesh(cap.vertices, cap.faces, 0.1))

    def border(mesh: Mesh) -> torch.Tensor:
        edges, counts = mesh.unique_edges()
        return mesh.vertices[edges[counts == 1]].flatten(0, 1).unique(dim=0)

    assert torch.equal(border(even), border(cap))


def test_subdividing_makes_four_faces_of_each_on_the_same_surface():
    mesh = solid(torus, 24)
    fine = Mesh(*subdivide(mesh.vertices, mesh.faces))
    assert len(fine.faces) == 4 * len(mesh.faces)
    assert torch.equal(fine.vertices[: len(mesh.vertices)], mesh.vertices)
    assert len(fine.vertices) == len(mesh.vertices) + len(mesh.unique_edges()[0])
    assert fine.is_watertight()
    assert fine.genus() == 1
    # In the double precision of sums: pieces have a quarter of their face's normal each, its direction included.
    pieces = fine.face_normals().view(4, -1, 3)
    torch.testing.assert_close(4 * pieces, mesh.face_normals().expand_as(pieces), rtol=0, atol=1e-7)


# --- smooth steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stiffness", [0.0, 2.0, 50.0])
def test_from_latent_undoes_to_latent(stiffness):
    mesh = solid(torus, 24)
    smoother = Smoother(mesh.faces, len(mesh.vertices), stiffness)
    there_and_back = smoother.from_latent(smoother.to_latent(mesh.vertices))
    torch.testing.assert_close(there_and_back, mesh.vertices, rtol=0, atol=2e-6)


@pytest.mark.parametrize("stiffness", [2.0, 50.0])
def test_the_latent_is_the_vertex_plus_its_differences_to_its_neighbours(stiffness):
    mesh = solid(torus, 16)
    latent = Smoother(mesh.faces, len(mesh.vertices), stiffness).to_latent(mesh.vertices)
    expected = mesh.vertices.clone()
    for a, b in mesh.unique_edges()[0].tolist():
        expected[a] += stiffness * (mesh.vertices[a] - mesh.vertices[b])
        expected[b] += stiffness * (mesh.vertices[b] - mesh.vertices[a])
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stiffness", [2.0, 50.0])
def test_conjugate_gradients_find_what_the_factorisation_finds(stiffness):
    mesh = solid(torus, 24)
    smoother = Smoother(mesh.faces, len(mesh.vertices), stiffness)
    u = torch.randn(len(mesh.vertices), 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smoother._conjugate_gradients(u), smoother.from_latent(u), rtol=0, atol=1e-4)
