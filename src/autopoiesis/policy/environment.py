"""Variables of the processes that we start."""

from __future__ import annotations

INHERITED_ENVIRONMENT = ("HOME", "LD_LIBRARY_PATH", "LANG", "NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "XDG_CACHE_HOME")
"""What Python and numba's cache need; a child clears even these."""
DETERMINISTIC = {
    # A forking process has one thread; string hashes order sets, and with them what a policy does.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
