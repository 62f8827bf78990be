"""Starting a training from other models' weights: what maps is taken, the rest stays new."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meshwright.errors import InputError
from meshwright.model import InstantMesh, InstantNeRF
from meshwright.progress import Progress, silent
from meshwright.weights.check import check_finite
from meshwright.weights.hub import find_weights
from meshwright.weights.read import read_checkpoint

_SURFACE_DENSITY = 10.0  # of the NeRF model, raw: where the mesh model that starts from it has sdf 0


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
    check_finite(checkpoint, progress)
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
