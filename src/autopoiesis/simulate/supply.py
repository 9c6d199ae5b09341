"""The supply of nodes: what the cluster grants, what a spot market takes back, and what it costs.

Requests for capacity are granted node by node after a random start delay; spot losses follow a schedule drawn from
the seed before anything is served, so that every policy meets the same losses at the same instants.
"""

from __future__ import annotations

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


def draw_spot_losses(cluster: Cluster, seed: int, duration_s: float) -> tuple[SpotLoss, ...]:
    """Every loss within `duration_s`, in order of time."""
    losses = []
    for position, pool in enumerate(cluster.pools):
        spot = pool.spot
        if spot is None or spot.losses_per_hour <= 0:
            continue
        rng = np.random.default_rng([seed, 0x10557, position])
        at = 0.0
        while True:
            at += float(rng.exponential(3600.0 / spot.losses_per_hour))
            nodes = int(rng.geometric(1.0 / max(spot.nodes_per_loss, 1.0)))
            recovery = float(rng.exponential(spot.recovery_s)) if spot.recovery_s > 0 else 0.0
            if at > duration_s:
                break
            losses.append(SpotLoss(pool.name, at, nodes, spot.notice_s, recovery))
    return tuple(sorted(losses, key=lambda loss: (loss.at_s, loss.pool)))


class PoolSupply:
    """Nodes of one pool: up, on their way, wanted; and the money they have cost."""

    def __init__(self, pool: Pool, gpus: int, seed: int) -> None:
        self.pool = pool
        self.up: dict[int, float] = dict.fromkeys(range(gpus // pool.gpus_per_node), 0.0)
        """Node index → second of its grant."""
        self.coming: dict[int, float] = {}
        """Node index → second at which it will be up."""
        self.wanted = gpus // pool.gpus_per_node
        self.blocked_until_s = 0.0
        self._cost_usd = 0.0
        self._gpu_hours = 0.0
        self._rng = np.random.default_rng([seed, 0x6A47])

    @property
    def gpus(self) -> int:
        return len(self.up) * self.pool.gpus_per_node

    def ask(self, gpus: int, now_s: float) -> list[tuple[float, int]]:
        """Want so many GPUs in all; the grants (second, node) that this sets on their way."""
        pool = self.pool
        self.wanted = min(max(gpus, pool.minimum), pool.maximum) // pool.gpus_per_node
        for node in sorted(self.coming, reverse=True):
            if len(self.up) + len(self.coming) > self.wanted:
                del self.coming[node]
        return self.order(now_s)

    def order(self, now_s: float) -> list[tuple[float, int]]:
        """Order what is wanted and neither up nor on its way."""
        grants = []
        while len(self.up) + len(self.coming) < self.wanted:
            node = next(i for i in range(self.wanted) if i not in self.up and i not in self.coming)
            at = max(now_s, self.blocked_until_s) + self._start_delay_s()
            self.coming[node] = at
            grants.append((at, node))
        return grants

    def grant(self, node: int, at_s: float) -> bool:
        """A node is up, unless it was cancelled or re-ordered meanwhile."""
        if self.coming.get(node) != at_s:
            return False
        del self.coming[node]
        self.up[node] = at_s
        return True

    def surplus(self, busy: set[int]) -> list[int]:
        """Nodes that may be given back now: beyond what is wanted and idle, the highest index first."""
        count = len(self.up) - self.wanted
        idle = [node for node in sorted(self.up, reverse=True) if node not in busy]
        return idle[: max(count, 0)]

    def release(self, node: int, now_s: float) -> None:
        """The node is gone, given back or taken; money stops."""
        held_h = (now_s - self.up.pop(node)) / 3600.0
        self._cost_usd += held_h * self.pool.gpus_per_node * self.pool.price_per_hour
        self._gpu_hours += held_h * self.pool.gpus_per_node

    def victims(self, loss: SpotLoss) -> tuple[int, ...]:
        """Which nodes a loss takes: never the guaranteed ones, the youngest first."""
        guaranteed = self.pool.minimum // self.pool.gpus_per_node
        free = sorted(self.up, key=lambda node: (-self.up[node], -node))[: max(len(self.up) - guaranteed, 0)]
        return tuple(free[: loss.nodes])

    def books(self, now_s: float) -> tuple[float, float]:
        """US dollars and GPU-hours from the beginning until now."""
        held_h = sum(now_s - since for since in self.up.values()) / 3600.0 * self.pool.gpus_per_node
        return self._cost_usd + held_h * self.pool.price_per_hour, self._gpu_hours + held_h

    def _start_delay_s(self) -> float:
        pool = self.pool
        if pool.start_s_p50 <= 0:
            return 0.0
        # the 90th percentile of a log-normal lies 1.2816 deviations above its median
        deviation = np.log(pool.start_s_p90 / pool.start_s_p50) / 1.2816
        return float(pool.start_s_p50 * np.exp(deviation * self._rng.standard_normal()))


class Supply:
    """All pools."""

    def __init__(self, cluster: Cluster, capacity: Capacity, seed: int) -> None:
        self.pools = {
            entry.pool.name: PoolSupply(entry.pool, entry.gpus, seed + position)
            for position, entry in enumerate(capacity.pools)
        }
        self.cluster = cluster

    def capacity(self) -> Capacity:
        """What is up now."""
        return Capacity(tuple(PoolCapacity(s.pool, s.gpus, tuple(sorted(s.up))) for s in self.pools.values()))

    def books(self, now_s: float) -> tuple[float, float]:
        """US dollars and GPU-hours of all pools."""
        totals = [supply.books(now_s) for supply in self.pools.values()]
        return sum(cost for cost, _ in totals), sum(hours for _, hours in totals)
