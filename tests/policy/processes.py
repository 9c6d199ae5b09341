"""What tests ask about processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for something that tells nobody when it happens; whether it did."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process has ended, reaped or not."""
    return until(lambda: _ended(pid), within_s)


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may go between the signal and the look
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    return False
