"""The supply of nodes: what the cluster grants, what a spot market takes back, and what it costs.

Requests for capacity are granted node by node after a random start delay. What is lost, and when, comes from `market`;
here is what that does to the nodes that are there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from autopoiesis.cluster import Pool
from autopoiesis.cluster.delays import DELAYS
from autopoiesis.plan.capacity import Capacity, PoolCapacity


@dataclass(frozen=True, slots=True)
class SpotLoss:
    """The provider will take `nodes` nodes of a pool."""

    pool: str
    at_s: float
    nodes: int
    notice_s: float
    recovery_s: float
    """Until the provider offers nodes of this pool again; if the loss says which, a `SpotReturn` says that."""
    which: frozenset[int] | None = None
    """The nodes that are offered no longer; None: whichever are youngest."""

    @property
    def announced_s(self) -> float:
        return max(self.at_s - self.notice_s, 0.0)


@dataclass(frozen=True, slots=True)
class SpotReturn:
    """The provider offers these nodes of a pool again."""

    pool: str
    at_s: float
    which: frozenset[int]

    @property
    def announced_s(self) -> float:
        return self.at_s


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """A node breaks, unannounced."""

    pool: str
    at_s: float
    node: int
    repair_s: float

    @property
    def announced_s(self) -> float:
        return self.at_s


CapacityEvent = SpotLoss | SpotReturn | NodeFailure


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
        self.withheld: set[int] = set()
        """Nodes that the provider does not offer, where it says which."""
        self.broken: dict[int, float] = {}
        """Nodes under repair → since when they are paid for all the same: never, unless they are the pool's minimum."""
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
        taken = {*self.up, *self.coming, *self.withheld, *self.broken}
        free = iter([node for node in range(self.pool.maximum // self.pool.gpus_per_node) if node not in taken])
        while not self.shortages and len(self.up) + len(self.coming) < self.wanted:
            node = next(free, None)
            if node is None:
                break
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
        self._pay(now_s - self.up.pop(node))
        self.condemned.discard(node)

    def condemn(self, loss: SpotLoss) -> tuple[Grant, ...]:
        """Which nodes an announced loss will take: those that it names or the youngest, but never the pool's minimum.

        Nodes that it names are offered no longer, and orders of them are withdrawn.
        """
        left = [node for node in self.up if node not in self.condemned]
        left.sort(key=lambda node: (-self.up[node], -node))
        most = max(len(left) - self._guaranteed, 0)
        if loss.which is not None:
            self.withheld |= loss.which
            for node in loss.which & self.coming.keys():
                del self.coming[node]
            left = [node for node in left if node in loss.which]
        victims = left[: min(most, loss.nodes)]
        self.condemned.update(victims)
        return tuple((self.up[node], node) for node in victims)

    def lose(self, victims: tuple[Grant, ...], now_s: float, *, shortage: bool = True) -> tuple[int, ...]:
        """Take the nodes that are still there; which these were. In a shortage orders on their way wait for the
        recovery."""
        lost = tuple(node for since, node in victims if self.up.get(node) == since)
        for node in lost:
            self.release(node, now_s)
        if lost and shortage:
            self.shortages += 1
            self.coming.clear()
        return lost

    def offer(self, which: Collection[int], now_s: float) -> list[Grant]:
        """The provider has these nodes again; the grants that this sets on their way."""
        self.withheld.difference_update(which)
        return self.order(now_s)

    def fail(self, node: int, now_s: float) -> bool:
        """The node breaks, the pool's minimum or not; whether it was there. What is rented is paid for no longer, what
        is the pool's minimum is."""
        if node not in self.up:
            return False
        self.release(node, now_s)
        self.broken[node] = now_s if len(self.up) < self._guaranteed else math.inf
        return True

    def repair(self, node: int, now_s: float) -> list[Grant]:
        """A machine stands in its place again; the grants that this sets on their way."""
        self._pay(now_s - min(self.broken.pop(node), now_s))
        return self.order(now_s)

    def recover(self, now_s: float) -> list[Grant]:
        """The provider is over one loss; the grants that this sets on their way."""
        self.shortages -= 1
        return self.order(now_s)

    def books(self, now_s: float) -> tuple[float, float]:
        """US dollars and GPU-hours from the beginning until now."""
        held_s = sum(now_s - min(since, now_s) for since in (*self.up.values(), *self.broken.values()))
        held_h = held_s / 3600.0 * self.pool.gpus_per_node
        return self._cost_usd + held_h * self.pool.price_per_hour, self._gpu_hours + held_h

    @property
    def _guaranteed(self) -> int:
        """Nodes that are no market's to take."""
        return self.pool.minimum // self.pool.gpus_per_node

    def _pay(self, seconds: float) -> None:
        """For one node."""
        gpu_hours = seconds / 3600.0 * self.pool.gpus_per_node
        self._cost_usd += gpu_hours * self.pool.price_per_hour
        self._gpu_hours += gpu_hours

    def _start_delay_s(self) -> float:
        pool = self.pool
        if pool.start_delay is not None:
            return DELAYS[pool.start_delay].at(float(self._rng.random()))
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
