"""Pickles of numbers, read without running anything in them."""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from meshwright.capture.camera_files.posed_files import MAX_CAMERA_FILE_BYTES
from meshwright.errors import InputError
from meshwright.untrusted import read_untrusted

_MOST_OPERATIONS = 400_000
_MOST_PARTS = 4_000_000  # numbers and lists


def unpickle_numbers(path: Path) -> Any:
    """A pickle of numbers, strings, containers and arrays of numbers; nothing in it is run.

    Raises:
        InputError: it holds anything else.
    """
    try:
        data = read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a pickle of numbers")
        _check_program(data)
        return _NumbersOnly(io.BytesIO(data)).load()
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path}: is no pickle of numbers ({type(error).__name__}); write it again") from None


def _check_program(data: bytes) -> None:
    """A pickle is a program. This one may not be long, nor ask for a memo that is larger than itself."""
    for count, (operation, value, _) in enumerate(pickletools.genops(data)):
        if count > _MOST_OPERATIONS:
            raise InputError("holds too much for a table of numbers; write it again")
        if operation.name.endswith("PUT") and int(value or 0) > count:
            raise InputError("is damaged; write it again")


class _Budget:
    """How much may still be made of a pickle, whose parts can be used again and again."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise InputError("holds too much for a table of numbers; write it again")


class _ArrayStandIn:
    """Stands in for numpy.ndarray while unpickling, so that no code of numpy sees hostile data."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        values = np.frombuffer(data, dtype.numpy)
        self.values = values.reshape(shape, order="F" if is_fortran else "C")


class _TypeStandIn:
    """Stands in for numpy.dtype; knows numbers only."""

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise InputError(f"holds an array of type {code!r}, not numbers; write it again")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.numpy = self.numpy.newbyteorder(">" if state[1] == ">" else "<")


class _NumbersOnly(pickle.Unpickler):
    """An unpickler that knows numbers, containers and numpy arrays of numbers, and refuses every other name."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._text = _Budget(MAX_CAMERA_FILE_BYTES)

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return lambda *_: _ArrayStandIn()
            if name == "scalar":
                return lambda dtype, data: np.frombuffer(data, dtype.numpy)[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _pickled_buffer
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct, which needs none
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *_: _TypeStandIn(code)
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return self._encode
        raise InputError(f"wants to run {module}.{name}, which cameras do not need; do not trust this file")

    def _encode(self, text: str, _: object) -> bytes:
        self._text.spend(len(text))
        return text.encode("latin1")


def _pickled_buffer(data: Any, dtype: _TypeStandIn, shape: tuple[int, ...], order: str) -> _ArrayStandIn:
    array = _ArrayStandIn()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def without_stand_ins(value: Any, budget: _Budget | None = None) -> Any:
    """Lists and arrays of what was unpickled.

    Raises:
        InputError: lists that hold the same lists many times become too large.
    """
    budget = _Budget(_MOST_PARTS) if budget is None else budget
    if isinstance(value, _ArrayStandIn):
        budget.spend(value.values.size)
        return value.values
    budget.spend(1)
    return [without_stand_ins(item, budget) for item in value] if isinstance(value, (list, tuple)) else value
