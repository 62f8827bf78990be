"""Weights come back as they went out, from every form; what is wrong with a file is said by name, and harms nothing."""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from meshwright.errors import InputError
from meshwright.model import PRESETS, build_model
from meshwright.weights import DTYPES, convert, hub, load_model, read_checkpoint, save_model, start_from
from meshwright.weights.check import check_fit, skeleton
from meshwright.weights.hub import find_weights
from meshwright.weights.mindspore import read_mindspore
from meshwright.weights.torch_pickle import read_torch
from small_models import GOLDEN_FOLDER, small_config, small_mesh, small_nerf

# Most of these tests read or write pickles, which torch before 2.10 must not open (see weights/torch_pickle.py).
pytestmark = pytest.mark.skipif(torch.torch_version.TorchVersion(torch.__version__) < "2.10", reason="torch < 2.10")

PUBLISHED_SHAPES = json.loads((GOLDEN_FOLDER / "published_keys.json").read_text())
SMALL = {"nerf": small_nerf, "mesh": small_mesh}


def assert_same(model, other, dtype=torch.float32):
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name].to(dtype).to(ours[name].dtype)), name


def published_form(model, path, **more):
    state = {f"lrm_generator.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": OrderedDict(state | more)}, path)
    return path


def vit(config, prefix="", seed=0):
    """A ViT's weights under the names of Hugging Face, of the sizes of the config's encoder."""
    state = build_model(config, seed).encoder.model.state_dict()
    return {prefix + name: tensor + 0.5 for name, tensor in state.items() if "adaLN" not in name}


# --- own form --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_loading_inverts_saving(tmp_path, kind, dtype):
    save_model(SMALL[kind](), tmp_path / "m.safetensors", dtype)
    model = load_model(tmp_path / "m.safetensors")
    assert type(model) is type(SMALL[kind]())
    assert model.config == small_config(kind)
    assert not model.training
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())
    assert_same(model, SMALL[kind](), dtype)


