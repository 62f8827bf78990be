"""The triplane transformer and every way to sample planes, against published numbers, plain twins and laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plain_model as plain
from meshwright.model.triplane import GridMaps, PlaneSampler, project_planes
from meshwright.shape.flexicubes import grid_axes
from small_models import golden, small_mesh, small_nerf

MESH, NERF = golden("small_mesh"), golden("small_nerf")
SIZE, CHANNELS = 16, 5


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def points_everywhere(count: int = 300) -> torch.Tensor:
    """Points in and around the box, on its faces, and on texel centres."""
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 2.6 - 1.3
    on_faces = points[:30].round()
    on_centres = ((points[30:60] * SIZE / 2).floor() + 0.5) * 2 / SIZE
    return torch.cat([points, on_faces, on_centres])


# --- the transformer --------------------------------------------------------------------------------------------


def test_every_stage_is_the_published_one():
    transformer = small_mesh().transformer
    seen = {}
    for name, module in (("tr_layer0", transformer.layers[0]), ("tr_layer1", transformer.layers[1])):
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    transformer.norm.register_forward_hook(lambda _module, _inputs, output: seen.update(tr_norm=output))
    seen["planes"] = transformer(MESH["encoder_tokens"].flatten(0, 1)[None]).planes
    assert len(seen) == 4
    for name, value in seen.items():
        torch.testing.assert_close(value, MESH[name], atol=1e-5, rtol=0, msg=lambda m, n=name: n + m)


def test_two_objects_of_four_views_give_the_published_planes():
    with torch.no_grad():
        planes = small_nerf().planes(NERF["b2v4_images"], NERF["b2v4_cameras"]).planes
    torch.testing.assert_close(planes, NERF["b2v4_planes"], atol=1e-5, rtol=0)


def test_six_views_give_the_published_planes():
    with torch.no_grad():
        planes = small_mesh().planes(MESH["images"], MESH["cameras"]).planes
    torch.testing.assert_close(planes, MESH["planes"], atol=1e-5, rtol=0)


def test_transformer_equals_its_plain_twin_in_value_and_gradient():
    model = small_mesh()
    tokens = seeded(2, 7, 48)
    weights = model.state_dict(keep_vars=True)
    watched = [weights["transformer.pos_embed"], weights["transformer.layers.1.cross_attn.k_proj_weight"]]
    results = []
    for transform in (lambda t: model.transformer(t).planes, lambda t: plain.transform(weights, model.config, t)):
        leaf = tokens.clone().requires_grad_()
        planes = transform(leaf)
        results.append((planes, *torch.autograd.grad(planes.square().mean(), [leaf, *watched])))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_neither_the_order_of_views_nor_the_batch_matters():
    model = small_nerf()
    images, cameras = NERF["b2v4_images"], NERF["b2v4_cameras"]
    planes = model.planes(images, cameras).planes
    order = [2, 0, 3, 1]
    torch.testing.assert_close(model.planes(images[:, order], cameras[:, order]).planes, planes, atol=1e-5, rtol=0)
    alone = model.planes(images[1:], cameras[1:]).planes
    torch.testing.assert_close(alone, planes[1:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_view_is_enough():
    planes = small_nerf().planes(NERF["b2v4_images"][:, :1], NERF["b2v4_cameras"][:, :1]).planes
    assert planes.shape == (2, 3, 12, 16, 16)
    assert planes.isfinite().all()


@torch.no_grad()
def test_planes_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        planes = small_nerf().planes(NERF["b2v4_images"], NERF["b2v4_cameras"]).planes
    assert planes.dtype == torch.float32
    torch.testing.assert_close(planes, NERF["b2v4_planes"], atol=0.1, rtol=0)


# --- sampling at points -----------------------------------------------------------------------------------------


def test_projecting_by_the_identity_gives_the_published_samples():
    sample = PlaneSampler(project_planes(NERF["planes"][0], torch.eye(36)))
    features = sample(NERF["points"][0]).unflatten(1, (3, 12)).transpose(0, 1)
    torch.testing.assert_close(features, NERF["points_features"][0], atol=2e-6, rtol=0)


def test_projected_samples_equal_the_layer_on_gathered_features_in_value_and_gradient():
    weight = seeded(7, 3 * CHANNELS, seed=2)
    results = []
    for project in (
        lambda planes, points: PlaneSampler(project_planes(planes, weight))(points),
        lambda planes, points: plain.features(planes, points) @ weight.T,
    ):
        inputs = seeded(3, CHANNELS, SIZE, SIZE).requires_grad_(), points_everywhere().requires_grad_()
        out = project(*inputs)
        gradients = torch.autograd.grad((out * seeded(*out.shape, seed=3)).sum(), inputs)
        # On texel centres and faces the derivative in the point jumps, and rounding picks its side.
        results.append((out, gradients[0], gradients[1][:300]))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=2e-4, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1 + 1 / SIZE, 1 - 1 / SIZE), min_size=3, max_size=3), st.integers(0, 10**6))
def test_between_texel_centres_affine_planes_are_reproduced(point, seed):
    a, b, c = seeded(3, 3, seed=seed).unbind(1)  # plane p: a + b * column coordinate + c * row coordinate
    centre = (2 * torch.arange(SIZE) + 1) / SIZE - 1
    planes = a[:, None, None] + b[:, None, None] * centre + c[:, None, None] * centre[:, None]
    x, y, z = point
    expected = sum(a[p] + b[p] * s + c[p] * t for p, (s, t) in enumerate([(x, y), (x, z), (z, y)]))
    sampled = PlaneSampler(planes[..., None])(torch.tensor([point]))
    assert sampled.item() == pytest.approx(expected.item(), abs=1e-5)


def test_features_end_one_texel_beyond_the_outermost():
    planes = torch.ones(3, SIZE, SIZE, 1)
    edge = 1 + 1 / SIZE
    points = torch.tensor([[edge, edge, edge], [50.0, 0.0, -1e30], [-edge, 0.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(
        PlaneSampler(planes)(points)[:, 0], torch.tensor([0.0, 0.0, 1.0, 2.0]), atol=1e-6, rtol=0
    )


def test_compiled_lookup_gives_the_bits_of_the_differentiable_one():
    sample, points = PlaneSampler(seeded(3, SIZE, SIZE, CHANNELS)), points_everywhere()
    points = torch.cat([points, 1e30 * points[:5], torch.tensor([[torch.inf, -torch.inf, 0.0]])])
    assert torch.equal(sample(points), sample(points.clone().requires_grad_()))


def test_points_that_are_no_numbers_give_none():
    sample = PlaneSampler(torch.ones(3, SIZE, SIZE, 2))
    assert sample(torch.tensor([[float("nan"), 0.0, 0.0]])).isnan().all()
    assert sample(torch.zeros(0, 3)).shape == (0, 2)


# --- sampling on grids ------------------------------------------------------------------------------------------


AXES = tuple(axis + 0.02 * number for number, axis in enumerate(grid_axes((5, 6, 7), (2.1, 1.9, 2.4))))


def on_grid(maps: GridMaps) -> torch.Tensor:
    return torch.cat([maps.slab(0, 2), maps.slab(2, len(maps.xy))])


def test_maps_of_a_grid_add_up_to_the_layer_on_gathered_features_in_value_and_gradient():
    weight, bias = seeded(7, 3 * CHANNELS, seed=2), seeded(7, seed=4)
    results = []
    for project in (
        lambda planes: on_grid(GridMaps.sample(planes, AXES).project(weight, bias)),
        lambda planes: (plain.features(planes, torch.cartesian_prod(*AXES)) @ weight.T + bias).view(6, 7, 8, 7),
    ):
        planes = seeded(3, CHANNELS, SIZE, SIZE).requires_grad_()
        out = project(planes)
        results.append((out, torch.autograd.grad((out * seeded(*out.shape, seed=3)).sum(), planes)[0]))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=3e-5, rtol=1e-5)


def test_maps_of_cubes_add_up_to_the_layer_on_the_features_of_eight_corners():
    planes = seeded(3, CHANNELS, SIZE, SIZE)
    weight, bias = seeded(7, 8 * 3 * CHANNELS, seed=2), seeded(7, seed=4)
    axes = grid_axes(6, 2.1)
    corners = plain.features(planes, torch.cartesian_prod(*axes))[plain.grid_cubes(6)].flatten(1)
    ours = on_grid(GridMaps.sample(planes, axes).project_cubes(weight, bias))
    torch.testing.assert_close(ours.flatten(0, 2), corners @ weight.T + bias, atol=3e-5, rtol=1e-5)


def test_chosen_grid_points_are_those_of_the_whole_grid():
    maps = GridMaps(seeded(4, 5, 3), seeded(4, 6, 3, seed=1), seeded(5, 6, 3, seed=2))
    index = torch.tensor([[3, 0, 5], [0, 4, 0], [3, 0, 5]])
    torch.testing.assert_close(maps.at(index), on_grid(maps)[tuple(index.T)], atol=1e-6, rtol=0)
