"""A real engine as a child process, for the length of a comparison."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autopoiesis.errors import AutopoiesisError

GRACE_S = 10.0
"""Seconds that an engine has to end after SIGTERM."""
TAIL = 400
"""Characters of an engine's last words in an error."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs."""

    address: str
    """`http://HOST:PORT`"""
    group: int
    """Its process group."""


@contextmanager
def running_engine(command: Sequence[str], start_s: float) -> Iterator[Engine]:
    """Start an engine in a process group of its own, and end the whole group afterwards.

    The engine must say its address, `http://HOST:PORT`, on a line of stdout by itself once it serves, within `start_s`
    seconds. Raises AutopoiesisError, with what the engine said last, if it does not.
    """
    with tempfile.TemporaryFile() as said:
        try:
            engine = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise AutopoiesisError(f"engine {command[0]!r}: cannot be started ({error.strerror})") from None
        try:
            assert engine.stdout is not None
            address = _address(engine.stdout, time.monotonic() + start_s)
            if address is None:
                said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
                words = " ".join(said.read().decode(errors="replace").split())
                raise AutopoiesisError(f"engine {command[0]!r}: no address within {start_s:g} s; it said: {words}")
            yield Engine(address, engine.pid)
        finally:
            end_group(engine)


def _address(output: IO[bytes], until_s: float) -> str | None:
    """The first line that is an address; None if there is none by then."""
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left_s := until_s - time.monotonic()) > 0 and selector.select(left_s):
            data = os.read(output.fileno(), 65536)
            text += data
            for line in text.split(b"\n")[:-1]:
                if line.startswith((b"http://", b"https://")):
                    return line.strip().decode()
            if not data:
                break
    return None


def end_group(engine: subprocess.Popen[bytes]) -> None:
    """End the group: whatever the engine has started goes with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(engine.pid, number)
        except ProcessLookupError:
            break
        try:
            engine.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    engine.wait()
    if engine.stdout is not None:
        engine.stdout.close()


def cpu_s_of_others(group: int) -> float | None:
    """CPU seconds that this machine has spent for anybody but this process and a process group, since its start.

    The host's share (steal) is somebody else's. None where /proc does not tell.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        # user, nice, system, idle, iowait, irq, softirq, steal
        machine = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    ours = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[2]) == group or entry.parent.name == str(os.getpid()):
            ours += int(fields[11]) + int(fields[12])
    return (sum(machine) - machine[3] - machine[4] - ours) / ticks