def test_a_model_is_loaded_in_the_dtype_asked_for(tmp_path):
    save_model(small_mesh(), tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_a_file_says_what_it_is(tmp_path):
    save_model(small_nerf(), tmp_path / "m.safetensors", torch.float16)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = file.metadata()
    config = json.dumps(json.loads(metadata["config"]))
    assert config == small_config("nerf").to_json()
    assert (metadata["format"], metadata["version"], metadata["dtype"]) == ("meshwright", "1", "float16")


def test_a_file_can_be_written_over_while_its_model_is_in_use(tmp_path):
    save_model(small_mesh(), tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    save_model(build_model(small_config("mesh"), seed=5), tmp_path / "m.safetensors")
    assert_same(model, small_mesh())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert_same(load_model(tmp_path / "m.safetensors"), build_model(small_config("mesh"), seed=5))


def test_models_are_not_saved_under_other_suffixes(tmp_path):
    with pytest.raises(InputError, match=r"m\.ckpt: models are saved as \.safetensors"):
        save_model(small_mesh(), tmp_path / "m.ckpt")


def test_a_weight_that_float16_cannot_hold_is_named_and_nothing_written(tmp_path):
    model = small_mesh()
    with torch.no_grad():
        model.get_parameter("transformer.norm.weight")[3] = 1e5
    with pytest.raises(InputError, match=r"transformer\.norm\.weight is not finite there"):
        save_model(model, tmp_path / "m.safetensors", torch.float16)
    assert list(tmp_path.iterdir()) == []


# --- published form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
def test_the_published_form_is_read_without_what_stands_beside_the_model(tmp_path, kind):
    more = {"lpips.net.weight": torch.ones(2), "lrm_generator.source_camera_embedder.weight": torch.ones(2)}
    path = published_form(SMALL[kind](), tmp_path / "m.ckpt", **more)
    assert_same(load_model(path, config=small_config(kind)), SMALL[kind]())


@pytest.fixture
def files_of_any_size(monkeypatch):
    """Gives a function that makes reading any file yield tensors of the given shapes, which take no memory."""

    def pretend(shapes):
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        monkeypatch.setattr("meshwright.weights.read._read_file", lambda path: (tensors, {}))

    return pretend


def in_published_file(preset):
    return {f"lrm_generator.{name}": shape for name, shape in PUBLISHED_SHAPES[preset].items()} | {"lpips.x": [3]}


@pytest.mark.parametrize("preset", PRESETS)
def test_each_published_checkpoint_is_recognised_and_fits_key_for_key(files_of_any_size, preset):
    files_of_any_size(in_published_file(preset))
    checkpoint = read_checkpoint("m.ckpt")
    assert checkpoint.config == PRESETS[preset]
    check_fit(checkpoint, skeleton(checkpoint, checkpoint.config).state_dict(), checkpoint.config)


@pytest.mark.parametrize("asked", PRESETS)
@pytest.mark.parametrize("found", PRESETS)
def test_a_file_of_another_preset_is_named(files_of_any_size, monkeypatch, tmp_path, asked, found):
    files_of_any_size(in_published_file(found))
    monkeypatch.setattr(
        "meshwright.weights.load._assemble", lambda checkpoint, *_: build_model(small_config(checkpoint.config.kind))
    )
    (tmp_path / f"{asked.replace('-', '_')}.ckpt").touch()
    if asked == found:
        load_model(asked, model_dir=tmp_path)
        return
    with pytest.raises(InputError, match=rf"looks like {found}, not {asked}"):
        load_model(asked, model_dir=tmp_path)


def test_missing_unexpected_and_misshapen_keys_are_listed_by_name(files_of_any_size):
    shapes = in_published_file("instant-mesh-base")
    del shapes["lrm_generator.transformer.norm.bias"]
    shapes["lrm_generator.transformer.extra"] = [3]
    shapes["lrm_generator.transformer.deconv.bias"] = [41]
    files_of_any_size(shapes)
    message = (
        r"m\.ckpt: does not fit instant-mesh-base \(1 missing: transformer\.norm\.bias;"
        r" 1 unexpected: transformer\.extra; 1 misshapen: transformer\.deconv\.bias \[41\] for \[40\]\)"
    )
    checkpoint = read_checkpoint("m.ckpt")
    with pytest.raises(InputError, match=message):
        check_fit(checkpoint, skeleton(checkpoint, checkpoint.config).state_dict(), checkpoint.config)


def test_a_long_list_of_keys_is_cut_and_counted(tmp_path):
    state = {name: t for name, t in small_mesh().state_dict().items() if not name.startswith("encoder.")}
    state |= {f"odd\x1b[31m\n{i}": torch.ones(1) for i in range(7)}
    save_file(state, tmp_path / "m.safetensors")
    missing = len(small_mesh().encoder.state_dict())
    with pytest.raises(
        InputError, match=rf"{missing} missing: .* and {missing - 5} more; 7 unexpected: .* and 2 more"
    ) as error:
        load_model(tmp_path / "m.safetensors", config=small_config("mesh"))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1500


def test_a_published_form_of_unknown_sizes_needs_its_config(tmp_path):
    with pytest.raises(InputError, match="no published model by its sizes"):
        load_model(published_form(small_mesh(), tmp_path / "m.ckpt"))


def test_weights_that_are_no_floats_are_named(tmp_path):
    state = small_mesh().state_dict()
    state["transformer.norm.bias"] = state["transformer.norm.bias"].long()
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"1 not of floats: transformer\.norm\.bias"):
        load_model(tmp_path / "m.safetensors", config=small_config("mesh"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_one_weight_that_is_not_finite_is_named(tmp_path, bad, dtype):
    state = {name: tensor.to(dtype) for name, tensor in small_mesh().state_dict().items()}
    state["transformer.layers.1.mlp.0.weight"][17, 5] = bad
    save_file(state, tmp_path / "m.safetensors")
    for use in (
        lambda path: load_model(path, config=small_config("mesh")),
        lambda path: convert(path, tmp_path / "out.safetensors", config=small_config("mesh")),
        lambda path: start_from(small_mesh(), path),
    ):
        with pytest.raises(
            InputError, match=r"1 of its tensors hold NaN or infinity \(transformer\.layers\.1\.mlp\.0\.w"
        ):
            use(tmp_path / "m.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


# --- conversion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
def test_a_model_survives_all_forms_in_turn(tmp_path, kind):
    config = small_config(kind)
    published_form(SMALL[kind](), tmp_path / "a.ckpt")
    files = [tmp_path / name for name in ("a.ckpt", "b.safetensors", "c.ckpt", "d.safetensors", "e.safetensors")]
    for source, destination in itertools.pairwise(files):
        done = convert(source, destination, config=config, mindspore=destination.stem == "d")
        assert done.tensors == len(SMALL[kind]().state_dict())
        assert_same(load_model(destination, config=config), SMALL[kind]())
    assert files[1].read_bytes()[8:].find(b"meshwright") > 0
    assert load_model(files[4]).config == config


@pytest.mark.parametrize("file", ["m.ckpt", "m.safetensors"])
def test_mindspore_gets_the_names_that_its_port_expects(tmp_path, file):
    save_model(small_nerf(), tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / file, mindspore=True)
    names = (read_mindspore if file == "m.ckpt" else load_file)(tmp_path / file)
    assert all(name.startswith("lrm_generator.") for name in names)
    assert "lrm_generator.transformer.layers.0.norm2.gamma" in names
    assert "lrm_generator.encoder.model.layernorm.beta" in names
    assert "lrm_generator.transformer.layers.0.mlp.0.weight" in names
    assert not any(name.split(".")[-2].find("norm") >= 0 and name.endswith(("weight", "bias")) for name in names)


def test_a_dino_encoder_becomes_safetensors_under_its_own_names(tmp_path):
    state = vit(small_config("mesh")) | {"pooler.dense.weight": torch.ones(3, 3)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    done = convert(tmp_path / "pytorch_model.bin", tmp_path / "dino.safetensors")
    assert (done.source, done.tensors) == ("a ViT encoder", len(state))
    converted = load_file(tmp_path / "dino.safetensors")
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], state[name]) for name in state)


def test_converting_to_half_precision_halves_the_file(tmp_path):
    save_model(small_mesh(), tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "h.safetensors", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "h.safetensors").values()} == {torch.bfloat16}
    assert_same(load_model(tmp_path / "h.safetensors"), small_mesh(), torch.bfloat16)


def test_tied_and_strided_tensors_are_converted(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    torch.save({"embeddings.cls_token": tied, "head": tied, "turned": tied.T}, tmp_path / "v.bin")
    convert(tmp_path / "v.bin", tmp_path / "v.safetensors")
    converted = load_file(tmp_path / "v.safetensors")
    assert torch.equal(converted["head"], tied)
    assert torch.equal(converted["turned"], tied.T)


def test_pickles_are_not_written(tmp_path):
    with pytest.raises(InputError, match=r"out\.pt: name it \.safetensors, or \.ckpt"):
        convert(GOLDEN_FOLDER / "small_mesh_weights.safetensors", tmp_path / "out.pt")


# --- starting a training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_training_starts_from_a_dino_encoder_with_new_modulation(tmp_path, prefix):
    state = vit(small_config("nerf"), prefix) | {"pooler.dense.bias": torch.ones(3)}
    torch.save(state, tmp_path / "dino.bin")
    model, untouched = build_model(small_config("nerf"), seed=1), build_model(small_config("nerf"), seed=1)
    start = start_from(model, tmp_path / "dino.bin", seed=4)
    own, before = model.state_dict(), untouched.state_dict()
    assert set(start.loaded) == {f"encoder.model.{name.removeprefix(prefix)}" for name in vit(small_config("nerf"))}
    assert set(start.new) == own.keys() - set(start.loaded)
    assert (start.misshapen, start.dropped) == ((), ("pooler.dense.bias",))
    for name in start.loaded:
        assert torch.equal(own[name], state[prefix + name.removeprefix("encoder.model.")])
    for name in start.new:
        if "adaLN" not in name:
            assert torch.equal(own[name], before[name])
    drawn = torch.cat([own[name].flatten() for name in own if name.endswith("adaLN_modulation.1.weight")])
    assert drawn.std() == pytest.approx(0.02, rel=0.02)  # 37 thousand numbers: standard error 0.4 %
    assert abs(drawn.mean()) < 0.02 * 4 / len(drawn) ** 0.5
    assert all(not own[name].any() for name in own if name.endswith("adaLN_modulation.1.bias"))


def test_the_new_modulation_depends_on_the_seed_alone(tmp_path):
    torch.save(vit(small_config("mesh")), tmp_path / "dino.bin")
    models = [small_mesh() for _ in range(3)]
    state = torch.random.get_rng_state()
    for model, seed in zip(models, (4, 4, 5), strict=True):
        start_from(model, tmp_path / "dino.bin", seed=seed)
    assert_same(models[0], models[1])
    name = "encoder.model.encoder.layer.0.adaLN_modulation.1.weight"
    assert not torch.equal(models[0].state_dict()[name], models[2].state_dict()[name])
    assert torch.equal(state, torch.random.get_rng_state())


def openlrm(config, version):
    """OpenLRM's names and tensors with the shapes of a config; the tensors by our names; the names without one."""
    named = {}
    for name, tensor in build_model(config, seed=7).state_dict().items():
        if name.startswith("encoder."):
            if version == "1.0" and "adaLN" not in name and "camera_embedder" not in name:
                named[name] = (name, tensor)
        elif ".norm" in name and ".layers." in name:
            layer, norm, kind = name.rsplit(".", 2)
            named[name] = (f"{layer}.{norm}.norm.{kind}", tensor)
        elif version == "1.1" and name == "transformer.pos_embed":
            named[name] = ("pos_embed", tensor)
        elif version == "1.1" and name.startswith("transformer.deconv."):
            named[name] = (name.replace("transformer.deconv", "upsampler"), tensor)
        else:
            named[name] = (name, tensor)
    state = dict(named.values())
    other = {f"camera_embedder.mlp.{i}.{kind}": torch.ones(4) for i in (0, 2) for kind in ("weight", "bias")}
    other |= {f"transformer.layers.0.norm{i}.mlp.1.weight": torch.ones(8, 4) for i in (1, 2, 3)}
    if version == "1.1":
        other |= {
            "encoder.model.blocks.0.attn.qkv.weight": torch.ones(9, 3),
            "encoder.model.norm.weight": torch.ones(3),
        }
    return state | other, {name: tensor for name, (_, tensor) in named.items()}, tuple(other)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_training_starts_from_openlrm_with_what_maps(tmp_path, version):
    state, mapped, others = openlrm(small_config("nerf"), version)
    save_file(state, tmp_path / "openlrm.safetensors")
    model = small_nerf()
    start = start_from(model, tmp_path / "openlrm.safetensors")
    own = model.state_dict()
    assert start.form == f"OpenLRM {version}"
    assert set(start.loaded) == mapped.keys()
    assert all(torch.equal(own[name], mapped[name]) for name in mapped)
    assert set(start.new) == own.keys() - mapped.keys()
    assert all(
        ("adaLN" in name or "camera_embedder" in name) if version == "1.0" else "encoder." in name for name in start.new
    )
    assert set(start.dropped) == set(others)
    assert start.misshapen == ()


def test_openlrm_weights_of_other_shapes_are_listed_and_left(tmp_path):
    state, mapped, _ = openlrm(dataclasses.replace(small_config("nerf"), triplane_dim=10), "1.0")
    save_file(state, tmp_path / "openlrm.safetensors")
    model = small_nerf()
    start = start_from(model, tmp_path / "openlrm.safetensors")
    heads = {"transformer.deconv.weight", "transformer.deconv.bias", "synthesizer.decoder.net.0.weight"}
    assert set(start.misshapen) == heads
    assert set(start.loaded) == mapped.keys() - heads
    assert torch.equal(
        model.state_dict()["transformer.deconv.bias"], small_nerf().state_dict()["transformer.deconv.bias"]
    )


def test_a_mesh_model_starts_from_a_nerf_model_with_its_colours_and_its_density_as_sdf(tmp_path):
    nerf, mesh = small_nerf(), small_mesh()
    save_model(nerf, tmp_path / "nerf.safetensors")
    start = start_from(mesh, tmp_path / "nerf.safetensors")
    features = torch.randn(200, 36, generator=torch.Generator().manual_seed(0))
    density, colour = nerf.decoder.net(features).split([1, 3], dim=1)
    assert (mesh.decoder.net_sdf(features) - (10 - density)).abs().max() < 1e-4 < density.std()
    assert (mesh.decoder.net_rgb(features) - colour).abs().max() < 1e-5 < colour.std()
    assert start.dropped == start.misshapen == ()
    assert {name.split(".")[2] for name in start.new} == {"net_deformation", "net_weight"}


def test_weights_of_which_none_fits_are_refused(tmp_path):
    other = dataclasses.replace(small_config("mesh"), encoder_hidden_size=32, encoder_mlp_size=64)
    torch.save(vit(other), tmp_path / "v.bin")
    model = small_mesh()
    with pytest.raises(InputError, match=r"v\.bin: none of its weights fits"):
        start_from(model, tmp_path / "v.bin")
    assert_same(model, small_mesh())


def test_an_encoder_is_not_a_model_to_load(tmp_path):
    torch.save(vit(small_config("mesh")), tmp_path / "v.bin")
    with pytest.raises(InputError, match="is a ViT encoder, not a reconstruction model; training can start from it"):
        load_model(tmp_path / "v.bin")


# --- names and downloads ---------------------------------------------------------------------------------------------


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Stands in for the hub: notes what is asked of it and gives a file."""
    asked = []

    def download(repository, file, **options):
        asked.append((repository, file, options["revision"], options["cache_dir"]))
        with options["tqdm_class"](total=4, initial=0, unit="B", unit_scale=True, desc=file) as bar:
            bar.update(1)
            bar.update(3)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_downloaded_from_the_published_place_at_the_pinned_revision(downloads, tmp_path, preset):
    file = preset.replace("-", "_") + ".ckpt"
    told = []
    path = find_weights(preset, revision="abc123", progress=lambda stage, fraction, detail="": told.append(fraction))
    assert path == tmp_path / file
    assert downloads == [("TencentARC/InstantMesh", file, "abc123", None)]
    assert told == [0.25, 1.0]


@pytest.mark.parametrize("name", ["instant-mesh-base.safetensors", "instant_mesh_base.ckpt"])
def test_the_model_folder_is_searched_before_the_hub(downloads, tmp_path, name):
    (tmp_path / name).touch()
    assert find_weights("instant-mesh-base", model_dir=tmp_path) == tmp_path / name
    assert downloads == []


def test_what_the_model_folder_lacks_is_downloaded_into_it(downloads, tmp_path):
    find_weights("openlrm-base-obj-1.0", model_dir=tmp_path)
    assert downloads == [("zxhezexin/openlrm-base-obj-1.0", "model.safetensors", None, str(tmp_path))]


@pytest.mark.parametrize("preset", ["instant-nerf-base", "instant-nerf-large", "instant-mesh-large"])
def test_the_same_name_gives_the_same_commit_tomorrow(downloads, preset):
    find_weights(preset)
    ((_, _, revision, _),) = downloads
    assert re.fullmatch("[0-9a-f]{40}", revision)


def test_what_was_downloaded_is_compared_with_the_hash_on_record(downloads, monkeypatch, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"the published file")
    published = hashlib.sha256(b"the published file").hexdigest()
    monkeypatch.setitem(hub._HUB_FILES, "w", hub._HubFile("someone/w", "w.safetensors", "c0ffee", published))
    assert find_weights("w") == tmp_path / "w.safetensors"
    (tmp_path / "w.safetensors").write_bytes(b"half the publ")
    with pytest.raises(InputError, match=r"w\.safetensors: is not the published file .*delete it"):
        find_weights("w")
    assert find_weights("w", revision="other") == tmp_path / "w.safetensors"  # of another commit no hash is known
    assert [revision for _, _, revision, _ in downloads] == ["c0ffee", "c0ffee", "other"]


@pytest.mark.parametrize("preset", [*PRESETS, "dino-vitb16"])
def test_nothing_is_downloaded_that_this_torch_may_not_open(downloads, monkeypatch, preset):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    with pytest.raises(InputError, match=rf"{preset}: .*torch 2\.9\.1 has known holes"):
        find_weights(preset)
    assert downloads == []


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("revision", "commit"),
    [(None, hub._INSTANTMESH_COMMIT), ("main", "a" * 40), ("b" * 40, "b" * 40)],
)
def test_offline_the_cache_is_used_at_the_pinned_revision(offline, tmp_path, revision, commit):
    cache = tmp_path / "models--TencentARC--InstantMesh"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("a" * 40)
    for folder in ("a" * 40, "b" * 40, hub._INSTANTMESH_COMMIT):
        (cache / "snapshots" / folder).mkdir(parents=True)
        (cache / "snapshots" / folder / "instant_mesh_large.ckpt").touch()
    path = find_weights("instant-mesh-large", model_dir=tmp_path, revision=revision)
    assert path == cache / "snapshots" / commit / "instant_mesh_large.ckpt"


def test_offline_without_a_cache_the_error_says_what_else_works(offline, tmp_path):
    with pytest.raises(
        InputError, match=r"instant-mesh-base: .*cannot be had.*path of a file.*model_dir.*model='none'"
    ):
        load_model("instant-mesh-base", model_dir=tmp_path)


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("bad revision"), RuntimeError("\n"), KeyError("x")])
def test_a_failed_download_is_one_clear_line(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(InputError, match=r"at revision v9 cannot be had.*model='none'") as caught:
        find_weights("instant-mesh-large", revision="v9")
    assert "\n" not in str(caught.value)


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'meshwright\[hub\]', or .*model='none'"):
        find_weights("instant-mesh-large")


def test_a_download_can_be_interrupted(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_weights("instant-mesh-large")


def test_every_preset_has_a_place_on_the_hub():
    assert PRESETS.keys() <= hub._HUB_FILES.keys()


# --- hostile files ---------------------------------------------------------------------------------------------------


def safetensors_bytes(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def torch_zip(data_pickle, storages=(b"",), **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", options.pop("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("m/data.pkl", data_pickle)
        archive.writestr("m/byteorder", b"little")
        for index, storage in enumerate(storages):
            archive.writestr(f"m/data/{index}", storage)
        archive.writestr("m/version", b"3\n")
        for name, content in options.items():
            archive.writestr(f"m/{name}", content)
    return buffer.getvalue()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def tensor_pickle(numel, size, stride):
    """A dict with one tensor "a" of float32: numbers in its storage, its size and stride, all as claimed."""

    def whole(number):
        return b"\x8a\x08" + number.to_bytes(8, "little")

    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + whole(numel) + b"tQK\x00" + whole(size) + b"\x85" + whole(stride)
        + b"\x85\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


LIST_OF_PAIRS = b"](" + b"K\x01K\x02\x86" * 10_000 + b"eq\x00"
COPIES = b"".join(b"ccollections\nOrderedDict\nh\x00\x85Rq\x01" for _ in range(20_000))
BUILDS = b"".join(b"ccollections\nOrderedDict\n)Rh\x00b" for _ in range(20_000))
OWN = {"format": "meshwright", "version": "1", "config": small_config("mesh").to_json()}

HOSTILE = {
    "empty": (b"", "is empty"),
    "noise": (bytes(range(97, 200)), "neither safetensors nor"),
    "text": (b"<html>404: not found</html>", "neither safetensors nor"),
    "safetensors cut in the header": (safetensors_bytes({"a": entry([1], [0, 4])})[:20], "not a whole safetensors"),
    "safetensors cut in the data": (
        safetensors_bytes({"a": entry([9], [0, 36])}, bytes(35)), "not a whole safetensors"),
    "safetensors with a tail": (safetensors_bytes({"a": entry([1], [0, 4])}, bytes(9)), "not a whole safetensors"),
    "safetensors of terabytes": (
        safetensors_bytes({"a": entry([1 << 40], [0, 1 << 42])}, bytes(4)), "not a whole safetensors"),
    "safetensors overflowing": (
        safetensors_bytes({"a": entry([1 << 32, 1 << 32, 4], [0, 4])}, bytes(4)), "not a whole safetensors"),
    "safetensors overlapping": (
        safetensors_bytes({"a": entry([1], [0, 4]), "b": entry([1], [0, 4])}, bytes(4)), "not a whole safetensors"),
    "safetensors negative": (safetensors_bytes({"a": entry([-1], [0, -4])}, bytes(4)), "not a whole safetensors"),
    "safetensors of an odd type": (safetensors_bytes({"a": entry([1], [0, 4], "X9")}, bytes(4)), "not a whole safeten"),
    "safetensors header of petabytes": (safetensors_bytes(b"{}", length=1 << 60), "neither safetensors nor"),
    "safetensors header too long": (safetensors_bytes(b"{}", length=3 << 20), "not a whole safetensors"),
    "safetensors header nested": (safetensors_bytes(b'{"a":' * 100_000), "not a whole safetensors"),
    "safetensors without tensors": (safetensors_bytes({}), "no weights of a known model"),
    "own without config": (safetensors_bytes({"__metadata__": OWN | {"config": "{"}}), "model config: not"),
    "own of the future": (safetensors_bytes({"__metadata__": OWN | {"version": "2"}}), "newer meshwright"),
    "own of 60000 layers": (
        safetensors_bytes({"__metadata__": OWN | {"config": '{"kind": "mesh", "encoder_layers": 60000}'}}),
        "model config: encoder_layers"),
    "own of huge sizes": (
        safetensors_bytes({"__metadata__": OWN | {"config": dataclasses.replace(
            small_config("mesh"), transformer_dim=4096, encoder_hidden_size=4096, triplane_low_res=64).to_json()}}
            | {f"x{i:02}": entry([1], [4 * i, 4 * i + 4]) for i in range(10)}, bytes(40)), "missing"),
    "code": (saved({"a": RunsCode()}), r"holds more than weights \(posix system\) and was not opened"),
    "code, another protocol": (saved({"a": RunsCode()}, pickle_protocol=4), "holds more than weights"),
    "code, before torch 1.6": (saved({"a": RunsCode()}, _use_new_zipfile_serialization=False), "before torch 1.6"),
    "code, a bare pickle": (pickle.dumps(RunsCode(), 2), "before torch 1.6"),
    "a whole model": (saved(torch.nn.Linear(2, 2)), r"holds more than weights \(torch.nn.modules.linear Linear\)"),
    "a list": (saved([torch.ones(2)]), "no weights by name"),
    "a number": (saved({"state_dict": {"a": 3}}), "a is no tensor"),
    "a bytearray of a terabyte": (
        torch_zip(b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."), "builtins bytearray"),
    "a storage of a terabyte": (
        torch_zip(b"\x80\x02ctorch.storage\nUntypedStorage\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."), "UntypedStorage"),
    "a tensor of a terabyte": (torch_zip(tensor_pickle(1 << 38, 1 << 38, 1)), "not a whole PyTorch"),
    "a tensor beyond its storage": (torch_zip(tensor_pickle(2, 1 << 38, 1), [bytes(8)]), "not a whole PyTorch"),
    "a tensor of one number repeated": (torch_zip(tensor_pickle(2, 1 << 38, 0), [bytes(8)]), "more numbers than the"),
    "copies of copies": (torch_zip(b"\x80\x02(" + LIST_OF_PAIRS + COPIES + b"t."), "not one of plain tensors"),
    "copies in a tuple": (
        torch_zip(b"\x80\x02(" + LIST_OF_PAIRS + b"ccollections\nOrderedDict\n(h\x00tRt."), "not one of plain tensors"),
    "copies by building": (torch_zip(b"\x80\x02(" + LIST_OF_PAIRS + BUILDS + b"t."), "not one of plain tensors"),
    "arguments from the memo": (torch_zip(b"\x80\x02](e\x85q\x00ccollections\nOrderedDict\nh\x00R."), "plain tensors"),
    "a pickle that pops too much": (torch_zip(b"\x80\x02ttt."), "not a whole PyTorch"),
    "a pickle that breaks off": (torch_zip(b"\x80\x02}"), "not a whole PyTorch"),
    "no pickle": (torch_zip(b"").replace(b"m/data.pkl", b"m/dato.pkl"), "not a whole PyTorch"),
    "a pickle of megabytes": (torch_zip(b"\x80\x02" + b"N0" * (3 << 20) + b"."), "larger than any model needs"),
    "two pickles": (torch_zip(b"\x80\x02}.", **{"DATA.pkl": b"\x80\x02]."}), "contents is not torch's"),
    "a zip bomb": (
        torch_zip(b"\x80\x02}.", [bytes(50 << 20)], compression=zipfile.ZIP_DEFLATED), "are compressed"),
    "a zip cut short": (saved({"a": torch.ones(1000)})[:-50], "not a whole PyTorch"),
    "a zip's first bytes": (saved({"a": torch.ones(1000)})[:40], "not a whole PyTorch"),
    "an encrypted mindspore file": (bytes.fromhex("d85e3a7f") + bytes(99), "encrypted MindSpore"),
    "a mindspore name of two lines": (b"\x0a\x07\x0a\x03a\nb\x18\x01", r"a\\nb is no plain tensor"),
    "a mindspore file cut short": (b"\x0a\x7f\x0a\x01w", "not a whole MindSpore"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_clear_line_and_does_nothing(tmp_path, monkeypatch, what):
    content, message = HOSTILE[what]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.ckpt").write_bytes(content)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path / "m.ckpt")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert str(error.value).startswith(str(tmp_path / "m.ckpt"))
    assert str(error.value).isprintable()
    assert not (tmp_path / "was_run").exists()
    assert grown < 150 << 10, "KiB of memory"
    assert time.process_time() - started < 20


@pytest.mark.parametrize("path", [".", "no_such_file.ckpt", "instant-mesh-huge"])
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"is a folder|no such file of weights, nor a name among "):
        load_model(path)


@pytest.mark.parametrize("version", ["2.8.0", "2.9.1+cu128"])
def test_torch_versions_with_known_holes_read_no_pickle_but_all_else(tmp_path, monkeypatch, version):
    published_form(small_mesh(), tmp_path / "m.ckpt")
    save_model(small_mesh(), tmp_path / "m.safetensors")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    with pytest.raises(InputError, match=r"torch 2\..* has known holes .*CVE-2026-24747.*meshwright convert m\.ckpt"):
        load_model(tmp_path / "m.ckpt", config=small_config("mesh"))
    assert_same(load_model(tmp_path / "m.safetensors"), small_mesh())


def test_what_torch_saves_of_plain_tensors_is_read(tmp_path):
    linear = torch.nn.Linear(3, 2)
    content = {
        "w": linear.weight,
        "b": linear.bias.detach().bfloat16(),
        "i": torch.arange(3),
        "slice": torch.ones(4, 4)[1:3],
    }
    for state in (content, {"state_dict": OrderedDict(content), "epoch": 2, "loops": {"a": [1, (2.5, None, True)]}}):
        torch.save(state, tmp_path / "m.pt")
        read = read_torch(tmp_path / "m.pt")
        assert read.keys() == content.keys()
        assert all(torch.equal(read[name], content[name]) for name in content)
    torch.save(linear.state_dict(), tmp_path / "m.pt")
    assert read_torch(tmp_path / "m.pt").keys() == {"weight", "bias"}


FUZZED = {
    "torch": saved({"state_dict": {"lrm_generator.transformer.norm.bias": torch.ones(8)}}),
    "safetensors": safetensors_bytes({"__metadata__": OWN, "transformer.norm.bias": entry([2], [0, 8])}, bytes(8)),
}


@pytest.mark.parametrize("form", FUZZED)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_bytes_make_reading_fail_otherwise(tmp_path_factory, form, data):
    content = bytearray(FUZZED[form])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "m.ckpt"
    path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))])
    with pytest.raises(InputError):
        load_model(path)


# --- real sizes, real mindspore --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_published_checkpoint_loads_within_two_and_a_half_gigabytes(tmp_path):
    """1.5 GB of weights; the limit has room for torch itself, but not for a second copy."""
    script = Path(__file__).parents[1] / "benchmarks" / "make_seeded_checkpoint.py"
    subprocess.run([sys.executable, script, "instant-mesh-large", tmp_path / "m.ckpt"], check=True)
    load = textwrap.dedent("""
        import resource, sys
        from meshwright.weights import load_model
        model = load_model(sys.argv[1])
        assert sum(parameter.numel() for parameter in model.parameters()) == 378657644
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)
    done = subprocess.run([sys.executable, "-c", load, tmp_path / "m.ckpt"], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 2_500_000, "KiB"


@pytest.mark.mindspore
@pytest.mark.parametrize("file", ["m.ckpt", "m.safetensors"])
def test_mindspore_loads_our_model_and_we_load_it_back(tmp_path, file):
    python = os.environ.get("MESHWRIGHT_MINDSPORE_PYTHON")
    if not python:
        pytest.skip("MESHWRIGHT_MINDSPORE_PYTHON does not name the Python of a venv with mindspore")
    save_model(small_mesh(), tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / file, mindspore=True)
    script = textwrap.dedent("""
        import sys, numpy as np, mindspore as ms
        source, arrays, back = sys.argv[1:]
        form = source.rsplit(".")[-1]
        loaded = ms.load_checkpoint(source, format=form)
        np.savez(arrays, **{name: parameter.asnumpy() for name, parameter in loaded.items()})
        ms.save_checkpoint([{"name": n, "data": p} for n, p in loaded.items()], back, format=form)
    """)
    back = tmp_path / f"back_{file}"
    done = subprocess.run(
        [python, "-c", script, tmp_path / file, tmp_path / "a.npz", back], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    arrays = np.load(tmp_path / "a.npz")
    state = small_mesh().state_dict()
    assert len(arrays.files) == len(state)
    norm = arrays["lrm_generator.transformer.norm.gamma"]
    np.testing.assert_array_equal(norm, state["transformer.norm.weight"].numpy())
    assert_same(load_model(back, config=small_config("mesh")), small_mesh())
