"""A hostile campaign against the job server: bounded, seeded, on loopback. `pytest -m slow tests/test_app_hostile.py`.

Prints what it did, for docs/LOG.md.
"""

import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
from test_app_server import Running  # noqa: E402

pytestmark = pytest.mark.slow

REQUESTS = 1000
_ORDERS = ("done", "fail", "crash", "half", "noise")
_NAMES = (
    "../../x", "/etc/passwd", "C:\\x", "a\x00b", "\u202egpj.exe", "x" * 3000, "", ".", "..", "con", "a;b", 'a"b', "<b>",
    "🍓.png", "%2e%2e%2f", "${x}", "`id`", "a\r\nSet-Cookie: x=1",
)  # fmt: skip


def _form(rng: random.Random) -> tuple[bytes, bytes]:
    """(content type, body) of a form, often a broken one."""
    boundary = rng.choice([b"b", b"-" * 60, bytes(rng.choices(range(33, 127), k=30)), b"", b"x" * 300])
    parts = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 30])):
        name = rng.choice(["files", "files", "files", "options", "task", "batch", "exclude", "x" * 999, "", "options"])
        head = f'Content-Disposition: form-data; name="{name}"'
        if name == "files":
            head += f'; filename="{rng.choice(_NAMES)}"'
        value = {
            "files": rng.choice(_ORDERS).encode() if rng.random() < 0.8 else rng.randbytes(rng.choice([0, 9, 70_000])),
            "options": rng.choice([b"{}", b'{"refine": "off"}', b"{" * 1500, b'{"masks": "/"}', rng.randbytes(40),
                                   b'{"seed": ' + b"9" * 400 + b"}", b'{"fov": NaN}', b'{"radius": 1e999}']),
            "exclude": rng.choice([b"[0]", b"[-1]", b"[true]", b"[[0]]", b"[" + b"1," * 900 + b"1]"]),
            "batch": rng.choice([b"true", b"false", b"yes"]),
            "task": rng.choice([b"inspect", b"reconstruct", b"refine", b"rm -rf"]),
        }.get(name, rng.randbytes(20))  # fmt: skip
        extra = rng.choice(["", "", "\r\nContent-Type: x/" + "y" * 5000, "\r\nX: " + "\r\nY: 1" * 40])
        parts.append(
            b"--" + boundary + b"\r\n" + (head + extra).encode("utf-8", "replace") + b"\r\n\r\n" + value + b"\r\n"
        )
    body = b"".join(parts) + b"--" + boundary + b"--\r\n"
    if rng.random() < 0.25:  # damaged somewhere
        cut = rng.randrange(len(body) + 1)
        body = rng.choice([body[:cut], body[:cut] + rng.randbytes(8) + body[cut:], body[cut:]])
    return b"multipart/form-data; boundary=" + boundary, body


