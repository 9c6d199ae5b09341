"""What autoscalers scale: the replicas of one model and role, a unit, by what one of each shape is worth.

The worth of a replica and the need of a unit are in the same measure, whichever that is: multiples of the load, say, or
requests in flight.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from autopoiesis.plan import Replica, Role
from autopoiesis.policy.interface import ServingState
from autopoiesis.policy.tools.capacity import fits, minimum_replicas
from autopoiesis.policy.tools.shapes import rate, shapes

Unit = tuple[str, Role]
Worth = Mapping[Unit, Mapping[Replica, float]]


def units(state: ServingState, replicas: Iterable[Replica]) -> list[Unit]:
    """(model, role) of the replicas, sorted; a model without any would be served in both phases."""
    split = {(replica.model, replica.role) for replica in replicas}
    missing = set(state.models) - {model for model, _ in split}
    return sorted(split | {(model, Role.MIXED) for model in missing})


def in_turns(replicas: Iterable[Replica]) -> list[Replica]:
    """The replicas ordered so that the first few of them, whichever number, are divided among models and roles as all
    are: where GPUs are yet to come, the first replicas of a plan that fit are placed."""
    every = sorted(replicas)
    count = Counter((replica.model, replica.role) for replica in every)
    seen = Counter[Unit]()
    turns = []
    for replica in every:
        unit = replica.model, replica.role
        turns.append(((seen[unit] + 0.5) / count[unit], replica))
        seen[unit] += 1
    return [replica for _, replica in sorted(turns)]


def choices(
    state: ServingState, replicas: Iterable[Replica], worth: Callable[[Replica], float] | None = None
) -> dict[Unit, dict[Replica, float]]:
    """By unit: the shapes in order of choice, and what one of each is worth, by default its `rate`.

    The shape with most GPUs among the unit's replicas comes first, then its others, then all that it might have, best
    per GPU first.
    """
    judge = worth or (lambda replica: rate(state, replica))
    count = Counter(replicas)
    ordered = {}
    for model, role in units(state, count):
        own = [replica for replica in count if (replica.model, replica.role) == (model, role)]
        own.sort(key=lambda replica: (-count[replica] * replica.gpus, replica))
        every = dict.fromkeys([*own, *(shape.with_options(role=role) for shape in shapes(state, model))])
        value = {shape: judge(shape) for shape in every}
        others = sorted((shape for shape in every if shape not in count), key=lambda s: -value[s] / s.gpus)
        ordered[model, role] = {shape: value[shape] for shape in (*own, *others)}
    return ordered


def sized(own: Iterable[Replica], worth: Mapping[Replica, float], need: float, least: int) -> list[Replica]:
    """One unit's best replicas per GPU as far as they are needed, and more of its first shape where they are too few.

    `own` are its replicas, `worth` is its entry of `choices`; at least `least` replicas, `need` or not. Nothing is
    added for a need of which the first shape serves nothing.
    """
    main = next(iter(worth))
    kept: list[Replica] = []
    have = 0.0
    for replica in sorted(own, key=lambda replica: (-worth[replica] / replica.gpus, replica)):
        if have < need - 1e-9 or len(kept) < least:
            kept.append(replica)
            have += worth[replica]
    more = math.ceil((need - have) / worth[main] - 1e-9) if have < need and worth[main] > 0 else 0
    return kept + [main] * max(more, least - len(kept))


def rationed(
    state: ServingState, worth: Worth, need: Mapping[Unit, float], wanted: Mapping[str, int], goal: float = 1.0
) -> list[Replica]:
    """As much as there is: minima first, then the unit with the least of its need gets one more of its first shape that
    fits, until all have `goal` times their need or nothing fits."""
    replicas = [next(iter(worth[unit])) for unit in worth for _ in range(minimum_replicas(state, unit[0]))]
    have = served(worth, need, replicas)
    while True:
        for unit in sorted((unit for unit in have if have[unit] < goal), key=lambda unit: (have[unit], unit)):
            options = (shape for shape, value in worth[unit].items() if value > 0)
            added = next((shape for shape in options if fits(state, [*replicas, shape], wanted)), None)
            if added is not None:
                replicas.append(added)
                have[unit] += worth[unit][added] / max(need[unit], 1e-9)
                break
        else:
            return replicas


def served(worth: Worth, need: Mapping[Unit, float], replicas: Sequence[Replica]) -> dict[Unit, float]:
    """By unit: the part of its need that the replicas serve."""
    have = dict.fromkeys(worth, 0.0)
    for replica in replicas:
        unit = replica.model, replica.role
        have[unit] += worth[unit][replica] / max(need[unit], 1e-9)
    return have
