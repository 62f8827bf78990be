"""The job server over real HTTP on loopback, with a stand-in for the process that makes meshes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

STUB = Path(__file__).parent / "stub_worker.py"
SMALL = (
    "job_s=4.0, job_memory_bytes=300 << 20, upload_bytes=1 << 20, upload_files=20, queued_jobs=6, silence_s=1.0,"
    " options_bytes=2000"
)


class Running:
    """A server in a process of its own."""

    def __init__(self, data: Path, options: str = "") -> None:
        code = (
            "import sys; from meshwright.app import Limits, serve;"
            f"serve(port=0, data={str(data)!r}, worker=[sys.executable, {str(STUB)!r}], limits=Limits({SMALL}), "
            f"announce=lambda line: print(line, flush=True), {options})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://[^/]*:(\d+)/(?:#token=(\S+))?", line)
        assert found, (line, self.process.stderr.read() if self.process.stderr else "")
        self.port, self.token = int(found[1]), found[2]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/health")
                return
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(how)
        self.process.wait(20)
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def send(self, *texts: str, **fields: str) -> httpx.Response:
        files = [("files", (f"film {number}.mp4", text.encode())) for number, text in enumerate(texts)]
        return self.client.post("/jobs", files=files, data=fields)

    def job(self, *texts: str, **fields: str) -> str:
        answer = self.send(*texts, **fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def show(self, job_id: str) -> dict[str, object]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200
        return dict(answer.json())

    def wait(self, job_id: str, *states: str, limit_s: float = 15) -> dict[str, object]:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if (job := self.show(job_id))["state"] in (states or ("done", "failed", "cancelled")):
                return job
            time.sleep(0.03)
        raise AssertionError(f"still {job['state']}, not {states}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("data"))
    yield running
    errors = running.stop()
    assert "Traceback" not in errors, errors


def test_a_job_goes_from_upload_to_download(server: Running) -> None:
    job_id = server.job("done", options=json.dumps({"refine": "full", "texture-size": 512}))
    job = server.wait(job_id)
    assert job["state"] == "done"
    assert job["title"] == "film 0.mp4"
    assert {file["name"] for file in job["files"]} == {"mesh.glb", "report.json"}
    mesh = server.client.get(f"/jobs/{job_id}/mesh.glb")
    assert mesh.content == b"glTF" + bytes(range(256))
    assert mesh.headers["content-type"] == "model/gltf-binary"
    assert mesh.headers["content-disposition"].startswith("attachment")
    part = server.client.get(f"/jobs/{job_id}/mesh.glb", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, bytes(range(4)))
    told = server.client.get(f"/jobs/{job_id}/report.json").json()
    assert told == {"options": {"refine": "full", "texture-size": 512}, "exclude": []}


def test_events_end_with_the_job(server: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job_id = server.job(f"wait {go}")
    server.wait(job_id, "running")
    seen = []
    with server.client.stream("GET", f"/jobs/{job_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                if seen[-1]["stage"] == "hull":
                    go.touch()
    assert seen[-1]["state"] == "done"
    assert any(job["stage"] == "hull" and job["fraction"] == 0.5 and job["detail"] == "half" for job in seen)


def test_files_of_an_earlier_job_are_used_again(server: Running) -> None:
    first = server.job("done", task="inspect")
    server.wait(first)
    answer = server.client.post("/jobs", json={"from": first, "options": {"refine": "off"}, "exclude": [3, 1, 3]})
    assert answer.status_code == 202
    server.client.delete(f"/jobs/{first}")  # the second job's files are its own
    again = server.wait(answer.json()["id"])
    assert again["state"] == "done"
    assert again["exclude"] == [1, 3]


def test_a_batch_makes_a_job_of_each_file_and_a_failure_stays_alone(server: Running) -> None:
    answer = server.send("done", "fail", "done", batch="true")
    ids = answer.json()["ids"]
    assert len(ids) == 3
    ended = [server.wait(job_id) for job_id in ids]
    assert [job["state"] for job in ended] == ["done", "failed", "done"]
    assert ended[1]["error"] == "film.mp4: is no film; send another"
    together = server.client.get("/jobs", params={"batch": ended[0]["batch"]}).json()["jobs"]
    assert {job["id"] for job in together} == set(ids)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("crash", "broke down"),
        ("half", "broke down"),
        ("noise", "broke down"),
        ("hang", "minutes"),
        ("hog", "MiB of memory"),
    ],
)
def test_what_breaks_a_worker_costs_its_job_alone(server: Running, order: str, sentence: str) -> None:
    if order == "hog" and not Path("/proc/self/statm").exists():
        pytest.skip("memory is watched on Linux only")
    broken, next_one = server.job(order), server.job("done")
    job = server.wait(broken)
    assert job["state"] == "failed"
    assert sentence in str(job["error"])
    assert "secret" not in json.dumps(job)
    assert server.client.get(f"/jobs/{broken}/mesh.glb").status_code == 404
    assert server.wait(next_one)["state"] == "done"


def test_cancelling_kills_the_process_at_once(server: Running) -> None:
    job_id, waiting = server.job("hang"), server.job("hang")
    end_s = time.monotonic() + 10
    while not server.show(job_id)["files"]:
        assert time.monotonic() < end_s
    pid = int(server.client.get(f"/jobs/{job_id}/pid.txt").text)
    started_s = time.monotonic()
    assert server.client.post(f"/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    assert server.client.delete(f"/jobs/{job_id}").status_code == 204
    assert time.monotonic() - started_s < 2
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert server.client.get(f"/jobs/{job_id}").status_code == 404
    assert server.client.delete(f"/jobs/{waiting}").status_code == 204


def test_a_full_queue_says_when_to_come_again(server: Running) -> None:
    jobs = [server.job("hang")]
    server.wait(jobs[0], "running")
    jobs += [server.job("done") for _ in range(6)]
    answer = server.send("done")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "waiting" in answer.json()["error"]
    assert server.show(jobs[-1])["place"] == 5
    for job_id in jobs:
        server.client.delete(f"/jobs/{job_id}")


def test_what_is_wrong_is_said_in_a_sentence(server: Running) -> None:
    def refused(status: int, word: str, **fields: str) -> None:
        answer = server.send("done", **fields)
        assert answer.status_code == status, answer.text
        assert word in answer.json()["error"]

    refused(400, "no option colour", options='{"colour": 1}')
    refused(400, "refine must be one of", options='{"refine": "best"}')
    refused(400, "texture-size must be a whole number", options='{"texture-size": "big"}')
    refused(400, "texture-size", options='{"texture-size": 1}')
    refused(400, "max-views may be", options='{"max-views": 5000}')
    refused(400, "no option masks", options='{"masks": "/etc"}')  # a path of the server's
    refused(400, "model may be none", options='{"model": "/etc/passwd"}')
    refused(400, "not JSON", options="{")
    refused(400, "not JSON", options="[" * 1900)
    refused(400, "JSON object", options="[]")
    refused(400, "task: must be one of", task="format")
    refused(400, "exclude", exclude="[-1]")
    refused(400, "exclude", exclude='[1], "task": "x"')
    refused(400, "unknown fields", path="/etc")
    refused(413, "options are longer", options="{" + " " * 3000)
    assert server.send().status_code in (400, 415)
    assert server.send("x" * (2 << 20)).status_code == 413
    assert server.send(*["x"] * 21).status_code == 413
    assert server.client.post("/jobs", json={"example": "../../etc/passwd"}).status_code == 400
    assert server.client.post("/jobs", json={"from": "../../etc"}).status_code == 404
    assert server.client.post("/jobs", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert server.client.put("/jobs").status_code == 405
    assert server.client.get("/nothing").json() == {"error": "there is nothing at this address"}


@pytest.mark.parametrize(
    "path",
    ["/../jobs.sqlite3", "/%2e%2e/jobs.sqlite3", "/..%2fjobs.sqlite3", "/names.json", "/worker.log", "/upload/0000",
     "/.hidden", "/result/mesh.glb", "/mesh.glb%00.png", "/" + "x" * 5000],
)  # fmt: skip
def test_only_named_results_can_be_read(server: Running, path: str) -> None:
    job_id = server.job("done")
    server.wait(job_id)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # httpx would tidy the path
        request = f"GET /jobs/{job_id}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        raw.sendall(request.encode())
        assert raw.recv(100).split()[1] in (b"404", b"400")
    assert server.client.get("/src/../../jobs.sqlite3").status_code == 404


def test_other_sites_are_refused(server: Running) -> None:
    def status(method: str, **headers: str) -> int:
        return int(
            server.client.request(
                method, "/jobs", headers={k.replace("_", "-"): v for k, v in headers.items()}
            ).status_code
        )

    own = f"http://127.0.0.1:{server.port}"
    assert status("GET", host="evil.example") == 421  # DNS rebinding
    assert status("GET", host=f"127.0.0.1.evil.example:{server.port}") == 421
    assert status("GET", host="192.168.0.7") == 421  # without a token, this machine alone
    assert status("GET", host="[::1]:80") == 200
    assert status("GET", host="localhost") == 200
    assert status("POST", origin="http://evil.example") == 403
    assert status("POST", origin="null") == 403
    assert status("POST", origin="http://127.0.0.1:1") == 403
    assert status("GET", origin="http://evil.example") == 403
    assert status("POST", sec_fetch_site="cross-site") == 403
    assert status("POST", origin=own, sec_fetch_site="same-origin") in (400, 415)  # comes in, is an empty request
    answer = server.client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


def test_a_slow_client_is_cut_off(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        started_s = time.monotonic()
        assert raw.recv(1000).split()[1] == b"408"
        assert time.monotonic() - started_s < 5
    assert server.client.get("/health").status_code == 200
    uploads = re.search(r"meshwright_uploads_open (\d+)", server.client.get("/metrics").text)
    assert uploads is not None
    assert uploads[1] == "0"


def test_machines_can_read_what_the_server_does(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    refine = document["components"]["schemas"]["reconstruct-options"]["properties"]["refine"]
    assert refine["enum"] == ["off", "fast", "full"]
    assert refine["default"] == "fast"
    assert refine["description"]
    text = server.client.get("/metrics").text
    assert re.search(r'meshwright_jobs_ended_total\{by="done"\} [1-9]', text)
    for line in text.splitlines():
        assert re.fullmatch(r"# TYPE \w+ (gauge|counter)|\w+(\{\w+=\"\w+\"\})? [0-9.]+", line), line


def test_a_token_is_needed_beyond_this_machine(tmp_path: Path) -> None:
    running = Running(tmp_path, "host='0.0.0.0'")
    try:
        assert running.token
        assert len(running.token) >= 32
        client = running.client
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code == 200  # the page, which asks for the token
        for path in ("/jobs", "/metrics", "/openapi.json", "/about", "/jobs/" + "0" * 32):
            assert client.get(path).status_code == 401
        assert client.get("/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/jobs", headers={"authorization": f"Bearer {running.token}"}).status_code == 200
        assert client.get("/jobs", params={"token": running.token}).status_code == 401  # addresses end up in logs
        assert client.get("/jobs", headers={"host": "10.1.2.3"}).status_code == 401
        assert client.get("/jobs", headers={"host": "evil.example"}).status_code == 421
        assert client.post("/session", json={"token": "wrong"}).status_code == 401
        answer = client.post("/session", json={"token": running.token})
        assert answer.status_code == 204
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert client.get("/jobs").status_code == 200
    finally:
        running.stop()


def test_jobs_survive_the_death_of_the_server(tmp_path: Path) -> None:
    first = Running(tmp_path / "data")
    go = tmp_path / "go"
    done, running, waiting = first.job("done"), None, None
    first.wait(done)
    running, waiting = first.job(f"wait {go}"), first.job("done")
    first.wait(running, "running")
    first.stop(signal.SIGKILL)
    (tmp_path / "data" / "jobs" / ("f" * 32)).mkdir()  # what a crash in the middle of an upload leaves
    second = Running(tmp_path / "data")
    try:
        assert second.show(done)["state"] == "done"
        assert second.client.get(f"/jobs/{done}/mesh.glb").status_code == 200
        assert second.client.get(f"/jobs/{running}/mesh.glb").status_code == 404
        go.touch()
        assert second.wait(running)["state"] == "done"
        assert second.wait(waiting)["state"] == "done"
        assert not (tmp_path / "data" / "jobs" / ("f" * 32)).exists()
    finally:
        second.stop()


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        code = f"from meshwright.app import serve; serve(port=0, data={str(tmp_path)!r})"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert "another server keeps its jobs there" in second.stderr
    finally:
        running.stop()


def test_many_at_once_get_an_answer(server: Running) -> None:
    statuses = []

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            answer = client.post("/jobs", files=[("files", ("a.png", b"done"))])
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 40
    assert set(statuses) <= {202, 503}
    assert 202 in statuses
    for job in server.client.get("/jobs").json()["jobs"]:
        server.client.delete(f"/jobs/{job['id']}")
