"""Memory of large bodies goes back to the system when it is free."""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 64 * 1024
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Keep blocks of LARGE_BYTES and more out of the heap. glibc alone: its threshold grows with every large block that
    is freed, up to 32 MiB, and what was in the heap once stays there behind whatever small block came after it."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
