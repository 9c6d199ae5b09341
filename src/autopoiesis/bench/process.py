"""This process and the machine it is on: one core, its clock, its memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def timed(repeats: int, *acts: Callable[[], object]) -> list[tuple[float, ...]]:
    """Seconds of so many calls of each; they take turns, so that what disturbs the machine for a while disturbs all."""
    seconds: list[list[float]] = [[] for _ in acts]
    for _ in range(repeats):
        for act, measured in zip(acts, seconds, strict=True):
            began = time.perf_counter()
            act()
            measured.append(time.perf_counter() - began)
    return [tuple(measured) for measured in seconds]


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = platform.processor()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        names = [line.partition(":")[2].strip() for line in listing.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    packages = {name: version(name) for name in ("numpy", "numba")}
    return {"cpu": cpu, "system": platform.platform(), "python": platform.python_version(), **packages}


def pin() -> None:
    """Everything from here on, child processes included, runs on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peak_rss_mb() -> float:
    """Most memory that this process has had resident.

    `getrusage` would count what its parent had when it was started, too.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
