"""Carving against a plain rendering with gradients, truth in closed form, and laws of its parts."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from meshwright import ColorOptions, FitOptions, ShapeOptions, reconstruct
from meshwright.cameras import Cameras
from meshwright.mesh import Mesh, subdivide
from meshwright.raster import render
from meshwright.reconstruct import StartShape, finish, start_shape
from meshwright.shape.carve import carve
from meshwright.shape.carve.evidence import _SLIVER_CELLS, _without_slivers, keep_uncontradicted, removal_gains
from meshwright.shape.carve.fit import best_transmittance
from meshwright.shape.carve.grid import Scene
from meshwright.shape.carve.matching import (
    COVERED,
    depth_range,
    matching_cost,
    matching_costs,
    partners_of,
    pictures_to_match,
    rays_of,
)
from meshwright.shape.carve.on_device import TensorSteps, depths_of_view
from meshwright.shape.carve.rays import RaySamples, corner_offsets
from meshwright.shape.carve.steps import DENSITY_PER_CELL, CompiledSteps, render_and_differentiate
from meshwright.shape.carve.surface import fill_silhouettes
from meshwright.shape.carve.sweep import sweep_depths
from meshwright.shape.hull import visual_hull
from meshwright.shape.refine.stages import STAGES
from meshwright.views import Views

SIZE_PX = 128
HALF_WIDTH, HEIGHT = 0.18, 0.5  # of four pillars
PLACES = ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))


def box(low, high):
    corners = torch.cartesian_prod(*torch.tensor([low, high]).T)
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return corners, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def pillars():
    """Four pillars of many colours. Their hull from six views has more where silhouettes cross."""
    vertices, faces = [], []
    for x, y in PLACES:
        v, f = box([x - HALF_WIDTH, y - HALF_WIDTH, -HEIGHT], [x + HALF_WIDTH, y + HALF_WIDTH, HEIGHT])
        faces.append(f + sum(len(x) for x in vertices))
        vertices.append(v)
    v, f = torch.cat(vertices), torch.cat(faces)
    for _ in range(4):
        v, f = subdivide(v, f)
    colors = torch.rand(len(v), 3, generator=torch.Generator().manual_seed(1))
    return Mesh(v, f, vertex_colors=colors)


def views_of(mesh, cameras=None):
    cameras = Cameras.zero123plus() if cameras is None else cameras
    drawn = render(mesh, cameras, SIZE_PX, SIZE_PX, samples=4)
    sizes_px = torch.full((len(cameras), 2), SIZE_PX)
    return Views(drawn.rgb.clamp(0, 1), drawn.alpha, cameras, sizes_px, tuple(map(str, range(len(cameras)))))


@pytest.fixture(scope="module")
def posed():
    views = views_of(pillars())
    return views, visual_hull(views, 48)


@pytest.fixture(scope="module")
def carving(posed):
    return *posed, carve(*posed)


def distance_to_pillars(hull):
    """Signed distance (Chebyshev) of every node of a hull's grid to the nearest pillar, in cells; negative inside."""
    nodes = torch.cartesian_prod(*(torch.arange(n) for n in hull.values.shape)) * hull.cell_size + hull.origin
    half = torch.tensor([HALF_WIDTH, HALF_WIDTH, HEIGHT])
    to_each = [((nodes - torch.tensor([x, y, 0.0])).abs() - half).amax(1) for x, y in PLACES]
    return torch.stack(to_each).amin(0).view(hull.values.shape) / hull.cell_size


def test_what_the_pictures_look_through_is_carved_away_and_what_they_show_stays(carving):
    _, hull, carved = carving
    truth = distance_to_pillars(hull)
    phantom = ((hull.values < 0) & (truth > 1)).sum()
    assert phantom > 0.2 * (truth < 0).sum()  # else the scene shows nothing
    assert ((carved.values < 0) & (truth > 1)).sum() < 0.5 * phantom
    assert (carved.values < 0)[truth < -1].float().mean() > 0.95


def test_nothing_lies_outside_the_hull(carving):
    _, hull, carved = carving
    assert (carved.values >= hull.values - 1e-6).all()


def test_every_ray_through_the_object_meets_something(carving):
    views, _, carved = carving
    drawn = render(carved.mesh(), views.cameras, SIZE_PX, SIZE_PX)
    assert float(drawn.alpha[views.alpha > 0.99].mean()) > 0.97


