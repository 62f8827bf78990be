"""Jobs on disk: their state in SQLite, their files in one folder each."""

import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["uploading", "queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
_MOST_ATTEMPTS = 2  # a job at which the server died twice is not tried a third time
_ID = re.compile(r"[0-9a-f]{32}\Z")

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    title TEXT NOT NULL,
    options TEXT NOT NULL,
    batch TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_s REAL NOT NULL,
    started_s REAL,
    ended_s REAL,
    error TEXT,
    bytes INTEGER NOT NULL DEFAULT 0
)
"""


@dataclass(frozen=True)
class Job:
    """One row of the store. ``title``: a cleaned name of its first file. Times are Unix seconds."""

    number: int
    id: str
    task: str
    title: str
    options: dict[str, Any]
    batch: str | None
    state: State
    attempts: int
    created_s: float
    started_s: float | None
    ended_s: float | None
    error: str | None
    bytes: int


class JobStore:
    """The jobs of one server. One process at a time owns a store.

    A job's folder holds ``upload/`` (files under numbers), ``names.json`` (what the client called them), ``live/``
    (pictures made while it runs), ``result/`` (appears whole when it is done) and ``worker.log``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._jobs = self.root / "jobs"
        self._jobs.mkdir(parents=True, exist_ok=True)
        os.chmod(self.root, 0o700)  # other users of the machine have no business here
        self._db = sqlite3.connect(self.root / "jobs.sqlite3", isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_TABLE)

    def close(self) -> None:
        self._db.close()

    def recover(self) -> None:
        """After a restart: interrupted jobs are queued again, unfinished uploads and folders nobody knows go."""
        self._db.execute("DELETE FROM jobs WHERE state = 'uploading'")
        self._db.execute(
            "UPDATE jobs SET state = 'failed', ended_s = ?, error = ? WHERE state = 'running' AND attempts >= ?",
            (time.time(), f"the server stopped {_MOST_ATTEMPTS} times in the middle of this job", _MOST_ATTEMPTS),
        )
        self._db.execute("UPDATE jobs SET state = 'queued', started_s = NULL WHERE state = 'running'")
        known = {row["id"] for row in self._db.execute("SELECT id FROM jobs")}
        for folder in self._jobs.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def folder(self, job_id: str) -> Path:
        """Where a job's files lie. Ids are made here, so no part of this path comes from a client."""
        if not _ID.match(job_id):
            raise KeyError(job_id)
        return self._jobs / job_id

    def create(self, task: str) -> str:
        """Make an empty job that is not queued yet, and its folder."""
        job_id = secrets.token_hex(16)
        (self._jobs / job_id / "upload").mkdir(parents=True)
        (self._jobs / job_id / "live").mkdir()
        self._db.execute(
            "INSERT INTO jobs (id, task, title, options, state, created_s) VALUES (?, ?, '', '{}', 'uploading', ?)",
            (job_id, task, time.time()),
        )
        return job_id

    def retask(self, job_id: str, task: str) -> None:
        """Say what a job that is still uploading will do."""
        self._db.execute("UPDATE jobs SET task = ? WHERE id = ?", (task, job_id))

    def enqueue(
        self, job_id: str, title: str, options: dict[str, Any], names: Sequence[str], batch: str | None = None
    ) -> None:
        """Let a job whose files have all arrived wait for a worker."""
        folder = self.folder(job_id)
        (folder / "names.json").write_text(json.dumps(list(names)), encoding="utf-8")
        self._db.execute(
            "UPDATE jobs SET state = 'queued', title = ?, options = ?, batch = ?, bytes = ? WHERE id = ?",
            (title, json.dumps(options), batch, folder_bytes(folder), job_id),
        )

    def take(self) -> Job | None:
        """The job that has waited longest, now running; None if none waits."""
        row = self._db.execute(
            "UPDATE jobs SET state = 'running', started_s = ?, attempts = attempts + 1 WHERE number ="
            " (SELECT MIN(number) FROM jobs WHERE state = 'queued') RETURNING *",
            (time.time(),),
        ).fetchone()
        return None if row is None else _job(row)

    def end(self, job_id: str, state: Literal["done", "failed", "cancelled"], error: str | None = None) -> None:
        """Record how a job ended. A job that was cancelled or removed meanwhile stays so."""
        self._db.execute(
            "UPDATE jobs SET state = ?, error = ?, ended_s = ?, bytes = ? WHERE id = ?"
            " AND state IN ('queued', 'running')",
            (state, error, time.time(), folder_bytes(self.folder(job_id)), job_id),
        )

    def get(self, job_id: str) -> Job | None:
        row = self._db.execute("SELECT * FROM jobs WHERE id = ? AND state != 'uploading'", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def list(self, batch: str | None = None, most: int = 200) -> list[Job]:
        """The newest jobs, newest first."""
        rows = self._db.execute(
            "SELECT * FROM jobs WHERE state != 'uploading' AND (? IS NULL OR batch = ?) ORDER BY number DESC LIMIT ?",
            (batch, batch, most),
        )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        return {row[0]: row[1] for row in self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state")}

    def place(self, job: Job) -> int:
        """How many jobs wait before a queued one."""
        query = "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND number < ?"
        return int(self._db.execute(query, (job.number,)).fetchone()[0])

    def files(self, job: Job) -> tuple[str, ...]:
        """Names of a job's files that may be read: all results of a done job, else what it has shown so far."""
        folder = self.folder(job.id) / ("result" if job.state == "done" else "live")
        if not folder.is_dir():
            return ()
        return tuple(sorted(file.name for file in folder.iterdir() if not file.name.startswith(".")))

    def path(self, job: Job, name: str) -> Path | None:
        """Where a job's file of this name lies; None if there is none. ``name`` is only compared, never joined."""
        folder = self.folder(job.id) / ("result" if job.state == "done" else "live")
        return next((folder / known for known in self.files(job) if known == name), None)

    def remove(self, job_id: str) -> None:
        """Forget a job and delete its files."""
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def sweep(self, kept_s: float, kept_bytes: int) -> int:
        """Remove ended jobs that are too old, then the oldest until all fit into ``kept_bytes``; how many went."""
        old = self._db.execute(
            f"SELECT id FROM jobs WHERE state IN {ENDED} AND ended_s < ?", (time.time() - kept_s,)
        ).fetchall()
        for row in old:
            self.remove(row["id"])
        removed = len(old)
        total = int(self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM jobs").fetchone()[0])
        ended = self._db.execute(f"SELECT id, bytes FROM jobs WHERE state IN {ENDED} ORDER BY ended_s").fetchall()
        for row in ended:
            if total <= kept_bytes:
                break
            self.remove(row["id"])
            total -= row["bytes"]
            removed += 1
        return removed

    @property
    def total_bytes(self) -> int:
        """What all jobs' files take, as last measured."""
        return int(self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM jobs").fetchone()[0])


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take; a file with two names counts twice."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    fields["options"] = json.loads(fields["options"])
    return Job(**fields)
