"""What a decision comes to: whether it changes the deployment, and what it may ask for beside its plan."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autopoiesis.cluster import Cluster
from autopoiesis.errors import PlanError, unknown_name
from autopoiesis.plan import Capacity, Envelope, ServingPlan
from autopoiesis.policy.interface import Move


def same_deployment(one: ServingPlan, other: ServingPlan) -> bool:
    """The same replicas and the same shares, in whatever order. A plan without one fraction per replica, which cannot
    be carried out, is the same as none."""
    whole = all(len(shares.fractions) == len(plan.replicas) for plan in (one, other) for shares in plan.shares)
    return whole and one.sorted() == other.sorted()


def check_move(move: Move) -> None:
    """Raise `PlanError` if a transition cannot be carried out in this way."""
    if not (math.isfinite(move.drain_cap_s) and move.drain_cap_s >= 0):
        raise PlanError(f"decision: field 'move.drain_cap_s' must be a number of seconds ≥ 0, got {move.drain_cap_s}")
    if not 0 <= move.capacity_kept <= 1:
        raise PlanError(f"decision: field 'move.capacity_kept' must lie between 0 and 1, got {move.capacity_kept}")


def bounded_requests(
    cluster: Cluster, envelope: Envelope, requested: Mapping[str, int], asked: Mapping[str, int]
) -> dict[str, int]:
    """GPUs to request of each elastic pool, by name.

    `requested` is what stands now, `asked` what a decision wants; a pool left out of `asked` keeps what stands. Counts
    are rounded up to whole nodes and kept between the pool's minimum and maximum. Where all pools together would
    cross the envelope's cap on GPUs or money, raises are cut, the last pool's first; nothing that stands is cut.

    Raises `PlanError` if `asked` names a pool that the cluster has not.
    """
    for name in asked:
        if name not in cluster.maximum:
            raise PlanError(f"decision: field 'capacity': {unknown_name('pool', name, cluster.maximum)}")
    goal = dict(requested)
    for pool in cluster.pools:
        if pool.elastic and pool.name in asked:
            nodes = -(-asked[pool.name] // pool.gpus_per_node)
            goal[pool.name] = min(max(nodes * pool.gpus_per_node, pool.minimum), pool.maximum)
    for pool in reversed(cluster.pools):
        while goal[pool.name] > requested[pool.name] and _crosses(cluster, envelope, goal):
            goal[pool.name] = max(goal[pool.name] - pool.gpus_per_node, requested[pool.name])
    return {pool.name: goal[pool.name] for pool in cluster.pools if pool.elastic}


def with_requests(capacity: Capacity, requests: Mapping[str, int]) -> Capacity:
    """The capacity that will be there once every request is granted; pools without a request stay as they are."""
    for name, gpus in requests.items():
        capacity = capacity.with_pool(name, gpus)
    return capacity


def gpus_of(capacity: Capacity, pool: str) -> int:
    """GPUs that a pool of the capacity has."""
    return next(entry.gpus for entry in capacity.pools if entry.pool.name == pool)


def _crosses(cluster: Cluster, envelope: Envelope, gpus: Mapping[str, int]) -> bool:
    if envelope.maximum_gpus is not None and sum(gpus.values()) > envelope.maximum_gpus:
        return True
    cost_per_hour = sum(gpus[pool.name] * pool.price_per_hour for pool in cluster.pools)
    return envelope.maximum_cost_per_hour is not None and cost_per_hour > envelope.maximum_cost_per_hour
