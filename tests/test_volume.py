"""The volume renderer against the published pictures, its plain twin, and the laws of light."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.cameras import Cameras, Rays
from meshwright.errors import InputError
from meshwright.model.volume import (
    Draws,
    box_interval,
    density_from_raw,
    importance_distances,
    interval_weights,
    render_rays,
    stratified_distances,
)
from plain_volume import plain_render

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).parent / "golden" / "small_nerf_render.npz").items()
}
RAYS = Rays(GOLDEN["ray_origins"], GOLDEN["ray_dirs"])  # four views of 16 x 16
SAMPLES = 16
LAYERS = (0, 2, 4, 6)


def published_field(planes, net):
    """The published decoder on bilinear samples of its three planes."""

    def field(points):
        x, y, z = points.unbind(1)
        uv = torch.stack([torch.stack(pair, dim=1) for pair in ((x, y), (x, z), (z, y))])[:, None]
        features = F.grid_sample(planes, uv, align_corners=False)[:, :, 0].permute(2, 0, 1).flatten(1)
        for layer in LAYERS:
            features = F.linear(features if layer == 0 else F.relu(features), *net[layer])
        return features[:, 0], torch.sigmoid(features[:, 1:]) * 1.002 - 0.001

    return field


def golden_weights(requires_grad=False):
    planes = GOLDEN["planes"][0].clone().requires_grad_(requires_grad)
    net = {
        layer: [GOLDEN[f"net.{layer}.{part}"].clone().requires_grad_(requires_grad) for part in ("weight", "bias")]
        for layer in LAYERS
    }
    return planes, net


def golden_draws(mode):
    return Draws(GOLDEN[f"render_{mode}_noise_coarse"].view(-1, 8), GOLDEN[f"render_{mode}_u_fine"])


def waves(points):
    """A field with thin shells, nearly opaque in places, that computes each point by itself."""
    x, y, z = points.unbind(1)
    raw = 6 * torch.sin(5 * x + 2 * y) + 4 * torch.cos(7 * z) - 2
    return raw, torch.sigmoid(torch.stack([3 * x, 2 * y + z, x - z], dim=1))


def orbit_rays(height=12, width=12, views=2):
    return Cameras.orbit(views, 20.0, radius=4.0).rays(height, width)


def assert_same(ours, golden, prefix=None, atol=2e-5, depth_atol=1e-4):
    for name in ("rgb", "depth", "weight"):
        expected = golden[f"{prefix}_images_{name}"][0].movedim(1, -1) if prefix else getattr(golden, name)
        actual = getattr(ours, name).reshape(expected.shape)
        torch.testing.assert_close(actual, expected, atol=depth_atol if name == "depth" else atol, rtol=0, msg=name)


# --- the published numbers ---


@pytest.mark.parametrize("mode", ["half", "seeded"])
def test_pictures_are_the_published_ones(mode):
    ours = render_rays(published_field(*golden_weights()), RAYS, SAMPLES, golden_draws(mode))
    assert_same(ours, GOLDEN, f"render_{mode}")


def test_without_draws_strata_are_halved_and_the_distribution_is_stepped_through():
    assert_same(render_rays(published_field(*golden_weights()), RAYS, SAMPLES), GOLDEN, "render_half")


def test_a_slice_of_the_rays_is_the_published_crop():
    square = Rays(RAYS.origins.view(4, 16, 16, 3), RAYS.directions.view(4, 16, 16, 3))
    crop = render_rays(published_field(*golden_weights()), square[:, 3:11, 4:14], SAMPLES)
    assert crop.rgb.shape == (4, 8, 10, 3)
    assert_same(crop, GOLDEN, "crop_half")


def test_camera_rays_and_box_interval_are_the_published_ones():
    matrices = GOLDEN["render_cameras"][0]
    intrinsics = matrices[:, [16, 20, 18, 21]]  # fx, fy, cx, cy of a row-major 3 x 3 behind 16 numbers
    rays = Cameras(matrices[:, :16].view(4, 4, 4), intrinsics).rays(16, 16)
    torch.testing.assert_close(rays.origins.reshape(4, 256, 3), RAYS.origins, atol=1e-6, rtol=0)
    torch.testing.assert_close(rays.directions.reshape(4, 256, 3), RAYS.directions, atol=1e-6, rtol=0)
    near, far = box_interval(RAYS.origins.view(-1, 3), RAYS.directions.view(-1, 3))
    assert torch.equal(near > far, GOLDEN["ray_near"].flatten() == -1)
    torch.testing.assert_close(near, GOLDEN["ray_near"].flatten(), atol=2e-6, rtol=0)
    torch.testing.assert_close(far, GOLDEN["ray_far"].flatten(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("mode", ["half", "seeded"])
def test_each_step_is_the_published_one(mode):
    golden = {
        name: GOLDEN[f"render_{mode}_{name}"].flatten(0, 1).squeeze(-1) for name in ("depths_coarse", "depths_fine")
    }
    near, far = GOLDEN["ray_near"].flatten(), GOLDEN["ray_far"].flatten()
    hits, draws = near < far, golden_draws(mode)
    coarse = stratified_distances(near[hits], far[hits], draws.jitter[hits])
    torch.testing.assert_close(coarse, golden["depths_coarse"][hits], atol=2e-6, rtol=0)
    weights = GOLDEN[f"render_{mode}_weights_coarse"].flatten(0, 1).squeeze(-1)
    fine = importance_distances(golden["depths_coarse"], weights, draws.u)
    torch.testing.assert_close(fine, golden["depths_fine"], atol=1e-5, rtol=0)


def test_a_generator_draws_what_the_published_renderer_draws():
    draws, golden = Draws.random(1024, SAMPLES, torch.Generator().manual_seed(1234)), golden_draws("seeded")
    assert torch.equal(draws.jitter, golden.jitter)
    assert torch.equal(draws.u, golden.u)


@pytest.mark.parametrize(("checkpointing", "rays_per_chunk"), [(False, 1 << 20), (True, 1 << 20), (True, 100)])
def test_training_gradients_are_the_published_ones(checkpointing, rays_per_chunk):
    planes, net = golden_weights(requires_grad=True)
    ours = render_rays(published_field(planes, net), RAYS, SAMPLES, golden_draws("half"), checkpointing, rays_per_chunk)
    target = GOLDEN["train_target_rgb"][0].flatten(2).mT
    loss = (ours.rgb - target).square().mean() + ours.weight.mean()
    loss.backward()
    torch.testing.assert_close(loss, GOLDEN["train_loss"], atol=1e-6, rtol=0)
    for layer in LAYERS:
        for part, tensor in zip(("weight", "bias"), net[layer], strict=True):
            golden = GOLDEN[f"train_grad_net.{layer}.{part}"]
            torch.testing.assert_close(tensor.grad, golden, atol=2e-5 * golden.abs().max().item(), rtol=0)
    golden = GOLDEN["train_grad_planes"][0]
    error = (planes.grad - golden).abs().amax(1) / golden.abs().max()
    # One hidden unit of one sample sits on its ReLU's kink: the texels around that sample differ, in the twin as well.
    assert (error > 1e-5).sum() <= 12
    assert error.max() < 2e-4


# --- the plain twin ---


@pytest.mark.parametrize("samples", [8, 24])
def test_equal_to_the_plain_twin_in_value_and_gradient(samples):
    rays = orbit_rays(9, 11)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    draws = Draws.random(len(origins), samples, torch.Generator().manual_seed(3))
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0], requires_grad=True)

    def field(points):
        raw, rgb = waves(points)
        return raw * scale[0], rgb * scale[1:]

    target = torch.rand(len(origins), 3, generator=torch.Generator().manual_seed(4))
    results, gradients = [], []
    for rendering in (
        render_rays(field, Rays(origins, directions), samples, draws, rays_per_chunk=40),
        plain_render(field, origins, directions, draws.jitter, draws.u),
    ):
        loss = (rendering.rgb - target).square().sum() + rendering.depth.sum() + rendering.weight.square().sum()
        gradients.append(torch.autograd.grad(loss, scale)[0])
        results.append(rendering)
    assert_same(*results, atol=2e-6, depth_atol=1e-5)
    torch.testing.assert_close(*gradients, atol=0, rtol=2e-5)


# --- laws ---


@pytest.mark.parametrize("raw_density", [-3.0, 0.0, 1.5, 4.0])
@pytest.mark.parametrize("samples", [8, 64])
def test_a_uniform_box_dims_light_by_beer_and_lambert(raw_density, samples):
    def uniform(points):
        return torch.full_like(points[:, 0], raw_density), torch.full_like(points, 0.25)

    rays = Rays(torch.tensor([[3.0, 0.2, -0.3]]), torch.tensor([[-1.0, 0.0, 0.0]]))
    seen = render_rays(uniform, rays, samples)
    half = samples // 2
    length = 2.0 * (half - 2) / (half - 1)  # from the first sample to the last one inside the box
    density = density_from_raw(torch.tensor(raw_density))
    weight = 1 - torch.exp(-density * length)
    torch.testing.assert_close(seen.weight, weight[None], atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.rgb, (1 - 0.75 * weight).expand(1, 3), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 300.0), st.integers(2, 40))
def test_weights_share_out_at_most_all_light(seed, contrast, samples):
    generator = torch.Generator().manual_seed(seed)
    raw = contrast * torch.randn(5, samples, generator=generator)
    distances = torch.rand(5, samples, generator=generator).cumsum(1)
    weights = interval_weights(raw, distances)
    assert (weights >= 0).all()
    assert (weights.sum(1) <= 1 + 1e-6).all()
    passed = torch.exp(-(density_from_raw((raw[:, 1:] + raw[:, :-1]) / 2) * distances.diff(dim=1)).sum(1))
    torch.testing.assert_close(1 - weights.sum(1), passed, atol=2e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_further_samples_follow_the_histogram(seed):
    """Where the histogram has no empty share, the fraction of draws below a bin's end is the bins' mass up to there."""
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(1, 12, generator=generator).cumsum(1)
    weights = torch.rand(1, 11, generator=generator)
    u = torch.linspace(0, 1, 4001)[None, :-1]
    drawn = importance_distances(distances, weights, u)
    assert (drawn.diff(dim=1) >= -1e-5).all()
    middles = (distances[0, 1:] + distances[0, :-1]) / 2
    blurred = torch.maximum(F.pad(weights[0], (1, 0)), F.pad(weights[0], (0, 1))).unfold(0, 2, 1).mean(1) + 0.01
    mass = blurred[1:-1] / blurred[1:-1].sum()
    for end, expected in zip(middles[1:-1], mass.cumsum(0), strict=True):
        assert (drawn < end).float().mean().item() == pytest.approx(expected.item(), abs=1e-3)


def test_an_empty_box_is_white():
    def empty(points):
        return torch.full_like(points[:, 0], -200.0), torch.zeros_like(points)

    seen = render_rays(empty, orbit_rays())
    assert torch.equal(seen.rgb, torch.ones_like(seen.rgb))
    assert torch.equal(seen.weight, torch.zeros_like(seen.weight))


def test_depth_over_weight_is_the_distance_to_a_wall():
    def wall(points):
        return torch.where(points[:, 0] < 0.3, 1e4, -1e4), torch.zeros_like(points)

    rays = Rays(torch.tensor([[4.0, 0.1, 0.2]]), torch.tensor([[-1.0, 0.0, 0.0]]))
    seen = render_rays(wall, rays, 256)
    assert (seen.depth / seen.weight).item() == pytest.approx(3.7, abs=0.01)


def test_chunks_do_not_change_the_picture():
    rays = orbit_rays()
    whole = render_rays(waves, rays, 32, rays_per_chunk=1 << 20)
    for rays_per_chunk in (1, 7, 100):
        parts = render_rays(waves, rays, 32, rays_per_chunk=rays_per_chunk)
        for name in ("rgb", "depth", "weight"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_a_crop_is_that_part_of_the_picture():
    rays = orbit_rays(16, 16)
    picture, crop = render_rays(waves, rays, 32), render_rays(waves, rays[:, 4:9, 3:12], 32)
    torch.testing.assert_close(crop.rgb, picture.rgb[:, 4:9, 3:12], atol=1e-6, rtol=0)
    torch.testing.assert_close(crop.weight, picture.weight[:, 4:9, 3:12], atol=1e-6, rtol=0)
    lowest = crop.depth.min()  # the clamp range belongs to the call
    torch.testing.assert_close(crop.depth, picture.depth[:, 4:9, 3:12].clamp(min=lowest), atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_noise_and_another_seed_another():
    rays = orbit_rays()
    pictures = [
        render_rays(
            waves, rays, 16, Draws.random(288, 16, torch.Generator().manual_seed(seed)), rays_per_chunk=chunk
        ).rgb
        for seed, chunk in ((5, 40), (5, 1 << 20), (6, 1 << 20))
    ]
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-6, rtol=0)
    assert (pictures[0] - pictures[2]).abs().max() > 1e-3


def test_one_single_ray_is_enough():
    rays = orbit_rays()
    one = render_rays(waves, rays[0, 6, 6])
    assert one.rgb.shape == (3,)
    torch.testing.assert_close(one.rgb, render_rays(waves, rays).rgb[0, 6, 6], atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_rays_that_all_miss_see_white_and_keep_the_graph(count):
    rays = Rays(torch.tensor([[3.0, 2.0, 0.0]]).expand(count, 3), torch.tensor([[-1.0, 0.0, 0.0]]).expand(count, 3))
    planes, net = golden_weights(requires_grad=True)
    seen = render_rays(published_field(planes, net), rays, SAMPLES)
    assert torch.equal(seen.rgb, torch.ones(count, 3))
    assert torch.equal(seen.weight, torch.zeros(count))
    seen.rgb.sum().backward()
    assert torch.equal(planes.grad, torch.zeros_like(planes))


def test_rays_along_the_faces_hit_and_beside_them_miss():
    origins = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0001, 0.0], [3.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [-1.0, -0.0, 0.0], [0.0, 0.0, 1.0]])
    near, far = box_interval(origins, directions)
    torch.testing.assert_close(near, torch.tensor([2.0, -1.0, 2.0, -1.0]))
    torch.testing.assert_close(far, torch.tensor([4.0, -2.0, 4.0, 1.0]))


def test_the_field_is_asked_once_a_sample_inside_the_box_and_only_on_rays_that_hit():
    asked = []

    def counting(points):
        asked.append(len(points))
        assert points.abs().max() <= 1
        return waves(points)

    rays = Cameras.orbit(2, radius=6.0).rays(16, 16)
    near, far = box_interval(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    with torch.no_grad():
        render_rays(counting, rays, 16, rays_per_chunk=125)
    assert 0 < (near <= far).sum() < near.numel()
    assert sum(asked) == 16 * int((near <= far).sum())
    assert max(asked) <= 1000  # 125 rays, half of 16 samples


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        planes, net = golden_weights(requires_grad=True)
        seen = render_rays(published_field(planes, net), RAYS, SAMPLES, None, checkpointing, rays_per_chunk=250)
        (seen.rgb.square().sum() + seen.depth.sum()).backward()
        gradients.append(planes.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="samples_per_ray is 7"):
        render_rays(waves, orbit_rays(), 7)


def test_draws_for_other_rays_are_refused():
    draws = Draws.random(5, 16, torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="288 rays of 16 samples"):
        render_rays(waves, orbit_rays(), 16, draws)
