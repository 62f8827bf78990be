"""What a process that reads files of strangers may take: memory, time, space on disk; no programs, no connections.

One definition for all that run such a process: `meshwright.isolated`, `meshwright.curate` and the server's workers.
"""

import contextlib
import errno
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshwright.errors import InputError

_GRACE_S = 5.0  # should whoever watches be killed first, the process still ends
# Python's audit events of starting a program or opening a connection.
REFUSED_EVENTS = frozenset(
    {
        "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
        "socket.connect", "socket.bind", "socket.getaddrinfo",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What one object may take."""

    time_limit_s: float = 300.0
    """Seconds after which its process is ended."""
    memory_limit_mib: int = 4096
    """MiB of memory beyond what the libraries take."""

    def __post_init__(self) -> None:
        if self.time_limit_s <= 0 or self.memory_limit_mib < 64:
            raise InputError("`time_limit_s` must be above 0 and `memory_limit_mib` at least 64; raise them")


class NotAllowed(PermissionError):
    """A program was to be started or a connection to be opened."""


def restrain(
    time_limit_s: float | None = None, memory_limit_mib: int | None = None, file_bytes: int | None = None
) -> None:
    """Limit this process from here on: what is not given stays unlimited. It leaves no core dumps.

    Args:
        time_limit_s: seconds of wall clock after which SIGALRM ends it, with some grace for who watches it (POSIX).
        memory_limit_mib: address space beyond what it has now (Linux, where the system can).
        file_bytes: size of the largest file that it may write (POSIX).
    """
    if time_limit_s is not None and hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, time_limit_s + _GRACE_S)
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if file_bytes is not None:
            _lower(resource.RLIMIT_FSIZE, file_bytes)
        if memory_limit_mib is not None and sys.platform == "linux":
            with open("/proc/self/statm", encoding="ascii") as file:
                mapped = int(file.read().split()[0]) * resource.getpagesize()
            _lower(resource.RLIMIT_AS, mapped + (memory_limit_mib << 20))


def _lower(what: int, most: int) -> None:
    import resource

    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def refusing(
    check: Callable[[str, tuple[Any, ...]], None] = lambda *_: None,
) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook (`sys.addaudithook`) with which Python code can neither start programs nor open connections.

    ``check`` sees every other event, and may refuse it, too.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in REFUSED_EVENTS:
            raise NotAllowed(errno.EACCES, f"this process may not use {event}")
        check(event, arguments)

    return hook


def is_out_of_memory(error: BaseException) -> bool:
    """Python, the system, torch and threading each say it in their own words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("allocate", "can't start new thread")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
