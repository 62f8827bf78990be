"""Each term of the fit's loss, the weights of views, visibility, and the choice of the best state."""

import dataclasses
from functools import cache

import pytest
import torch

from meshwright import Cameras, Mesh, Views
from meshwright.evaluate import SurfaceSamples, compare_shapes
from meshwright.raster import rasterize, render
from meshwright.shape import grid, marching_cubes, refine, visual_hull
from meshwright.shape.refine import fit, poses, terms
from meshwright.shape.refine.fit import views_of_step
from meshwright.shape.refine.poses import PoseCorrections
from meshwright.shape.refine.pyramid import Pictures
from meshwright.shape.refine.scene import Topology, compare_views, nearest_views, render_geometry
from meshwright.shape.refine.stages import STAGES, Stage
from meshwright.shape.refine.terms import Evidence, LossTerms, loss_terms
from meshwright.shape.refine.validation import coverage_error, validation_error
from meshwright.shape.refine.view_weights import estimate_view_weights

SIZE_PX = 48
STAGE = Stage(vertices=900, largest_px=SIZE_PX, steps=50, stiffness=4.0, roughness=10.0, crease=0.3, area=1.0)
TURN_DEG = 137.508  # the golden angle


def bowl(p: torch.Tensor) -> torch.Tensor:
    return torch.maximum(p.norm(dim=1) - 0.7, 0.6 - (p - torch.tensor([0.0, 0.0, 0.5])).norm(dim=1))


def sphere(p: torch.Tensor) -> torch.Tensor:
    return p.norm(dim=1) - 0.7


@cache
def solid(field, cells: int = 40) -> Mesh:
    """A shape whose colours differ from place to place."""
    mesh = marching_cubes(field(grid(cells, 2.0)).view(cells + 1, cells + 1, cells + 1), scale=2.0)
    x = mesh.vertices
    waves = 0.5 + 0.3 * torch.sin(7 * x + torch.tensor([0.0, 1.0, 2.0])) + 0.15 * torch.sin(17 * x.roll(1, 1))
    return mesh.replace(vertex_colors=waves.clamp(0, 1))


@cache
def pictures_of(field, count: int = 8, lowest_deg: float = 20.0, highest_deg: float = 80.0) -> Views:
    """With depth and normals."""
    elevations_deg = [lowest_deg + (highest_deg - lowest_deg) * (i * 5 % count) / (count - 1) for i in range(count)]
    cameras = Cameras.spherical([i * TURN_DEG for i in range(count)], elevations_deg, 4.0, 30.0)
    mesh = solid(field)
    drawn = render(mesh, cameras, SIZE_PX, SIZE_PX, samples=4)
    plain = render(mesh, cameras, SIZE_PX, SIZE_PX)
    names = tuple(map(str, range(count)))
    sizes_px = torch.full((count, 2), SIZE_PX)
    return Views(drawn.rgb, drawn.alpha, cameras, sizes_px, names, depth_z=drawn.depth_z, normals=plain.normals)


def without(views: Views, *fields: str) -> Views:
    """Views that do not have some of depth_z, normals and colors."""
    changes: dict[str, object] = {field: None for field in fields if field != "colors"}
    if "colors" in fields:
        changes["images"] = 1 - 0.5 * views.alpha.expand(-1, 3, -1, -1)  # one grey
    return dataclasses.replace(views, **changes)


# --- a fit of a few seconds with and without each term ----------------------------------------------------------


@pytest.fixture(scope="module")
def lid() -> Mesh:
    """The hull of the bowl: its hollow is closed."""
    return visual_hull(pictures_of(bowl), resolution=24).mesh()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "fast", (STAGE,))


def distance(mesh: Mesh) -> float:
    """Chamfer distance to the bowl."""
    return compare_shapes(SurfaceSamples.of(mesh, 4000), SurfaceSamples.of(solid(bowl), 4000), [0.02]).chamfer


def overlap(mesh: Mesh, views: Views) -> float:
    drawn = render(mesh, views.cameras, SIZE_PX, SIZE_PX, samples=2).alpha
    return float(torch.minimum(drawn, views.alpha).sum() / torch.maximum(drawn, views.alpha).sum())


