"""Random plans that could be carried out: the population over which two models of serving are compared.

They are spread wider than anything an operator would try, so that a model that only knows good plans is found out:
every feasible shape, cluster half empty to full, prefill and decode pools of any ratio, unequal shares, engine options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autopoiesis.errors import PlanError, ScenarioError
from autopoiesis.plan import Capacity, ClassShares, Replica, Role, ServingPlan, check_plan, packable
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.workload import class_labels

SPLIT_SHARE = 0.3
"""Of models: prefill and decode apart, if there are two replicas or more."""
SHARED_SHARE = 0.3
"""Of plans: they say how each class is divided."""
BATCHED_TOKENS = (2048, 8192, 8192, 16_384)
MAX_SEQUENCES = (64, 128, 256, 256, 512)
ATTEMPTS = 2000
"""Draws in a row that bring nothing new, before there are taken to be no more plans."""


def random_plans(scenario: Scenario, rng: np.random.Generator, count: int) -> list[ServingPlan]:
    """`count` different valid plans for the cluster at its maximum.

    Raises ScenarioError if the cluster has not so many.
    """
    capacity = Capacity.at_maximum(scenario.cluster)
    found: dict[ServingPlan, None] = {}
    missed = 0
    while missed < ATTEMPTS:
        missed += 1
        plan = _draw(scenario, capacity, rng)
        try:
            check_plan(plan, capacity, scenario.envelope, scenario.models, scenario.shapes)
        except PlanError:
            continue
        if plan not in found:
            missed = 0
            found[plan] = None
        if len(found) == count:
            return list(found)
    raise ScenarioError(
        f"cluster {scenario.cluster.name!r} has fewer than {count} different plans for "
        f"{' and '.join(scenario.models)}; ask for fewer, or use a larger cluster"
    )


def _draw(scenario: Scenario, capacity: Capacity, rng: np.random.Generator) -> ServingPlan:
    nodes = capacity.nodes()
    wanted = rng.uniform(0.5, 1.0) * sum(node.gpus for node in nodes)
    likely = rng.dirichlet(np.full(len(scenario.models), 3.0))
    # few shapes for each model, as somebody would deploy it: with all of them every plan would be the same average
    choices = {model: _shapes(scenario, model, rng) for model in scenario.models}
    replicas: list[Replica] = []
    misses = 0
    while misses < 8 and sum(replica.gpus for replica in replicas) < wanted:
        model = scenario.models[int(rng.choice(len(scenario.models), p=likely))]
        shape = choices[model][int(rng.integers(len(choices[model])))]
        if packable([*replicas, shape], nodes):
            replicas.append(shape)
        else:
            misses += 1
    for model in scenario.models:
        _split(replicas, model, rng)
    replicas.sort()
    shares = _shares(scenario, replicas, rng) if rng.random() < SHARED_SHARE else ()
    return ServingPlan(tuple(replicas), shares)


def _shapes(scenario: Scenario, model: str, rng: np.random.Generator) -> list[Replica]:
    fitting = [shape for shape in scenario.shapes if shape.model == model]
    number = min(len(fitting), int(rng.integers(1, 4)))
    return [
        replace(
            fitting[i],
            batched_tokens=int(rng.choice(BATCHED_TOKENS)),
            max_sequences=int(rng.choice(MAX_SEQUENCES)),
            kv_dtype_bytes=int(rng.choice((2, 2, 1))),
        )
        for i in rng.choice(len(fitting), number, replace=False)
    ]


def _split(replicas: list[Replica], model: str, rng: np.random.Generator) -> None:
    """Give some models' replicas roles: a random part prefills, the rest decodes, at times with mixed ones beside."""
    mine = [i for i, replica in enumerate(replicas) if replica.model == model]
    if len(mine) < 2 or rng.random() >= SPLIT_SHARE:
        return
    order = rng.permutation(mine)
    mixed = int(rng.integers(0, len(mine) - 1)) if rng.random() < 0.3 else 0
    apart = order[mixed:]
    prefilling = int(rng.integers(1, len(apart)))
    for position, i in enumerate(apart):
        replicas[i] = replace(replicas[i], role=Role.PREFILL if position < prefilling else Role.DECODE)


def _shares(scenario: Scenario, replicas: Sequence[Replica], rng: np.random.Generator) -> tuple[ClassShares, ...]:
    """Unequal fractions around what the GPUs of each replica would suggest, the same or different for each class."""
    evenness = rng.choice((2.0, 10.0, 100.0))
    alike = rng.random() < 0.5
    entries = []
    for model in scenario.models:
        gpus = np.array([replica.gpus if replica.model == model else 0 for replica in replicas], dtype=np.float64)
        fractions = np.zeros(len(gpus))
        for label in class_labels((model,)):
            if not alike or not fractions.any():
                drawn = rng.gamma(evenness, size=len(gpus)) * gpus
                fractions = drawn / drawn.sum() if drawn.sum() else drawn
            if fractions.any():
                entries.append(ClassShares(label, tuple(fractions.tolist())))
    return tuple(entries)
