"""Every test run executes the shape annotations of the package (jaxtyping + beartype)."""

import os
import signal

from jaxtyping import install_import_hook

# Tests send signals to themselves and to children, which nohup and background shells have them ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Workers of pytest-xdist share the cores between them, before torch is loaded; what the user set stays.
_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores // _workers)))

import meshwright.options  # noqa: E402, F401  not hooked: it refuses wrong values itself, in words that are tested

install_import_hook("meshwright", "beartype.beartype")
