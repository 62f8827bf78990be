"""MindSpore checkpoint files (.ckpt), read and written without MindSpore.

The file is one protobuf message (developers.google.com/protocol-buffers/docs/encoding) of MindSpore's schema
``checkpoint.proto``::

    Checkpoint  { repeated Value value = 1; }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3; }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

A large tensor is several consecutive values of one tag: each bears the whole shape and a piece of the bytes. The file
may end in ``crc_num`` and ten bytes, big-endian: the CRC-32 of all before. Numbers are little-endian.
"""

import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from meshwright.errors import InputError
from meshwright.files import atomic_path
from meshwright.untrusted import printable

_DTYPES = {
    "Bool": torch.bool,
    "Int8": torch.int8,
    "Int16": torch.int16,
    "Int32": torch.int32,
    "Int64": torch.int64,
    "UInt8": torch.uint8,
    "UInt16": torch.uint16,
    "UInt32": torch.uint32,
    "UInt64": torch.uint64,
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float32": torch.float32,
    "Float64": torch.float64,
}
_TYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_SLICE_BYTES = 512 << 20  # MindSpore's own piece size; a protobuf message must stay below 2 GiB
_CRC_MARK = b"crc_num"
_CRC_BYTES = len(_CRC_MARK) + 10
_ENCRYPTED = b"\x5e\x3a\x7f"  # bytes 1 to 3 of the mark of an encrypted block, whatever the cipher
_VARINT, _BYTES = 0, 2  # wire types
_MOST_FIELDS = 200_000  # in a file: fifty times those of the largest model
_LONGEST_TEXT = 4096
_MOST_DIMS = 16


def mindspore_name(name: str) -> str:
    """A parameter's torch name -> MindSpore's: norms have ``gamma`` and ``beta`` for ``weight`` and ``bias``."""
    return re.sub(
        r"(^|\.)([^.]*norm[^.]*\.)(weight|bias)$",
        lambda match: match[1] + match[2] + {"weight": "gamma", "bias": "beta"}[match[3]],
        name,
    )


def torch_name(name: str) -> str:
    """The inverse of ``mindspore_name``."""
    return re.sub(r"(^|\.)(gamma|beta)$", lambda match: match[1] + {"gamma": "weight", "beta": "bias"}[match[2]], name)


