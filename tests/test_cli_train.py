"""``meshwright train`` as a user meets it."""

import sys

import pytest

from meshwright.cli import main
from meshwright.cli.train import parse_training
from meshwright.errors import InputError
from meshwright.train import RECIPES, Run, from_yaml, to_yaml
from training_scenes import stage1_config, write_dataset


def test_every_field_is_a_typed_flag_and_the_rest_is_the_recipes():
    asked = parse_training(
        ["seed_overfit", "--out", "run", "--data", "d", "--optimizer.learning-rate", "1e-5", "--data.render-px", "192",
         "256",
         "--losses.mask", "0.5", "--steps", "12", "--precision", "bf16", "--recompute", "--data.inputs", "4"]
    )  # fmt: skip
    recipe = RECIPES["seed_overfit"]()
    assert asked.config.optimizer.learning_rate == 1e-5
    assert asked.config.data.render_px == (192, 256)
    assert asked.config.data.inputs == 4
    assert (asked.config.losses.mask, asked.config.steps, asked.config.precision) == (0.5, 12, "bf16")
    assert asked.config.model == recipe.model
    assert asked.config.optimizer.warmup_steps == recipe.optimizer.warmup_steps


@pytest.mark.parametrize("flag", ["--config", "--base"])
def test_a_file_gives_the_config_and_flags_change_it(tmp_path, flag):
    (tmp_path / "x.yaml").write_text(to_yaml(stage1_config()))
    asked = parse_training([flag, str(tmp_path / "x.yaml"), "--out", "run", "--seed", "9"])
    assert asked.config == stage1_config(seed=9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no recipe was given"),
        (["nonsense"], "is no recipe; use one of stage1_large"),
        (["tiny_stage1", "--out", "r", "--steps", "many"], "steps"),
        (["tiny_stage1", "--out", "r", "--stepz", "3"], "stepz"),
        (["tiny_stage1", "--out", "r", "--losses.entropy", "1"], "no meaning in stage1"),
        (["--resume", "--out", "/nowhere"], "cannot be read"),
        (["tiny_stage1", "--config", "x.yaml", "--out", "r"], "both give a config"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_training(words)
    assert "\n" not in str(caught.value)


def test_a_run_from_the_command_line_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    data = write_dataset(tmp_path / "data")
    (tmp_path / "x.yaml").write_text(to_yaml(stage1_config(steps=2)))
    words = ["train", "--config", tmp_path / "x.yaml", "--data", data, "--out", tmp_path / "run", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["meshwright", *map(str, words)])
    main()
    assert "finished at step 2" in capsys.readouterr().out
    words = ["train", "--resume", "--out", tmp_path / "run", "--steps", "3", "--allow-changes", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["meshwright", *map(str, words)])
    main()
    run = Run(tmp_path / "run")
    assert run.steps() == [2, 3]
    assert from_yaml((run.folder / "config.yaml").read_text(), "x").steps == 3
    monkeypatch.setattr(sys, "argv", ["meshwright", "train", "--resume", "--out", str(tmp_path / "run"), "--seed", "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "seed: 7 -> 1" in capsys.readouterr().err.replace("\n", " ")
