"""A cluster: pools of nodes, each of one GPU kind, and the changes of capacity that befall them.

A *pool* is what an operator buys as one thing: nodes of one kind at one price, fixed or elastic, on demand or
spot. The number of GPUs a pool has at an instant is its *available* capacity; an elastic pool moves towards
what was *requested*, after a start delay, and a spot pool can lose nodes after a notice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autopoiesis.cluster.delays import DELAYS
from autopoiesis.cluster.failures import Failures
from autopoiesis.cluster.hardware import GPU, Model
from autopoiesis.cluster.spot import Spot
from autopoiesis.cluster.storage import OBJECT_STORE_BANDWIDTH, Storage
from autopoiesis.errors import ScenarioError, unknown_name

LARGEST_POOL = 1_000_000
"""GPUs; beyond it a number is a slip of the pen, and planners would enumerate for ever."""
HIGHEST_PRICE = 1e6
"""US dollars for a GPU and an hour."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one GPU kind bought together. Counts are GPUs unless the name says nodes."""

    name: str
    gpu: str
    gpus_per_node: int
    minimum: int
    """GPUs that are always there."""
    maximum: int
    price_per_hour: float
    """US dollars for one GPU."""
    start_s_p50: float = 0.0
    start_s_p90: float = 0.0
    """Median and 90th percentile of the time from a request to a usable node: of a log-normal, or of the named one."""
    start_delay: str | None = None
    """A measured distribution of that time, one of `DELAYS`; its quantiles are then the two above."""
    spot: Spot | None = None
    """What the provider takes back, and when; None for nodes that stay."""
    failures: Failures | None = None
    """How nodes break; None for nodes that do not."""
    storage: Storage = field(default_factory=Storage)
    """Where its nodes read weights from."""

    def __post_init__(self) -> None:
        def bad(field: str, why: str) -> ScenarioError:
            return ScenarioError(f"pool {self.name!r}: field {field!r} {why}")

        if self.gpus_per_node < 1:
            raise bad("gpus_per_node", "must be at least 1")
        if not 0 <= self.minimum <= self.maximum:
            raise bad("minimum", f"must lie between 0 and maximum ({self.maximum}), got {self.minimum}")
        for name in ("minimum", "maximum"):
            if getattr(self, name) % self.gpus_per_node:
                raise bad(name, f"must be a multiple of gpus_per_node ({self.gpus_per_node})")
        if not 0 < self.maximum <= LARGEST_POOL:
            raise bad("maximum", f"must be at least one node and at most {LARGEST_POOL} GPUs")
        if not 0 <= self.price_per_hour <= HIGHEST_PRICE:
            raise bad("price_per_hour", f"must be US dollars, at least 0 and at most {HIGHEST_PRICE:g}")
        if not 0 <= self.start_s_p50 <= self.start_s_p90 < math.inf:
            raise bad("start_s_p90", "must be finite and at least start_s_p50, and neither may be negative")
        if self.start_delay is not None:
            if self.start_delay not in DELAYS:
                raise bad("start_delay", f"{unknown_name('distribution', self.start_delay, DELAYS)}")
            named = DELAYS[self.start_delay]
            if (self.start_s_p50, self.start_s_p90) != (named.at(0.5), named.at(0.9)):
                raise bad("start_delay", "has quantiles of its own; leave out start_s_p50 and start_s_p90")

    @property
    def elastic(self) -> bool:
        return self.minimum < self.maximum


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pools under one roof, with the data sheets of their GPUs."""

    name: str
    pools: tuple[Pool, ...]
    gpus: dict[str, GPU] = field(default_factory=dict)
    object_store_bandwidth: float = OBJECT_STORE_BANDWIDTH
    """Bytes/s that all nodes together read from the object store that holds the weights."""

    def __post_init__(self) -> None:
        if not 0 < self.object_store_bandwidth < math.inf:
            raise ScenarioError("field 'object_store_bandwidth' must be a positive, finite number of bytes/s")
        if not self.pools:
            raise ScenarioError(f"cluster {self.name!r}: field 'pools' is empty; a cluster needs at least one pool")
        names = [pool.name for pool in self.pools]
        if len(set(names)) != len(names):
            raise ScenarioError(f"cluster {self.name!r}: two pools share one name; give each its own")

    def pool(self, name: str) -> Pool:
        return next(pool for pool in self.pools if pool.name == name)

    @property
    def maximum(self) -> dict[str, int]:
        """GPUs of each pool at its maximum."""
        return {pool.name: pool.maximum for pool in self.pools}

    @property
    def elastic(self) -> bool:
        return any(pool.elastic for pool in self.pools)


@dataclass(frozen=True, slots=True)
class Hardware:
    """The data sheets a cost model rests on: GPUs and models by name. Serialisable, so a policy host can have it."""

    gpus: dict[str, GPU]
    models: dict[str, Model]
