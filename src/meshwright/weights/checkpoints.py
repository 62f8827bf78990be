"""Weights of the reconstruction models: load, save, convert, and start a training from other models' weights.

Read are this library's own files, the published InstantMesh checkpoints (PyTorch Lightning), DINO encoders and OpenLRM
(PyTorch or safetensors), and MindSpore's forms of all of them; a file's content tells which it is. Pickles are read as
``torchfile`` says and never written.

The own form is a safetensors file (huggingface.co/docs/safetensors) that bears this library's parameter names and the
metadata ``format`` = ``meshwright``, ``version``, ``config`` (``ModelConfig.to_json``) and ``dtype``.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from meshwright.device import resolve_device
from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.model.instantmesh import PRESETS, InstantMesh, InstantNeRF, ModelConfig, build_model
from meshwright.progress import Progress, silent
from meshwright.weights.hub import find_weights
from meshwright.weights.mindspore import is_mindspore, mindspore_name, read_mindspore, torch_name, write_mindspore
from meshwright.weights.torch_pickle import is_torch, read_torch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_FORMAT, _VERSION = "meshwright", "1"
_PUBLISHED_PREFIX = "lrm_generator."
_LARGEST_HEADER = 4 << 20  # bytes, of a safetensors file; that of the largest published model has 0.06 MB
_MOST_NAMES = 5  # of each sort in an error
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SURFACE_DENSITY = 10.0  # of the NeRF model, raw: where the mesh model that starts from it has sdf 0


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds. ``config`` is None where the file is not a whole model of this library.

    ``tensors`` bear this library's names, or for encoders and OpenLRM their own; most are mapped from the file.
    """

    path: Path
    form: str
    config: ModelConfig | None
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """What a model's weights became when it started from a file: names of the model, the last two of the file.

    ``new`` are as the model was made (the camera modulation: drawn anew). ``misshapen`` have a counterpart of another
    shape, ``dropped`` have none.
    """

    form: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    misshapen: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` found and wrote, in words, and how many tensors."""

    source: str
    destination: str
    tensors: int


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
    progress: Progress = silent,
) -> InstantNeRF | InstantMesh:
    """A model in evaluation mode, from a preset's name (see ``hub.find_weights``) or a file of any form.

    On the CPU, weights stored in ``dtype`` stay mapped to the file: nothing is copied. ``config`` is needed only for
    models in the published or a MindSpore form whose sizes are none of the presets'.

    Raises:
        InputError: the weights cannot be had or read, are not finite, or are not those of the named preset or
            ``config``: missing, unexpected and misshapen ones are listed by name.
    """
    device = resolve_device(device)
    path = find_weights(name_or_path, model_dir=model_dir, revision=revision, progress=progress)
    checkpoint = read_checkpoint(path, config)
    if checkpoint.config is None:
        raise InputError(f"{path}: is {checkpoint.form}, not a reconstruction model; training can start from it")
    found, name = _describe(checkpoint.config), os.fspath(name_or_path)
    if name in PRESETS and found != name:
        raise InputError(f"{path}: looks like {found}, not {name}; ask for that or replace the file")
    return _assemble(checkpoint, checkpoint.config, device, dtype, progress)


def save_model(
    model: InstantNeRF | InstantMesh, path: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> None:
    """Write ``model`` in the own form (.safetensors), with its weights as they are or in ``dtype``.

    Raises:
        InputError: a weight is not finite in ``dtype``, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: models are saved as .safetensors; change the name")
    _save_own(_cast(path, model.state_dict(), dtype), model.config, path)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    mindspore: bool = False,
    config: ModelConfig | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Write the weights of ``source`` (a known name or a file of any form) as ``destination``, whose suffix says how.

    ``.safetensors``: a model in the own form, an encoder or OpenLRM under its own names. ``.ckpt``: MindSpore's form.
    ``mindspore``: MindSpore's names, in a .safetensors file too; models get the prefix of the published files,
    which MindOne's port expects. ``config`` as in ``load_model``.

    Raises:
        InputError: the source cannot be had or is no good (see ``load_model``), a weight is not finite in ``dtype``,
            or the destination has another suffix or cannot be written.
    """
    destination = Path(destination)
    if destination.suffix not in (".safetensors", ".ckpt"):
        raise InputError(
            f"{destination}: name it .safetensors, or .ckpt for MindSpore (PyTorch's pickles are not written)"
        )
    path = find_weights(source, model_dir=model_dir, revision=revision, progress=progress)
    checkpoint = read_checkpoint(path, config)
    if checkpoint.config is not None:
        _check_fit(checkpoint, _skeleton(checkpoint, checkpoint.config).state_dict(), checkpoint.config)
    _check_finite(checkpoint, progress)
    tensors = _cast(destination, checkpoint.tensors, dtype)
    if mindspore or destination.suffix == ".ckpt":
        prefix = _PUBLISHED_PREFIX if checkpoint.config is not None else ""
        tensors = {prefix + mindspore_name(name): tensor for name, tensor in tensors.items()}
        if destination.suffix == ".ckpt":
            write_mindspore(tensors, destination)
            form = "a MindSpore checkpoint"
        else:
            _save_safetensors(tensors, {"format": "ms"}, destination)
            form = "safetensors with MindSpore's names"
    elif checkpoint.config is not None:
        _save_own(tensors, checkpoint.config, destination)
        form = "a meshwright model"
    else:
        _save_safetensors(tensors, {"format": "pt"}, destination)
        form = "safetensors"
    source_form = checkpoint.form + (f" ({_describe(checkpoint.config)})" if checkpoint.config is not None else "")
    return Conversion(source_form, form, len(tensors))


def start_from(
    model: InstantNeRF | InstantMesh,
    name_or_path: str | os.PathLike[str],
    *,
    model_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Start:
    """Put what maps of other weights into a new ``model``, in place, to start a training from.

    From a DINO ViT the encoder; from OpenLRM all but the camera modulation (1.1: nor the encoder); from a model of
    either kind all that both have. A mesh model that starts from a NeRF model takes its colours, and its sdf from the
    density (Xu et al. 2024, arXiv 2404.07191, section 3.3). Where an encoder comes without camera modulation, that is
    drawn from ``seed`` as the published models were: truncated normal weights of deviation 0.02, biases 0.

    Raises:
        InputError: the weights cannot be had or read, are not finite, or none of them maps.
    """
    path = find_weights(name_or_path, model_dir=model_dir, revision=revision, progress=progress)
    checkpoint = read_checkpoint(path, model.config)
    _check_finite(checkpoint, progress)
    own = model.state_dict()
    found = dict(checkpoint.tensors)
    if isinstance(model, InstantMesh):
        found = _mesh_heads(found)
    loaded, misshapen, dropped = [], [], []
    for name, tensor in found.items():
        target = _counterpart(checkpoint.form, name)
        if target not in own:
            dropped.append(name)
        elif own[target].shape != tensor.shape:
            misshapen.append(name)
        else:
            own[target].copy_(tensor)
            loaded.append(target)
    new = [name for name in own if name not in set(loaded)]
    if not loaded:
        raise InputError(f"{path}: none of its weights fits this model ({checkpoint.form}); start from another file")
    _draw_modulation({name: own[name] for name in new}, seed)
    return Start(checkpoint.form, tuple(loaded), tuple(new), tuple(misshapen), tuple(dropped))


def read_checkpoint(path: str | os.PathLike[str], config: ModelConfig | None = None) -> Checkpoint:
    """What the file holds and its tensors; ``config`` is of use where the file has no config and is no preset.

    Raises:
        InputError: the file cannot be read, is damaged, unsafe or of no known form.
    """
    path = Path(path)
    tensors, metadata = _read_file(path)
    tensors = _own_names(tensors)
    if metadata.get("format") == _FORMAT:
        return Checkpoint(path, "a meshwright model", _stored_config(path, metadata), tensors)
    if any(name.startswith("camera_embedder.") for name in tensors):
        return Checkpoint(path, "OpenLRM 1.1" if "upsampler.weight" in tensors else "OpenLRM 1.0", None, tensors)
    if any(name.startswith("synthesizer.decoder.") for name in tensors):
        config = config or _preset(tensors)
        if config is None:
            raise InputError(f"{path}: is no published model by its sizes; convert it with its config from Python")
        return Checkpoint(path, "an InstantMesh checkpoint", config, tensors)
    if any(name.endswith("embeddings.cls_token") for name in tensors):
        return Checkpoint(path, "a ViT encoder", None, tensors)
    raise InputError(f"{path}: holds no weights of a known model (but {_names(tensors)}); name another file")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file whose first bytes say what it is."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return _read_safetensors(path)
    if is_torch(head):
        return read_torch(path), {}
    if is_mindspore(head):
        return read_mindspore(path), {}
    what = "is empty" if not head else "is damaged or neither safetensors nor a PyTorch or MindSpore checkpoint"
    raise InputError(f"{path}: {what}; fetch it again or name another file")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        reason = ascii(str(error).splitlines()[0] if str(error) else type(error).__name__)[1:-1][:200]
        raise InputError(f"{path}: is not a whole safetensors file ({reason}); fetch it again") from None


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo MindSpore's names and the published prefix, and drop what stands beside the model in published files."""
    tensors = {torch_name(name): tensor for name, tensor in tensors.items()}
    if any(name.startswith(_PUBLISHED_PREFIX) for name in tensors):
        tensors = {
            name.removeprefix(_PUBLISHED_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_PUBLISHED_PREFIX) and "source_camera" not in name
        }
    return tensors


def _stored_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig:
    if metadata.get("version") != _VERSION:
        raise InputError(f"{path}: was written by a newer meshwright; update with pip install -U meshwright")
    try:
        return ModelConfig.from_json(metadata.get("config", ""))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _preset(tensors: Mapping[str, Tensor]) -> ModelConfig | None:
    """The published config that the tensors look like, were some of them to be missing or misshapen."""
    kind = "mesh" if any(name.startswith("synthesizer.decoder.net_sdf.") for name in tensors) else "nerf"
    layers = len({name.split(".")[2] for name in tensors if name.startswith("transformer.layers.")})
    sizes = [tensors[name].shape for name in ("transformer.pos_embed", "transformer.norm.weight") if name in tensors]
    for config in PRESETS.values():
        if (config.kind, config.transformer_layers) == (kind, layers) and all(
            shape[-1:] == (config.transformer_dim,) for shape in sizes
        ):
            return config
    return None


def _describe(config: ModelConfig) -> str:
    """The preset that ``config`` has the weights of; what only rendering and extraction use may differ."""
    sizes = re.compile("kind|encoder_|patch_size|transformer_|triplane_")
    for name, preset in PRESETS.items():
        if all(value == getattr(preset, key) for key, value in vars(config).items() if sizes.match(key)):
            return name
    return f"a {config.kind} model of {config.transformer_layers} layers and {config.triplane_dim} channels"


# --- checking and building -------------------------------------------------------------------------------------------


def _assemble(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype, progress: Progress
) -> InstantNeRF | InstantMesh:
    model = _skeleton(checkpoint, config)
    _check_fit(checkpoint, model.state_dict(), config)
    _check_finite(checkpoint, progress)
    weights = {name: tensor.to(device=device, dtype=dtype) for name, tensor in checkpoint.tensors.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def _skeleton(checkpoint: Checkpoint, config: ModelConfig) -> InstantNeRF | InstantMesh:
    """The model without storage, unless its config asks for more layers than the file can have."""
    if config.encoder_layers + config.transformer_layers > len(checkpoint.tensors):
        raise InputError(f"{checkpoint.path}: has too few weights for the layers in its config; fetch it again")
    with torch.device("meta"):
        return build_model(config)


def _check_fit(checkpoint: Checkpoint, expected: Mapping[str, Tensor], config: ModelConfig) -> None:
    tensors = checkpoint.tensors
    shared = [name for name in tensors if name in expected]
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {list(tensors[name].shape)} for {list(expected[name].shape)}"
            for name in shared
            if tensors[name].shape != expected[name].shape
        ],
        "not of floats": [name for name in shared if tensors[name].dtype not in _FLOATS],
    }
    found = "; ".join(f"{len(names)} {what}: {_names(names)}" for what, names in faults.items() if names)
    if found:
        raise InputError(f"{checkpoint.path}: does not fit {_describe(config)} ({found}); fetch it again")


def _check_finite(checkpoint: Checkpoint, progress: Progress) -> None:
    bad = []
    for index, (name, tensor) in enumerate(checkpoint.tensors.items()):
        if not _is_finite(tensor):
            bad.append(name)
        progress("weights", (index + 1) / len(checkpoint.tensors))
    if bad:
        raise InputError(
            f"{checkpoint.path}: {len(bad)} of its tensors hold NaN or infinity ({_names(bad)}); fetch it again"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # carries NaN through, and unlike isfinite() makes no second tensor
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _names(names: Iterable[str]) -> str:
    """The first few of a stranger's names, fit to print."""
    names = list(names)
    shown = ", ".join(ascii(name)[1:-1][:120] for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


# --- writing ---------------------------------------------------------------------------------------------------------


def _cast(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    too_large = [name for name, tensor in cast.items() if not _is_finite(tensor)]
    if too_large:
        raise InputError(f"{path}: {_names(too_large)} is not finite there; choose another dtype, such as bf16 or fp32")
    return cast


def _save_own(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    dtype = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    metadata = {"format": _FORMAT, "version": _VERSION, "config": config.to_json(), "dtype": dtype}
    _save_safetensors(tensors, metadata, path)


def _save_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    plain: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in places else tensor  # safetensors does not write tied tensors
        places.add(place)
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be written ({error}); free space or choose another place") from None


# --- starting from other weights -------------------------------------------------------------------------------------


def _counterpart(form: str, name: str) -> str:
    """The name in a model of this library of a weight of another; it may not exist."""
    if form == "a ViT encoder":
        return "encoder.model." + name.removeprefix("vit.").removeprefix("model.")
    if form == "OpenLRM 1.1":
        if name.startswith("encoder."):
            return ""  # DINOv2 with patches of 14 pixels: other tokens
        name = re.sub(r"^pos_embed$", "transformer.pos_embed", re.sub(r"^upsampler\.", "transformer.deconv.", name))
    if form.startswith("OpenLRM"):
        return re.sub(r"^(transformer\.layers\.\d+\.norm\d)\.norm\.", r"\1.", name)
    return name


def _mesh_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The NeRF head's weights, if there are any, as those of the mesh model's sdf and colour heads.

    Density is high inside and the sdf negative there: sdf = 10 - raw density.
    """
    heads = {name: tensor for name, tensor in tensors.items() if not name.startswith("synthesizer.decoder.net.")}
    for name in tensors.keys() - heads.keys():
        layer = name.removeprefix("synthesizer.decoder.net.")
        sdf, rgb = tensors[name], tensors[name]
        if layer == "6.weight":
            sdf, rgb = -sdf[:1], rgb[1:]
        elif layer == "6.bias":
            sdf, rgb = _SURFACE_DENSITY - sdf[:1], rgb[1:]
        heads[f"synthesizer.decoder.net_sdf.{layer}"] = sdf
        heads[f"synthesizer.decoder.net_rgb.{layer}"] = rgb
    return heads


def _draw_modulation(new: Mapping[str, Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in new.items():
        if name.endswith("adaLN_modulation.1.weight"):
            drawn = nn.init.trunc_normal_(torch.empty(tensor.shape), std=0.02, generator=generator)
            tensor.copy_(drawn)
        elif name.endswith("adaLN_modulation.1.bias"):
            tensor.zero_()