def roughness(mesh: Mesh) -> float:
    """Mean angle between neighbouring faces, as the length of the difference of their normals."""
    normals = torch.nn.functional.normalize(mesh.face_normals(), dim=1)
    pairs = Topology.of(mesh.faces).pairs
    return float((normals[pairs[:, 0]] - normals[pairs[:, 1]]).norm(dim=1).mean())


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("weight", "needed", "hidden"),
    [
        ("_PHOTO", "colors", ("depth_z", "normals")),
        ("_DEPTH", "depth_z", ("colors", "normals")),
        ("_NORMALS", "normals", ("colors", "depth_z")),
    ],
)
def test_colours_depth_and_normals_each_open_a_hollow_that_no_silhouette_shows(
    lid, monkeypatch, weight, needed, hidden
):
    views = without(pictures_of(bowl), *hidden)
    fitted = refine(lid, views).mesh
    monkeypatch.setattr(terms, weight, 0.0)
    ignored = refine(lid, views).mesh
    assert distance(fitted) < 0.8 * distance(ignored)


@pytest.mark.usefixtures("short")
def test_silhouettes_hold_the_outline_smoothness_the_normals_and_area_the_surface(monkeypatch):
    views = without(pictures_of(sphere, lowest_deg=-40.0), "depth_z", "normals", "colors")
    truth = solid(sphere)
    start = truth.replace(vertices=truth.vertices * torch.tensor([1.2, 1.0, 0.8]))
    all_terms = refine(start, views).mesh

    assert overlap(all_terms, views) > overlap(start, views) + 0.05

    noise = torch.randn(views.images.shape, generator=torch.Generator().manual_seed(0))
    noisy = dataclasses.replace(pictures_of(sphere, lowest_deg=-40.0), depth_z=None, normals=None)
    noisy = dataclasses.replace(noisy, images=(noisy.images + 0.2 * noise * noisy.alpha).clamp(0, 1))

    def changed(views: Views, **changes: float) -> Mesh:
        monkeypatch.setitem(STAGES, "fast", (dataclasses.replace(STAGE, **changes),))
        return refine(start, views).mesh

    smooth = changed(noisy, roughness=300.0, crease=1.0)
    assert roughness(changed(noisy, roughness=0.0)) > 1.05 * roughness(smooth)
    assert changed(views, area=0.0).area() > 1.01 * all_terms.area()


# --- the terms --------------------------------------------------------------------------------------------------


def evaluated(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    views: Views,
    weights: torch.Tensor | None = None,
    penalty: torch.Tensor | None = None,
    pictures: Pictures | None = None,
) -> LossTerms:
    """The loss terms of a mesh over all views."""
    pictures = Pictures.of(views, SIZE_PX, 0) if pictures is None else pictures
    topology = Topology.of(faces)
    depth_z = rasterize(vertices.detach(), faces, views.cameras, SIZE_PX, SIZE_PX).depth_z
    weights = torch.ones(len(views)) if weights is None else weights
    evidence = Evidence(pictures, nearest_views(views.cameras, 4), depth_z, weights, 0.7)
    random = torch.Generator().manual_seed(0)
    everyone = torch.arange(len(views))
    return loss_terms(vertices, topology, views.cameras, everyone, evidence, STAGE, random, camera_penalty=penalty)


@pytest.mark.parametrize("name", ["silhouettes", "photo", "depth"])
@pytest.mark.parametrize("scale", [0.93, 1.07])
def test_a_ball_too_small_is_pulled_outwards_and_one_too_large_inwards(name, scale):
    mesh, views = solid(sphere), pictures_of(sphere, lowest_deg=-40.0)
    factor = torch.tensor(scale, requires_grad=True)
    term = evaluated(factor * mesh.vertices, mesh.faces, views).named()[name]
    (slope,) = torch.autograd.grad(term, factor)
    assert (slope > 0) == (scale > 1)


@pytest.mark.parametrize("squash", [0.85, 1.15])
def test_normals_pull_a_squashed_ball_back(squash):
    mesh, views = solid(sphere), pictures_of(sphere, lowest_deg=-40.0)
    factor = torch.tensor(squash, requires_grad=True)
    vertices = mesh.vertices * torch.stack([torch.ones(()), torch.ones(()), factor])
    (slope,) = torch.autograd.grad(evaluated(vertices, mesh.faces, views).named()["normals"], factor)
    assert (slope > 0) == (squash > 1)


