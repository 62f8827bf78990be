"""Loops over NumPy arrays, compiled by numba."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call and keep the result on disk; other Python threads run meanwhile."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep compiled code: a read-only install without a home folder
        return numba.njit(nogil=True)(function)
