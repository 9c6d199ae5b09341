"""Watches replicas: probes whether they work and reads what they say of their load, each on its own.

The reasons why a replica is left out, or has no telemetry, are logged when they change; nothing that a replica answers
is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus

from autopoiesis.errors import ReplicaError
from autopoiesis.serve.config import HealthConfig, TelemetryConfig
from autopoiesis.serve.http_request import Endpoint, get
from autopoiesis.serve.probe import check_alive, check_completion, check_model
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.telemetry import PAGE_BYTES_MAX, Telemetry, detect, read

log = logging.getLogger(__name__)

JITTER = 0.1
"""Part of an interval by which it may be longer or shorter, so that replicas are not asked all at once."""


def _nobody(replica: Replica) -> None:
    pass


class Monitor:
    """What keeps `health` and the loads of replicas up to date, in tasks of the running event loop.

    Whoever owns it awaits `close`, or tasks are left behind.
    """

    def __init__(
        self,
        health: HealthConfig,
        telemetry: TelemetryConfig,
        *,
        rng: random.Random,
        scraped: Callable[[Replica], None] = _nobody,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`scraped` is called when a replica's load has been read. `tls` says whom to trust behind `https`; the
        authorities of the system unless given."""
        self._health = health
        self._telemetry = telemetry
        self._rng = rng
        self._scraped = scraped
        self._clock = clock
        self._tls = tls
        self._tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}
        """By the id of the replica."""
        self._ending: set[asyncio.Task[None]] = set()

    def watch(self, replica: Replica, served_as: str, bearer: str | None = None) -> None:
        """Probe and scrape the replica from now on. It must serve a model of the name `served_as`; `bearer` is the key
        that it wants. Nothing happens if it is watched already."""
        if replica.id in self._tasks:
            return
        if replica.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        endpoint = Endpoint(replica.host, replica.port, self._tls if replica.tls else None, bearer)
        loops = [self._probe(replica, endpoint, served_as)]
        if replica.engine != "openai":
            loops.append(self._scrape(replica, endpoint))
        self._tasks[replica.id] = tuple(asyncio.create_task(loop) for loop in loops)

    def unwatch(self, replica: Replica) -> None:
        """Leave the replica alone; nothing is written to it any more."""
        for task in self._tasks.pop(replica.id, ()):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Leave all replicas alone, and return when no task is left."""
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)

    async def _probe(self, replica: Replica, endpoint: Endpoint, served_as: str) -> None:
        wrong: str | None = None
        while True:
            if replica.health.may_probe(self._clock()):
                before, wrong = wrong, await self._what_is_wrong(replica, endpoint, served_as)
                replica.health.probed(self._clock(), ok=wrong is None)
                if wrong is not None and wrong != before:
                    log.warning("replica %s: %s", replica.id, wrong)
                elif wrong is None and before is not None:
                    log.info("replica %s: answers its probes again", replica.id)
            await self._pause(self._health.interval_s)

    async def _what_is_wrong(self, replica: Replica, endpoint: Endpoint, served_as: str) -> str | None:
        """Of one that gets requests it is enough that it answers; any other must show that it can do the work."""
        timeout_s = self._health.timeout_s
        on_trial = not replica.health.admits
        try:
            await check_alive(endpoint, replica.engine, timeout_s)
            if on_trial:
                await check_model(endpoint, served_as, timeout_s)
            if on_trial and self._health.probe_completion:
                await check_completion(endpoint, served_as, timeout_s)
        except ReplicaError as error:
            return str(error)
        return None

    async def _scrape(self, replica: Replica, endpoint: Endpoint) -> None:
        wrong: str | None = None
        while True:
            asked_at = self._clock()
            try:
                load = await self._load(replica, endpoint)
            except ReplicaError as error:
                if replica.health.admits and str(error) != wrong:
                    wrong = str(error)
                    log.warning("replica %s: no telemetry: %s", replica.id, wrong)
            else:
                wrong = None
                _write(load, replica, asked_at)
                self._scraped(replica)
            await self._pause(self._telemetry.interval_s)

    async def _load(self, replica: Replica, endpoint: Endpoint) -> Telemetry:
        timeout_s = self._telemetry.timeout_s
        status, page = await get(endpoint, "/metrics", timeout_s=timeout_s, bytes_max=PAGE_BYTES_MAX)
        if status != HTTPStatus.OK:
            raise ReplicaError(
                f"GET /metrics answers {status}; start it with --enable-metrics (SGLang) or --metrics (llama.cpp), "
                "or set the replica's `engine` to `openai`"
            )
        engine = detect(page) if replica.engine == "auto" else replica.engine
        if engine is None:
            raise ReplicaError("metrics: of no engine that is known; set the replica's `engine` to `openai`")
        replica.engine = engine
        if engine != "llamacpp":
            return read(engine, page)
        status, slots = await get(endpoint, "/slots", timeout_s=timeout_s, bytes_max=PAGE_BYTES_MAX)
        return read(engine, page, slots if status == HTTPStatus.OK else None)

    async def _pause(self, interval_s: float) -> None:
        await asyncio.sleep(interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER))


def _write(load: Telemetry, replica: Replica, asked_at: float) -> None:
    replica.running = load.running
    replica.waiting = load.waiting
    replica.kv_use = load.kv_use
    replica.kv_tokens = load.kv_tokens
    replica.prefix_queries = load.prefix_queries
    replica.prefix_hits = load.prefix_hits
    replica.scraped_at = asked_at
