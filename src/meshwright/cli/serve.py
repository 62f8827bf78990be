"""meshwright serve: the job server and its page."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True)
class Serve:
    """Run the job server and its page (needs the extra app): pictures in by a browser or HTTP, meshes out."""

    host: str = "127.0.0.1"
    """Address to listen on; with any other than this machine's own, clients need a token."""
    port: int = 8765
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What clients must know; made and printed if not given and others than this machine can connect."""
    data: Path | None = None
    """Folder of the jobs; MESHWRIGHT_DATA, else in your own data folder, if not given."""
    workers: int = 1
    """Jobs that run at once."""
    allow_host: tuple[str, ...] = ()
    """Names under which clients reach the server, beyond addresses and localhost."""
    allow_origin: tuple[str, ...] = ()
    """Other sites whose pages may use the server."""
    models: tuple[str, ...] = ()
    """Models that jobs may start from, by name; jobs download nothing, so they must be on this machine."""
    model_dir: Path | None = None
    """Folder that is searched for weights first."""
    job_minutes: float = 30.0
    """A job is stopped after so long."""
    job_memory: int = 8192
    """MiB that a job may hold (Linux only)."""
    upload: int = 1024
    """MiB that one request may send."""
    keep_days: float = 7.0
    """Jobs that ended are removed after so long."""
    keep: int = 20480
    """MiB of all jobs together; beyond it the oldest that ended go."""

    def __call__(self) -> None:
        from meshwright.app import Limits, serve
        from meshwright.errors import InputError

        for name in ("job_minutes", "job_memory", "upload", "keep_days", "keep"):
            if not getattr(self, name) > 0:
                raise InputError(f"`{name}`: {getattr(self, name)} is impossible; give a number above 0")
        out = Console()
        serve(
            self.host,
            self.port,
            token=self.token,
            data=self.data,
            workers=self.workers,
            allow_hosts=self.allow_host,
            allow_origins=self.allow_origin,
            models=self.models,
            model_dir=self.model_dir,
            limits=Limits(
                job_s=60 * self.job_minutes,
                job_memory_bytes=self.job_memory << 20,
                upload_bytes=self.upload << 20,
                kept_s=86400 * self.keep_days,
                kept_bytes=self.keep << 20,
            ),
            announce=lambda line: out.print(line, markup=False, highlight=False, soft_wrap=True),
        )
