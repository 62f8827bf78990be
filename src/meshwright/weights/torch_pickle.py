"""PyTorch checkpoint files (.ckpt, .bin, .pt, .pth), read without running or unpacking what a stranger put in them."""

import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from meshwright.errors import InputError

# weights_only=True was passed by in CVE-2025-32434 (mended in 2.6) and CVE-2026-24747 (mended in 2.10)
_SAFE_TORCH = "2.10"
_LARGEST_PICKLE = 4 << 20  # bytes; that of the largest published model has about 0.1 MB
_MOST_RECORDS = 20_000
_MOST_BUILDS = 16
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {storage}Storage" for storage in _STORAGES),
}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPERATIONS = {
    *("PROTO", "STOP", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "MARK", "TUPLE", *_TUPLES),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING"),
}


def is_torch(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be one of torch.save: a zip, or the bare pickle of torch < 1.6."""
    return head[:2] in (b"PK", b"\x80\x02")


def check_torch_reads_pickles(where: str | os.PathLike[str], what_to_convert: str) -> None:
    """Refuse to go on where this torch must not open a stranger's pickle; ``where`` begins the error.

    Raises:
        InputError: torch is too old.
    """
    if TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise InputError(
            f"{where}: is a pickle, and torch {torch.__version__} has known holes there (CVE-2026-24747); update to"
            f" torch {_SAFE_TORCH} or newer, or run `meshwright convert {what_to_convert} model.safetensors` where you"
            " have that"
        )


def read_torch(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file of ``torch.save`` by name, those of its ``state_dict`` if it has one, on the CPU.

    They are mapped from the file, not copied. The file's pickle is looked through before torch reads it: it may make
    plain data and tensors only, and those not in ways that take much memory.

    Raises:
        InputError: torch is too old to read strangers' pickles, the file is damaged, or holds more than plain tensors.
    """
    path = Path(path)
    check_torch_reads_pickles(path, path.name)
    _check_archive(path)
    _check_pickle(path, _pickle_bytes(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a stranger's pickle can raise whatever it likes
        raise _damaged(path, _first_line(error)) from None
    return _tensors(path, content)


def _check_archive(path: Path) -> None:
    """Refuse archives that would grow when unpacked, or that two readers may understand differently."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise InputError(
                f"{path}: is a pickle from before torch 1.6, which is not read; save it anew in torch, then try again"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, _first_line(error)) from None
    if len(records) > _MOST_RECORDS or len({record.filename.casefold() for record in records}) < len(records):
        raise _damaged(path, "its list of contents is not torch's")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise _damaged(path, "its contents are compressed, which torch never does")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise _damaged(path, "it claims to hold more than it has bytes")
    if any(record.file_size > _LARGEST_PICKLE for record in records if record.filename.casefold().endswith(".pkl")):
        raise _damaged(path, "its pickle is larger than any model needs")


def _pickle_bytes(path: Path) -> bytes:
    """The pickle, by the reader that torch.load uses, so that what is checked is what is loaded."""
    try:
        return torch._C.PyTorchFileReader(os.fspath(path)).get_record("data.pkl")
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, _first_line(error)) from None


def _check_pickle(path: Path, data: bytes) -> None:
    """Walk the pickle's instructions without following them; they may be plain data and calls of ``_GLOBALS``.

    A call must have no arguments (an empty OrderedDict) or three and more (a tensor): with one, OrderedDict copies,
    and copies of copies fill the memory from a few bytes. BUILD copies too, hence its limit.
    """
    depth, last_tuple, builds = 0, None, 0
    open_marks: list[int] = []  # depths of the stack
    try:
        for operation, value, _ in pickletools.genops(data):
            name, before, after = operation.name, operation.stack_before, operation.stack_after
            if name == "GLOBAL" and value not in _GLOBALS:
                raise _holds_code(path, str(value))
            if name not in _OPERATIONS:
                raise _holds_code(path, name)
            builds += name == "BUILD"
            if builds > _MOST_BUILDS or (name == "REDUCE" and last_tuple in (None, 1, 2)):
                raise _damaged(path, "its pickle is not one of plain tensors")
            if not name.endswith("PUT"):
                last_tuple = _TUPLES.get(name, depth - open_marks[-1] if name == "TUPLE" else None)
            if name == "MARK":
                open_marks.append(depth)
            elif pickletools.markobject in before:
                depth = open_marks.pop() - before.index(pickletools.markobject) + len(after)
            else:
                depth += len(after) - len(before)
    except (ValueError, IndexError) as error:  # InputError is a ValueError
        raise error if isinstance(error, InputError) else _damaged(path, _first_line(error)) from None


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no weights by name; save a model's state_dict")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {_shown(str(name)[:80])} is no tensor; save a model's state_dict alone")
        if tensor.device.type != "cpu" or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise _damaged(path, f"{_shown(name)} claims more numbers than the file has")
    return content


def _holds_code(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: holds more than weights ({_shown(what)}) and was not opened; if you trust it, load it in torch"
        " and save its state_dict alone"
    )


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: is not a whole PyTorch checkpoint ({what}); fetch it again")


def _first_line(error: Exception) -> str:
    return _shown((str(error).strip() or type(error).__name__).splitlines()[0])


def _shown(text: str) -> str:
    """A stranger's text made fit to print: one short line without control characters."""
    return ascii(text)[1:-1][:200]
