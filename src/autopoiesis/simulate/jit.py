"""One way to compile: cached on disk, no fast math, so that the same bytes come out everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function, compiled by numba at its first call and cached beside its module."""
    result: F = numba.njit(cache=True, nogil=True)(function)
    return result


def inlined(function: F) -> F:
    """The same for a small function on a hot path, inlined into its callers by LLVM."""
    result: F = numba.njit(cache=True, nogil=True, forceinline=True)(function)
    return result
