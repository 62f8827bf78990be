"""How the work shares the processor: threads that wait without spinning, and one torch thread for small operations.

torch's OpenMP threads by default spin while they wait for each other. Where another program wants a core as well, every
small operation then waits for a thread that the system has put aside: refinement became ten times slower beside one
busy process on two cores. So threads are told to sleep while they wait, and stages made of many small operations use
one torch thread; the compiled kernels of `meshwright.raster` keep all of theirs: they share work in small portions.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0  # of one torch thread, at this moment
_threads = 0  # that torch had before the first of them


def wait_without_spinning() -> None:
    """Set the wait policy of OpenMP for this process and those it starts, unless the user has set one.

    Without effect once torch is loaded: its OpenMP has read the environment by then.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # libgomp: torch from PyPI on Linux
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # libiomp and libomp: torch of conda, Windows and macOS


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch's operations by one thread inside; `kernel_threads` stays what it was.

    For stages of many small operations, which gain nothing from more and lose much on a busy machine. The setting is
    torch's own and so the whole process's; it is given back when the last of several users is done.
    """
    import torch

    global _users, _threads
    with _lock:
        if _users == 0:
            _threads = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_threads)


def kernel_threads() -> int:
    """Threads for compiled kernels: as many as torch has where it is not held to one."""
    import torch

    return _threads if _users else torch.get_num_threads()
