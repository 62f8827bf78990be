"""The models: names and shapes of the published checkpoints, and configs that are safe to read from strangers."""

import json
from pathlib import Path

import pytest
import torch

from meshwright.errors import InputError
from meshwright.model import PRESETS, ModelConfig, build_model

KEYS = json.loads((Path(__file__).parent / "golden" / "published_keys.json").read_text())


@pytest.mark.parametrize("name", PRESETS)
def test_state_dict_has_the_published_names_and_shapes(name):
    with torch.device("meta"):
        state = build_model(PRESETS[name]).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == KEYS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    assert ModelConfig.from_json(PRESETS[name].to_json()) == PRESETS[name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        "3",
        '{"kind": ["nerf"]}',
        '{"kind": "sdf"}',
        '{"kind": "mesh", "grid_res": 1e9}',
        '{"kind": "mesh", "transformer_dim": 99999999999}',
        '{"kind": "mesh", "transformer_heads": 7}',
        '{"kind": "mesh", "image_std": [0.0, 1.0, 1.0]}',
        '{"kind": "mesh", "image_std": 3}',
        '{"kind": "mesh", "grid_scale": NaN}',
        '{"kind": "mesh", "grid_res": true}',
        '{"kind": "mesh", "colour": "red"}',
        "[" * 100_000,
    ],
)
def test_a_bad_config_is_one_clear_line(text):
    with pytest.raises(InputError, match=r"^model config: [^\n]*$"):
        ModelConfig.from_json(text)
