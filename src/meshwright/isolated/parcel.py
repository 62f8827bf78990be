"""Tensors and JSON in one file: how a child hands over what it has read."""

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from meshwright.untrusted import MIB, parse_json

_MAGIC = b"MWPARCEL"
_MOST_JSON = 64 * MIB
_ALIGNMENT = 64  # bytes, as torch's own tensors are
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )
}  # fmt: skip


class DamagedParcel(Exception):
    """The child did not hand over what it should have: it crashed while it wrote, or is no longer ours."""


@dataclass(frozen=True)
class Parcel:
    """``facts`` can be JSON."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def write(self, file: BinaryIO) -> None:
        """Write to the beginning of an empty file."""
        table: dict[str, tuple[str, list[int], int]] = {}
        end = 0
        for name, tensor in self.tensors.items():
            table[name] = (str(tensor.dtype).removeprefix("torch."), list(tensor.shape), end)
            end += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
        head = json.dumps({"facts": self.facts, "tensors": table}).encode()
        file.write(_MAGIC + len(head).to_bytes(8, "little") + head)
        start = _aligned(16 + len(head))
        for name, tensor in self.tensors.items():
            file.seek(start + table[name][2])
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        file.truncate(start + end)
        file.flush()

    @classmethod
    def read(cls, file: BinaryIO) -> "Parcel":
        """The parcel in a file, which tensors stay mapped to (written to, they change in memory alone).

        Raises:
            DamagedParcel: the file is not what ``write`` makes.
        """
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        head = file.read(16)
        length = int.from_bytes(head[8:], "little")
        if head[:8] != _MAGIC or length > min(_MOST_JSON, size):
            raise DamagedParcel("it handed over nothing whole")
        try:
            content = parse_json(file.read(length), "what it handed over")
            facts, table = content["facts"], content["tensors"]
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            tensors = {name: _tensor(memory, _aligned(16 + length), *row) for name, row in table.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise DamagedParcel(f"it handed over something else ({type(error).__name__})") from None
        return cls(facts, tensors)


def _tensor(memory: mmap.mmap, start: int, dtype_name: str, shape: list[int], offset: int) -> Tensor:
    dtype = _DTYPES[dtype_name]
    if not all(type(side) is int and side >= 0 for side in (*shape, offset)) or offset % _ALIGNMENT:
        raise ValueError
    count = math.prod(shape)
    if start + offset + count * dtype.itemsize > len(memory):
        raise ValueError
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start + offset).view(shape)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
