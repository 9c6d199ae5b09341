"""What one replica of a shape is worth: the shapes there are, and how much of its model's load one of each serves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from autopoiesis.plan import Replica, Role
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import target
from autopoiesis.policy.tools.load import demand, expected, model_of, window_of


def shapes(state: ServingState, model: str | None = None, gpu: str | None = None) -> list[Replica]:
    """Feasible replica shapes with default engine options, of one model or GPU kind if given."""
    return [shape for shape in state.shapes if model in (None, shape.model) and gpu in (None, shape.gpu)]


def rate(state: ServingState, replica: Replica) -> float:
    """The multiple of its model's expected load that one such replica serves within SLO.

    0 if it serves none of it within SLO; infinite if no load of the model is expected. One evaluation.
    """
    state = expected(state)
    load = sum(demand(state, replica.model).values())
    return sum(state.throughput(replica).values()) / load if load > 0 else math.inf


def rates(state: ServingState) -> dict[Replica, float]:
    """`rate` of everything to build plans from: shapes that serve both phases, and such replicas as there are.

    Replicas of the plan in force may have engine options of their own. One evaluation per entry.
    """
    state = expected(state)
    choices = dict.fromkeys((*state.shapes, *sorted(set(target(state).replicas))))
    return {replica: rate(state, replica) for replica in choices if replica.role is Role.MIXED}


def multiples(replicas: Iterable[Replica], rate_of: Mapping[Replica, float], models: Iterable[str]) -> dict[str, float]:
    """By model of `models`: the multiple of its load that the replicas serve together.

    A replica without an entry in `rate_of` adds nothing.
    """
    sums = dict.fromkeys(models, 0.0)
    for replica in replicas:
        if replica.model in sums:
            sums[replica.model] += rate_of.get(replica, 0.0)
    return sums


def capacity(state: ServingState, replica: Replica) -> dict[str, float]:
    """Requests/s by class that one such replica serves within SLO if it gets that class alone.

    Over the classes of its model that are expected; one evaluation for each.
    """
    state = expected(state)
    window = window_of(state)
    alone = {}
    for entry in window.classes:
        if entry.rate_rps > 0 and model_of(entry.request_class) == replica.model:
            only = replace(state, window=replace(window, classes=(entry,)))
            alone[entry.request_class] = only.throughput(replica).get(entry.request_class, 0.0)
    return alone
