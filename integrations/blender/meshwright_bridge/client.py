"""The job API of a meshwright server, with the standard library alone: Blender's Python has nothing else."""

import http.client
import json
import mimetypes
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

_CHUNK = 1 << 20
ENDED = ("done", "failed", "cancelled")


class ServerError(Exception):
    """What the server said, or that it said nothing; a sentence for people."""


class Client:
    """A server by its address, such as http://127.0.0.1:8765; ``token`` as it printed it, if it has one."""

    def __init__(self, address: str = "http://127.0.0.1:8765", token: str = "", timeout_s: float = 60.0) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"{address}: is no address of a server; it looks like http://127.0.0.1:8765")
        self._parts, self._token, self._timeout_s = parts, token, timeout_s

    def is_there(self) -> bool:
        """Whether a meshwright server answers."""
        try:
            return bool(self._call("GET", "/health").get("status") == "ok")
        except ServerError:
            return False

    def create(self, files: Sequence[tuple[Path, str]], task: str, options: dict[str, object]) -> str:
        """Send files under the given names; the new job's id."""
        boundary = secrets.token_hex(16)
        heads = [("task", task), ("options", json.dumps(options))]
        fields = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in heads
        )
        parts = []
        for path, name in files:
            shown = name.replace("\\", "/").replace('"', "'").replace("\r", "").replace("\n", "")
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{shown}"\r\n'
            parts.append((f"{head}Content-Type: {kind}\r\n\r\n".encode(), path))
        tail = f"--{boundary}--\r\n".encode()
        length = len(fields) + len(tail) + sum(len(head) + path.stat().st_size + 2 for head, path in parts)

        def body() -> Iterator[bytes]:
            yield fields
            for head, path in parts:
                yield head
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        yield chunk
                yield b"\r\n"
            yield tail

        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
        return str(self._call("POST", "/jobs", body(), headers)["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return self._call("GET", f"/jobs/{job_id}")

    def remove(self, job_id: str) -> None:
        self._call("DELETE", f"/jobs/{job_id}")

    def download(self, job_id: str, name: str, target: Path) -> Path:
        """One file of a job, to ``target``."""
        connection, answer = self._open("GET", f"/jobs/{job_id}/{quote(name, safe='')}", None, {})
        try:
            with target.open("wb") as file:
                shutil.copyfileobj(answer, file, _CHUNK)
        finally:
            connection.close()
        return target

    def _call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        connection, answer = self._open(method, path, body, headers or {})
        try:
            text = answer.read()
        finally:
            connection.close()
        return dict(json.loads(text)) if text else {}

    def _open(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServerError(f"no meshwright server answers ({error}); start it with: meshwright serve") from None
        if answer.status >= 400:
            try:
                sentence = json.loads(answer.read(10_000))["error"]
            except (ValueError, KeyError, OSError):
                sentence = f"the server answered {answer.status}"
            connection.close()
            raise ServerError(str(sentence))
        return connection, answer


def start_server(command: str, port: int) -> "subprocess.Popen[bytes]":
    """Start ``meshwright serve`` on this computer and wait until it answers.

    Raises:
        ServerError: there is no such program, or it does not start.
    """
    program = shutil.which(command)
    if program is None:
        raise ServerError(
            f"{command}: there is no such program; install meshwright[app] and set its path in the preferences"
        )
    process = subprocess.Popen(
        [program, "serve", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = Client(f"http://127.0.0.1:{port}")
    for _ in range(150):
        if client.is_there():
            return process
        if process.poll() is not None:
            break
        time.sleep(0.2)
    process.kill()
    raise ServerError(f"{command} serve --port {port}: did not start; run it in a terminal to see why")