def is_mindspore(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (8 bytes or more) may be a MindSpore checkpoint, encrypted or not."""
    return head[:1] == b"\x0a" or head[1:4] == _ENCRYPTED


def read_mindspore(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a MindSpore checkpoint by MindSpore's names, on the CPU; texts in the file are left out.

    Takes no more memory than the file has bytes.

    Raises:
        InputError: the file is encrypted, damaged, not a MindSpore checkpoint, or holds what is no plain tensor.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Reader(file, path).tensors()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None


def write_mindspore(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write ``tensors`` under their names as they are (see ``mindspore_name``) for ``mindspore.load_checkpoint``.

    Raises:
        InputError: a tensor is empty or of a dtype unknown to MindSpore, or the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for name, tensor in tensors.items():
            if tensor.dtype not in _TYPE_NAMES or not tensor.numel():
                raise InputError(
                    f"{path}: {name} ({tensor.dtype}, {list(tensor.shape)}) does not fit MindSpore's format"
                )
            flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            header = b"".join(_tag(1, _VARINT) + _varint(size) for size in tensor.shape)
            header += _field(2, _TYPE_NAMES[tensor.dtype].encode())
            for start in range(0, flat.size, _SLICE_BYTES):
                content = flat[start : start + _SLICE_BYTES].data
                _write_value(file, name, header, content)


def _write_value(file: io.BufferedIOBase, name: str, header: bytes, content: memoryview) -> None:
    """One Value; ``content`` comes last in each of the nested messages, so that it is written without a copy."""
    tensor = header + _tag(3, _BYTES) + _varint(len(content))
    value = _field(1, name.encode()) + _tag(2, _BYTES) + _varint(len(tensor) + len(content)) + tensor
    file.write(_tag(1, _BYTES) + _varint(len(value) + len(content)) + value)
    file.write(content)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Base 128, least significant group first; the top bit says that more follow."""
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


@dataclass(frozen=True)
class _Piece:
    """One Value: whose bytes ``offset .. offset + size`` of the file are."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


class _Reader:
    """Walks the messages of a file by their lengths; a length beyond the message around it is an error."""

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        self.file, self.path = file, path
        self.position = self.fields_seen = 0  # file.tell() would be a system call a field

    def tensors(self) -> dict[str, Tensor]:
        if self.file.read(4)[1:] == _ENCRYPTED:
            raise InputError(
                f"{self.path}: is an encrypted MindSpore checkpoint; load it in MindSpore and save it without enc_key"
            )
        tensors: dict[str, Tensor] = {}
        for pieces in _runs(self._pieces(self._checked_end())):
            name = pieces[0].name
            if name in tensors:
                raise self._damaged(f"{name} stands in it twice")
            if pieces[0].kind != "str":
                tensors[name] = self._tensor(pieces)
        return tensors

    def _checked_end(self) -> int:
        """Where the message ends: before the checksum, if there is one, which must be right."""
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(max(size - _CRC_BYTES, 0))
        trailer = self.file.read()
        self.file.seek(0)
        if not trailer.startswith(_CRC_MARK):
            return size
        checksum, left = 0, size - _CRC_BYTES
        while left and (block := self.file.read(min(left, 1 << 20))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        if checksum != int.from_bytes(trailer[len(_CRC_MARK) :], "big"):
            raise self._damaged("its checksum does not match")
        self.file.seek(0)
        return size - _CRC_BYTES

    def _pieces(self, end: int) -> Iterator[_Piece]:
        for field in self._fields(end):
            match field:
                case (1, "bytes", size):
                    yield self._piece(self.position + size)
                case (number, _, _):
                    raise self._damaged(f"it has a field {number} at the top")

    def _piece(self, end: int) -> _Piece:
        name, tensor = "", None
        for field in self._fields(end):
            match field:
                case (1, "bytes", size):
                    name = self._text(size)
                case (2, "bytes", size):
                    tensor = self._tensor_fields(self.position + size)
                case _:
                    shown = printable(name)[:120] or "a value"
                    raise InputError(f"{self.path}: {shown} is no plain tensor; save it as a Parameter")
        if not name or tensor is None:
            raise self._damaged("a value lacks its name or tensor")
        return _Piece(name, *tensor)

    def _tensor_fields(self, end: int) -> tuple[str, tuple[int, ...], int, int]:
        """A TensorProto's type, shape, and the place and size of its content."""
        kind, place = "", None
        shape: list[int] = []
        for field in self._fields(end):
            match field:
                case (1, "number", size) if len(shape) < _MOST_DIMS:
                    shape.append(size)
                case (2, "bytes", size):
                    kind = self._text(size)
                case (3, "bytes", size):
                    place = (self.position, size)
                case (number, _, _):
                    raise self._damaged(f"a tensor has a field {number} that it should not have")
        if not kind or place is None:
            raise self._damaged("a tensor lacks its type or content")
        return kind, tuple(shape), *place

    def _tensor(self, pieces: list[_Piece]) -> Tensor:
        name, kind, shape = pieces[0].name, pieces[0].kind, pieces[0].shape
        if kind not in _DTYPES:
            raise InputError(
                f"{self.path}: {name} has the type {kind[:40]}, which is not supported; save it as Float32"
            )
        if any((piece.kind, piece.shape) != (kind, shape) for piece in pieces):
            raise self._damaged(f"the pieces of {name} differ in type or shape")
        dtype, size = _DTYPES[kind], sum(piece.size for piece in pieces)
        if shape == (0,):
            shape = ()  # MindSpore's older form of a scalar
        if not size or size != math.prod(shape) * dtype.itemsize:
            raise self._damaged(f"{name} has the shape {list(shape)} but {size} bytes")
        content = torch.empty(size, dtype=torch.uint8)
        buffer, filled = content.numpy().data, 0
        for piece in pieces:
            self.file.seek(piece.offset)
            if self.file.readinto(buffer[filled : filled + piece.size]) != piece.size:
                raise self._damaged("it breaks off")
            filled += piece.size
        return content.view(dtype).reshape(shape)

    def _fields(self, end: int) -> Iterator[tuple[int, str, int]]:
        """Number, type and value of the fields up to ``end``; of ``bytes``, their size, with the file at the first.

        The file may be left anywhere: the next step begins behind the field.
        """
        while self.position < end:
            self.fields_seen += 1
            if self.fields_seen > _MOST_FIELDS:
                raise self._damaged(f"it has more than {_MOST_FIELDS} fields")
            number, wire = divmod(self._read_varint(), 8)
            if wire not in (_VARINT, _BYTES):
                raise self._damaged(f"it has a field of wire type {wire}")
            value = self._read_varint()
            after = self.position + (value if wire == _BYTES else 0)
            if after > end:
                raise self._damaged("it breaks off or a length in it is wrong")
            yield number, "bytes" if wire == _BYTES else "number", value
            self.file.seek(after)
            self.position = after

    def _read_varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.file.read(1)
            self.position += 1
            if not byte:
                raise self._damaged("it breaks off")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise self._damaged("a number in it has more than ten bytes")

    def _text(self, size: int) -> str:
        if size > _LONGEST_TEXT:
            raise self._damaged(f"a name in it has {size} bytes")
        try:
            return self.file.read(size).decode()
        except UnicodeDecodeError:
            raise self._damaged("a name in it is not UTF-8") from None

    def _damaged(self, what: str) -> InputError:
        what = printable(what)[:300]  # names in the file are a stranger's
        return InputError(
            f"{self.path}: is not a whole MindSpore checkpoint ({what}); fetch it again or save it anew in MindSpore"
        )


def _runs(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Consecutive pieces of one name."""
    run: list[_Piece] = []
    for piece in pieces:
        if run and run[0].name != piece.name:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run
