"""Start the server: its address, its token, and the HTTP engine's own limits."""

import asyncio
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meshwright.app.limits import Limits
from meshwright.errors import InputError

_HEAD_S = 15.0  # a connection's first request line and headers must be there by then
_CONNECTIONS = 512


def serve(
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    token: str | None = None,
    data: Path | None = None,
    workers: int = 1,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    models: Sequence[str] = (),
    model_dir: Path | None = None,
    limits: Limits = Limits(),
    announce: Callable[[str], None] = print,
    worker: Sequence[str] = (sys.executable, "-P", "-m", "meshwright.app.worker"),
) -> None:
    """Run the job server until it is interrupted.

    Args:
        token: what clients must know; made and announced when not given and ``host`` is not this machine alone.
        data: folder of the jobs; `default_data_folder` when not given.
        allow_hosts: names under which clients reach the server, beyond addresses and localhost.
        allow_origins: other sites whose pages may use the server (CORS).
        models: names of weights that jobs may use.
        announce: told the address to open, and where the jobs lie.
        worker: the command of a job's process.

    Raises:
        InputError: the extra is not installed, the address cannot be used, or another server owns ``data``.
    """
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        from meshwright.app.api import Server
        from meshwright.app.security import Door
        from meshwright.app.store import JobStore
        from meshwright.app.supervisor import Supervisor
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}; run: pip install 'meshwright[app]'") from None
    if workers < 1:
        raise InputError(f"workers: {workers} is impossible; give a number of at least 1")

    class Impatient(H11Protocol):
        """Closes connections that do not finish their first head in time (uvicorn itself waits for ever)."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._clock = asyncio.get_running_loop().call_later(_HEAD_S, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    local = _is_this_machine(host)
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    root = default_data_folder() if data is None else Path(data)
    owner = _own(root)
    store = JobStore(root)
    supervisor = Supervisor(store, limits, workers, None if model_dir is None else str(model_dir), worker)
    door = Door(token, tuple(allow_hosts), tuple(allow_origins), port)
    app = Server(store, supervisor, door, limits, tuple(models)).app()
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        shown = socket.gethostname()
    announce(f"meshwright is at http://{shown}:{port}/{'' if token is None else '#token=' + token}")
    announce(f"jobs are kept in {root}; Ctrl-C ends the server, and jobs that run start again with it")
    config = uvicorn.Config(
        app, http=Impatient, loop="asyncio", ws="none", lifespan="on", log_level="warning", access_log=False,
        server_header=False, date_header=True, proxy_headers=False, limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10, timeout_graceful_shutdown=2, h11_max_incomplete_event_size=32 * 1024,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()
        os.close(owner)


def default_data_folder() -> Path:
    """Where jobs are kept unless told otherwise: ``MESHWRIGHT_DATA``, else in the user's own data folder."""
    if given := os.environ.get("MESHWRIGHT_DATA"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "meshwright"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "meshwright"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "meshwright"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"port: {port} is impossible; give one between 0 (any free one) and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{host}:{port}: cannot listen there ({reason.lower()}); choose another `port`") from None
    return listening


def _own(root: Path) -> int:
    """Take a folder of jobs for this process; the lock goes with the returned file."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{root}: jobs cannot be kept there ({reason}); choose another `data`") from None
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InputError(f"{root}: another server keeps its jobs there; stop it or choose another `data`") from None
    return lock
