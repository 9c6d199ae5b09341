"""What processes have used so far (Linux: /proc)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                waiting += map(int, path.read_text().split())
    return found


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / _TICKS


def machine_cpu_s() -> float:
    """What all cores have spent for anybody; what the host took from them is somebody's, too."""
    # user, nice, system, idle, iowait, irq, softirq, steal
    times = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(times) - times[3] - times[4]) / _TICKS


def memory_mib(pids: list[int], kind: str) -> float:
    """`Pss`: pages that processes share are divided among them; `Rss`: they count in each."""
    kib = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kib += next((int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")), 0)
    return kib / 1024
