"""What a measurement needs: gateways that run in front of engines, each on its core, and loads on them."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from autopoiesis.bench.gateway.engines import CHAT, Engines
from autopoiesis.bench.gateway.load_plan import LoadPlan, Report
from autopoiesis.bench.gateway.processes import Cores, ask, free_port, pinned, started, wait_ready
from autopoiesis.bench.gateway.targets import DIRECT, Ports, Target
from autopoiesis.errors import AutopoiesisError

START_S = 60.0
OVERTIME_S = 60.0
"""That a load may take beyond its seconds before it is given up."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves, or a replica that is asked directly."""

    target: Target
    title: str
    port: int
    side: int
    """Port of the admin API."""
    pid: int | None

    def operate(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Ask the admin API of ours. Raises AutopoiesisError for anything but a success."""
        status, answer = ask(self.side, method, f"/admin/{path}", body)
        if status >= 300:
            raise AutopoiesisError(f"{self.title}: {method} /admin/{path} answered {status}: {answer}")
        return answer


class Sending:
    """A load under way."""

    def __init__(self, process: subprocess.Popen[bytes], plan: LoadPlan) -> None:
        self._process = process
        self._plan = plan

    @property
    def under_way(self) -> bool:
        return self._process.poll() is None

    def report(self) -> Report:
        """Wait for its end. Raises AutopoiesisError if it failed."""
        try:
            out, err = self._process.communicate(timeout=self._plan.seconds + OVERTIME_S)
        except subprocess.TimeoutExpired:
            raise AutopoiesisError(f"the load did not end {OVERTIME_S:g} s after its time") from None
        if self._process.returncode:
            raise AutopoiesisError(f"the load failed: {err.decode(errors='replace').strip()[-400:]}")
        return msgspec.json.decode(out, type=Report)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where measurements are made."""

    cores: Cores
    folder: Path
    """For logs and configurations."""
    venvs: Path
    """Environments of peers."""
    key: str

    @classmethod
    def here(cls, folder: Path, venvs: Path) -> Scene:
        return cls(Cores.of_this_process(), folder, venvs, secrets.token_hex())

    @contextmanager
    def gateway(self, target: Target, engines: Engines) -> Iterator[Gateway]:
        """A gateway that has answered. Raises Unavailable if it cannot be had."""
        if target is DIRECT:
            yield Gateway(target, "stub engine alone", engines.ports[0], 0, None)
            return
        ports = Ports(free_port(), free_port())
        start = target.start(engines.urls, ports, self.key, self.folder, self.venvs)
        log = self.folder / f"{target.name}.log"
        with started(start.command, self.cores.gateway, log, start.environ) as process:
            wait_ready(ports.gateway, CHAT, self.key, process, log, START_S)
            yield Gateway(target, start.title, ports.gateway, ports.side, process.pid)

    @contextmanager
    def sending(self, gateway: Gateway, **plan: Any) -> Iterator[Sending]:
        """A load on a gateway, ended with the `with` block at the latest; `plan`: fields of `LoadPlan`."""
        asked = LoadPlan(port=gateway.port, key=self.key, **plan)
        command = [
            sys.executable, "-P", "-m", "autopoiesis.bench.gateway.load", msgspec.json.encode(asked).decode(),
        ]  # fmt: skip
        with pinned(self.cores.rest):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield Sending(process, asked)
        finally:
            process.kill()
            process.communicate()

    def load(self, gateway: Gateway, **plan: Any) -> Report:
        """A load from its beginning to its end."""
        with self.sending(gateway, **plan) as sending:
            return sending.report()