def test_a_fine_hull_is_carved_on_a_coarse_grid(carving, monkeypatch):
    views, coarse, carved = carving
    monkeypatch.setattr(sys.modules[carve.__module__], "_RESOLUTION", 48)
    hull = visual_hull(views, 96)
    fine = carve(views, hull)
    assert fine.values.shape == hull.values.shape
    # As much is removed as by carving on that grid itself.
    cells = (hull.cell_size / coarse.cell_size) ** 3
    by_both = [((a.values < 0) & (b.values > 0)).sum() for a, b in ((hull, fine), (coarse, carved))]
    assert by_both[0] * cells == pytest.approx(int(by_both[1]), rel=0.25)
    assert (fine.values >= hull.values).all()


def test_an_even_coloured_object_is_left_as_it_was():
    mesh = pillars()
    views = views_of(mesh.replace(vertex_colors=torch.full_like(mesh.vertices, 0.5)))
    hull = visual_hull(views, 32)
    carved = carve(views, hull)
    assert ((carved.values < 0).sum() / (hull.values < 0).sum()) > 0.9


def test_the_number_of_threads_and_the_unit_of_the_world_change_nothing(carving):
    views, hull, _ = carving
    hull = visual_hull(views, 24)
    once = carve(views, hull)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 1)
        assert torch.equal(carve(views, hull).values, once.values)
    finally:
        torch.set_num_threads(threads)
    scale = 1024.0  # a power of two: exact in floating point
    T = views.cameras.T_world_camera.clone()
    T[:, :3, 3] *= scale
    scaled = dataclasses.replace(views, cameras=Cameras(T, views.cameras.intrinsics))
    larger = dataclasses.replace(
        hull, values=hull.values * scale, origin=hull.origin * scale, cell_size=hull.cell_size * scale
    )
    torch.testing.assert_close(carve(scaled, larger).values / scale, once.values)


def test_the_road_begins_with_what_was_asked_for(carving):
    views, _, _ = carving

    def volume(start):
        mesh = reconstruct(
            views,
            shape=ShapeOptions(start=start, resolution=24),
            fit=FitOptions(refine="off"),
            color=ColorOptions(vertex_colors=True),
        )
        assert mesh.is_watertight()
        return mesh.volume()

    assert volume("carve") < 0.97 * volume("hull")


def test_both_starts_are_made_only_where_a_fit_will_choose(carving):
    views, _, _ = carving
    auto = ShapeOptions(start="auto", resolution=24)
    both = start_shape(views, shape=auto, fit=FitOptions(refine="fast"))
    assert both.carved is not None
    assert both.carved.is_watertight()
    assert both.carved.volume() < 0.97 * both.mesh.volume()
    assert start_shape(views, shape=auto, fit=FitOptions(refine="off")).carved is None
    assert start_shape(views[:2], shape=auto).carved is None


def test_the_start_is_carved_unless_views_are_few(posed):
    views, _ = posed

    def volume(count, start, refine):
        options = ShapeOptions(start=start, resolution=24)
        made = start_shape(views[:count], shape=options, fit=FitOptions(refine=refine))
        assert made.carved is None
        return made.mesh.volume()

    for refine in ("fast", "full"):
        assert volume(3, None, refine) == volume(3, "carve", refine) < 0.99 * volume(3, "hull", refine)


def test_two_views_leave_the_hull_in_its_own_resolution(posed, monkeypatch):
    monkeypatch.setattr(sys.modules[carve.__module__], "_RESOLUTION", 12)
    views = posed[0][:2]
    hull = start_shape(views, shape=ShapeOptions(start="hull", resolution=24)).mesh
    assert torch.equal(start_shape(views, shape=ShapeOptions(resolution=24)).mesh.vertices, hull.vertices)


def test_the_better_start_of_both_is_finished(carving, monkeypatch):
    """Pillars: the hull's webs between them are of the wrong colours."""
    (stage, *_) = STAGES["fast"]
    monkeypatch.setitem(STAGES, "fast", (dataclasses.replace(stage, vertices=1500, largest_px=128, steps=6),))
    views, hull, carved = carving
    start = StartShape(hull.mesh(), carved=carved.mesh())
    finished = finish(start, views, color=ColorOptions(vertex_colors=True))
    assert finished.refined is not None
    assert finished.refined.start == 1
    assert finished.mesh.volume() < 0.95 * hull.mesh().volume()


def test_too_few_views_leave_the_hull():
    views = views_of(pillars())[:2]
    hull = visual_hull(views, 16)
    assert carve(views, hull) is hull


# --- the parts


@pytest.fixture(scope="module")
def small_scene():
    views = views_of(pillars())
    scene = Scene.of(views, visual_hull(views, 16))
    return views, scene


