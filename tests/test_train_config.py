"""Configs: YAML there and back, clear refusals, and recipes that build."""

import dataclasses

import pytest
import torch

from meshwright.errors import InputError
from meshwright.model import build_model
from meshwright.train.config import TrainConfig, differences, from_yaml, to_yaml
from meshwright.train.recipes import RECIPES
from training_scenes import stage1_config, stage2_config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_and_survive_yaml(name):
    config = RECIPES[name]()
    assert from_yaml(to_yaml(config), "x") == config
    with torch.device("meta"):
        model = build_model(config.model)
    assert sum(p.numel() for p in model.parameters()) > 1e5


def test_published_sums_are_the_defaults():
    first, second = RECIPES["stage1_large"]().losses, RECIPES["stage2_large"]().losses
    assert (first.mse, first.perceptual, first.mask, first.depth) == (1, 2, 1, 0)
    assert (second.mse, second.perceptual, second.mask) == (1, 2, 1)
    assert (second.depth, second.normal, second.entropy, second.deviation, second.cube_weight) == (
        0.5, 0.2, 0.01, 0.5, 0.1,
    )  # fmt: skip


def test_every_changed_field_survives_yaml():
    config = stage2_config(start="runs/a", perceptual_weights=("a.pth", "b.pth"), compile=True, precision="bf16")
    assert from_yaml(to_yaml(config), "x") == config


def test_fields_left_out_have_their_defaults():
    config = from_yaml("model: {kind: nerf}\noptimizer: {learning_rate: 1e-3}\n", "x.yaml")
    assert config.optimizer.learning_rate == 1e-3
    assert dataclasses.replace(config, optimizer=TrainConfig(config.model).optimizer) == TrainConfig(config.model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {kind: nerf}\nstepz: 3\n", "stepz is not a known name"),
        ("model: {kind: nerf}\nsteps: many\n", "steps is 'many'; it must be a whole number"),
        ("model: {kind: nerf}\nsteps: true\n", "steps is 'True'; it must be a whole number"),
        ("model: {kind: nerf}\noptimizer: {betas: [0.9]}\n", "optimizer.betas"),
        ("model: {kind: nerf}\noptimizer: {learning_rate: .inf}\n", "learning_rate is 'inf'; it must be a number"),
        ("model: {kind: nerf}\nprecision: fp8\n", "use one of fp32, bf16, fp16"),
        ("model: {kind: nerf}\noptimizer: 3\n", "optimizer is no list"),
        ("model: {kind: mesh}\n", "stage1 trains 'nerf'"),
        ("model: {kind: nerf}\nlosses: {entropy: 1.0}\n", "losses.entropy has no meaning in stage1"),
        ("steps: 3\n", "model is missing"),
        ("[1, 2]", "it is no list of names"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(InputError, match=message):
        from_yaml(text, "x.yaml")


def test_what_does_not_change_the_result_is_no_difference():
    config = stage1_config()
    assert differences(config, dataclasses.replace(config, checkpoint_every=3, workers=2, pictures_every=9)) == []
    changed = dataclasses.replace(config, seed=8, data=dataclasses.replace(config.data, inputs=3))
    assert differences(config, changed) == ["data.inputs: 2 -> 3", "seed: 7 -> 8"]
