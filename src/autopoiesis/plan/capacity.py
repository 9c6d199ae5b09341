"""Capacity: which nodes of a cluster are there at one instant.

A pool says what may be had; a capacity says what is had. Most of the time a pool's nodes are simply its first ones,
but spot losses take particular nodes, so a pool's capacity can also name the nodes that are up.
"""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.errors import ScenarioError, unknown_name


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: GPUs of one kind with fast links between them."""

    id: str
    """Pool and index within it, such as `h100/0`."""
    pool: str
    gpu: str
    gpus: int


@dataclass(frozen=True, slots=True)
class PoolCapacity:
    """What one pool has: `gpus` GPUs, on the nodes with the given indices or, by default, on its first ones."""

    pool: Pool
    gpus: int
    nodes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        per_node = self.pool.gpus_per_node
        if self.gpus % per_node or not 0 <= self.gpus <= self.pool.maximum:
            raise ScenarioError(
                f"pool {self.pool.name!r}: capacity must be a multiple of {per_node} GPUs between 0 and "
                f"{self.pool.maximum}, got {self.gpus}"
            )
        if self.nodes is not None and (len(set(self.nodes)) * per_node != self.gpus or min(self.nodes, default=0) < 0):
            raise ScenarioError(
                f"pool {self.pool.name!r}: field 'nodes' must name {self.gpus // per_node} different nodes "
                f"by indices from 0, got {list(self.nodes)}"
            )

    @property
    def node_indices(self) -> tuple[int, ...]:
        """Indices of the nodes that are up."""
        return tuple(range(self.gpus // self.pool.gpus_per_node)) if self.nodes is None else self.nodes


@dataclass(frozen=True, slots=True)
class Capacity:
    """What every pool of a cluster has, in the cluster's order."""

    pools: tuple[PoolCapacity, ...]

    @classmethod
    def at_minimum(cls, cluster: Cluster) -> Capacity:
        return cls(tuple(PoolCapacity(pool, pool.minimum) for pool in cluster.pools))

    @classmethod
    def at_maximum(cls, cluster: Cluster) -> Capacity:
        return cls(tuple(PoolCapacity(pool, pool.maximum) for pool in cluster.pools))

    def pool(self, name: str) -> PoolCapacity:
        for pool in self.pools:
            if pool.pool.name == name:
                return pool
        raise ScenarioError(unknown_name("pool", name, (pool.pool.name for pool in self.pools)))

    def with_pool(self, name: str, gpus: int, nodes: tuple[int, ...] | None = None) -> Capacity:
        """The same with `gpus` GPUs in one pool.

        Without `nodes`, a pool that shrinks keeps its first nodes and one that grows gets the lowest indices that
        are down, so that nodes that stay keep their names.
        """
        old = self.pool(name)
        if nodes is None and old.nodes is not None:
            count = gpus // old.pool.gpus_per_node
            up = sorted(old.nodes)[:count]
            down = (index for index in range(count + len(up)) if index not in old.nodes)
            nodes = tuple(sorted(up + [next(down) for _ in range(count - len(up))]))
        new = PoolCapacity(old.pool, gpus, nodes)
        return Capacity(tuple(new if pool is old else pool for pool in self.pools))

    def gpus_of(self, gpu_kind: str) -> int:
        return sum(pool.gpus for pool in self.pools if pool.pool.gpu == gpu_kind)

    def nodes(self) -> tuple[Node, ...]:
        """Every node that is up, pool by pool."""
        return tuple(
            Node(f"{had.pool.name}/{index}", had.pool.name, had.pool.gpu, had.pool.gpus_per_node)
            for had in self.pools
            for index in had.node_indices
        )
