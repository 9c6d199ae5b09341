"""Hill climbing over plans, each judged by the estimator: slower than a formula, and free to pursue any objective."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import fits, granted, minimum_replicas
from autopoiesis.policy.tools.score import score

Neighbours = Callable[[ServingState, ServingPlan], Iterable[ServingPlan]]
Objective = Callable[[ServingState, ServingPlan], float]


def local_search(
    state: ServingState,
    start: ServingPlan,
    steps: int,
    neighbours: Neighbours | None = None,
    objective: Objective | None = None,
    wanted: Mapping[str, int] | None = None,
) -> ServingPlan:
    """The best plan found from `start` in at most `steps` steps, each to the best neighbour, while that is better.

    `neighbours` defaults to `moves`, `objective` to `score`, lower being better; with `wanted` the search takes place
    on pools of that size. Of equal neighbours the first wins. Never worse than `start`; one evaluation for each plan
    looked at, and no plan is looked at twice.
    """
    if wanted is not None:
        state = granted(state, wanted)
    around = neighbours or moves
    judge = objective or score
    best, best_score = start, judge(state, start)
    seen = {_key(start)}
    for _ in range(steps):
        found, found_score = best, best_score
        for plan in around(state, best):
            if _key(plan) in seen:
                continue
            seen.add(_key(plan))
            plan_score = judge(state, plan)
            if plan_score < found_score:
                found, found_score = plan, plan_score
        if found is best:
            break
        best, best_score = found, found_score
    return best


def moves(state: ServingState, plan: ServingPlan) -> Iterator[ServingPlan]:
    """Plans one move away that fit and keep every model's minimum, in a fixed order and without shares.

    Moves: add a replica; remove one; replace one by another shape, of its own model or another; split one into two of
    half the tensor parallelism; join two alike into one of twice.
    """
    present = sorted(Counter(plan.replicas))
    choices = sorted(set(state.shapes) | set(present))
    for added in choices:
        yield from _moved(state, plan, (), (added,))
    for removed in present:
        yield from _moved(state, plan, (removed,), ())
    for removed in present:
        for added in choices:
            if added != removed:
                yield from _moved(state, plan, (removed,), (added,))
    for replica in present:
        half = replace(replica, tensor_parallel=max(replica.tensor_parallel // 2, 1))
        double = replace(replica, tensor_parallel=replica.tensor_parallel * 2)
        if half != replica and half in choices:
            yield from _moved(state, plan, (replica,), (half, half))
        if double in choices and plan.replicas.count(replica) >= 2:
            yield from _moved(state, plan, (replica, replica), (double,))


def _moved(
    state: ServingState, plan: ServingPlan, removed: Iterable[Replica], added: Iterable[Replica]
) -> Iterator[ServingPlan]:
    count = Counter(plan.replicas)
    count.subtract(removed)
    count.update(added)
    replicas = tuple(sorted(count.elements()))
    per_model = Counter(replica.model for replica in replicas)
    short = any(
        per_model[model] < min(minimum_replicas(state, model), len(plan.replicas_of(model))) for model in state.models
    )
    if not short and fits(state, replicas):
        yield ServingPlan(replicas)


def _key(plan: ServingPlan) -> tuple[object, ...]:
    ordered = plan.sorted()
    return ordered.replicas, ordered.shares
