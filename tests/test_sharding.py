"""Models in parts. A group of one process has every part, so its tests are quick; test_distributed.py has two."""

import copy

import pytest
import torch
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh

from meshwright.errors import InputError
from meshwright.model import build_model
from meshwright.train import sharding
from meshwright.train.loop import make_optimizer, open_fabric
from meshwright.train.runs import Run, TrainState
from training_scenes import last_tensors, same, stage1_config


@pytest.fixture
def mesh():
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    destroy_process_group()


def model_and_parts(mesh):
    plain = build_model(stage1_config().model, seed=1)
    split = copy.deepcopy(plain)
    sharding.shard(split, split, mesh)
    return plain, split


def test_split_weights_keep_names_and_come_back_whole(mesh):
    plain, split = model_and_parts(mesh)
    assert sharding.is_sharded(split)
    assert not sharding.is_sharded(plain)
    found = sharding.whole_model(split)
    assert not sharding.is_sharded(found)
    assert same(found.state_dict(), plain.state_dict())
    assert sharding.whole_model(plain) is plain


def test_whole_weights_go_into_a_split_model_and_others_are_refused(mesh):
    _, split = model_and_parts(mesh)
    other = build_model(stage1_config().model, seed=2).state_dict()
    sharding.load_weights(split, other)
    assert same(sharding.whole_model(split).state_dict(), other)
    name = next(iter(other))
    with pytest.raises(RuntimeError, match="missing"):
        sharding.load_weights(split, {k: v for k, v in other.items() if k != name})
    with pytest.raises(RuntimeError, match="shape"):
        sharding.load_weights(split, {**other, name: other[name][..., :-1]})


def test_checkpoints_do_not_tell_how_a_model_was_split(mesh, tmp_path):
    config, runs = stage1_config(), {}
    for kind, model in zip(("whole", "split"), model_and_parts(mesh), strict=True):
        optimizer = make_optimizer(config.optimizer, model)
        for parameter in model.parameters():
            parameter.grad = sharding.part_like(torch.full(parameter.shape, 0.5), parameter)
        optimizer.step()
        runs[kind] = Run.create(tmp_path / kind, config, {})
        runs[kind].save(TrainState(model, model, optimizer, step=1).whole(), keep=1)
    whole, split = last_tensors(runs["whole"]), last_tensors(runs["split"])
    assert any(name.startswith("optimizer") for name in whole)
    assert same(whole, split)

    (_, model), (_, ema) = model_and_parts(mesh), model_and_parts(mesh)
    state = TrainState(model, ema, make_optimizer(config.optimizer, model))
    assert runs["whole"].load(state)
    again = Run.create(tmp_path / "again", config, {})
    again.save(state.whole(), keep=1)
    assert same(last_tensors(again), whole)


def test_fp16_is_refused_since_nothing_scales_its_losses():
    with pytest.raises(InputError, match="fp16"):
        open_fabric("fp16", "cpu", devices=2, strategy="fsdp")
