"""A monitor watches llama.cpp's real server, which is killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tiny_servers import until

from autopoiesis.bench.engine_process import Engine, running_engine
from autopoiesis.errors import ReplicaError
from autopoiesis.serve.config import HealthConfig, TelemetryConfig
from autopoiesis.serve.health import Health, State
from autopoiesis.serve.http_request import Endpoint, post
from autopoiesis.serve.monitor import Monitor
from autopoiesis.serve.replica import Replica

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith(("linux", "darwin")), reason="xllamacpp has no wheel for this platform"
)

ENGINES = Path(__file__).parents[1] / "engines"
HEALTH = HealthConfig(interval_s=0.1, timeout_s=2.0, failures=2, eject_s=0.2, eject_max_s=0.4)
TELEMETRY = TelemetryConfig(interval_s=0.1, timeout_s=2.0)
SLOTS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "random.gguf"
    subprocess.run([sys.executable, ENGINES / "random_gguf.py", file], check=True, timeout=60)
    return file


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, model: Path, port: int = 0) -> tuple[Engine, int]:
    """The engine and its port; it ends with the stack."""
    command = [sys.executable, str(ENGINES / "llamacpp_server.py"), str(model), f"--slots={SLOTS}"]
    engine = stack.enter_context(running_engine([*command, "--batched-tokens=256", f"--port={port}"], start_s=60))
    return engine, urlsplit(engine.address).port or 0


async def long_completion(port: int) -> None:
    body = {"prompt": "a", "max_tokens": 1900, "ignore_eos": True}
    endpoint = Endpoint("127.0.0.1", port)
    await post(endpoint, "/v1/completions", json.dumps(body).encode(), timeout_s=300.0, bytes_max=1 << 20)


def test_an_engine_is_admitted_measured_left_out_when_killed_and_admitted_again(model: Path, stack: ExitStack) -> None:
    async def scenario() -> None:
        engine, port = await asyncio.to_thread(start, stack, model)
        replica = Replica("r", f"http://127.0.0.1:{port}", "127.0.0.1", port, "chat", health=Health(HEALTH))
        monitor = Monitor(HEALTH, TELEMETRY, rng=random.Random(0))
        monitor.watch(replica, "random")
        try:
            await until(lambda: replica.health.admits, 60)
            await until(lambda: replica.engine == "llamacpp")

            request = asyncio.create_task(long_completion(port))
            await until(lambda: replica.running == 1 and replica.kv_use > 0 and replica.prefix_queries > 0)
            assert (replica.waiting, replica.kv_tokens) == (0, SLOTS * 2048)

            os.killpg(engine.group, signal.SIGKILL)
            with pytest.raises(ReplicaError):
                await request
            await until(lambda: not replica.health.admits)
            read_at = replica.scraped_at
            await until(lambda: replica.health.state is State.PROBING)
            assert replica.scraped_at == read_at

            await asyncio.to_thread(start, stack, model, port)
            await until(lambda: replica.health.state is State.HEALTHY, 60)
            await until(lambda: replica.scraped_at > read_at and replica.running == 0)
        finally:
            await monitor.close()

    asyncio.run(scenario())