def test_area_shrinks_the_surface_but_not_the_whole_when_the_cameras_may_move():
    mesh, views = solid(sphere), without(pictures_of(sphere, lowest_deg=-40.0), "depth_z", "normals")
    for penalty in (None, torch.zeros(())):
        factor = torch.ones((), requires_grad=True)
        area = evaluated(factor * mesh.vertices, mesh.faces, views, penalty=penalty).area
        (slope,) = torch.autograd.grad(area, factor)
        assert float(slope) == pytest.approx(0.0 if penalty is not None else 2 * float(area), abs=1e-3)
    # Noise of the surface costs area either way.
    noise = torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(0))
    rough = mesh.vertices + 0.01 * noise
    for penalty in (None, torch.zeros(())):
        assert (
            evaluated(rough, mesh.faces, views, penalty=penalty).area
            > evaluated(mesh.vertices, mesh.faces, views, penalty=penalty).area
        )


def test_the_loss_is_the_sum_of_all_terms_that_there_are_and_the_line_of_progress_names_them():
    mesh, views = solid(sphere), pictures_of(sphere, lowest_deg=-40.0)
    found = evaluated(1.03 * mesh.vertices, mesh.faces, views, penalty=torch.tensor(0.5))
    names = ["silhouettes", "smoothness", "area", "photo", "depth", "normals", "cameras"]
    assert list(found.named()) == names
    assert all(float(term) > 0 for term in found.named().values())
    assert float(found.total()) == pytest.approx(sum(float(term) for term in found.named().values()), rel=1e-6)
    assert [part.split()[0] for part in str(found).split(", ")] == names
    bare = evaluated(mesh.vertices, mesh.faces, without(views[[0]], "depth_z", "normals"))
    assert list(bare.named()) == names[:3]


def test_a_view_of_no_weight_changes_no_term():
    mesh, views = solid(sphere), pictures_of(sphere, lowest_deg=-40.0)
    weights = torch.ones(len(views))
    weights[2] = 0
    images, alpha, normals = views.images.clone(), views.alpha.clone(), views.normals.clone()
    depth_z = views.depth_z.clone()
    images[2], normals[2], depth_z[2] = images[2].flip(0), -normals[2], 1.3 * depth_z[2]
    alpha[2] = torch.where(alpha[2] < 0.5, 0.4, alpha[2])  # what is opaque stays, so the same pixels are drawn
    wrong = dataclasses.replace(views, images=images, alpha=alpha, normals=normals, depth_z=depth_z)
    expected, found = (evaluated(mesh.vertices, mesh.faces, v, weights).named() for v in (views, wrong))
    believed = evaluated(mesh.vertices, mesh.faces, wrong).named()
    for name in ("silhouettes", "photo", "depth", "normals"):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5)
        assert float(believed[name]) > 1.05 * float(expected[name])


def test_withheld_pixels_are_not_compared_though_other_views_look_at_them():
    mesh, views = solid(sphere), pictures_of(sphere, lowest_deg=-40.0)
    pictures = Pictures.of(views, SIZE_PX, 0)
    expected = float(evaluated(mesh.vertices, mesh.faces, views, pictures=pictures).named()["photo"])

    half = torch.arange(len(views)).view(-1, 1, 1) % 2 == 0  # turned over in all views, colours would agree again

    def with_colors_changed_in(part: torch.Tensor) -> float:
        colors = torch.where((part & half)[..., None], 1 - pictures.colors, pictures.colors)
        found = evaluated(mesh.vertices, mesh.faces, views, pictures=dataclasses.replace(pictures, colors=colors))
        return float(found.named()["photo"])

    # A hundredth of a withheld pixel may be mixed into a colour between pixels.
    assert with_colors_changed_in(pictures.withheld) == pytest.approx(expected, rel=0.02)
    assert with_colors_changed_in(pictures.kept) > 1.5 * expected