def test_the_scene_projects_as_the_cameras_do(small_scene):
    views, scene = small_scene
    hull = visual_hull(views, 16)
    nodes = torch.rand(20, 3, dtype=torch.float64) * torch.tensor(scene.hull.shape)
    uv, depth_z = views.cameras.to(dtype=torch.float64).project(hull.origin + nodes * hull.cell_size)
    for factor, local, at in ((1.0, scene, nodes), (2.0, scene.coarser(2.0), nodes / 2 + 1)):
        p = np.einsum("vij,nj->vni", local.projections[:, :, :3], at.numpy()) + local.projections[:, None, :, 3]
        np.testing.assert_allclose(p[..., :2] / p[..., 2:], uv.numpy(), atol=1e-5)
        np.testing.assert_allclose(p[..., 2] * hull.cell_size * factor, depth_z.numpy(), rtol=1e-5)


def test_samples_lie_on_their_rays_inside_the_hull_and_in_order(small_scene):
    views, scene = small_scene
    samples = RaySamples.of(scene, views, 32, 0.7)
    shape = np.array(scene.hull.shape)
    points = np.stack(np.unravel_index(samples.nodes, shape), axis=1) + samples.fractions
    steps = np.diff(points, axis=0)
    same_ray = np.ones(len(points) - 1, bool)
    same_ray[samples.starts[1:-1] - 1] = False
    lengths = np.linalg.norm(steps[same_ray], axis=1)
    # Samples outside the hull are left out, so that steps are whole multiples of 0.7.
    np.testing.assert_allclose(lengths / 0.7, np.round(lengths / 0.7), atol=1e-3)
    assert samples.colors.min() >= -0.01
    assert samples.colors.max() <= 1.01