def _request(rng: random.Random, known: list[str]) -> bytes:
    """The bytes of one request, from nearly right to noise."""
    job = rng.choice(known) if known and rng.random() < 0.7 else rng.choice(["0" * 32, "..", "x", "%00"])
    kind = rng.randrange(8)
    host = rng.choice([b"localhost"] * 9 + [b"evil.example", b"", b"localhost:99999999", b"[::1", b"\xff"])
    head = [b"Host: " + host, b"Connection: close"]
    body = b""
    if kind <= 2:
        content_type, body = _form(rng)
        line = b"POST /jobs HTTP/1.1"
        length = rng.choice([len(body)] * 8 + [0, 10**12, -1])
        head += [b"Content-Type: " + content_type, f"Content-Length: {length}".encode()]
    elif kind == 3:
        name = rng.choice(
            ["mesh.glb", "../jobs.sqlite3", "..%2f..%2fjobs.sqlite3", "names.json", "worker.log", "events/..", "%"]
        )
        line = f"GET /jobs/{job}/{name} HTTP/1.1".encode()
        ranges = ["0-1", "-1", "9999-", "5-2", ",".join(f"{n}-{n}" for n in range(400)), "x", "0-" + "9" * 50]
        head.append(f"Range: bytes={rng.choice(ranges)}".encode())
    elif kind == 4:
        method = rng.choice(["DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "GET", "X" * 50])
        line = f"{method} /jobs/{job} HTTP/1.1".encode()
    elif kind == 5:
        body = rng.choice(
            [b"{}", b'{"from": 1}', b'{"example": []}', b"[" * 5000, b"null", rng.randbytes(100), b"{" * 70_000]
        )
        line = rng.choice([b"POST /jobs HTTP/1.1", b"POST /session HTTP/1.1"])
        head += [b"Content-Type: application/json", f"Content-Length: {len(body)}".encode()]
    elif kind == 6:
        line = b"GET /" + rng.choice(
            [b"\xff\xfe", b"a" * 40_000, b"../../etc/passwd", b"main.js/../../x", b"?" + b"a=1&" * 999]
        )
        line += b" HTTP/1.1"
        head += rng.choice([[b"Cookie: " + b"a=b;" * 3000], [b"X-" + rng.randbytes(4).hex().encode() + b": 1"] * 200,
                            [b"Origin: null"], [b"Authorization: Bearer " + b"\xff" * 50], [b"Transfer-Encoding: x"]])  # fmt: skip  # noqa: E501
    else:
        return rng.randbytes(rng.choice([1, 100, 5000]))
    return line + b"\r\n" + b"\r\n".join(head) + b"\r\n\r\n" + body


def _send(port: int, data: bytes) -> bytes:
    """What the server answers; nothing if it just closes, or waits for more than we have."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as raw:
        raw.sendall(data)
        if b"HTTP/1.1" not in data:  # noise: the server would wait for the rest of a line
            raw.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
            if len(answer) > 1 << 20:
                break
        return answer
    return b""


def _resident_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def test_a_thousand_bad_requests(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    rng = random.Random(14)
    statuses: Counter[str] = Counter()
    private = running.job("done")
    running.wait(private)
    known: list[str] = []
    memory = [_resident_kib(running.process.pid)]
    for number in range(REQUESTS):
        answer = _send(running.port, _request(rng, known))
        head, _, body = answer.partition(b"\r\n\r\n")
        statuses[head[9:12].decode("latin-1") or "closed"] += 1
        assert b"Traceback" not in answer
        assert b'File "' not in answer
        assert str(tmp_path).encode() not in body
        assert not head[9:12].startswith(b"5") or head[9:12] == b"503", answer[:500]
        if head[9:12] == b"503":
            assert b"retry-after" in head.lower()
        known += [found.decode() for found in re.findall(rb'"id":"([0-9a-f]{32})"', body)]
        if number % 50 == 49:
            for job_id in known:
                running.client.delete(f"/jobs/{job_id}")
            known.clear()
            memory.append(_resident_kib(running.process.pid))
    # Many at once, and slow ones beside them.
    slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(50)]
    for raw in slow:
        raw.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\n")
    answers: list[bytes] = []
    burst = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"  # noqa: E501
    threads = [threading.Thread(target=lambda: answers.append(_send(running.port, burst))) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for raw in slow:
        raw.close()
    at_once = Counter(answer[9:12].decode() for answer in answers)
    memory.append(_resident_kib(running.process.pid))
    for job in running.client.get("/jobs").json()["jobs"]:
        if job["id"] != private:
            running.client.delete(f"/jobs/{job['id']}")
    assert running.client.get(f"/jobs/{private}/mesh.glb").status_code == 200
    assert running.client.get("/health").status_code == 200
    left = sorted(path.name for path in (tmp_path / "data" / "jobs").iterdir())
    errors = running.stop()
    print(f"\n{REQUESTS} requests: {dict(sorted(statuses.items()))}; 200 at once: {dict(at_once)}")
    print(f"memory of the server, KiB: {memory[0]} before, {memory[2]} after 100, {memory[-1]} at the end")
    assert "Traceback" not in errors, errors
    assert left == [private]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert sum(at_once.values()) == 200
    assert set(at_once) <= {"400", "503"}
    assert memory[-1] - memory[2] < 20_000


def test_fifty_deaths(tmp_path: Path) -> None:
    """Kill -9 of worker and server at random moments: nothing half-written is served, jobs that waited run."""
    rng = random.Random(7)
    done = 0
    running = Running(tmp_path / "data")
    jobs = [running.job("done")]
    for _ in range(25):
        with contextlib.suppress(AssertionError):
            jobs.append(running.job(rng.choice(["done", "half", "done"])))
        time.sleep(rng.random() * 0.2)
        with contextlib.suppress(ProcessLookupError, ValueError):
            children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
            os.kill(int(rng.choice(children or ["x"])), signal.SIGKILL)
        running.stop(signal.SIGKILL)
        running = Running(tmp_path / "data")
    for job_id in jobs:
        job = running.wait(job_id, limit_s=60)
        answer = running.client.get(f"/jobs/{job_id}/mesh.glb")
        assert (answer.status_code == 200) == (job["state"] == "done")
        if job["state"] == "done":
            done += 1
            assert answer.content == b"glTF" + bytes(range(256))
        else:
            assert "broke down" in str(job["error"]) or "stopped" in str(job["error"])
    running.stop()
    print(
        f"\n{len(jobs)} jobs, 25 deaths of workers and 25 of the server: {done} done, the others failed with a sentence"
    )
    assert done > len(jobs) / 3
