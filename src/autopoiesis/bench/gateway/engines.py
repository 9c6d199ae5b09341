"""The stub engine's replicas, in one process or in one each, so that one of them can be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from types import TracebackType

import msgspec

from autopoiesis.bench.environment import Unavailable
from autopoiesis.bench.gateway.processes import Cores, ask, free_port, started, wait_ready
from autopoiesis.bench.gateway.stub_engine import MODEL

START_S = 20.0
REPLICAS = 2
POLL_S = 0.02
CHAT = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2})


class Engines:
    """Replicas that serve, for the length of a `with` block."""

    def __init__(self, cores: Cores, folder: Path, *, apart: bool = False) -> None:
        """`apart`: each in a process of its own."""
        self.ports = [free_port() for _ in range(REPLICAS)]
        self._cores = cores
        self._log = folder / "engines.log"
        self._groups = [[port] for port in self.ports] if apart else [self.ports]
        self._processes: dict[int, Popen[bytes]] = {}
        """By port."""
        self._stack = ExitStack()

    def __enter__(self) -> Engines:
        with self._stack:
            for ports in self._groups:
                self._start(ports)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def pids(self) -> list[int]:
        return sorted({process.pid for process in self._processes.values()})

    def state(self, port: int) -> dict[str, int]:
        """Requests `running` and `answered` at a replica."""
        state: dict[str, int] = ask(port, "GET", "/state")[1]
        return state

    def wait_busy(self, requests: int) -> None:
        """Wait until so many requests are in progress: a load takes its time to begin. Raises Unavailable."""
        deadline = time.monotonic() + START_S
        while (running := sum(self.state(port)["running"] for port in self.ports)) < requests:
            if time.monotonic() > deadline:
                raise Unavailable(f"after {START_S:g} s, {running} of {requests} requests were in progress")
            time.sleep(POLL_S)

    def kill(self, port: int) -> None:
        """End a replica's process without a word."""
        os.kill(self._processes[port].pid, signal.SIGKILL)
        self._processes[port].wait()

    def restart(self, port: int) -> None:
        """Start a replica again that was killed."""
        self._start([port])

    def _start(self, ports: list[int]) -> None:
        command = [sys.executable, "-P", "-m", "autopoiesis.bench.gateway.stub_engine", *map(str, ports)]
        process = self._stack.enter_context(started(command, self._cores.rest, self._log))
        for port in ports:
            wait_ready(port, CHAT, "", process, self._log, START_S)
            self._processes[port] = process
