"""`route` and `priority` as machine code in this process: object files, loaded in a millisecond and called by address.

Loading needs llvmlite, no numba and no numpy. What an object names outside itself is looked up in this process.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]

from autopoiesis.errors import PolicyError
from autopoiesis.policy.fields import REPLICA_FIELDS, REQUEST_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENTRY = "entry"
"""The function of an object file."""

# Pointers are passed as numbers: making a typed one of an array takes longer than most calls. So does waiting for
# Python's lock, which these calls therefore keep.
_ROUTE = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_PRIORITY = ctypes.PYFUNCTYPE(ctypes.c_double, ctypes.c_void_p)

_MADV_DONTNEED = 4
_PART = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r")

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


class CompiledRoute:
    """A `route` in machine code. Hold on to it for as long as its address is in use."""

    def __init__(self, code: bytes) -> None:
        """Load an object file that `route.object_code` gave; raises PolicyError if it is none."""
        self._library = _loaded(code)
        self.address: int = self._library[ENTRY]
        """Of a C function: request fields, replica rows flattened row by row, their number → the answer."""
        self.at: Callable[[int, int, int], int] = _ROUTE(self.address)
        """The same for Python, unchecked: addresses of the fields and of the rows, number of rows → the answer."""

    def __call__(self, request: NDArray[np.float64], replicas: NDArray[np.float64]) -> int:
        """Index, HOLD, SHED or FAULT for one request (fields,) over replicas (n, fields), in interface order."""
        fields = _address("request", request, (len(REQUEST_FIELDS),))
        rows = _address("replicas", replicas, (len(replicas), len(REPLICA_FIELDS)))
        return self.at(fields, rows, len(replicas))


class CompiledPriority:
    """A `priority` in machine code. Hold on to it for as long as its address is in use."""

    def __init__(self, code: bytes) -> None:
        """Load an object file that `route.object_code` gave; raises PolicyError if it is none."""
        self._library = _loaded(code)
        self.address: int = self._library[ENTRY]
        """Of a C function: request fields → the priority."""
        self.at: Callable[[int], float] = _PRIORITY(self.address)
        """The same for Python, unchecked: address of the fields → the priority."""

    def __call__(self, request: NDArray[np.float64]) -> float:
        """The priority of one request (fields,); NaN where it has none."""
        return self.at(_address("request", request, (len(REQUEST_FIELDS),)))


def _loaded(code: bytes) -> Any:
    """The linked library, which must be kept: without it the code is gone."""
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(ENTRY)
    try:
        # A linker for each, so that what is no longer held is unloaded whole. JITLink lays an object out in one piece,
        # within reach of its own addresses.
        return library.link(llvm.create_lljit_compiler(use_jit_link=True), ENTRY)
    except RuntimeError as error:
        raise PolicyError(f"compiled code cannot be loaded: {error}") from error


def page_linker_out() -> None:
    """Give back the memory that holds LLVM's own code until something is linked again; for who serves in between.

    That is some 40 MB of a file, which loading the library has touched. Parts of it that nobody has written to are
    taken out of this process, and come back as they are needed. Where the system does not tell of parts, nothing
    happens.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    start = end = 0
    with open("/proc/self/smaps") as parts:
        for line in parts:
            if (part := _PART.match(line)) is not None:
                start, end = (int(number, 16) for number in part.groups()) if "libllvmlite" in line else (0, 0)
            elif end and line.startswith("Private_Dirty:") and int(line.split()[1]) == 0:
                madvise(start, end - start, _MADV_DONTNEED)


def _address(name: str, array: NDArray[np.float64], shape: tuple[int, ...]) -> int:
    if array.shape != shape or array.dtype != "float64" or not array.flags.c_contiguous:
        raise PolicyError(f"{name}: need contiguous float64 of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array.ctypes.data