# --- who is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["silhouette", "colors", "nothing"])
def test_a_view_that_disagrees_loses_its_weight_and_no_other_does(wrong):
    mesh, views = solid(sphere), without(pictures_of(sphere, lowest_deg=-40.0), "depth_z", "normals")
    images, alpha = views.images.clone(), views.alpha.clone()
    if wrong == "silhouette":
        alpha[3] = alpha[3].roll(10, 2)
        images[3] = images[3].roll(10, 2)
    elif wrong == "colors":
        images[3] = images[3].flip(0) * alpha[3] + 1 - alpha[3]
    views = dataclasses.replace(views, images=images, alpha=alpha)
    neighbors, pictures = nearest_views(views.cameras, 4), Pictures.of(views, SIZE_PX, 0)
    rendered = render_geometry(mesh.vertices, Topology.of(mesh.faces), views.cameras, SIZE_PX, SIZE_PX)
    random = torch.Generator().manual_seed(0)
    weights = estimate_view_weights(rendered, neighbors, views.cameras, pictures, random)
    others = [i for i in range(len(views)) if i != 3]
    assert weights[others].min() > 0.5
    assert weights[3] < 0.3 if wrong != "nothing" else weights[3] > 0.5


def test_of_three_views_none_is_found_wrong():
    mesh, views = solid(sphere), pictures_of(sphere)[[0, 1, 2]]
    views.alpha[0] = 0
    rendered = render_geometry(mesh.vertices, Topology.of(mesh.faces), views.cameras, SIZE_PX, SIZE_PX)
    pictures, random = Pictures.of(views, SIZE_PX, 0), torch.Generator()
    neighbors = nearest_views(views.cameras, 4)
    assert estimate_view_weights(rendered, neighbors, views.cameras, pictures, random).tolist() == [1.0] * 3


def test_a_view_that_pulls_less_and_so_is_off_more_is_not_lost_within_a_stage(monkeypatch):
    """Belief falls from stage to stage only, and comes back at any time."""
    mesh, views = solid(sphere, 16), without(pictures_of(sphere), "depth_z", "normals")
    stages = [dataclasses.replace(STAGE, vertices=100, largest_px=12, steps=21)] * 2
    generator, last = torch.Generator().manual_seed(0), [1.0]
    found, used = [], []

    def estimated(*_):
        weights = torch.rand(len(views), generator=generator)
        last[0] *= 0.5  # what half the belief comes to when it is found anew from what half the belief made
        weights[2] = last[0]
        found.append(weights)
        return weights

    def recorded(vertices, topology, cameras, chosen, evidence, *more, **named):
        last[0] = float(evidence.view_weights[2])
        used.append(evidence.view_weights)
        return loss_terms(vertices, topology, cameras, chosen, evidence, *more, **named)

    monkeypatch.setattr(fit, "stages_for", lambda *_: stages)
    monkeypatch.setattr(fit, "estimate_view_weights", estimated)
    monkeypatch.setattr(fit, "loss_terms", recorded)
    refined = fit.refine(mesh, views)
    assert len(found) == 6
    for stage in (found[:3], found[3:]):
        for renewed in range(3):
            assert torch.equal(used[10 * renewed], torch.stack(stage[: renewed + 1]).amax(0))
        del used[:21]
    assert refined.view_weights[2] == 0.25


def test_a_state_of_an_early_stage_comes_back_as_the_same_surface_in_as_many_triangles_as_the_last(monkeypatch):
    mesh, views = solid(sphere, 16), without(pictures_of(sphere), "depth_z", "normals")
    early = dataclasses.replace(STAGE, vertices=100, largest_px=12, steps=5)
    late = dataclasses.replace(early, vertices=1600)
    monkeypatch.setattr(fit, "stages_for", lambda *_: [early])
    coarse = fit.refine(mesh, views).mesh
    monkeypatch.setattr(fit, "stages_for", lambda *_: [early, late])
    run_stage = fit._Fit._run_stage
    monkeypatch.setattr(
        fit._Fit, "_run_stage", lambda self, number, *rest: run_stage(self, number, *rest) if number == 0 else None
    )
    fine = fit.refine(mesh, views).mesh
    assert len(coarse.vertices) < 150
    assert len(fine.faces) == 16 * len(coarse.faces)
    assert torch.equal(fine.vertices[: len(coarse.vertices)], coarse.vertices)
    assert float(fine.area()) == pytest.approx(float(coarse.area()), rel=1e-5)
    assert fine.is_watertight()


