"""A multipart request, streamed to disk within limits. Nothing is decoded here."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from meshwright.app.limits import Limits


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after_s = retry_after_s


@dataclass
class Upload:
    """A form that arrived. ``names``: what the client called its files, which lie as ``0000``, ... on disk."""

    names: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)


async def receive_form(
    content_type: str, content_length: str | None, chunks: AsyncIterator[bytes], folder: Path, limits: Limits
) -> Upload:
    """Write the files of a form (field ``files``) to ``folder`` and return its other fields.

    Raises:
        Refused: the request is malformed, too large, too slow or breaks off.
    """
    kind, parameters = parse_options_header(content_type[:1000])
    boundary = parameters.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Refused(415, "send the files as multipart/form-data")
    if content_length is not None and content_length.isdecimal() and int(content_length[:20]) > limits.upload_bytes:
        raise _too_large(limits)
    form = _Form(folder, limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        received, end_s = 0, time.monotonic() + limits.upload_s
        while True:
            try:
                async with asyncio.timeout(limits.silence_s):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise Refused(408, f"nothing arrived for {limits.silence_s:g} seconds; send the files again") from None
            received += len(chunk)
            if received > limits.upload_bytes:
                raise _too_large(limits)
            if time.monotonic() > end_s:
                raise Refused(408, f"the upload took more than {limits.upload_s:g} seconds; send less")
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError, ValueError):
        raise Refused(400, "the form is malformed; send multipart/form-data as browsers and curl -F do") from None
    finally:
        form.close()
    if not form.ended:
        raise Refused(400, "the form breaks off; send it again")
    return form.upload


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the files are larger than {limits.upload_bytes >> 20} MiB together; send fewer")


class _Form:
    """Callbacks of the parser, which speaks of byte ranges."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.upload = Upload()
        self.ended = False
        self._folder, self._limits = folder, limits
        self._header_name = self._header_text = b""
        self._disposition = b""
        self._file: IO[bytes] | None = None
        self._field: str | None = None
        self._value = bytearray()
        self._value_bytes = 0

    def callbacks(self) -> dict[str, Any]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        own = {f"on_{name}": getattr(self, f"_{name}") for name in (*names, "headers_finished")}
        return {**own, "on_end": self._end}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_text += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_text
        self._header_name = self._header_text = b""

    def _headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name == "files":
            if len(self.upload.names) >= self._limits.upload_files:
                raise Refused(413, f"these are more than {self._limits.upload_files} files; send fewer")
            client_name = parameters.get(b"filename", b"").decode("utf-8", "replace")
            self._file = (self._folder / f"{len(self.upload.names):04d}").open("xb")
            self.upload.names.append(client_name[:1024])
        else:
            if name in self.upload.values or not name.isidentifier() or len(self.upload.values) >= 8:
                raise Refused(400, "the form has a field that is unknown or given twice; send files and options")
            self._field = name
            self._value = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._field is not None:
            self._value_bytes += end - start
            if self._value_bytes > self._limits.options_bytes:
                raise Refused(413, f"the options are longer than {self._limits.options_bytes >> 10} KiB; shorten them")
            self._value += data[start:end]

    def _part_end(self) -> None:
        self.close()
        if self._field is not None:
            self.upload.values[self._field] = self._value.decode("utf-8")
            self._field = None

    def _end(self) -> None:
        self.ended = True


async def receive_json(chunks: AsyncIterator[bytes], limits: Limits) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        Refused: it is no JSON object, too large or too slow.
    """
    body = bytearray()
    with contextlib.suppress(StopAsyncIteration):
        while True:
            try:
                async with asyncio.timeout(limits.silence_s):
                    body += await anext(chunks)
            except TimeoutError:
                raise Refused(408, f"nothing arrived for {limits.silence_s:g} seconds; send it again") from None
            if len(body) > limits.options_bytes:
                raise Refused(413, f"the request is longer than {limits.options_bytes >> 10} KiB; shorten it")
    value = parse_json(bytes(body).decode("utf-8", "replace"), "the request")
    if not isinstance(value, dict):
        raise Refused(400, "the request: is not a JSON object; send one like {}")
    return value


def parse_json(text: str, what: str) -> object:
    """Text as JSON.

    Raises:
        Refused: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, f"{what}: is not JSON") from None
