"""Models in parts: each process keeps a share of every weight, its gradient and running means, and borrows the rest.

Fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277) by `torch.distributed.fsdp.fully_shard`. A
transformer block is borrowed while it computes; all that stands outside of blocks (embeddings, heads) during a whole
step. Weights keep their names and become DTensors, split along their first axis; a process may hold nothing of a small
one. Files hold whole tensors, so a run can go on with any number of processes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from meshwright.model import InstantMesh, InstantNeRF, build_model

if TYPE_CHECKING:  # a second of imports, which --help should not wait for
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def broadcast_weights(model: nn.Module, device: torch.device) -> None:
    """Move a model to its device and give all processes the weights of the first, as DDP does."""
    model.to(device)
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, src=0)


def shard(model: InstantNeRF | InstantMesh, root: nn.Module, mesh: "DeviceMesh") -> None:
    """Split the weights of ``model`` in place; ``root`` is the module around it (or itself) whose forward is called."""
    from torch.distributed.fsdp import fully_shard

    for block in (*model.encoder.blocks, *model.transformer.layers):
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)


def _is_split(tensor: Tensor) -> "TypeGuard[DTensor]":
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def is_sharded(model: nn.Module) -> bool:
    return any(_is_split(parameter) for parameter in model.parameters())


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory; all of one that is not split."""
    return tensor.to_local() if _is_split(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Of a split one every process has to ask, in the same order."""
    return tensor.full_tensor() if _is_split(tensor) else tensor


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of ``like``, split as that is; no process asks another."""
    tensor = tensor.to(like.device)
    if not _is_split(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole_model(model: InstantNeRF | InstantMesh) -> InstantNeRF | InstantMesh:
    """The same weights in a model that no process shares; every process has to ask. One that is whole is returned."""
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        copy = build_model(model.config)
    copy.load_state_dict({name: whole(tensor.detach()) for name, tensor in model.state_dict().items()}, assign=True)
    return copy.requires_grad_(False).eval()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Whole tensors into a model, split or not.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    if not is_sharded(model):
        model.load_state_dict(tensors)
        return
    mine = model.state_dict()
    if wrong := sorted(mine.keys() ^ tensors.keys()) or [n for n in mine if mine[n].shape != tensors[n].shape]:
        raise RuntimeError(f"{wrong[0]} is missing, unknown, or of another shape")
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(part_like(tensors[name].to(tensor.dtype), tensor))