def on_border(shape):
    border = np.ones(shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    return border


def plain_loss(samples, shape, logits, colors):
    """The loss as its docstring says it, ray by ray, in float64 with autograd."""
    offsets = torch.from_numpy(corner_offsets(shape))
    fractions = torch.from_numpy(samples.fractions).double()
    fx, fy, fz = fractions.unbind(1)
    weights = torch.stack([
        (fx if corner & 4 else 1 - fx) * (fy if corner & 2 else 1 - fy) * (fz if corner & 1 else 1 - fz)
        for corner in range(8)
    ], dim=1)  # fmt: skip
    nodes = torch.from_numpy(samples.nodes).long()[:, None] + offsets
    logit = (weights * logits[nodes]).sum(1)
    color = (weights[..., None] * colors[nodes]).sum(1)
    opacity = 1 - (-softplus(logit) * DENSITY_PER_CELL * samples.step).exp()

    def robust(x):
        return (x.square().sum(-1) + 0.03**2).sqrt() - 0.03

    loss = torch.zeros((), dtype=torch.float64)
    for ray, target in enumerate(torch.from_numpy(samples.colors).double()):
        chosen = slice(int(samples.starts[ray]), int(samples.starts[ray + 1]))
        passed = (1 - opacity[chosen]).cumprod(0)
        weight = opacity[chosen] * torch.cat([torch.ones(1, dtype=torch.float64), passed[:-1]])
        rendered = (weight[:, None] * color[chosen]).sum(0)
        loss = loss + (weight * robust(color[chosen] - target)).sum()
        loss = loss + robust(rendered - (1 - passed[-1]) * target) + passed[-1]
    return loss


def test_the_gradient_is_that_of_a_plain_rendering(small_scene):
    views, scene = small_scene
    samples = RaySamples.of(scene, views, 16, 0.7)
    generator = np.random.default_rng(0)
    logits = generator.normal(-3.5, 0.5, scene.hull.size).astype(np.float32)  # thin: no ray ends early
    colors = generator.random((scene.hull.size, 3)).astype(np.float32)
    gradients, sums = np.zeros((2, logits.size), np.float32), np.zeros((2, logits.size, 4), np.float32)
    offsets = corner_offsets(scene.hull.shape)
    loss = sum(
        render_and_differentiate(
            part, 2, samples.starts, samples.nodes, samples.fractions, samples.colors, np.float32(samples.step),
            offsets, logits, colors, gradients[part], sums[part],
        )
        for part in range(2)
    )  # fmt: skip
    plain_logits = torch.from_numpy(logits).double().requires_grad_()
    plain = plain_loss(samples, scene.hull.shape, plain_logits, torch.from_numpy(colors).double())
    plain.backward()
    assert loss == pytest.approx(float(plain), rel=1e-5)
    wanted = plain_logits.grad.numpy()
    np.testing.assert_allclose(gradients.sum(0), wanted, atol=1e-4 * np.abs(wanted).max())


def test_each_patch_is_compared_as_if_it_were_alone(small_scene):
    """The costs of all depths share what they know of each pixel; `matching_cost` looks at one patch, at one depth."""
    views, scene = small_scene
    pictures, partners = pictures_to_match(views), partners_of(scene)[0]
    first, count = depth_range(scene, 0)
    mask = pictures[0, ..., 3] > COVERED
    cost = np.full((*mask.shape, count), np.nan, np.float32)
    matching_costs(0, partners, first, scene.hull, scene.projections, pictures, mask, cost)
    compared = np.argwhere(np.isfinite(cost))[::7]
    assert len(compared) > 200
    axes, centre = rays_of(scene.projections[0])
    alone = [
        matching_cost(0, row, column, first + k, axes, centre, partners, scene.projections, pictures, mask)
        for row, column, k in compared
    ]
    np.testing.assert_allclose(cost[tuple(compared.T)], alone, atol=1e-6)


def test_tensors_find_the_depths_that_compiled_loops_find(small_scene):
    views, scene = small_scene
    pictures, partners = pictures_to_match(views), partners_of(scene)
    compiled = sweep_depths(scene, views)
    assert (compiled > 0).sum() > 100
    for view in range(len(views)):
        found = depths_of_view(scene, pictures, view, partners[view], *depth_range(scene, view), torch.device("cpu"))
        # Equal costs may fall either way by rounding.
        assert (found == compiled[view]).mean() > 0.999


@pytest.mark.parametrize("thickness", [-3.5, 1.0])  # no ray ends early, and all do
def test_tensors_fit_as_compiled_loops_do(small_scene, monkeypatch, thickness):
    monkeypatch.setattr(sys.modules[TensorSteps.__module__], "_MOST_AT_ONCE", 1000)  # several portions
    views, scene = small_scene
    samples = RaySamples.of(scene, views, 24, 0.7)
    generator = np.random.default_rng(0)
    logits = generator.normal(thickness, 0.5, scene.hull.size).astype(np.float32)
    colors = generator.random((scene.hull.size, 3)).astype(np.float32)
    weight = generator.random(scene.hull.size).astype(np.float32)
    active = np.flatnonzero((scene.hull < 1).reshape(-1) & ~on_border(scene.hull.shape).reshape(-1))
    given = samples, active, corner_offsets(scene.hull.shape), logits, colors
    loops, tensors = CompiledSteps(*given), TensorSteps(*given, torch.device("cpu"))
    losses = []
    for iteration in range(3):
        losses.append(loops.render())
        assert tensors.render() == pytest.approx(losses[-1], rel=1e-5)
        for steps in (loops, tensors):
            steps.take_mean_colors(0.02)
            steps.move_logits(weight, 0.2, iteration)
    assert losses[2] < losses[1] < losses[0]
    np.testing.assert_allclose(tensors.logits, loops.logits, atol=2e-4)
    np.testing.assert_allclose(tensors.colors, loops.colors, atol=2e-5)
    assert np.abs(loops.logits - logits).max() > 0.1


@pytest.mark.gpu
def test_a_gpu_carves_what_the_cpu_carves():
    views = views_of(pillars())
    hull = visual_hull(views, 48)
    on_gpu = dataclasses.replace(hull, values=hull.values.cuda(), origin=hull.origin.cuda())
    carved, wanted = carve(views, on_gpu), carve(views, hull)
    assert carved.values.is_cuda
    differ = (carved.values.cpu() < 0) != (wanted.values < 0)
    assert differ.sum() < 0.01 * (wanted.values < 0).sum()


def test_light_passes_nothing_and_stops_at_a_wall(small_scene):
    _, scene = small_scene
    empty = np.zeros(scene.hull.shape, np.float32)
    assert np.allclose(best_transmittance(empty, scene), 1)
    solid = np.full(scene.hull.shape, 50, np.float32)
    assert best_transmittance(solid, scene)[scene.hull < -1.5].max() < 1e-3


def test_depths_of_a_plate_are_found_where_its_colours_differ():
    views = views_of(pillars())
    hull = visual_hull(views, 64)
    scene = Scene.of(views, hull)
    depths = sweep_depths(scene, views)
    true = render(pillars(), views.cameras, *depths.shape[1:]).depth_z[:, 0].numpy() / hull.cell_size
    known = (depths > 0) & (true > 0)
    error = np.abs(depths - true)[known]
    assert np.median(error) < 1.5
    front = np.abs(front_of_hull(hull.mesh(), views, depths.shape[1:]) / hull.cell_size - true)[known]
    assert np.mean(error > 3) < 0.7 * np.mean(front > 3)


def front_of_hull(mesh, views, size):
    return render(mesh, views.cameras, *size).depth_z[:, 0].numpy()


def test_filling_restores_a_part_that_was_lost(small_scene):
    views, scene = small_scene
    filled = fill_silhouettes(scene, views, np.full(scene.hull.shape, 1, np.float32))
    assert (filled < 0).any()
    assert (filled >= np.minimum(scene.hull, 1) - 1e-6).all()


# --- what the pictures do not contradict


@pytest.fixture(scope="module")
def true_removal(posed):
    """The pillars as a carved field: all that is removed from their hull is phantom."""
    views, hull = posed
    scene = Scene.of(views, hull)
    return views, hull, scene, np.maximum(distance_to_pillars(hull).numpy(), scene.hull).astype(np.float32)


def test_what_is_truly_empty_stays_removed_and_nothing_else_changes(true_removal):
    views, _, scene, field = true_removal
    kept = keep_uncontradicted(scene, views, field)
    assert (kept <= field).all()
    assert (kept >= scene.hull).all()
    phantom = (scene.hull < -1) & (field > 1)
    assert (kept[phantom] > 0).mean() > 0.95


def test_a_surface_in_front_fits_better_than_what_was_dug_behind_it(true_removal):
    """The pillars drawn in by three cells show each picture's colours where no other picture has them."""
    views, _, scene, field = true_removal
    dug = np.maximum(field + 3, scene.hull).astype(np.float32)
    solid = (field < -0.5) & (dug > 0.5)
    kept = keep_uncontradicted(scene, views, dug)
    assert (kept[solid] < 0).mean() > 0.95
    assert (removal_gains(scene, views, dug)[solid] < 0.01).mean() > 0.95


def test_gains_belong_to_the_removed_nodes(true_removal, monkeypatch):
    views, _, scene, field = true_removal
    monkeypatch.setattr(sys.modules["meshwright.shape.carve.evidence"], "_NEIGHBORHOOD_CELLS", 0.01)
    gains = removal_gains(scene, views, field)
    assert (gains[field < -1] == 0).all()
    assert (gains[(scene.hull < -1) & (field > 1)] != 0).mean() > 0.5


def test_even_colours_ask_for_no_removal(true_removal):
    views, _, scene, field = true_removal
    even = dataclasses.replace(views, images=(1 - 0.5 * views.alpha).expand(-1, 3, -1, -1).contiguous())
    kept = keep_uncontradicted(scene, even, field)
    assert (kept[scene.hull < -_SLIVER_CELLS - 1] < 0).all()
    assert (kept[scene.hull < 0] < 0).mean() > 0.8
    assert (kept[scene.hull < -0.5] > 0).any()  # slivers


def test_a_removed_sliver_stays_away_and_a_removed_slab_on_the_object_comes_back():
    """Colours are even, so that they ask for no removal; all that is removed here is a box's side, and a wing on it."""
    nodes = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (48, 40, 40)), indexing="ij"), axis=3)

    def box(low, high):
        return np.maximum(np.array(low, np.float32) - nodes, nodes - np.array(high, np.float32)).max(axis=3)

    core, side, wing = box((8, 8, 8), (24, 32, 32)), box((22, 8, 8), (28, 32, 32)), box((26, 18, 8), (44, 22, 32))
    whole = np.minimum(np.minimum(core, side), wing)
    kept = _without_slivers(core, whole)
    away_from_edges = box((0, 12, 12), (48, 28, 28)) < 0
    assert (kept[(side < -0.5) & away_from_edges] < 0).all()
    assert (kept[(wing < 0) & (nodes[..., 0] > 32)] > 0).all()
    np.testing.assert_array_equal(_without_slivers(whole, whole), whole)  # thin, but never removed
    thick = np.minimum(whole, box((26, 8, 8), (44, 32, 32)))
    assert (_without_slivers(core, thick)[(thick < -0.5) & (nodes[..., 0] < 38) & away_from_edges] < 0).all()


def test_a_hollow_without_an_opening_is_filled(true_removal):
    views, _, scene, field = true_removal
    hollow = np.where(field < -3, 1, field).astype(np.float32)
    assert (hollow > 0).sum() > (field > 0).sum()  # else the pillars have no middle
    kept = keep_uncontradicted(scene, views, hollow)
    assert (kept[field < -3] < 0).all()
