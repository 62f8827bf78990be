"""The heads, at points and on grids, against published numbers and plain twins."""

import pytest
import torch

import plain_model as plain
from meshwright.model import field
from meshwright.model.field import GridField, Head, PointField
from meshwright.model.triplane import GridMaps
from meshwright.shape.flexicubes import grid_axes
from small_models import golden, small_mesh, small_nerf

MESH, NERF = golden("small_mesh"), golden("small_nerf")
PLANES = MESH["planes"][0]
AXES = grid_axes(16, 2.1, published_rounding=True)


def points_everywhere() -> torch.Tensor:
    return torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2


def all_places(side: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(side)] * 3)


# --- published numbers ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_heads_at_points_give_the_published_numbers():
    decoder, points = small_mesh().decoder, MESH["points"][0]
    rgb = decoder.color_field(PLANES)(points)
    torch.testing.assert_close(rgb, MESH["points_rgb"][0], atol=5e-6, rtol=0)
    sdf = PointField(decoder.net_sdf, PLANES)(points)
    torch.testing.assert_close(sdf, MESH["points_sdf"][0], atol=5e-6, rtol=0)
    deformation = PointField(decoder.net_deformation, PLANES)(points)
    torch.testing.assert_close(deformation, MESH["points_deformation_mlp"][0], atol=5e-6, rtol=0)


@torch.no_grad()
def test_heads_on_the_grid_give_the_published_numbers():
    fields = small_mesh().decoder.on_grid(PLANES, AXES)
    torch.testing.assert_close(fields.sdf.everywhere().flatten(), MESH["sdf_mlp"][0, :, 0], atol=5e-6, rtol=0)
    deformation = fields.deformation.at(all_places(17))
    torch.testing.assert_close(deformation, MESH["deformation_mlp"][0], atol=5e-6, rtol=0)
    torch.testing.assert_close(0.1 * fields.weights.at(all_places(16)), MESH["weight_mlp"][0], atol=5e-6, rtol=0)


@torch.no_grad()
def test_radiance_field_gives_the_published_numbers():
    model, planes = small_nerf(), NERF["planes"][0]
    raw_density, rgb = model.field(planes)(NERF["points"][0])
    torch.testing.assert_close(rgb, NERF["points_rgb"][0], atol=5e-6, rtol=0)
    torch.testing.assert_close(raw_density, NERF["points_sigma_raw"][0, :, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.density_grid(planes, 9), NERF["grid9_sigma"][0, ..., 0], atol=1e-4, rtol=0)


# --- twins and laws ---------------------------------------------------------------------------------------------


def test_overwriting_the_hidden_layers_changes_nothing():
    head, hidden = Head(6, 3), torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    with_gradients = head.after_first(hidden)
    with torch.no_grad():
        assert torch.equal(head.after_first(hidden.clone()), with_gradients)


def test_a_head_at_points_equals_its_plain_twin_in_value_and_gradient():
    model = small_mesh()
    weights = model.state_dict(keep_vars=True)
    watched = [weights[f"synthesizer.decoder.net_rgb.{layer}.weight"] for layer in (0, 2, 6)]
    results = []
    for color in (lambda planes, x: model.color_field(planes)(x), lambda planes, x: plain.color(weights, planes, x)):
        inputs = PLANES.clone().requires_grad_(), points_everywhere().requires_grad_()
        rgb = color(*inputs)
        results.append((rgb, *torch.autograd.grad(rgb.square().mean(), [*inputs, *watched])))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=2e-6, rtol=1e-4)


def test_heads_on_a_grid_equal_their_plain_twins_in_value_and_gradient():
    model = small_mesh()
    weights = model.state_dict(keep_vars=True)
    heads = ("net_sdf", "net_deformation", "net_weight")
    watched = [weights[f"synthesizer.decoder.{head}.{part}"] for head in heads for part in ("0.bias", "4.weight")]

    def ours(planes):
        fields = model.decoder.on_grid(planes, AXES)
        cubes = 0.1 * fields.weights.at(all_places(16))
        return fields.sdf.everywhere().flatten(), fields.deformation.at(all_places(17)), cubes

    results = []
    for evaluate in (ours, lambda planes: plain.mesh_fields(weights, model.config, planes)):
        planes = PLANES.clone().requires_grad_()
        values = evaluate(planes)
        gradients = torch.autograd.grad(sum(value.tanh().square().mean() for value in values), [planes, *watched])
        results.append((*values, *gradients))
    for value, twin in zip(*results, strict=True):
        torch.testing.assert_close(value, twin, atol=5e-6, rtol=1e-4)


def test_mean_square_is_that_of_all_outputs():
    fields = small_mesh().decoder.on_grid(PLANES, AXES)
    expected = fields.weights.at(all_places(16)).square().mean()
    torch.testing.assert_close(fields.weights.mean_square(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("recording", [True, False])
def test_the_size_of_chunks_does_not_matter(monkeypatch, recording):
    model, points = small_mesh(), points_everywhere()

    def evaluate():
        fields = model.decoder.on_grid(PLANES, AXES)
        colors = model.color_field(PLANES)(points)
        return fields.sdf.everywhere(), fields.weights.mean_square(), fields.deformation.at(all_places(17)), colors

    with torch.set_grad_enabled(recording):
        whole = evaluate()
        monkeypatch.setattr(field, "items_per_chunk", lambda device, bytes_per_item: 700)
        for part, expected in zip(evaluate(), whole, strict=True):
            torch.testing.assert_close(part, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_fields_are_float32_under_autocast():
    model, points = small_mesh(), points_everywhere()
    plain_sdf = model.decoder.on_grid(PLANES, AXES).sdf.everywhere()
    plain_colors = model.color_field(PLANES)(points)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.decoder.on_grid(PLANES, AXES).sdf.everywhere(), plain_sdf)
        assert torch.equal(model.color_field(PLANES)(points), plain_colors)


@torch.no_grad()
def test_nothing_to_ask_is_answered_with_nothing():
    head = Head(6, 3)
    maps = GridMaps(torch.zeros(2, 2, 64), torch.zeros(2, 2, 64), torch.zeros(2, 2, 64))
    assert GridField(head, maps).at(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3)
    assert PointField(head, torch.zeros(3, 2, 4, 4))(torch.zeros(0, 3)).shape == (0, 3)
