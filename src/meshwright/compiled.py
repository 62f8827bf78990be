"""Loops over NumPy arrays, compiled by numba."""

import contextlib
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call and keep the result on disk; other Python threads run meanwhile.

    Where it cannot be kept (a full or read-only disk) or what is kept there is damaged, it is compiled for this
    process alone.
    """
    try:
        dispatcher = numba.njit(cache=True, nogil=True)(function)
    except (RuntimeError, OSError):  # nowhere to keep compiled code: a read-only install without a home folder
        return numba.njit(nogil=True)(function)
    if hasattr(dispatcher, "_cache"):  # not with NUMBA_DISABLE_JIT=1: then it is the function itself
        dispatcher._cache = _OptionalCache(dispatcher._cache)
    return dispatcher


class _OptionalCache:
    """numba's cache of one function, whose failures mean that the function is compiled again."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            return self._cache.load_overload(signature, target_context)
        except Exception:  # half a pickle makes the reader raise anything
            with contextlib.suppress(OSError):
                self._cache.flush()  # or else nothing could be saved beside it, either
            return None

    def save_overload(self, signature: Any, compile_result: Any) -> None:
        with contextlib.suppress(OSError):
            self._cache.save_overload(signature, compile_result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