# --- visibility -------------------------------------------------------------------------------------------------


def test_points_behind_something_are_compared_with_no_weight():
    """A small square in front of a large one, seen from +z: what the small one hides, two cameras do not compare."""

    def square(half: float, z: float) -> torch.Tensor:
        return torch.tensor([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])

    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    vertices, faces = torch.cat([square(0.9, 0.0), square(0.3, 0.5)]), torch.cat([faces, faces + 4])
    cameras = Cameras.look_at(torch.tensor([[0.5, 0.0, 4.0], [0.0, 0.0, 4.0]]), 30.0)
    images, alpha = torch.full((2, 3, SIZE_PX, SIZE_PX), 0.5), torch.ones(2, 1, SIZE_PX, SIZE_PX)
    views = Views(images, alpha, cameras, torch.full((2, 2), SIZE_PX), ("a", "b"))
    pictures = dataclasses.replace(Pictures.of(views, SIZE_PX, 0), kept=torch.ones(2, SIZE_PX, SIZE_PX) > 0)
    depth_z = rasterize(vertices, faces, cameras, SIZE_PX, SIZE_PX).depth_z
    points = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.1, 0.0], [-0.7, 0.5, 0.0], [0.1, 0.1, 0.5], [0.0, 0.0, 9.0]])
    normals = torch.tensor([[0.0, 0.0, 1.0]]).expand(5, -1)
    one, other = torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long)
    weight = compare_views(points, normals, torch.zeros(5, 3), one, other, cameras, pictures, depth_z).weight
    assert (weight > 0).tolist() == [False, False, True, True, False]  # the last is behind the camera
    sight = torch.nn.functional.normalize(cameras.positions[1] - points, dim=1)
    sideways = torch.nn.functional.normalize(torch.stack([sight[:, 2], 0 * sight[:, 1], -sight[:, 0]], dim=1), dim=1)
    flat = torch.nn.functional.normalize(sideways + 0.05 * sight, dim=1)  # the other camera looks along it at 3 degrees
    grazing = compare_views(points, flat, torch.zeros(5, 3), one, other, cameras, pictures, depth_z).weight
    assert not grazing[2:4].any()
    turned = compare_views(points, -normals, torch.zeros(5, 3), one, other, cameras, pictures, depth_z).weight
    assert not turned.any()


# --- cameras ----------------------------------------------------------------------------------------------------


def test_moving_turning_or_growing_the_world_as_a_whole_moves_no_camera():
    cameras = Cameras.orbit(9, 20.0)
    for axis in range(7):
        corrections = PoseCorrections(cameras)
        with torch.no_grad():
            if axis < 6:
                corrections.twists[:, axis] = 0.3
            else:
                corrections.twists[:, 3:] = 0.3 * cameras.positions
            if axis < 3:  # rotations and shifts have units of their own; only pure ones are taken out
                corrections.twists[:, 3:] = 0
            moved = corrections.cameras()
        torch.testing.assert_close(moved.T_world_camera, cameras.T_world_camera, rtol=0, atol=2e-5)


def test_a_camera_of_its_own_moves_and_all_elevations_rise_together():
    cameras = Cameras.orbit(9, 20.0)
    corrections = PoseCorrections(cameras)
    with torch.no_grad():
        corrections.twists[4, 2] = 1.0
        turned_deg, _ = corrections.cameras().difference(cameras)
        assert turned_deg.argmax() == 4
        assert 1.5 < turned_deg[4] < 3.5
        corrections.twists.zero_()
        corrections.common[0] = 1.0
        rise = corrections.cameras().positions[:, 2] - cameras.positions[:, 2]
    assert (rise > 0.05).all()


def test_the_penalty_holds_cameras_back_where_nothing_speaks_for_moving_them():
    corrections = PoseCorrections(Cameras.orbit(5))
    with torch.no_grad():
        corrections.twists[:] = 1.0
        corrections.common[:] = -1.0
    before = float(corrections.penalty().detach())
    assert before == pytest.approx(2 * poses._PENALTY)
    for _ in range(10):
        corrections.penalty().backward()
        corrections.step()
    assert float(corrections.penalty().detach()) < before
    assert (corrections.twists.detach() < 0.9).all()


