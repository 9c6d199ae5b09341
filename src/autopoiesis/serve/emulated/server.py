"""An emulated engine as a process: from its configuration to an address, and to its end by a signal."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, StepTimes
from autopoiesis.errors import ScenarioError
from autopoiesis.serve.emulated.batch import Batch
from autopoiesis.serve.emulated.calls import Reader
from autopoiesis.serve.emulated.connection import Connection
from autopoiesis.serve.emulated.engine import Engine
from autopoiesis.serve.emulated.metrics import Metrics
from autopoiesis.serve.emulated.routes import Routes
from autopoiesis.serve.emulated.step_duration import StepDuration
from autopoiesis.simulate.layout import BLOCK_TOKENS

FLUSH_S = 1.0
"""How long clients have at the end to read what is still on its way."""
BACKLOG = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What is emulated. Seconds are those of the engine that is emulated, `speed` times as long as a client sees, but
    for `shutdown_timeout_s` and `keep_alive_s`."""

    model: str
    gpu: str
    served: tuple[str, ...] = ()
    """Names that clients may use; the model's own by default."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    kv_dtype_bytes: int = 2
    batched_tokens: int = 8192
    max_sequences: int = 256
    context: int | None = None
    """Most tokens of prompt and answer; by default as many as the model and the KV cache allow."""
    kv_blocks: int | None = None
    """In place of what the cost model says that memory holds."""
    caching: bool = True
    priorities: bool = False
    slow: float = 1.0
    """Factor on step times."""
    noise: float = 0.0
    """Their relative deviation."""
    speed: float = 1.0
    seed: int = 0
    load_s: float | None = None
    """Process start and weights; the cost model's by default."""
    warm_s: float | None = None
    """Graph capture and warm-up, likewise."""
    mean_answer: float = 256.0
    """Tokens of an answer that nobody limits."""
    host: str = "127.0.0.1"
    port: int = 8000
    shutdown_timeout_s: float = 0.0
    keep_alive_s: float = 5.0

    def start_s(self, cost: CostModel) -> float:
        """From the start of the process until it serves."""
        start = cost.start
        fixed_s = start.process_s + start.capture_s + start.warm_up_s
        load_s = cost.start_s(self.model) - fixed_s + start.process_s if self.load_s is None else self.load_s
        return load_s + (start.capture_s + start.warm_up_s if self.warm_s is None else self.warm_s)


def step_times(config: EngineConfig, cost: CostModel) -> StepTimes:
    """What the cost model says of the engine. Raises ScenarioError if the weights do not fit."""
    shape = config.model, config.gpu, config.tensor_parallel, config.pipeline_parallel
    heads = cost.hardware.models[config.model].heads
    if heads % config.tensor_parallel:
        raise ScenarioError(f"--tensor-parallel {config.tensor_parallel}: must divide the model's {heads} heads")
    times = cost.steps(*shape, config.kv_dtype_bytes)
    if times.kv_tokens < BLOCK_TOKENS:
        raise ScenarioError(
            f"{config.model} on {config.gpu} with --tensor-parallel {config.tensor_parallel} --pipeline-parallel "
            f"{config.pipeline_parallel}: the weights do not fit; use more or larger GPUs"
        )
    return times


def run(config: EngineConfig, listening: Callable[[str, float], None]) -> None:
    """Serve until SIGTERM or SIGINT; `listening` is told the address and the seconds until it serves.

    Raises ScenarioError for a configuration that cannot be, and for an address that cannot be had.
    """
    cost = CostModel(Hardware(catalog.gpus(), catalog.models()), slow={config.gpu: config.slow})
    times = step_times(config, cost)
    kv_blocks = times.kv_tokens // BLOCK_TOKENS if config.kv_blocks is None else config.kv_blocks
    most = min(cost.hardware.models[config.model].context, kv_blocks * BLOCK_TOKENS)
    if config.context is not None and config.context > most:
        raise ScenarioError(f"--max-model-len {config.context}: model and KV cache allow {most} tokens at most")
    batch = Batch(
        StepDuration.of(times),
        kv_blocks,
        batched_tokens=config.batched_tokens,
        max_sequences=config.max_sequences,
        caching=config.caching,
        noise=config.noise,
        rng=random.Random(config.seed),
    )
    names = config.served or (config.model,)
    reader = Reader(names, config.context or most, config.seed, config.mean_answer, config.priorities)
    wake_s = times.weight_bytes / cost.start.host_bandwidth / config.speed

    async def live() -> None:
        loop = asyncio.get_running_loop()
        metrics = Metrics(names[0], batch, config.speed)
        engine = Engine(batch, metrics, clock=time.monotonic, loop=loop, speed=config.speed)
        routes = Routes(engine, reader, random.Random(), time.time, wake_s)
        await _serve(config, engine, routes, config.start_s(cost) / config.speed, listening)

    try:
        import uvloop
    except ImportError:
        asyncio.run(live())
    else:
        uvloop.run(live())


async def _serve(
    config: EngineConfig, engine: Engine, routes: Routes, start_s: float, listening: Callable[[str, float], None]
) -> None:
    loop = asyncio.get_running_loop()
    connections: set[Connection] = set()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        server = await loop.create_server(
            lambda: Connection(routes.serve, connections, config.keep_alive_s),
            config.host,
            config.port,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise ScenarioError(
            f"--host {config.host} --port {config.port}: cannot listen there: {error.strerror}; name another one, or "
            "--port 0 for a free one"
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", start_s)
    loop.call_later(start_s, engine.serve)
    await stopped.wait()
    await engine.drain(config.shutdown_timeout_s)
    server.close()
    for connection in list(connections):
        connection.close_idle()
    deadline_s = loop.time() + FLUSH_S
    while connections and loop.time() < deadline_s:
        await asyncio.sleep(0.01)
