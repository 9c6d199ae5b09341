"""How long something takes where other work shares the machine."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_cpu_seconds(call: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of the quickest of several calls: what others do meanwhile can slow one down, hardly all."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent)