# --- whose turn it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 6, 7, 21, 64])
def test_all_views_have_their_turn_and_those_of_one_step_are_evenly_spread(count):
    steps = [views_of_step(step, count) for step in range(-(-count // 6))]
    assert sorted(view for step in steps for view in step.tolist()) == list(range(count))
    for step in steps:
        assert 1 <= len(step) <= 6
        assert (step.diff() == len(steps)).all()
    assert torch.equal(views_of_step(len(steps), count), steps[0])


# --- which state is better --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged():
    """The validation error of a mesh and cameras, on pictures of the bowl."""
    views = without(pictures_of(bowl), "depth_z", "normals")
    pictures, neighbors = Pictures.of(views, SIZE_PX, 0), nearest_views(views.cameras, 4)

    def error(mesh: Mesh, cameras: Cameras = views.cameras, pictures: Pictures = pictures) -> float:
        return validation_error(mesh, cameras, pictures, neighbors, 0.7)

    return error, pictures, views


def test_validation_prefers_states_nearer_to_the_truth(judged, lid):
    error, _, views = judged
    truth = solid(bowl)
    scaled = [error(truth.replace(vertices=scale * truth.vertices)) for scale in (1.0, 1.1, 1.25)]
    assert scaled == sorted(scaled)
    assert scaled[0] < error(lid)  # same outlines, other colours
    turn = torch.linspace(-1, 1, len(views))[torch.randperm(len(views), generator=torch.Generator().manual_seed(0))]
    errors = []
    for size in (0.0, 0.03, 0.1):
        T = views.cameras.T_world_camera.clone()
        T[:, 0, 3] += size * turn * 4
        errors.append(error(truth, Cameras(T, views.cameras.intrinsics)))
    assert errors == sorted(errors)


def test_validation_does_not_mind_outlines_off_by_a_hair_but_wrong_ones(judged):
    error, pictures, _ = judged
    truth = solid(bowl)
    assert error(truth.replace(vertices=1.003 * truth.vertices)) < error(truth) + 2e-4
    far = torch.nn.functional.max_pool2d((pictures.alpha > 0)[:, None].float(), 5, stride=1, padding=2)[:, 0] == 0
    noticed = dataclasses.replace(pictures, alpha=torch.where(far, 0.9, pictures.alpha))
    assert error(truth, pictures=noticed) > error(truth) + 0.05


def test_the_error_of_coverage_is_the_validations_where_colours_say_nothing(judged):
    error, pictures, views = judged
    truth = solid(bowl)
    smaller = truth.replace(vertices=0.8 * truth.vertices)
    assert coverage_error(truth, views.cameras, pictures) < 1e-4
    assert 0.01 < coverage_error(smaller, views.cameras, pictures) < error(smaller)
    even = dataclasses.replace(pictures, colors=(1 - 0.5 * pictures.alpha)[..., None].expand_as(pictures.colors))
    of_coverage = coverage_error(smaller, views.cameras, even)
    assert error(smaller, pictures=even) == pytest.approx(of_coverage, rel=1e-4)


def test_given_depths_and_normals_count_in_the_validation_in_withheld_pixels_only():
    views, truth = pictures_of(bowl), solid(bowl)
    neighbors = nearest_views(views.cameras, 4)

    def error(views: Views) -> float:
        return validation_error(truth, views.cameras, Pictures.of(views, SIZE_PX, 0), neighbors, 0.7)

    assert error(dataclasses.replace(views, depth_z=1.05 * views.depth_z)) > error(views) + 0.01
    assert error(dataclasses.replace(views, normals=views.normals.flip(1))) > error(views) + 0.05

    pictures = Pictures.of(views, SIZE_PX, 0)
    assert pictures.depth_z is not None
    for wrong, noticed in ((pictures.withheld, True), (pictures.kept, False)):
        depth_z = torch.where(wrong, 1.05 * pictures.depth_z, pictures.depth_z)
        changed = dataclasses.replace(pictures, depth_z=depth_z)
        found = validation_error(truth, views.cameras, changed, neighbors, 0.7)
        assert (found > error(views) + 0.01) == noticed
        assert (found == error(views)) != noticed
