"""What a plan may use: GPUs of the pools as they are or as they might be asked for, nodes, and the operator's caps.

Functions that take `wanted` (GPUs by pool) answer for pools of that size; a pool left out, every pool where `wanted` is
None, and a fixed pool of which less is there counts with what it has now. A loss that is announced counts as having
happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autopoiesis.plan import Node, Replica, ServingPlan, packable
from autopoiesis.policy.interface import PoolView, ServingState


def pool_gpus(state: ServingState, wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """GPUs by pool, in whole nodes, announced losses deducted if the minima of all models can do without."""
    losses: dict[str, int] = {}
    for change in state.announced:
        losses[change.pool] = min(change.gpus, losses.get(change.pool, change.gpus))
    left = _whole_nodes(state, wanted, losses)
    if losses and not _holds_minima(state, left):
        return _whole_nodes(state, wanted, {})
    return left


def _whole_nodes(state: ServingState, wanted: Mapping[str, int] | None, losses: Mapping[str, int]) -> dict[str, int]:
    counts = {}
    for pool in state.pools:
        most = pool.maximum if pool.minimum < pool.maximum else pool.available  # a fixed pool that lost nodes has less
        gpus = min((wanted or {}).get(pool.name, pool.available), losses.get(pool.name, most), most)
        counts[pool.name] = gpus - gpus % pool.gpus_per_node
    return counts


def _holds_minima(state: ServingState, counts: Mapping[str, int]) -> bool:
    """Whether every model's minimum packs on these GPUs, in the smallest shapes, the largest of them first.

    Roles do not matter to packing, so shapes are looked at as they are.
    """
    present = {pool.gpu for pool in state.pools if counts[pool.name]}
    placed: list[Replica] = []
    there = _nodes(state, counts)
    smallest: dict[str, list[Replica]] = {}
    for shape in sorted(state.shapes, key=lambda shape: (shape.gpus, shape)):
        if shape.gpu in present:
            smallest.setdefault(shape.model, []).append(shape)
    needs = [smallest.get(model, []) for model in state.models for _ in range(minimum_replicas(state, model))]
    for options in sorted(needs, key=lambda options: -options[0].gpus if options else 0):
        chosen = next((shape for shape in options if packable((*placed, shape), there)), None)
        if chosen is None:
            return False
        placed.append(chosen)
    return True


def gpus(state: ServingState, wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """GPUs by kind that a plan may use."""
    counts: Counter[str] = Counter()
    by_pool = pool_gpus(state, wanted)
    for pool in state.pools:
        counts[pool.gpu] += by_pool[pool.name]
    return dict(counts)


def reach(state: ServingState) -> dict[str, int]:
    """GPUs by pool if everything were asked for: the largest `wanted` that makes sense."""
    return pool_gpus(state, {pool.name: pool.maximum for pool in state.pools})


def granted(state: ServingState, wanted: Mapping[str, int]) -> ServingState:
    """The same state with the wanted GPUs already there, to be asked about a plan that needs them."""
    counts = pool_gpus(state, wanted)
    return replace(state, pools=tuple(replace(pool, available=counts[pool.name]) for pool in state.pools))


def nodes(state: ServingState, wanted: Mapping[str, int] | None = None) -> tuple[Node, ...]:
    """Every node a plan may use, pool by pool."""
    return _nodes(state, pool_gpus(state, wanted))


def _nodes(state: ServingState, counts: Mapping[str, int]) -> tuple[Node, ...]:
    return tuple(
        Node(f"{pool.name}/{index}", pool.name, pool.gpu, pool.gpus_per_node)
        for pool in state.pools
        for index in range(counts[pool.name] // pool.gpus_per_node)
    )


def fits(state: ServingState, replicas: Iterable[Replica], wanted: Mapping[str, int] | None = None) -> bool:
    """Whether the replicas pack on the nodes and keep to the envelope's caps on GPUs and money.

    Minimum replica counts are not asked for here: a plan that is being put together does not have them yet.
    """
    replicas = tuple(replicas)
    envelope = state.envelope
    if envelope.maximum_gpus is not None and sum(replica.gpus for replica in replicas) > envelope.maximum_gpus:
        return False
    money = envelope.maximum_cost_per_hour
    if money is not None and price_per_hour(state, replicas) > money:
        return False
    return packable(replicas, nodes(state, wanted))


def price_per_hour(state: ServingState, replicas: Iterable[Replica]) -> float:
    """US dollars an hour for the GPUs of the replicas; where pools of one kind differ in price, the dearest first.

    This is how the envelope's `maximum_cost_per_hour` reads a plan, which does not name pools.
    """
    needed: Counter[str] = Counter()
    for replica in replicas:
        needed[replica.gpu] += replica.gpus
    counts = reach(state)
    cost = 0.0
    for pool in sorted(state.pools, key=lambda pool: -pool.price_per_hour):
        used = min(needed[pool.gpu], counts[pool.name])
        needed[pool.gpu] -= used
        cost += used * pool.price_per_hour
    return cost


def minimum_replicas(state: ServingState, model: str) -> int:
    """Replicas that every plan must give a model: at least one, however little load it has now."""
    floors = [floor for label, floor in state.envelope.class_floor.items() if label.rsplit("/", 1)[0] == model]
    return max(1, state.envelope.minimum_for(model), *floors)


def elastic_pools(state: ServingState) -> tuple[PoolView, ...]:
    """Pools whose size a policy may choose."""
    return tuple(pool for pool in state.pools if pool.minimum < pool.maximum)


def capacity_for(state: ServingState, plan: ServingPlan, wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """The least GPUs of each elastic pool on which the plan packs: what `Decision.capacity` asks for.

    Of each kind the GPUs paid for anyway come first, then nodes of the cheapest pool. A pool is never taken beyond
    `wanted` (by default: beyond its `reach`); a plan that needs more gets that much. By default, too, a pool of which a
    loss is announced is asked for no less than before: the plan is for what the loss leaves, and replacements on order
    are not to be cancelled for that.
    """
    limits = reach(state) if wanted is None else pool_gpus(state, wanted)
    counts = {pool.name: min(pool.minimum, limits[pool.name]) for pool in state.pools}
    for gpu in sorted({pool.gpu for pool in state.pools}):
        pools = sorted((p for p in elastic_pools(state) if p.gpu == gpu), key=lambda p: (p.price_per_hour, p.name))
        replicas = [replica for replica in plan.replicas if replica.gpu == gpu]
        while not packable(replicas, nodes(state, counts)):
            pool = next((p for p in pools if counts[p.name] + p.gpus_per_node <= limits[p.name]), None)
            if pool is None:
                break
            counts[pool.name] += pool.gpus_per_node
    if wanted is None:
        losing = {change.pool for change in state.announced}
        for pool in state.pools:
            if pool.name in losing:
                counts[pool.name] = max(counts[pool.name], pool.requested)
    return {pool.name: counts[pool.name] for pool in elastic_pools(state)}


def hold(
    history: Sequence[Mapping[str, int]], capacity: Mapping[str, int], points: int
) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Capacity that grows at once and shrinks late: the most that was needed at any of the last `points` points.

    Answers the capacity to ask for, and the history to remember until next time.
    """
    kept = [*(dict(entry) for entry in history), dict(capacity)][-max(points, 1) :]
    return {pool: max(entry.get(pool, 0) for entry in kept) for pool in capacity}, kept


def target(state: ServingState) -> ServingPlan:
    """The plan being moved to, or else the one in force."""
    return state.moving.plan if state.moving is not None else state.plan
