"""The queue: one child process a job, watched for time, memory and cancellation."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from meshwright.app.limits import Limits
from meshwright.app.store import Job, JobStore

_WATCH_S = 0.2  # between two looks at a job's memory
_SWEEP_S = 60.0
_LINE_BYTES = 1 << 16  # of one message of a worker
_LOG_BYTES = 1 << 20


@dataclass
class Live:
    """What is known of a running job beyond its row: the newest of everything, and a number that grows with it."""

    stage: str = ""
    fraction: float = 0.0
    detail: str = ""
    version: int = 0


class Supervisor:
    """Runs the store's jobs in processes of ``command`` (see `meshwright.app.worker`), at most ``workers`` at once.

    Every job has a process of its own, so whatever a hostile file does to it ends with it. Before a job comes, its
    process already waits with everything imported, so a job starts at once.
    """

    def __init__(
        self,
        store: JobStore,
        limits: Limits,
        workers: int,
        model_dir: str | None,
        command: Sequence[str],
    ) -> None:
        self.store, self.limits, self._workers, self._command = store, limits, workers, command
        self._model_dir = model_dir
        self._live: dict[str, Live] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._cancelled: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.ended_by: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0, "time": 0, "memory": 0, "crash": 0}
        self.seconds_sum = 0.0

    async def start(self) -> None:
        self.store.recover()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        self._tasks.append(asyncio.create_task(self._sweep()))

    async def stop(self) -> None:
        """End all processes; what ran is queued again at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_alive(self) -> bool:
        """Whether every worker's loop still runs."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def wake(self) -> None:
        """Say that a job was queued."""
        self._wake.set()

    async def cancel(self, job_id: str) -> None:
        """End a job now, whether it waits or runs; returns when its process is gone."""
        self.store.end(job_id, "cancelled")
        if job_id in self._cancelled:
            self._cancelled[job_id].set()
            while job_id in self._cancelled:
                await asyncio.sleep(0.01)
        await self._tell(job_id)

    def live(self, job_id: str) -> Live:
        return self._live.get(job_id, Live())

    async def changes(self, job_id: str, beat_s: float = 15.0) -> AsyncGenerator[Live | None, None]:
        """What is known of a job whenever that changes; None after ``beat_s`` without a change."""
        version = -1
        while True:
            live = self.live(job_id)
            if live.version != version:
                version = live.version
                yield live
                continue
            try:
                async with asyncio.timeout(beat_s), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                yield None

    async def _tell(self, job_id: str) -> None:
        if job_id in self._live:
            self._live[job_id].version += 1
        async with self._changed:
            self._changed.notify_all()

    async def _start(self) -> "_Process":
        return await _Process.start(self._command)

    async def _work(self) -> None:
        process: _Process | None = None
        try:
            while True:
                if process is None or process.returncode is not None:
                    process = await self._start()
                job = self.store.take()
                if job is None:
                    self._wake.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(5.0):
                            await self._wake.wait()
                    continue
                used, process = process, None
                following = await self._start() if self.store.counts().get("queued") else None
                try:
                    await self._run(job, used)
                finally:
                    await used.kill()
                    process = following
        finally:
            if process is not None:
                await process.kill()

    async def _run(self, job: Job, process: "_Process") -> None:
        """See one job to its end and record that."""
        cancelled = self._cancelled[job.id] = asyncio.Event()
        self._live[job.id] = Live(version=1)
        started_s = time.monotonic()
        try:
            await self._tell(job.id)
            outcome = await self._outcome(job, process, cancelled)
            await process.kill()  # before the row says that the job ended: nothing writes into its folder any more
            state, error, counted = outcome
            self.store.end(job.id, state, error)
            self.ended_by[counted] += 1
            self.seconds_sum += time.monotonic() - started_s
        finally:
            await process.kill()
            del self._cancelled[job.id]
            await self._tell(job.id)
            del self._live[job.id]

    async def _outcome(
        self, job: Job, process: "_Process", cancelled: asyncio.Event
    ) -> tuple[Literal["done", "failed", "cancelled"], str | None, str]:
        """How a job ended: its state, a sentence if it failed, and under which name it is counted."""
        folder = self.store.folder(job.id)
        task = {
            "folder": str(folder), "task": job.task, "options": job.options, "limits": asdict(self.limits),
            "model_dir": self._model_dir,
        }  # fmt: skip
        watchers = {
            asyncio.create_task(self._listen(job, process, task)): "end",
            asyncio.create_task(cancelled.wait()): "cancelled",
            asyncio.create_task(asyncio.sleep(self.limits.job_s)): "time",
            asyncio.create_task(process.exceeds(self.limits.job_memory_bytes)): "memory",
        }
        try:
            first, _ = await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
            reason = watchers[next(iter(first))]
            message = next(iter(first)).result() if reason == "end" else None
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            process.save_log(folder / "worker.log")
        if reason == "cancelled":
            return "cancelled", None, "cancelled"
        if reason == "time":
            minutes = self.limits.job_s / 60
            return "failed", f"the job took more than {minutes:g} minutes; send fewer or smaller pictures", "time"
        if reason == "memory":
            most = self.limits.job_memory_bytes >> 20
            return "failed", f"the job needed more than {most} MiB of memory; send fewer or smaller pictures", "memory"
        if isinstance(message, dict) and message.get("end") == "done":
            return "done", None, "done"
        if isinstance(message, dict) and message.get("end") == "failed":
            return "failed", str(message.get("error", ""))[:500], "failed"
        return "failed", "the job's process broke down; the server keeps its log, other jobs are not affected", "crash"

    async def _listen(self, job: Job, process: "_Process", task: dict[str, Any]) -> dict[str, Any] | None:
        """Give a process its task and follow what it says; returns its last message, None if it had none."""
        await process.say(task)
        live = self._live[job.id]
        while (message := await process.hear()) is not None:
            if "end" in message:
                return message
            if "stage" in message:
                live.stage = str(message["stage"])[:60]
                live.fraction = min(1.0, max(0.0, float(message["fraction"])))
                live.detail = str(message.get("detail", ""))[:200]
            await self._tell(job.id)
        return None

    async def _sweep(self) -> None:
        while True:
            self.store.sweep(self.limits.kept_s, self.limits.kept_bytes)
            await asyncio.sleep(_SWEEP_S)


class _Process:
    """A worker: a child process that takes one task on its standard input and answers in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._killed = False

    @classmethod
    async def start(cls, command: Sequence[str]) -> "_Process":
        # A file, so that a job which says much cannot stop at a full pipe; `kill` closes it.
        log = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, limit=_LINE_BYTES, env=environment,
            start_new_session=True,
        )  # fmt: skip
        return cls(process, log)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when there are no more."""
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:  # a process gone mad: too long a line, or no JSON
            return None
        return message if isinstance(message, dict) else None

    async def exceeds(self, most_bytes: int) -> None:
        """Return once the process holds more memory than ``most_bytes``; never where this cannot be read."""
        status = Path(f"/proc/{self._process.pid}/statm")
        page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        while True:
            try:
                resident = int(status.read_text().split()[1]) * page
            except (OSError, IndexError, ValueError):  # gone, or not Linux
                resident = 0
            if resident > most_bytes:
                return
            await asyncio.sleep(_WATCH_S)

    def save_log(self, path: Path) -> None:
        """Keep the end of what the process wrote on its standard error, for whoever runs the server."""
        with contextlib.suppress(OSError):
            self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_BYTES))
            if text := self._log.read():
                path.write_bytes(text)

    async def kill(self) -> None:
        """End the process and whatever it started, and wait until it is gone."""
        if self._killed:  # a second time its number might be another's
            return
        self._killed = True
        self._log.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            elif self._process.returncode is None:
                self._process.kill()
        await self._process.wait()
