"""Fixed plans in which prefill and decode run apart.

A plan gives each model GPUs of some kinds. The same GPUs can be divided between the phases: n_p replicas that prefill
and n_d that decode serve min(n_p · r_p, n_d · r_d) of the load, where r is what one replica of a phase serves by itself
(goodput per phase, DistServe, OSDI 2024). The r of every shape are asked for once; every ratio is then arithmetic,
and only the divisions that serve most are worth an estimate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from autopoiesis.plan import Replica, Role, ServingPlan
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools import rate

ALLOTMENTS = 12
"""Ways to give GPUs to models that are divided between phases."""
DIVISIONS = 2
"""Pairs of shapes per model that are looked at for each."""

Allotment = tuple[tuple[str, str, int], ...]
"""(model, GPU kind, GPUs) of a plan, sorted."""


def allotment(plan: ServingPlan) -> Allotment:
    gpus = Counter[tuple[str, str]]()
    for replica in plan.replicas:
        gpus[replica.model, replica.gpu] += replica.gpus
    return tuple(sorted((model, kind, count) for (model, kind), count in gpus.items()))


def disaggregated(state: ServingState, plans: Iterable[ServingPlan]) -> Iterator[ServingPlan]:
    """Plans on the GPUs of the first few mixed `plans` with one model's phases apart, or all models'.

    A model without load stays as it is. Whether the plans pack on the nodes is left to the caller.
    """
    shapes = [(shape, rate(state, shape)) for role in (Role.PREFILL, Role.DECODE) for shape in _in_role(state, role)]
    useful = {shape: r for shape, r in shapes if 0 < r < math.inf}

    @cache
    def divided(model: str, gpus: tuple[tuple[str, int], ...]) -> list[tuple[Replica, ...]]:
        return divisions_of(dict(gpus), {shape: r for shape, r in useful.items() if shape.model == model})

    seen: set[Allotment] = set()
    for plan in plans:
        given = allotment(plan)
        if given in seen:
            continue
        if len(seen) == ALLOTMENTS:
            return
        seen.add(given)
        apart = {
            model: divided(model, tuple((kind, count) for owner, kind, count in given if owner == model))
            for model in state.models
        }
        for model, choices in apart.items():
            others = tuple(replica for replica in plan.replicas if replica.model != model)
            for replicas in choices:
                yield ServingPlan(tuple(sorted(others + replicas)))
        if len(apart) > 1 and all(apart.values()):
            yield ServingPlan(tuple(sorted(replica for choices in apart.values() for replica in choices[0])))


def _in_role(state: ServingState, role: Role) -> list[Replica]:
    return [shape.with_options(role=role) for shape in state.shapes]


def first_of_each(plans: Sequence[ServingPlan], mixed: int, apart: int) -> list[ServingPlan]:
    """The first so many plans whose replicas serve both phases, then the first so many others.

    The fluid model judges each sort among itself better than one against the other, so neither crowds the other out
    before the event model has seen the best of both.
    """
    together = [plan for plan in plans if not is_apart(plan)]
    return together[:mixed] + [plan for plan in plans if is_apart(plan)][:apart]


def is_apart(plan: ServingPlan) -> bool:
    return any(replica.role is not Role.MIXED for replica in plan.replicas)


def divisions_of(gpus: dict[str, int], rate_of: dict[Replica, float]) -> list[tuple[Replica, ...]]:
    """The best divisions of one model's GPUs (by kind) between prefill and decode, most served first.

    One pair of shapes each. On a kind of its own the ratio of replicas is free; with several kinds, prefill may also
    have one of them and decode another.
    """
    best: dict[tuple[Replica, Replica], tuple[float, int, int]] = {}
    prefills = [shape for shape in rate_of if shape.role is Role.PREFILL and shape.gpu in gpus]
    decodes = [shape for shape in rate_of if shape.role is Role.DECODE and shape.gpu in gpus]
    for p in prefills:
        for d in decodes:
            most = gpus[p.gpu] // p.gpus
            for n_p in range(1, most + 1) if p.gpu == d.gpu else range(most, most + 1):
                n_d = (gpus[d.gpu] - (n_p * p.gpus if p.gpu == d.gpu else 0)) // d.gpus
                served = min(n_p * rate_of[p], n_d * rate_of[d])
                if served > best.get((p, d), (0.0, 0, 0))[0]:
                    best[p, d] = served, n_p, n_d
    ranked = sorted(best, key=lambda pair: (-best[pair][0], pair))
    return [(p,) * best[p, d][1] + (d,) * best[p, d][2] for p, d in ranked[:DIVISIONS]]
