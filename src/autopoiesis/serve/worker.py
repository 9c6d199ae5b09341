"""A gateway at work: it listens on the port, and does what it is told of replicas and policies.

It tells when a replica fails. With several workers each is a process of its own (`gateway_process`); with one, it is
part of the process that the operator started.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from autopoiesis.policy.native import CompiledPriority, CompiledRoute, page_linker_out
from autopoiesis.serve.balancers import balancer
from autopoiesis.serve.board import Board
from autopoiesis.serve.client import LINGER_S, Client
from autopoiesis.serve.config import Config, ReplicaConfig
from autopoiesis.serve.fleet import kinds_of_gpu, make_replica, token_of
from autopoiesis.serve.gateway import CHECK_S, OFFER_S, Gateway
from autopoiesis.serve.health import Health, State, may_eject
from autopoiesis.serve.keys import KeyRing
from autopoiesis.serve.log import Log
from autopoiesis.serve.memory import return_large_blocks
from autopoiesis.serve.messages import (
    AddReplica,
    Cancel,
    News,
    Order,
    RemoveReplica,
    ReplicaFailed,
    SetDraining,
    SetHealth,
    SetTelemetry,
    Stop,
    UsePolicy,
)
from autopoiesis.serve.metrics import Metrics
from autopoiesis.serve.policy import ActivePolicy
from autopoiesis.serve.policy_route import PolicyPriority, PolicyRoute
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.served import Served
from autopoiesis.serve.waiting import Waiting

SEED_BYTES = 16
KEPT = 16
"""Policies that are kept loaded."""
FUNCTIONS = ("route", "priority")


class Worker:
    """One gateway, the port it listens on, and the clocks by which it looks after what it has."""

    def __init__(
        self,
        config: Config,
        board: Board,
        metrics: Metrics,
        log: Log,
        report: Callable[[News], None],
        *,
        seed: bytes,
        rng: random.Random,
        ids: random.Random,
    ) -> None:
        """`rng` gives policies and balancers their draws, `ids` the names of requests and spans."""
        self._config = config
        self._board = board
        self._metrics = metrics
        self._log = log
        self._report = report
        self._rng = rng
        self._gpus = kinds_of_gpu(config.replicas)
        self._server: asyncio.Server | None = None
        self._ended = asyncio.Event()
        self._loaded: dict[str, ActivePolicy] = {}
        """Policies by identity, the one used last at the end."""
        served = [Served(index, model, Waiting(config.queue.hold_s)) for index, model in enumerate(config.models)]
        self.gateway = Gateway(
            config, asyncio.get_running_loop(), board, metrics, served, KeyRing(config.keys), log,
            clock=time.monotonic, seed=seed, ids=ids,
        )  # fmt: skip
        self.gateway.policy = self._active(UsePolicy(config.policy.router, "", None, None))

    async def listen(self, file: socket.socket) -> int:
        """Begin to serve on a bound socket; the port. Raises OSError or ssl.SSLError."""
        listen = self._config.listen
        tls = None
        if listen.tls is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(listen.tls.certificate, listen.tls.key)
        loop = self.gateway.loop
        self._server = await loop.create_server(
            lambda: Client(self.gateway), sock=file, backlog=listen.backlog, ssl=tls,
            ssl_handshake_timeout=self._config.limits.header_timeout_s if tls is not None else None,
        )  # fmt: skip
        self._every(CHECK_S, self.gateway.check)
        self._every(OFFER_S, self.gateway.offer_all)
        loop.set_exception_handler(self._defect)
        # What is there now stays; to look through it again and again would hold requests up.
        gc.collect()
        gc.freeze()
        port: int = file.getsockname()[1]
        return port

    def obey(self, order: Order) -> None:
        """Do what the process that was started by the operator says."""
        gateway = self.gateway
        match order:
            case AddReplica(config, slot):
                self._add(config, slot)
            case RemoveReplica(id):
                gateway.remove(gateway.replicas[id])
            case SetDraining(id, draining):
                replica = gateway.replicas[id]
                replica.draining = draining
                gateway.changed(replica)
            case SetHealth(id, healthy):
                gateway.replicas[id].health.adopt(gateway.now(), healthy)
            case SetTelemetry(id, running, waiting, kv_use, scraped_at, kv_tokens):
                replica = gateway.replicas[id]
                replica.running, replica.waiting, replica.kv_use = running, waiting, kv_use
                replica.scraped_at = scraped_at
                if kv_tokens is not None:
                    gateway.prefixes.resize(replica.slot, int(kv_tokens))
            case UsePolicy():
                gateway.policy = self._active(order)
                self._board.mine[self._metrics.swaps] += 1.0
                gateway.offer_all()
            case Cancel():
                gateway.cancel()
            case Stop():
                gateway.loop.create_task(self._stop())

    async def ended(self) -> None:
        """Wait until it has been stopped and nothing is under way."""
        await self._ended.wait()

    def _add(self, config: ReplicaConfig, slot: int) -> None:
        share = self._config.health.max_ejected

        def may() -> bool:
            return may_eject([other.health for other in self.gateway.served_by(replica).replicas], share)

        health = Health(self._config.health, may_eject=may)
        replica = make_replica(config, slot, health, self._config, self._gpus)
        self.gateway.add(replica, token_of(config))
        health.changed = lambda: self._health_changed(replica)

    def _health_changed(self, replica: Replica) -> None:
        self.gateway.changed(replica)
        if replica.health.state is State.EJECTED:
            self._report(ReplicaFailed(replica.id))

    def _active(self, order: UsePolicy) -> ActivePolicy:
        """The policy as an object of this process; one that was in force lately is loaded already."""
        active = self._loaded.pop(order.identity, None)
        if active is None:
            active = ActivePolicy(
                order.name,
                order.identity,
                balancer(self._config.policy.router, self._rng),
                None if order.route is None else PolicyRoute(CompiledRoute(order.route), order.reads),
                None if order.priority is None else PolicyPriority(CompiledPriority(order.priority)),
                self._rng,
                self._fault,
            )
            page_linker_out()
        self._loaded[order.identity] = active
        if len(self._loaded) > KEPT:
            del self._loaded[next(iter(self._loaded))]
        return active

    def _defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something has gone wrong that should not: say where, and nothing of what was being served."""
        error = context.get("exception")
        frames = traceback.extract_tb(error.__traceback__) if isinstance(error, BaseException) else []
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
        self._log.error("defect", kind=type(error).__name__, where=where)

    def _fault(self, function: str) -> None:
        self._board.mine[self._metrics.faults + FUNCTIONS.index(function)] += 1.0

    def _every(self, seconds: float, look: Callable[[], None]) -> None:
        def again() -> None:
            self.gateway.loop.call_later(seconds, again)
            look()

        self.gateway.loop.call_later(seconds, again)

    async def _stop(self) -> None:
        """Listen no longer, let what is under way go on for a while, and end."""
        gateway = self.gateway
        if gateway.stopping:
            return
        if self._server is not None:
            self._server.close()
        gateway.stop()
        deadline = gateway.now() + self._config.listen.drain_s
        while gateway.exchanges and gateway.now() < deadline:
            await asyncio.sleep(0.02)
        gateway.cancel()
        # Clients read what was written last, and close.
        deadline = gateway.now() + LINGER_S
        while gateway.clients and gateway.now() < deadline:
            await asyncio.sleep(0.02)
        self._ended.set()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an event loop: uvloop's where there is one."""
    return_large_blocks()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket on a port that other gateway processes may be bound to, too, if it is `shared`. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    file = socket.socket(family, socket.SOCK_STREAM)
    try:
        file.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            file.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        file.bind((host, port))
    except OSError:
        file.close()
        raise
    return file
