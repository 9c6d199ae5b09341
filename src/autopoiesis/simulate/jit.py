"""One way to compile: cached on disk, no fast math, so that the same bytes come out everywhere.

numba keys its disk cache by the file of the function alone, so after an edit of `engine` a caller in `kernel` would
still run the old machine code that it has inlined. Compiled code is therefore kept in a directory named by the
contents of every source file of this package: `compiled-<fingerprint>` below `NUMBA_CACHE_DIR` if that is set, else
below this package's `__pycache__`, else below the user's cache directory (`XDG_CACHE_HOME`, or `~/.cache`). Where none
of them can be written, every process compiles anew. What is compiled here may use only names of this package, numpy
and `math`: a constant from elsewhere would be frozen into the cache without being part of its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numba as numba_module
from numba.core import cgutils as cgutils_module

F = TypeVar("F", bound=Callable[..., Any])

# numba's own annotations know neither its configuration nor half of its options
numba: Any = numba_module
cgutils: Any = cgutils_module

PACKAGE = Path(__file__).parent
PREFIX = "compiled-"
KEPT = 4
"""Caches of earlier sources that stay: a process that was started before an edit may still write to its own."""


def fingerprint(package: Path) -> str:
    """A name for the contents of a package's source files."""
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory(package: Path, chosen: str) -> Path | None:
    """Where compiled code of these sources lies; made if need be, None if nothing can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    places = [Path(chosen)] if chosen else [package / "__pycache__", Path(home).expanduser() / "autopoiesis"]
    name = PREFIX + fingerprint(package)
    for place in places:
        directory = place / name
        try:
            fresh = not directory.is_dir()
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError:
            continue
        if fresh:
            # another process may be forgetting the same ones
            with suppress(OSError):
                forget_old(place, directory)
        return directory
    return None


def forget_old(place: Path, current: Path) -> None:
    """Remove all but the newest caches of earlier sources."""
    others = [path for path in place.glob(f"{PREFIX}*") if path != current and path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


_DIRECTORY = cache_directory(PACKAGE, numba.config.CACHE_DIR)


@contextmanager
def _cached() -> Iterator[bool]:
    """numba decides where a function's code will lie when it is decorated; elsewhere its configuration stays."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = "" if _DIRECTORY is None else str(_DIRECTORY)
    try:
        yield _DIRECTORY is not None
    finally:
        numba.config.CACHE_DIR = before


def compiled(function: F) -> F:
    """The function, compiled by numba at its first call."""
    with _cached() as cache:
        result: F = numba.njit(cache=cache, nogil=True)(function)
    return result


def inlined(function: F) -> F:
    """The same for a function on a hot path, inlined into its callers by LLVM."""
    with _cached() as cache:
        result: F = numba.njit(
            cache=cache, nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
        )(function)
    return result


def _borrowed(typing_context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(array)(context, builder, value=arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


borrowed: Any = numba.extending.intrinsic(_borrowed)
"""In compiled code, `borrowed(array)` is the array without a claim on its memory, which the caller must keep alive.

numba counts references whenever it reads an array from a tuple, and leaves these counts out only where it can see that
there is nothing to count.
"""
