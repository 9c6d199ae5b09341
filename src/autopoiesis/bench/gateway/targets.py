"""The gateways that are measured, and how each is started."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopoiesis import __version__
from autopoiesis.bench.environment import call, environment
from autopoiesis.bench.gateway import policies
from autopoiesis.bench.gateway.stub_engine import MODEL

LEAST_LOADED, FEWEST_TOKENS = (Path(policies.__file__).with_name(f"{n}.py") for n in ("least_loaded", "fewest_tokens"))
KEYS = 3


@dataclass(frozen=True, slots=True)
class Ports:
    gateway: int
    side: int
    """Of the admin API, or of metrics."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a gateway is started."""

    title: str
    command: Sequence[str]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway, or the stub engine without one."""

    name: str
    requirement: str = ""
    """For the package index."""
    module: str = ""
    """That its environment can import."""
    program: tuple[str, ...] = ()
    """What is run of its environment."""
    workers: int = 0
    """Of ours; 0: it is not ours."""

    def start(self, engines: Sequence[str], ports: Ports, key: str, folder: Path, venvs: Path) -> Start:
        """What to run in front of engines at these addresses. Raises Unavailable if it cannot be installed."""
        if self.workers:
            file = folder / f"{self.name}.yaml"
            file.write_text(json.dumps(configuration(engines, ports, key, self.workers)), encoding="utf-8")
            command = [sys.executable, "-P", "-m", "autopoiesis", "serve", "--config", str(file)]
            title = f"Autopoiesis {__version__}"
            return Start(title if self.workers == 1 else f"{title}, {self.workers} workers", command, os.environ)
        python = environment(venvs.absolute() / self.name, self.requirement, self.module)
        asked = f"from importlib.metadata import version; print(version({self.name!r}))"
        title = f"{self.name} {call([str(python), '-I', '-c', asked], 60.0).strip()}"
        command = [
            str(python.with_name(self.program[0])), *self.program[1:], "--host", "127.0.0.1",
            "--port", str(ports.gateway), "--policy", "round_robin", "--worker-urls", *engines,
            "--prometheus-host", "127.0.0.1", "--prometheus-port", str(ports.side),
        ]  # fmt: skip
        # nothing of the user's, keys least of all, is for the packages of others
        path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environ = {"PATH": path, "HOME": str(folder), "NO_COLOR": "1", "NO_PROXY": "127.0.0.1"}
        return Start(title, command, environ)


def configuration(engines: Sequence[str], ports: Ports, key: str, workers: int) -> dict[str, Any]:
    """Ours with everything on that it is claimed with: a policy's route, keys, metrics, accounting."""
    others = [secrets.token_hex() for _ in range(KEYS - 1)]
    return {
        "listen": {"port": ports.gateway, "workers": workers},
        "admin": {"port": ports.side},
        "models": [{"name": MODEL}],
        "replicas": [{"url": url, "engine": "vllm"} for url in engines],
        "policy": {"file": str(LEAST_LOADED)},
        "keys": [
            {"name": f"key-{number}", "sha256": hashlib.sha256(text.encode()).hexdigest()}
            for number, text in enumerate([key, *others])
        ],
        "accounting": True,
        "log": {"level": "warning"},
    }


DIRECT = Target("direct")
OURS = Target("ours", workers=1)
OURS_2 = Target("ours-2", workers=2)
VLLM_ROUTER = Target(
    "vllm-router", "vllm-router>=0.1.17,<0.2", "vllm_router", ("vllm-router", "--log-level", "warning")
)
SGLANG_ROUTER = Target(
    "sglang-router", "sglang-router>=0.3.2,<0.4", "sglang_router", ("sglang-router", "launch", "--log-level", "warn")
)
PEERS = (VLLM_ROUTER, SGLANG_ROUTER)
TARGETS = (DIRECT, OURS, *PEERS)
