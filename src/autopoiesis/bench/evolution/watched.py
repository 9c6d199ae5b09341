"""A command with all that it starts: what it used, how it ended, what it left running (Linux: /proc)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.05
"""Between two looks."""
SETTLE_S = 2.0
"""For what a command has started to end after it."""
GRACE_S = 10.0
"""For a command to end after its last word."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Watched:
    """A command that is over, one way or the other."""

    said: str
    """Its stdout."""
    complained: str
    """Its stderr."""
    code: int | None
    """Its exit status; None if it had to be killed."""
    wall_s: float
    cpu_s: float
    """Of all its processes."""
    main_peak_mb: float
    """Resident, of the process that was started."""
    tree_peak_mb: float
    """Resident, of all processes at once, pages that they share counted in each."""
    left_over: int
    """Processes that were still there SETTLE_S after it."""


def watch(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limit_s: float,
    is_last_word: Callable[[str], bool] = lambda said: False,
) -> Watched:
    """Run a command in a session of its own until it ends, at most `limit_s` seconds and GRACE_S after its last word.

    Whatever it has started is killed in the end, however this function is left. Raises OSError if it cannot start.
    """
    out, err = folder / "stdout", folder / "stderr"
    cpu_before_s = _children_cpu_s()
    began = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
    tree = _Tree(process.pid)
    try:
        code = _waited(process, tree, began + limit_s, lambda: is_last_word(_text(out)))
        wall_s = time.monotonic() - began
        left = tree.settled(SETTLE_S)
        left_cpu_s = sum(entry.cpu_s for entry in left)
    finally:
        process.kill()
        tree.kill()
        process.wait()
    return Watched(
        said=_text(out),
        complained=_text(err),
        code=code,
        wall_s=wall_s,
        cpu_s=_children_cpu_s() - cpu_before_s + left_cpu_s,
        main_peak_mb=tree.main_peak_mb,
        tree_peak_mb=max(tree.peak_mb, tree.main_peak_mb),
        left_over=len(left),
    )


def _waited(process: subprocess.Popen[bytes], tree: _Tree, deadline: float, is_said: Callable[[], bool]) -> int | None:
    """Look now and then until the process ends; killed at the deadline."""
    said = False
    while (now := time.monotonic()) < deadline:
        tree.look()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(EVERY_S)
        if not said and is_said():
            said, deadline = True, min(deadline, now + GRACE_S)
    process.kill()
    process.wait()
    return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _children_cpu_s() -> float:
    """Of the children that have been waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, slots=True)
class _Entry:
    """A process in /proc."""

    pid: int
    session: int
    started: int
    """In ticks; with the number it names a process for good."""
    rss_mb: float
    cpu_s: float
    """With that of its children that it has waited for."""


def _entry(pid: int) -> _Entry | None:
    """None if there is no such process, or if it has ended and only waits to be noticed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    cpu_s = sum(map(int, fields[11:15])) / _TICKS
    return _Entry(pid, int(fields[3]), int(fields[19]), int(fields[21]) * _PAGE / 2**20, cpu_s)


class _Tree:
    """A process and its descendants, as far as they have been seen."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._started: dict[int, int] = {}
        self.peak_mb = 0.0
        self.main_peak_mb = 0.0

    def look(self) -> None:
        """Find descendants and add up what is resident."""
        entries, waiting = list[_Entry](), [self._root]
        while waiting:
            entry = _entry(waiting.pop())
            if entry is not None:
                entries.append(entry)
                waiting += _children(entry.pid)
        self._started |= {entry.pid: entry.started for entry in entries}
        self.peak_mb = max(self.peak_mb, sum(entry.rss_mb for entry in entries))
        self.main_peak_mb = max(self.main_peak_mb, _high_water_mb(self._root))

    def settled(self, seconds: float) -> list[_Entry]:
        """Those that are there, the root apart; they are given so many seconds to end."""
        until = time.monotonic() + seconds
        while (there := self._there()) and time.monotonic() < until:
            time.sleep(EVERY_S)
        return there

    def kill(self) -> None:
        """All of them, and what they start meanwhile."""
        while there := self._there():
            for entry in there:
                with suppress(ProcessLookupError):
                    os.kill(entry.pid, signal.SIGKILL)
            time.sleep(EVERY_S)

    def _there(self) -> list[_Entry]:
        """Seen before, started by one of these, or of the session that the root has begun."""
        every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        entries = [entry for pid in every if pid != self._root and (entry := _entry(pid)) is not None]
        there = [e for e in entries if self._started.get(e.pid) == e.started or e.session == self._root]
        self._started |= {entry.pid: entry.started for entry in there}
        return there


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, path.read_text().split())
    return children


def _high_water_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
