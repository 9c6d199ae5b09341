"""What an operator starts: it knows the replicas and the policy, and has one gateway or several do the serving.

With one worker the gateway is in this process; with more, each is a process of its own, started again if it dies. They
are told the same either way.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from pathlib import Path
from typing import Protocol

from autopoiesis.errors import ConfigError, PolicyError
from autopoiesis.serve.board import Board
from autopoiesis.serve.config import Config, ReplicaConfig, identity
from autopoiesis.serve.fleet import SLOTS, kinds_of_gpu, make_replica, token_of
from autopoiesis.serve.health import Health
from autopoiesis.serve.keys import KeyRing
from autopoiesis.serve.log import Log
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
from autopoiesis.serve.monitor import Monitor
from autopoiesis.serve.policies import Policies
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.worker import SEED_BYTES, Worker, bound
from autopoiesis.serve.worker_process import WorkerProcess

RESTART_S = 1.0
"""Before a worker that has died is started again."""
LOOK_S = 0.5


class Link(Protocol):
    """A gateway, wherever it runs."""

    def obey(self, order: Order) -> None: ...

    async def ended(self) -> None: ...


class Service:
    """The replicas, the policy in force, and the gateways that are told of them."""

    def __init__(self, config: Config, log: Log) -> None:
        """Raises ConfigError if the environment lacks a replica's key."""
        self.config = config
        self.log = log
        self.keys = KeyRing(config.keys)
        self.metrics = Metrics([model.name for model in config.models], self.keys.names, SLOTS)
        self.board_file = Board.shared(config.listen.workers, self.metrics.columns)
        self.board = Board(config.listen.workers, self.metrics.columns, 0, self.board_file)
        self.policies = Policies(config.policy.router)
        self.replicas: dict[str, Replica] = {}
        """By id."""
        self._configs: dict[str, ReplicaConfig] = {}
        self._gpus = kinds_of_gpu(config.replicas)
        self.seed = secrets.token_bytes(SEED_BYTES)
        self._links: list[Link] = []
        self._served_as = {model.name: model.served_as or model.name for model in config.models}
        self._monitor = Monitor(config.health, config.telemetry, rng=random.Random(), scraped=self._scraped)
        self._answered: dict[str, float] = {}
        """Requests that each replica had answered when it was last looked at."""
        self.port = 0
        self.stopping = asyncio.Event()
        for replica in config.replicas:
            token_of(replica)

    async def start(self) -> None:
        """Serve. Raises OSError if the port cannot be had, ConfigError and PolicyError for what is configured."""
        host, port = self.config.listen.host, self.config.listen.port
        if self.config.policy.file is not None:
            await self.use_policy(Path(self.config.policy.file).stem, _read(self.config.policy.file))
        if self.config.listen.workers == 1:
            worker = Worker(
                self.config, self.board, self.metrics, self.log, self.heard,
                seed=self.seed, rng=random.Random(f"{self.config.policy.seed}/0"),
                ids=random.Random(secrets.token_bytes(SEED_BYTES)),
            )  # fmt: skip
            self.join(worker)
            self.port = await worker.listen(bound(host, port, shared=False))
        else:
            # Ports can be shared by mistake, too: with another gateway.
            bound(host, port, shared=False).close()
            self.port = port
            for number in range(self.config.listen.workers):
                await WorkerProcess.start(self, number)
        for replica in self.config.replicas:
            self.add(replica)
        self._look()

    async def stop(self) -> None:
        """Take no more requests; those under way are finished within `listen.drain_s`."""
        self.stopping.set()
        self._tell(Stop())
        await asyncio.gather(*(link.ended() for link in self._links))
        await self._monitor.close()
        self.policies.close()

    def stop_at_once(self) -> None:
        """End what is under way."""
        self._tell(Cancel())

    # The fleet.

    def add(self, config: ReplicaConfig) -> Replica:
        """Know a replica from now on. Raises ConfigError if it cannot be."""
        name = identity(config)
        if name in self.replicas:
            raise ConfigError(f"there is a replica {name!r} already; give this one an `id` of its own")
        if config.model is None and len(self.config.models) > 1:
            raise ConfigError(f"replica {name}: there are several models; say which one it serves: `model`")
        if config.model is not None and config.model not in {model.name for model in self.config.models}:
            raise ConfigError(f"replica {name}: no model is named {config.model!r}")
        token = token_of(config)
        taken = {replica.slot for replica in self.replicas.values()}
        slot = next((slot for slot in range(SLOTS) if slot not in taken), None)
        if slot is None:
            raise ConfigError(f"there are {SLOTS} replicas already; remove one first")
        health = Health(self.config.health)
        replica = make_replica(config, slot, health, self.config, self._gpus)
        health.changed = lambda: self._health_changed(replica)
        self.replicas[name], self._configs[name] = replica, config
        self._tell(AddReplica(config, slot))
        self._monitor.watch(replica, self._served_as[replica.model], token)
        return replica

    def remove(self, replica: Replica) -> None:
        """Forget a replica. What it is answering goes on."""
        self._monitor.unwatch(replica)
        del self.replicas[replica.id], self._configs[replica.id]
        self._answered.pop(replica.id, None)
        self._tell(RemoveReplica(replica.id))

    def set_draining(self, replica: Replica, draining: bool) -> None:
        replica.draining = draining
        self._tell(SetDraining(replica.id, draining))
        self.log.info("drain" if draining else "drain cancelled", replica=replica.id)

    # The policy.

    async def use_policy(self, name: str, text: str) -> UsePolicy:
        """Put a policy module in force. Raises PolicyError with everything that is refused."""
        use = await self.policies.prepare(name, text)
        self.policies.put_in_force(use, text)
        self._tell(use)
        self.log.info("policy in force", policy=use.name, identity=use.identity)
        return use

    def roll_back(self) -> UsePolicy:
        """Put the policy before this one in force again. Raises PolicyError if there is none."""
        use = self.policies.roll_back()
        self._tell(use)
        self.log.info("policy rolled back", policy=use.name, identity=use.identity)
        return use

    # What gateways call for.

    def join(self, link: Link) -> None:
        """A gateway has begun: tell it all that there is."""
        if self.policies.current.identity:
            link.obey(self.policies.current)
        for name, replica in self.replicas.items():
            link.obey(AddReplica(self._configs[name], replica.slot))
            link.obey(SetDraining(name, replica.draining))
            link.obey(SetHealth(name, replica.health.admits))
            link.obey(_telemetry(replica))
        if link not in self._links:
            self._links.append(link)

    def heard(self, message: News) -> None:
        if isinstance(message, ReplicaFailed) and (replica := self.replicas.get(message.id)) is not None:
            replica.health.reported(time.monotonic())

    # What happens here.

    def _tell(self, order: Order) -> None:
        for link in self._links:
            link.obey(order)

    def _health_changed(self, replica: Replica) -> None:
        self._tell(SetHealth(replica.id, replica.health.admits))
        state = replica.health.state.value
        (self.log.info if replica.health.admits else self.log.warning)("health", replica=replica.id, state=state)

    def _look(self) -> None:
        """Replicas that answer requests are well, even if they are too busy to answer probes in time."""
        if self.stopping.is_set():
            return
        for replica in self.replicas.values():
            answered = self.board.total(self.metrics.answered + replica.slot)
            if answered != self._answered.get(replica.id, answered):
                replica.health.succeeded(time.monotonic())
            self._answered[replica.id] = answered
        asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _scraped(self, replica: Replica) -> None:
        self._tell(_telemetry(replica))


def _telemetry(replica: Replica) -> SetTelemetry:
    return SetTelemetry(
        replica.id, replica.running, replica.waiting, replica.kv_use, replica.scraped_at, replica.kv_tokens
    )


def _read(path: str) -> str:
    """The text of a policy module. Raises PolicyError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}; give the path of a policy module") from None
    except UnicodeDecodeError:
        raise PolicyError(f"{path}: not UTF-8; save the file as UTF-8") from None
