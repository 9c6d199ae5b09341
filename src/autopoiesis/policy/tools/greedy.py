"""Greedy packing: whoever is worst off gets the replica that serves most per GPU, until all have enough.

On elastic clusters replicas are compared per dollar instead, since GPUs can be had and handed back. What is left of
the GPUs that are paid for anyway goes to the model with the least room: idle GPUs cost as much as busy ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autopoiesis.errors import PlanError
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import capacity_for, elastic_pools, fits, minimum_replicas, pool_gpus
from autopoiesis.policy.tools.flow import assign
from autopoiesis.policy.tools.load import expected
from autopoiesis.policy.tools.shapes import multiples, rates


def greedy(
    state: ServingState,
    wanted: Mapping[str, int] | None = None,
    margin: float = 1.15,
    paid: Mapping[str, int] | None = None,
) -> ServingPlan:
    """A plan that serves `margin` times the expected load, or as much as the GPUs allow.

    It uses no more than `wanted` (GPUs by pool; None: what is there now), and of elastic pools only what the margin
    needs, or `paid` if that is more. Every model keeps its minimum, with or without load. A PlanError says that not
    even these fit. One evaluation per shape, and those of `assign`.
    """
    state = expected(state)
    rate_of = rates(state)
    return finished(state, packed(state, rate_of, wanted, margin, paid), wanted)


def packed(
    state: ServingState,
    rate_of: Mapping[Replica, float],
    wanted: Mapping[str, int] | None,
    margin: float,
    paid: Mapping[str, int] | None = None,
) -> list[Replica]:
    """The replicas of `greedy`, given what one of each serves."""
    replicas = grown(state, [], rate_of, wanted, margin)
    return grown(state, replicas, rate_of, spending(state, replicas, wanted, paid), math.inf)


def spending(
    state: ServingState,
    replicas: Sequence[Replica],
    wanted: Mapping[str, int] | None,
    paid: Mapping[str, int] | None,
) -> dict[str, int]:
    """GPUs by pool that are paid for if these replicas run: fixed pools whole, of elastic ones what is needed."""
    limits = pool_gpus(state, wanted)
    needed = capacity_for(state, ServingPlan(tuple(replicas)), limits)
    return {
        pool: min(limit, max(needed[pool], (paid or {}).get(pool, 0))) if pool in needed else limit
        for pool, limit in limits.items()
    }


def grown(
    state: ServingState,
    replicas: Sequence[Replica],
    rate_of: Mapping[Replica, float],
    wanted: Mapping[str, int] | None,
    goal: float,
) -> list[Replica]:
    """`replicas` and more, until every model serves `goal` times its load or nothing more fits, and has its minimum.

    A model without load, or of whose load no shape serves anything, gets its minimum of the smallest shapes.
    """
    replicas = list(replicas)
    loaded = sorted({shape.model for shape, rate in rate_of.items() if 0 < rate < math.inf})
    while True:
        have = multiples(replicas, rate_of, loaded)
        short = sorted((model for model in loaded if have[model] < goal), key=lambda model: (have[model], model))
        added = None
        for model in short:
            added = _next(state, replicas, rate_of, model, goal - have[model], wanted)
            if added is not None:
                break
        if added is None:
            reserve = _reserve(state, replicas, rate_of, wanted)
            if reserve is None:
                raise PlanError(
                    f"not every model's minimum of replicas fits on {sum(pool_gpus(state, wanted).values())} GPUs; "
                    "want more capacity, or lower the envelope's minima"
                )
            return replicas + reserve
        replicas.append(added)


def finished(state: ServingState, replicas: Sequence[Replica], wanted: Mapping[str, int] | None) -> ServingPlan:
    """The plan with these replicas in canonical order, and the shares that suit them."""
    ordered = tuple(sorted(replicas))
    return ServingPlan(ordered, assign(state, ordered, wanted))


def _next(
    state: ServingState,
    replicas: Sequence[Replica],
    rate_of: Mapping[Replica, float],
    model: str,
    gap: float,
    wanted: Mapping[str, int] | None,
) -> Replica | None:
    """What to add for one model: the best value or, where that would close the gap, the cheapest that closes it."""

    def room(shape: Replica) -> bool:
        more = [*replicas, shape]
        if not fits(state, more, wanted):
            return False
        return _reserve(state, more, rate_of, wanted) is not None

    price = {gpu: min(p.price_per_hour for p in state.pools if p.gpu == gpu) for gpu in {p.gpu for p in state.pools}}
    elastic = bool(elastic_pools(state))

    def cost(shape: Replica) -> float:
        return shape.gpus * (max(price[shape.gpu], 1e-9) if elastic else 1.0)

    options = [shape for shape, rate in rate_of.items() if shape.model == model and rate > 0 and shape.gpu in price]
    by_value = sorted(options, key=lambda s: (-rate_of[s] / cost(s), price[s.gpu], s.gpus, s))
    best = next((shape for shape in by_value if room(shape)), None)
    if best is None or rate_of[best] < gap:
        return best
    closing = sorted((s for s in options if rate_of[s] >= gap), key=lambda s: (cost(s), -rate_of[s], price[s.gpu], s))
    return next(shape for shape in closing if room(shape))


def _reserve(
    state: ServingState, replicas: Sequence[Replica], rate_of: Mapping[Replica, float], wanted: Mapping[str, int] | None
) -> list[Replica] | None:
    """The smallest shapes that bring every model to its minimum beside `replicas`; None if they do not fit."""
    reserve: list[Replica] = []
    for model in state.models:
        missing = minimum_replicas(state, model) - sum(replica.model == model for replica in replicas)
        sizes = sorted((s for s in rate_of if s.model == model), key=lambda s: (s.gpus, -rate_of[s], s))
        for _ in range(missing):
            smallest = next((s for s in sizes if fits(state, [*replicas, *reserve, s], wanted)), None)
            if smallest is None:
                return None
            reserve.append(smallest)
    return reserve
