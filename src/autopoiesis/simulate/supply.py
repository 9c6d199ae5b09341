"""The supply of nodes: what the cluster grants, what a spot market takes back, and what it costs.

Requests for capacity are granted node by node after a random start delay. Spot losses are drawn from the world's seed
alone, one after the other and without end, so that every policy meets the same losses at the same instants and
nothing about a loss depends on how long the load goes on.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.plan.capacity import Capacity, PoolCapacity


@dataclass(frozen=True, slots=True)
class SpotLoss:
    """The provider will take `nodes` nodes of a pool."""

    pool: str
    at_s: float
    nodes: int
    notice_s: float
    recovery_s: float
    """Until the provider offers nodes of this pool again."""

    @property
    def announced_s(self) -> float:
        return max(self.at_s - self.notice_s, 0.0)


def spot_losses(cluster: Cluster, seed: int) -> Iterator[SpotLoss]:
    """The losses of every spot pool in the order in which they are announced; without end if there is a spot pool."""
    return heapq.merge(
        *(_pool_losses(pool, seed, position) for position, pool in enumerate(cluster.pools)),
        key=lambda loss: (loss.announced_s, loss.pool),
    )


def _pool_losses(pool: Pool, seed: int, position: int) -> Iterator[SpotLoss]:
    spot = pool.spot
    if spot is None or spot.losses_per_hour <= 0:
        return
    rng = np.random.default_rng([seed, 0x10557, position])
    at = 0.0
    while True:
        at += float(rng.exponential(3600.0 / spot.losses_per_hour))
        nodes = int(rng.geometric(1.0 / max(spot.nodes_per_loss, 1.0)))
        recovery = float(rng.exponential(spot.recovery_s)) if spot.recovery_s > 0 else 0.0
        yield SpotLoss(pool.name, at, nodes, spot.notice_s, recovery)


Grant = tuple[float, int]
"""When, and which node. It also identifies a node: an index that is lost and granted again is another node."""


class PoolSupply:
    """Nodes of one pool: up, on their way, wanted, about to be lost; and the money they have cost."""

    def __init__(self, pool: Pool, nodes: tuple[int, ...], rng: np.random.Generator) -> None:
        self.pool = pool
        self.up: dict[int, float] = dict.fromkeys(nodes, 0.0)
        """Node index → second of its grant."""
        self.coming: dict[int, float] = {}
        """Node index → second at which it will be up."""
        self.wanted = len(nodes)
        self.condemned: set[int] = set()
        """Nodes that are up and whose loss has been announced."""
        self.shortages = 0
        """Losses from which the provider has not recovered: while there is one, it offers nothing."""
        self._cost_usd = 0.0
        self._gpu_hours = 0.0
        self._rng = rng

    @property
    def gpus(self) -> int:
        return len(self.up) * self.pool.gpus_per_node

    def node_id(self, node: int) -> str:
        """As `Capacity.nodes` names it."""
        return f"{self.pool.name}/{node}"

    def ask(self, gpus: int, now_s: float) -> list[Grant]:
        """Want so many GPUs in all; the grants that this sets on their way."""
        pool = self.pool
        self.wanted = min(max(gpus, pool.minimum), pool.maximum) // pool.gpus_per_node
        for node in sorted(self.coming, reverse=True):
            if len(self.up) + len(self.coming) > self.wanted:
                del self.coming[node]
        return self.order(now_s)

    def order(self, now_s: float) -> list[Grant]:
        """Order what is wanted and neither up nor on its way, as far as the provider has it."""
        grants: list[Grant] = []
        while not self.shortages and len(self.up) + len(self.coming) < self.wanted:
            # fewer indices are taken than there are below `wanted`
            node = next(i for i in range(self.wanted) if i not in self.up and i not in self.coming)
            at_s = now_s + self._start_delay_s()
            self.coming[node] = at_s
            grants.append((at_s, node))
        return grants

    def grant(self, grant: Grant) -> bool:
        """The node is up, unless it was cancelled or ordered anew meanwhile."""
        at_s, node = grant
        if self.coming.get(node) != at_s:
            return False
        del self.coming[node]
        self.up[node] = at_s
        return True

    def surplus(self, busy: Collection[str]) -> list[int]:
        """Nodes that may be given back now: idle ones beyond what is wanted, those about to be lost first."""
        idle = [node for node in self.up if self.node_id(node) not in busy]
        idle.sort(key=lambda node: (node not in self.condemned, -node))
        return idle[: max(len(self.up) - self.wanted, 0)]

    def release(self, node: int, now_s: float) -> None:
        """The node is gone, given back or taken; money stops."""
        held_h = (now_s - self.up.pop(node)) / 3600.0
        self.condemned.discard(node)
        self._cost_usd += held_h * self.pool.gpus_per_node * self.pool.price_per_hour
        self._gpu_hours += held_h * self.pool.gpus_per_node

    def condemn(self, loss: SpotLoss) -> tuple[Grant, ...]:
        """Which nodes an announced loss will take: the youngest ones, but never the pool's minimum."""
        guaranteed = self.pool.minimum // self.pool.gpus_per_node
        left = [node for node in self.up if node not in self.condemned]
        left.sort(key=lambda node: (-self.up[node], -node))
        victims = left[: min(max(len(left) - guaranteed, 0), loss.nodes)]
        self.condemned.update(victims)
        return tuple((self.up[node], node) for node in victims)

    def lose(self, victims: tuple[Grant, ...], now_s: float) -> tuple[int, ...]:
        """Take the nodes that are still there; which these were. Orders on their way wait for the recovery."""
        lost = tuple(node for since, node in victims if self.up.get(node) == since)
        for node in lost:
            self.release(node, now_s)
        if lost:
            self.shortages += 1
            self.coming.clear()
        return lost

    def recover(self, now_s: float) -> list[Grant]:
        """The provider is over one loss; the grants that this sets on their way."""
        self.shortages -= 1
        return self.order(now_s)

    def books(self, now_s: float) -> tuple[float, float]:
        """US dollars and GPU-hours from the beginning until now."""
        held_h = sum(now_s - since for since in self.up.values()) / 3600.0 * self.pool.gpus_per_node
        return self._cost_usd + held_h * self.pool.price_per_hour, self._gpu_hours + held_h

    def _start_delay_s(self) -> float:
        pool = self.pool
        if pool.start_s_p50 <= 0:
            return 0.0
        # the 90th percentile of a log-normal lies 1.2816 deviations above its median
        deviation = math.log(pool.start_s_p90 / pool.start_s_p50) / 1.2816
        return float(pool.start_s_p50 * np.exp(deviation * self._rng.standard_normal()))


class Supply:
    """All pools, each with its own random delays."""

    def __init__(self, capacity: Capacity, seed: int) -> None:
        self.pools = {
            entry.pool.name: PoolSupply(entry.pool, entry.node_indices, np.random.default_rng([seed, 0x6A47, position]))
            for position, entry in enumerate(capacity.pools)
        }

    def capacity(self, *, lasting: bool = False) -> Capacity:
        """What is up now; with `lasting`, without the nodes whose loss has been announced."""
        pools = []
        for supply in self.pools.values():
            nodes = sorted(node for node in supply.up if not (lasting and node in supply.condemned))
            pools.append(PoolCapacity(supply.pool, len(nodes) * supply.pool.gpus_per_node, tuple(nodes)))
        return Capacity(tuple(pools))

    def books(self, now_s: float) -> tuple[float, float]:
        """US dollars and GPU-hours of all pools."""
        totals = [supply.books(now_s) for supply in self.pools.values()]
        return sum(cost for cost, _ in totals), sum(hours for _, hours in totals)
