"""Pickles of numbers, read without running anything in them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from meshwright.capture.camera_files.posed_files import MAX_CAMERA_FILE_BYTES
from meshwright.errors import InputError
from meshwright.untrusted import read_untrusted


def unpickle_numbers(path: Path) -> Any:
    """A pickle of numbers, strings, containers and arrays of numbers; nothing in it is run.

    Raises:
        InputError: it holds anything else.
    """
    try:
        return _NumbersOnly(io.BytesIO(read_untrusted(path, MAX_CAMERA_FILE_BYTES, "a pickle of numbers"))).load()
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path}: is no pickle of numbers ({type(error).__name__}); write it again") from None


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
            return lambda text, _: text.encode("latin1")
        raise InputError(f"wants to run {module}.{name}, which cameras do not need; do not trust this file")


def _pickled_buffer(data: Any, dtype: _TypeStandIn, shape: tuple[int, ...], order: str) -> _ArrayStandIn:
    array = _ArrayStandIn()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def without_stand_ins(value: Any) -> Any:
    if isinstance(value, _ArrayStandIn):
        return value.values
    return [without_stand_ins(item) for item in value] if isinstance(value, (list, tuple)) else value
