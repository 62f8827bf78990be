"""Reading a file of weights: what it holds, under this library's names.

Read are this library's own files, the published InstantMesh checkpoints (PyTorch Lightning), DINO encoders and OpenLRM
(PyTorch or safetensors), and MindSpore's forms of all of them; a file's content tells which it is. Pickles are read as
``torch_pickle`` says and never written.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from meshwright.errors import InputError
from meshwright.model import PRESETS, ModelConfig
from meshwright.untrusted import MIB, open_untrusted
from meshwright.weights.mindspore import is_mindspore, read_mindspore, torch_name
from meshwright.weights.torch_pickle import is_torch, read_torch

# The own form is a safetensors file (huggingface.co/docs/safetensors) that bears this library's parameter names and the
# metadata ``format`` = ``meshwright``, ``version``, ``config`` (``ModelConfig.to_json``) and ``dtype``.
FORMAT, VERSION = "meshwright", "1"
PUBLISHED_PREFIX = "lrm_generator."
_LARGEST_FILE = 64 * 1024 * MIB
_LARGEST_HEADER = 4 << 20  # bytes, of a safetensors file; that of the largest published model has 0.06 MB
_MOST_NAMES = 5  # of each sort in an error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds. ``config`` is None where the file is not a whole model of this library.

    ``tensors`` bear this library's names, or for encoders and OpenLRM their own; most are mapped from the file.
    """

    path: Path
    form: str
    config: ModelConfig | None
    tensors: Mapping[str, Tensor]


def read_checkpoint(path: str | os.PathLike[str], config: ModelConfig | None = None) -> Checkpoint:
    """What the file holds and its tensors; ``config`` is of use where the file has no config and is no preset.

    Raises:
        InputError: the file cannot be read, is damaged, unsafe or of no known form.
    """
    path = Path(path)
    tensors, metadata = _read_file(path)
    tensors = _own_names(tensors)
    if metadata.get("format") == FORMAT:
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
    raise InputError(f"{path}: holds no weights of a known model (but {printable_names(tensors)}); name another file")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file of any form under their own names, whatever they are for.

    Raises:
        InputError: the file cannot be read, is damaged, unsafe or of no known form.
    """
    return _read_file(Path(path))[0]


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file whose first bytes say what it is."""
    with open_untrusted(path, _LARGEST_FILE, "a weights file") as file:
        head = file.read(9)
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
    if any(name.startswith(PUBLISHED_PREFIX) for name in tensors):
        tensors = {
            name.removeprefix(PUBLISHED_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(PUBLISHED_PREFIX) and "source_camera" not in name
        }
    return tensors


def _stored_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig:
    if metadata.get("version") != VERSION:
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


def describe(config: ModelConfig) -> str:
    """The preset that ``config`` has the weights of; what only rendering and extraction use may differ."""
    sizes = re.compile("kind|encoder_|patch_size|transformer_|triplane_")
    for name, preset in PRESETS.items():
        if all(value == getattr(preset, key) for key, value in vars(config).items() if sizes.match(key)):
            return name
    return f"a {config.kind} model of {config.transformer_layers} layers and {config.triplane_dim} channels"


def printable_names(names: Iterable[str]) -> str:
    """The first few of a stranger's names, fit to print."""
    names = list(names)
    shown = ", ".join(ascii(name)[1:-1][:120] for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
