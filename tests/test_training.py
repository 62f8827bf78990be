"""The loop and both stages: what they compute, that they learn, and that they go on where they stopped."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from meshwright.errors import InputError
from meshwright.model import InstantMesh, InstantNeRF, build_model
from meshwright.train import loop, stage1, stage2
from meshwright.train.config import LossWeights, OptimizerOptions, TrainConfig
from meshwright.train.loop import Outcome, make_optimizer, open_fabric, sample_seed, train
from meshwright.train.runs import Run
from meshwright.train.training import make_objective, new_model
from meshwright.train.validation import held_out_batches, measure, visible_points
from meshwright.weights import start_from
from training_scenes import Source, in_memory, last_tensors, one_batch, same, stage1_config, stage2_config


def run_to_end(folder: Path, config: TrainConfig, objective=None, **arguments) -> tuple[Run, Outcome]:
    """Begin a run, or go on with it, on one CPU process."""
    if (folder / "config.yaml").exists():
        run, config = Run.resume(folder, config, "test")
        model = build_model(config.model, seed=99)  # all of it must come from the checkpoint
    else:
        run, model = Run.create(folder, config, {"data": "test"}), new_model(config)[0]
    fabric = open_fabric("fp32", "cpu")
    outcome = train(config, model, objective or make_objective(config), in_memory(config), run, fabric, **arguments)
    return run, outcome


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics() if "loss" in line]


# --- stages -----------------------------------------------------------------------------------------------------


def solid_mesh_model() -> InstantMesh:
    """A new mesh model whose sdf has a surface, wherever the mean of its features is 1."""
    model = build_model(stage2_config().model, seed=1)
    assert isinstance(model, InstantMesh)
    with torch.no_grad():
        model.transformer.deconv.bias.fill_(1.0)
        first, last = model.decoder.net_sdf[0], model.decoder.net_sdf[-1]
        first.weight[0].fill_(1 / first.weight.shape[1])
        for layer in list(model.decoder.net_sdf)[2:-1:2]:
            layer.weight[0].zero_()
            layer.weight[0, 0] = 1.0
        last.weight.mul_(0.01)
        last.weight[0, 0] = -1.0
        last.bias.fill_(1.0)
    return model


def test_stage_1_terms_are_those_asked_for_and_stay_the_same_for_the_same_seeds():
    config = stage1_config()
    model, batch = build_model(config.model, seed=1), one_batch(config, 2)
    assert isinstance(model, InstantNeRF)
    terms, prediction = stage1.stage1_losses(model, batch, [1, 2], config.losses)
    assert list(terms) == ["mse", "mask", "depth"]
    again, _ = stage1.stage1_losses(model, batch, [1, 2], config.losses, recompute=True)
    other, _ = stage1.stage1_losses(model, batch, [1, 3], config.losses)
    assert all(torch.equal(terms[name], again[name]) for name in terms)
    assert not torch.equal(terms["mse"], other["mse"])
    assert prediction.rgb.shape == batch.target_images.shape
    torch.testing.assert_close(terms["mse"], 4 * (prediction.rgb - batch.target_images).square().mean())


def test_an_opaque_field_has_the_depth_of_what_is_seen_and_an_empty_one_the_background():
    config = stage1_config()
    model, batch = build_model(config.model, seed=1), one_batch(config)
    batch = dataclasses.replace(batch, background=torch.full((1, 3), 0.3))
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()
        model.decoder.net[-1].bias.copy_(torch.tensor([200.0, 0.0, 0.0, 0.0]))
        opaque = stage1.render_targets(model, model.planes(batch.input_images, batch.input_cameras), batch)
        model.decoder.net[-1].bias[0] = -200.0
        empty = stage1.render_targets(model, model.planes(batch.input_images, batch.input_cameras), batch)
    assert float((empty.rgb - 0.3).abs().max()) < 1e-5
    # The box [-1, 1]^3 is solid: its surface is where a ray enters it, and the sampling steps are about 0.3 long.
    rays = batch.target_rays()
    inverse = 1 / rays.directions
    enters = torch.minimum((-1 - rays.origins) * inverse, (1 - rays.origins) * inverse).amax(-1)
    cosine = torch.einsum("bvhwc,bvc->bvhw", rays.directions, -batch.target_T_world_camera[:, :, :3, 2])
    hit = opaque.alpha[:, :, 0] > 0.99
    assert float(hit.float().mean()) > 0.3
    assert float((opaque.depth_z[:, :, 0] - enters * cosine)[hit].abs().max()) < 0.4


def test_stage_2_terms_reach_every_head_of_the_model():
    config = stage2_config()
    model, batch = solid_mesh_model(), one_batch(config)
    terms, prediction = stage2.stage2_losses(model, batch, [1], config.losses)
    names = ["mse", "mask", "depth", "normal", "entropy", "deviation", "cube_weight", "free_space"]
    assert list(terms) == names
    assert float(prediction.alpha.detach().mean()) > 0.2
    torch.stack(list(terms.values())).sum().backward()
    for head in ("net_sdf", "net_rgb", "net_deformation", "net_weight"):
        assert float(getattr(model.decoder, head)[0].weight.grad.abs().max()) > 0, head
    assert float(model.encoder.camera_embedder[0].weight.grad.abs().max()) > 0


@pytest.mark.parametrize("make", [stage1_config, stage2_config])
def test_recomputing_changes_no_gradient(make):
    config = make()
    batch, gradients = one_batch(config), []
    for recompute in (False, True):
        model = solid_mesh_model() if config.stage == "stage2" else build_model(config.model, seed=1)
        objective = make_objective(dataclasses.replace(config, recompute=recompute))
        terms, _ = objective(model, batch, [5])
        torch.stack(list(terms.values())).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_rendered_depth_lies_on_the_object():
    whole = dataclasses.replace(stage1_config().data, render_px=(48, 48))  # the size of the files
    for batch in held_out_batches(Source(), whole, 2):
        points = visible_points(batch)
        center, radii = {"tall": ((0, 0, 0), (0.35, 0.4, 0.75)), "flat": ((0.1, 0, -0.1), (0.7, 0.6, 0.3))}[
            batch.names[0]
        ]
        on_unit_sphere = (points - torch.tensor(center)) / torch.tensor(radii)
        assert float((on_unit_sphere.norm(dim=1) - 1).abs().mean()) < 0.02


def test_free_space_is_quiet_about_the_truth_and_loud_about_a_wall_in_front():
    config = stage2_config(losses=LossWeights(mse=0.0, perceptual=0.0, mask=0.0, free_space=1.0))
    batch = one_batch(config)
    found = {}
    for name, bias in (("empty", 60.0), ("full", -60.0)):
        model = build_model(config.model, seed=1)
        with torch.no_grad():
            model.decoder.net_sdf[-1].bias.fill_(bias)
        found[name] = float(stage2.stage2_losses(model, batch, [3], config.losses)[0]["free_space"].detach())
    assert found["empty"] < 1e-6
    assert found["full"] > 0.6


# --- the loop ---------------------------------------------------------------------------------------------------


def test_vectors_do_not_decay_unless_asked():
    model = build_model(stage1_config().model)
    decaying, others = make_optimizer(OptimizerOptions(), model).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert {p.dim() for p in others["params"]} == {1}
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))
    (everything,) = make_optimizer(OptimizerOptions(decay_all=True), model).param_groups
    assert len(everything["params"]) == len(list(model.parameters()))


def test_no_two_samples_share_their_draws():
    seeds = {sample_seed(seed, number) for seed in range(20) for number in range(500)}
    assert len(seeds) == 20 * 500


def test_one_step_is_adamw_on_the_clipped_gradient(tmp_path):
    config = stage1_config(steps=1, ema_decay=0.5)
    run, _ = run_to_end(tmp_path / "run", config)
    model, _ = new_model(config)
    terms, _ = make_objective(config)(model, one_batch(config), [sample_seed(config.seed, 0)])
    (terms["mse"] + terms["mask"] + 0.1 * terms["depth"]).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    make_optimizer(config.optimizer, model).step()
    stored = load_file(run.checkpoints / "step-00000001" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, stored[name], rtol=1e-5, atol=1e-7)
    (line,) = run.metrics()
    assert line["gradient"] == pytest.approx(float(norm), rel=1e-5)
    assert line["loss"] == pytest.approx(
        float((terms["mse"] + terms["mask"] + 0.1 * terms["depth"]).detach()), rel=1e-6
    )


def test_two_batches_of_one_are_a_batch_of_two(tmp_path):
    together, _ = run_to_end(tmp_path / "a", stage1_config(steps=3, batch_size=2))
    apart, _ = run_to_end(tmp_path / "b", stage1_config(steps=3, accumulation=2))
    assert losses(together) == pytest.approx(losses(apart), rel=1e-5)


def test_five_steps_and_five_more_are_ten_bit_for_bit(tmp_path):
    config = stage1_config(steps=10, optimizer=OptimizerOptions(learning_rate=3e-3, warmup_steps=4), checkpoint_every=5)
    whole, _ = run_to_end(tmp_path / "whole", config)
    torch.manual_seed(123)  # nothing that goes on may be drawn from global generators
    interrupted = {"after": 7}

    def objective(model, batch, seeds):
        interrupted["after"] -= 1
        if interrupted["after"] < 0:
            raise KeyboardInterrupt
        return make_objective(config)(model, batch, seeds)

    with pytest.raises(KeyboardInterrupt):
        run_to_end(tmp_path / "parts", config, objective)
    assert len(losses(Run(tmp_path / "parts"))) == 7
    parts, outcome = run_to_end(tmp_path / "parts", config)
    assert outcome == Outcome("finished", 10, 0)
    assert losses(parts) == losses(whole)
    assert same(last_tensors(parts), last_tensors(whole))


def test_a_step_without_finite_gradients_is_skipped_counted_and_kept(tmp_path):
    config = stage1_config(steps=4, ema_decay=0.0)
    calls = {"count": 0}

    def objective(model, batch, seeds):
        terms, prediction = make_objective(config)(model, batch, seeds)
        calls["count"] += 1
        if calls["count"] == 3:
            terms["mse"] = terms["mse"] * float("nan")
        return terms, prediction

    before, _ = run_to_end(tmp_path / "two", stage1_config(steps=2, ema_decay=0.0))
    run, outcome = run_to_end(tmp_path / "run", dataclasses.replace(config, steps=3), objective)
    assert outcome == Outcome("finished", 3, 1)
    assert same(
        {k: v for k, v in last_tensors(run).items() if k.startswith(("model", "ema"))},
        {k: v for k, v in last_tensors(before).items() if k.startswith(("model", "ema"))},
    )
    kept = load_file(run.folder / "skipped" / "step-00000003.safetensors")
    assert torch.equal(kept["target_images"], one_batch(config, first=2).target_images)
    assert json.loads((run.checkpoints / "step-00000003" / "state.json").read_text())["skipped"] == 1


def test_a_training_without_finite_gradients_ends(tmp_path):
    config = stage1_config(steps=9, skip_limit=3)

    def objective(model, batch, seeds):
        terms, prediction = make_objective(config)(model, batch, seeds)
        return {name: term * float("inf") for name, term in terms.items()}, prediction

    with pytest.raises(InputError, match="3 steps in a row"):
        run_to_end(tmp_path / "run", config, objective)
    assert len(list((tmp_path / "run" / "skipped").iterdir())) == 3


@pytest.mark.slow
def test_stage_1_learns_two_objects_twice_with_the_same_numbers(tmp_path):
    optimizer = OptimizerOptions(learning_rate=4e-3, schedule="constant", warmup_steps=10)
    config = stage1_config(steps=300, optimizer=optimizer, ema_decay=0.9)
    kept = held_out_batches(Source(), config.data, 2)
    run, _ = run_to_end(tmp_path / "first", config, validate=partial(measure, batches=kept))
    curve = losses(run)
    assert sum(curve[-20:]) / 20 < 0.6 * sum(curve[:5]) / 5
    again, _ = run_to_end(tmp_path / "again", dataclasses.replace(config, steps=20))
    assert losses(again) == curve[:20]


def test_stage_2_starts_with_the_colours_and_the_surface_of_stage_1(tmp_path):
    run, _ = run_to_end(tmp_path / "first", stage1_config(steps=2, ema_decay=0.0))
    model, notes = new_model(stage2_config(start=str(run.folder)))
    assert "weights loaded" in notes
    nerf = build_model(stage1_config().model)
    start_from(nerf, run.folder)
    batch = one_batch(stage1_config())
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        planes = nerf.planes(batch.input_images, batch.input_cameras).planes[0]
        assert torch.equal(planes, model.planes(batch.input_images, batch.input_cameras).planes[0])
        torch.testing.assert_close(nerf.color_field(planes)(points), model.color_field(planes)(points))


def test_learning_rates_are_those_of_the_schedule(tmp_path):
    config = stage1_config(steps=6, optimizer=OptimizerOptions(learning_rate=1e-3, warmup_steps=3, restart_steps=2))
    run, _ = run_to_end(tmp_path / "run", config)
    expected = [loop.learning_rate(config.optimizer, step, 6) for step in range(6)]
    assert [line["rate"] for line in run.metrics()] == expected
