"""What befalls the nodes of a cluster: spot losses and returns, and failures, drawn from the world's seed alone.

They come one after the other and without end, so that every policy meets the same at the same instants, and nothing
about a loss depends on how long the load goes on. A market that is followed (`FollowedSpot`) says of every node of the
pool when it is offered: nodes that a policy holds go with what is withdrawn, whether it holds many or few.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from autopoiesis.cluster import Cluster, Pool, SpotLosses
from autopoiesis.cluster.spot import FollowedSpot
from autopoiesis.simulate.supply import CapacityEvent, NodeFailure, SpotLoss, SpotReturn


def capacity_events(cluster: Cluster, seed: int) -> Iterator[CapacityEvent]:
    """Of every pool, in the order in which they are announced; without end if anything can happen at all."""
    return heapq.merge(
        *(_market(pool, np.random.default_rng([seed, 0x10557, place])) for place, pool in enumerate(cluster.pools)),
        *(_failures(pool, np.random.default_rng([seed, 0xFA11, place])) for place, pool in enumerate(cluster.pools)),
        key=lambda event: (event.announced_s, event.pool),
    )


def _market(pool: Pool, rng: np.random.Generator) -> Iterator[CapacityEvent]:
    match pool.spot:
        case SpotLosses() as spot:
            return _losses(pool, spot, rng)
        case FollowedSpot() as spot:
            return _followed(pool, spot, rng)
    return iter(())


def _losses(pool: Pool, spot: SpotLosses, rng: np.random.Generator) -> Iterator[SpotLoss]:
    if spot.losses_per_hour <= 0:
        return
    at = 0.0
    while True:
        at += float(rng.exponential(3600.0 / spot.losses_per_hour))
        nodes = int(rng.geometric(1.0 / max(spot.nodes_per_loss, 1.0)))
        recovery = float(rng.exponential(spot.recovery_s)) if spot.recovery_s > 0 else 0.0
        yield SpotLoss(pool.name, at, nodes, spot.notice_s, recovery)


def _followed(pool: Pool, spot: FollowedSpot, rng: np.random.Generator) -> Iterator[SpotLoss | SpotReturn]:
    """Which nodes go and which come back is drawn. What is missing at the beginning is announced then and lost a notice
    later; a node that would come back for no longer than the notice does not come back."""
    nodes = pool.maximum // pool.gpus_per_node
    offered = set(range(nodes))
    returns: dict[int, float] = {}
    """Of nodes that came back, when they last did."""
    waiting: list[SpotLoss | SpotReturn] = []
    for at_s, share in spot.levels(rng):
        # nothing that is still to come is announced earlier
        ripe = [event for event in waiting if event.announced_s <= at_s - spot.notice_s]
        waiting = [event for event in waiting if event.announced_s > at_s - spot.notice_s]
        yield from ripe
        excess = len(offered) - math.floor(share * nodes + 0.5)
        gone = _some_of(offered, excess, rng)
        back = _some_of(set(range(nodes)) - offered, -excess, rng)
        offered = (offered - gone) | back
        brief = {node for node in gone if at_s - returns.get(node, -math.inf) <= spot.notice_s}
        if brief:
            waiting = [
                replace(event, which=event.which - brief) if isinstance(event, SpotReturn) else event
                for event in waiting
            ]
        returns.update(dict.fromkeys(back, at_s))
        if gone - brief:
            taken = gone - brief
            waiting.append(SpotLoss(pool.name, max(at_s, spot.notice_s), len(taken), spot.notice_s, 0.0, taken))
        else:
            # an event for every level, or a market that never changes would keep whoever asks for the next one for ever
            waiting.append(SpotReturn(pool.name, at_s, back))
        waiting.sort(key=lambda event: event.announced_s)


def _some_of(nodes: set[int], count: int, rng: np.random.Generator) -> frozenset[int]:
    return frozenset(rng.permutation(sorted(nodes))[: max(count, 0)].tolist())


def _failures(pool: Pool, rng: np.random.Generator) -> Iterator[NodeFailure]:
    """Of every place that a node can have, taken or not."""
    failures = pool.failures
    if failures is None:
        return
    mean_s = failures.gpu_mtbf_h * 3600.0 / pool.maximum
    at_s = 0.0
    while True:
        at_s += float(rng.exponential(mean_s))
        node = int(rng.integers(pool.maximum // pool.gpus_per_node))
        yield NodeFailure(pool.name, at_s, node, float(rng.exponential(failures.repair_s)))
