"""The job API and the page over HTTP (Starlette). Answers that are no files are JSON, errors a sentence."""

import contextlib
import gzip
import importlib.resources
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshwright.app.inputs import safe_name
from meshwright.app.job_request import TASKS, JobRequest, job_request
from meshwright.app.limits import Limits
from meshwright.app.openapi import openapi_document
from meshwright.app.option_fields import options_schema
from meshwright.app.security import HEADERS, Door
from meshwright.app.store import ENDED, Job, JobStore
from meshwright.app.supervisor import Live, Supervisor
from meshwright.app.uploads import Refused, Upload, parse_json, receive_form, receive_json

log = logging.getLogger("meshwright.app")

_MEDIA_TYPES = {
    ".glb": "model/gltf-binary", ".obj": "model/obj", ".mtl": "model/mtl", ".ply": "application/octet-stream",
    ".stl": "model/stl", ".png": "image/png", ".jpg": "image/jpeg", ".json": "application/json", ".mp4": "video/mp4",
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_SHOWN_INLINE = (".png", ".jpg", ".json", ".mp4")
_OPEN = ("/health",)  # answers without a token; so do the page's own files
_RETRY_S = 20  # after which a client of a full queue may ask again


@dataclass
class Server:
    """What the handlers share."""

    store: JobStore
    supervisor: Supervisor
    door: Door
    limits: Limits
    models: tuple[str, ...] = ()
    uploads: int = 0
    streams: int = 0
    started_s: float = field(default_factory=time.time)
    answers: dict[int, int] = field(default_factory=dict)

    def app(self) -> ASGIApp:
        """The ASGI application."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            await self.supervisor.start()
            try:
                yield
            finally:
                await self.supervisor.stop()
                self.store.close()

        page = [Route(f"/{name}", _page_file(name)) for name in _page_names()]
        routes = [
            Route("/", _page_file("index.html")),
            *page,
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/about", self.about),
            Route("/session", self.session, methods=["POST"]),
            Route("/jobs", self.list_jobs, methods=["GET"]),
            Route("/jobs", self.create_job, methods=["POST"]),
            Route("/jobs/{id}", self.show_job, methods=["GET"]),
            Route("/jobs/{id}", self.remove_job, methods=["DELETE"]),
            Route("/jobs/{id}/cancel", self.cancel_job, methods=["POST"]),
            Route("/jobs/{id}/events", self.events),
            Route("/jobs/{id}/{name}", self.file),
        ]
        handlers: dict[Any, Any] = {Refused: _refused, HTTPException: _http_error}
        app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return _Guard(app, self)

    # --- around the jobs ---------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """200 while jobs can run, for load balancers and containers."""
        well = self.supervisor.is_alive
        return JSONResponse({"status": "ok" if well else "the queue has stopped"}, 200 if well else 503)

    async def metrics(self, request: Request) -> Response:
        """Counters in Prometheus' text format."""
        counts = self.store.counts()
        lines = ["# TYPE meshwright_jobs gauge"]
        lines += [
            f'meshwright_jobs{{state="{state}"}} {counts.get(state, 0)}' for state in ("queued", "running", *ENDED)
        ]
        lines += ["# TYPE meshwright_jobs_ended_total counter"]
        lines += [f'meshwright_jobs_ended_total{{by="{by}"}} {n}' for by, n in self.supervisor.ended_by.items()]
        lines += ["# TYPE meshwright_http_answers_total counter"]
        lines += [f'meshwright_http_answers_total{{status="{code}"}} {n}' for code, n in sorted(self.answers.items())]
        for name, kind, value in (
            ("job_seconds_total", "counter", round(self.supervisor.seconds_sum, 3)),
            ("uploads_open", "gauge", self.uploads),
            ("event_streams_open", "gauge", self.streams),
            ("stored_bytes", "gauge", self.store.total_bytes),
            ("start_time_seconds", "gauge", round(self.started_s, 3)),
        ):
            lines += [f"# TYPE meshwright_{name} {kind}", f"meshwright_{name} {value}"]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi_document(_version()))

    async def about(self, request: Request) -> Response:
        """What the page needs to know of this server: its version, limits, examples and options."""
        tasks = {task: options_schema(groups) for task, groups in TASKS.items()}
        return JSONResponse({
            "version": _version(), "limits": asdict(self.limits), "models": ["none", *self.models],
            "examples": [name for name in EXAMPLES if example_path(name) is not None], "options": tasks,
        })  # fmt: skip

    async def session(self, request: Request) -> Response:
        """Take the token once and keep it in a cookie that scripts cannot read."""
        given = await receive_json(_body(request), self.limits)
        token = given.get("token")
        if self.door.token is None:
            return Response(status_code=204)
        if not isinstance(token, str) or not self.door.matches(token):
            raise Refused(401, "this is not the server's token; copy the address that it printed when it started")
        response = Response(status_code=204)
        response.set_cookie(self.door.cookie, self.door.token, httponly=True, samesite="strict", max_age=30 * 24 * 3600,
                            secure=request.url.scheme == "https")  # fmt: skip
        return response

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def create_job(self, request: Request) -> Response:
        """Queue one job, or with ``batch`` one for each file."""
        counts = self.store.counts()
        if counts.get("queued", 0) >= self.limits.queued_jobs:
            raise _busy(f"{self.limits.queued_jobs} jobs are waiting already; try again in a while")
        if self.uploads >= self.limits.uploads_at_once:
            raise _busy("too many uploads at once; try again in a moment")
        if self.store.total_bytes > self.limits.kept_bytes:
            self.store.sweep(self.limits.kept_s, self.limits.kept_bytes)
            if self.store.total_bytes > self.limits.kept_bytes:
                raise _busy("the server's disk is full of jobs; remove some, or try again when others have ended")
        self.uploads += 1
        try:
            kind = request.headers.get("content-type", "")
            if kind.split(";")[0].strip().lower() == "application/json":
                jobs = await self._job_of_json(request)
            else:
                jobs = await self._jobs_of_form(request, kind)
        finally:
            self.uploads -= 1
        self.supervisor.wake()
        first = {"id": jobs[0], "ids": jobs}
        return JSONResponse(first, 202, headers={"location": f"/jobs/{jobs[0]}"})

    async def _jobs_of_form(self, request: Request, content_type: str) -> list[str]:
        job_id = self.store.create("reconstruct")
        queued = False
        try:
            folder = self.store.folder(job_id)
            length = request.headers.get("content-length")
            try:
                upload = await receive_form(content_type, length, _body(request), folder / "upload", self.limits)
            except OSError:
                raise Refused(507, "the server's disk is full; ask whoever runs it to make room") from None
            unknown = set(upload.values) - {"task", "options", "exclude", "batch"}
            if unknown:
                raise Refused(400, "the form has unknown fields; known are files, task, options, exclude and batch")
            given: dict[str, object] = {}
            if "task" in upload.values:
                given["task"] = upload.values["task"]
            if "options" in upload.values:
                given["options"] = parse_json(upload.values["options"], "options")
            if "exclude" in upload.values:
                given["exclude"] = parse_json(upload.values["exclude"], "exclude")
            wanted = job_request(given, self.limits, self.models)
            if not upload.names:
                raise Refused(400, "there are no files; send pictures, a film, a folder or a zip in the field files")
            if upload.values.get("batch", "false") not in ("true", "false"):
                raise Refused(400, "batch: must be true or false")
            if upload.values.get("batch") == "true":
                return self._queue_each(job_id, upload, wanted)
            self.store.retask(job_id, wanted.task)
            self.store.enqueue(job_id, _title(upload.names), wanted.to_json(), upload.names)
            queued = True
            return [job_id]
        finally:
            if not queued:
                self.store.remove(job_id)

    def _queue_each(self, arrived_id: str, upload: Upload, wanted: JobRequest) -> list[str]:
        """One job for each file of an upload."""
        room = self.limits.queued_jobs - self.store.counts().get("queued", 0)
        if len(upload.names) > min(room, self.limits.jobs_of_one_request):
            raise _busy(f"{len(upload.names)} jobs do not fit into the queue, {room} do; send fewer or try again later")
        batch = secrets.token_hex(8)
        jobs = []
        for number, name in enumerate(upload.names):
            job_id = self.store.create(wanted.task)
            source = self.store.folder(arrived_id) / "upload" / f"{number:04d}"
            os.link(source, self.store.folder(job_id) / "upload" / "0000")
            self.store.enqueue(job_id, safe_name(name), wanted.to_json(), [name], batch)
            jobs.append(job_id)
        return jobs

    async def _job_of_json(self, request: Request) -> list[str]:
        """A job on an example, or on the files of an earlier job."""
        given = await receive_json(_body(request), self.limits)
        example, earlier_id = given.pop("example", None), given.pop("from", None)
        if (example is None) == (earlier_id is None):
            raise Refused(400, "name either an example or, as from, the id of a job whose files are used again")
        wanted = job_request(given, self.limits, self.models)
        if example is not None:
            path = example_path(example) if isinstance(example, str) else None
            if path is None:
                raise Refused(400, f"example: there is no such example; known are {', '.join(EXAMPLES)}")
            job_id = self.store.create(wanted.task)
            shutil.copyfile(path, self.store.folder(job_id) / "upload" / "0000")
            self.store.enqueue(job_id, str(example), wanted.to_json(), [path.name])
            return [job_id]
        earlier = self._job(earlier_id)
        source = self.store.folder(earlier.id)
        names = json.loads((source / "names.json").read_text(encoding="utf-8"))
        job_id = self.store.create(wanted.task)
        for number in range(len(names)):
            os.link(source / "upload" / f"{number:04d}", self.store.folder(job_id) / "upload" / f"{number:04d}")
        self.store.enqueue(job_id, earlier.title, wanted.to_json(), names)
        return [job_id]

    async def list_jobs(self, request: Request) -> Response:
        batch = request.query_params.get("batch")
        return JSONResponse({"jobs": [self._described(job) for job in self.store.list(batch)]})

    async def show_job(self, request: Request) -> Response:
        return JSONResponse(self._described(self._job(request.path_params["id"])))

    async def cancel_job(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        await self.supervisor.cancel(job.id)
        return JSONResponse(self._described(self._job(job.id)))

    async def remove_job(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        await self.supervisor.cancel(job.id)
        self.store.remove(job.id)
        return Response(status_code=204)

    async def file(self, request: Request) -> Response:
        """One file that a job has made; whole files only."""
        job = self._job(request.path_params["id"])
        name = request.path_params["name"]
        path = self.store.path(job, name)
        if path is None:
            raise Refused(404, "this job has no file of that name (yet)")
        suffix = path.suffix.lower()
        inline = suffix in _SHOWN_INLINE and request.query_params.get("download") is None
        return FileResponse(
            path, media_type=_MEDIA_TYPES.get(suffix, "application/octet-stream"), filename=_download_name(job, name),
            content_disposition_type="inline" if inline else "attachment",
            headers={"cache-control": "private, no-cache"},
        )  # fmt: skip

    async def events(self, request: Request) -> Response:
        """Server-sent events: ``job`` with all that is known, at every change, until the job has ended."""
        job = self._job(request.path_params["id"])
        if self.streams >= self.limits.event_streams:
            raise _busy("too many pages follow jobs at once; try again in a while")

        async def stream() -> AsyncIterator[str]:
            self.streams += 1
            try:
                yield "retry: 2000\n\n"
                async with contextlib.aclosing(self.supervisor.changes(job.id)) as changes:
                    async for live in changes:
                        now = self.store.get(job.id)
                        if now is None:
                            yield "event: gone\ndata: {}\n\n"
                            return
                        if live is None:
                            yield ": still here\n\n"
                        yield f"event: job\ndata: {json.dumps(self._described(now))}\n\n"
                        if now.state in ENDED:
                            return
            finally:
                self.streams -= 1

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    def _job(self, job_id: object) -> Job:
        job = None
        if isinstance(job_id, str):
            with contextlib.suppress(KeyError):
                self.store.folder(job_id)  # refuses whatever is no id
                job = self.store.get(job_id)
        if job is None:
            raise Refused(404, "there is no such job; it may have been removed")
        return job

    def _described(self, job: Job) -> dict[str, Any]:
        """A job as the API shows it."""
        live: Live = self.supervisor.live(job.id)
        folder = self.store.folder(job.id) / ("result" if job.state == "done" else "live")
        files = []
        for name in self.store.files(job):
            with contextlib.suppress(OSError):
                files.append({"name": name, "bytes": (folder / name).stat().st_size})
        return {
            "id": job.id, "task": job.task, "title": job.title, "state": job.state, "batch": job.batch,
            "created": job.created_s, "started": job.started_s, "ended": job.ended_s, "error": job.error,
            "place": self.store.place(job) if job.state == "queued" else None,
            "stage": live.stage, "fraction": round(live.fraction, 4), "detail": live.detail, "version": live.version,
            "files": files, **job.options,
        }  # fmt: skip


EXAMPLES = ("strawberry",)


def example_path(name: str) -> Path | None:
    """The film of a bundled example: beside this module in an installed package, in ``examples/`` of a checkout."""
    if name not in EXAMPLES:
        return None
    here = Path(__file__).resolve().parent
    places = (here / "examples" / f"{name}.mp4", here.parents[2] / "examples" / "demo" / "orbit.mp4")
    return next((place for place in places if place.is_file()), None)


def _title(names: list[str]) -> str:
    folders = {name.replace("\\", "/").split("/")[0] for name in names if "/" in name.replace("\\", "/")}
    if len(folders) == 1:
        return safe_name(folders.pop())
    return safe_name(names[0]) if len(names) == 1 else f"{safe_name(names[0])} and {len(names) - 1} more"


def _download_name(job: Job, name: str) -> str:
    """mesh.glb of a job on strawberry.mp4 is saved as strawberry.glb."""
    stem, dot, suffix = name.rpartition(".")
    title = job.title.rpartition(".")[0] or job.title
    return f"{title}.{suffix}" if stem == "mesh" and dot else name


def _busy(sentence: str) -> Refused:
    return Refused(503, sentence, retry_after_s=_RETRY_S)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise Refused(400, "the request broke off") from None


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.status in (408, 413, 415):  # the rest of the body is not read, so the connection cannot go on
        headers["connection"] = "close"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": error.sentence}, error.status, headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {404: "there is nothing at this address", 405: "this address does not know that method"}
    return JSONResponse(
        {"error": sentence.get(error.status_code, "the request cannot be answered")}, error.status_code, error.headers
    )


def _version() -> str:
    try:
        return metadata.version("meshwright")
    except metadata.PackageNotFoundError:
        return "unknown"


def _page_names() -> list[str]:
    """The page's files, read once: what is not in this list cannot be asked for."""
    root = importlib.resources.files("meshwright.app") / "page"
    found, waiting = [], [("", root)]
    while waiting:
        before, folder = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                waiting.append((f"{before}{entry.name}/", entry))
            elif not entry.name.startswith(".") and Path(entry.name).suffix in _MEDIA_TYPES:
                found.append(before + entry.name)
    return sorted(found)


def _page_file(name: str) -> Callable[[Request], Awaitable[Response]]:
    data = importlib.resources.files("meshwright.app").joinpath("page", *name.split("/")).read_bytes()
    media_type = _MEDIA_TYPES[Path(name).suffix]
    packed = gzip.compress(data, 9, mtime=0) if not media_type.startswith(("image/png", "image/jpeg")) else None
    tag = f'"{_digest(data)}"'

    async def answer(request: Request) -> Response:
        headers = {"cache-control": "no-cache", "etag": tag, "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, headers={**headers, "content-encoding": "gzip"}, media_type=media_type)
        return Response(data, headers=headers, media_type=media_type)

    return answer


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:24]


class _Guard:
    """Around everything: checks host, origin and token, tells browsers the rules, keeps tracebacks in the log."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server
        self._public = {"/", *_OPEN, "/session", *(f"/{name}" for name in _page_names())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if origin := self._cors(scope):
                    own += [(b"access-control-allow-origin", origin.encode()), (b"vary", b"origin")]
                message = {**message, "headers": [*message["headers"], *own]}
                status = message["status"]
                self._server.answers[status] = self._server.answers.get(status, 0) + 1
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refused(Request(scope), refusal)(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except Exception:
            number = secrets.token_hex(4)
            log.exception("request %s failed", number)
            if not started:
                sentence = f"something went wrong in the server; its log has it under {number}"
                await JSONResponse({"error": sentence}, 500)(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Refused | None:
        door, headers = self._server.door, Request(scope).headers
        host = headers.get("host", "")
        if not door.host_is_ours(host):
            return Refused(421, "this server does not answer under that name; start it with --allow-host NAME")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        changes = scope["method"] not in ("GET", "HEAD")
        if (changes or origin is not None) and not door.origin_is_ours(origin, host, site):
            return Refused(403, "pages of other sites may not use this server")
        if scope["path"] in self._public:
            return None
        if not door.knows(headers.get("authorization"), headers.get("cookie")):
            return Refused(401, "this needs the server's token; open the address that it printed when it started")
        return None

    def _cors(self, scope: Scope) -> str | None:
        origin = Request(scope).headers.get("origin")
        return origin if origin in self._server.door.origins else None
