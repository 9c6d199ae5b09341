"""The nearest plan that can be placed: after capacity was lost, or where a policy asked for more than there is.

`fit` takes the part of a plan that can be placed now; `repair` also makes good what every model must have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autopoiesis.plan.capacity import Capacity
from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.placement import groups_fit
from autopoiesis.plan.serving_plan import ClassShares, Replica, Role, ServingPlan
from autopoiesis.plan.validity import cost_per_hour, serving_count, sharing_count

Entry = tuple[Replica, int | None]
"""A replica of the plan being put together, and its position in the old plan if it was there."""


def fit(plan: ServingPlan, capacity: Capacity, envelope: Envelope, models: Sequence[str]) -> ServingPlan:
    """The part of a plan that can be placed on `capacity` within the envelope's caps on GPUs and money.

    Replicas are tried in plan order, but what each model needs at least goes first, models taking turns. Shares are
    restricted to what is left; a class whose fractions are all gone, or are fewer than its floor, loses its entry.
    """
    return _rebuilt(plan, _fitting(plan, capacity, envelope, _needs(models, envelope)), envelope)


def repair(
    plan: ServingPlan, capacity: Capacity, envelope: Envelope, models: Sequence[str], shapes: Sequence[Replica]
) -> ServingPlan:
    """A plan close to `plan` that can be placed and in which every model has its minimum, where there is one.

    First what `fit` keeps; a model still short gets the smallest shapes that can be placed, at the expense of the
    models with most to spare if need be. Where that is not enough, every model starts from its smallest shapes and
    the old replicas fill what is left. Shares of models that got other replicas are dropped, and prefill or decode
    replicas that lost their counterparts become mixed. Where capacity does not suffice, the result serves as many
    models as these steps reach, and `check_plan` says what is missing.
    """
    needs = _needs(models, envelope)
    by_size = {model: sorted((s for s in shapes if s.model == model), key=lambda s: s.gpus) for model in models}
    entries = _with_consistent_roles(_fitting(plan, capacity, envelope, needs))
    for model in models:
        while needs[model].short(_of(entries, model)):
            grown = _grown(entries, by_size[model], needs, capacity, envelope)
            if grown is None:
                break
            entries = grown
    if any(_missing(entries, needs)):
        smallest = _from_smallest(plan, by_size, needs, capacity, envelope)
        entries = min(entries, smallest, key=lambda candidate: _missing(candidate, needs))
    return _rebuilt(plan, _with_consistent_roles(entries), envelope)


class _Room:
    """What the capacity and the envelope's caps leave, while a plan is put together replica by replica."""

    def __init__(self, capacity: Capacity, envelope: Envelope) -> None:
        self.capacity = capacity
        self.envelope = envelope
        self.nodes: dict[str, list[int]] = {}
        for node in capacity.nodes():
            self.nodes.setdefault(node.gpu, []).append(node.gpus)
        self.groups: dict[str, list[int]] = {gpu: [] for gpu in self.nodes}
        self.replicas: list[Replica] = []

    def take(self, replica: Replica) -> bool:
        """Adds the replica if there is room for it."""
        nodes = self.nodes.get(replica.gpu, [])
        groups = self.groups.get(replica.gpu, [])
        if sum(groups) + replica.gpus > sum(nodes):
            return False
        groups = sorted(groups + [replica.tensor_parallel] * replica.pipeline_parallel, reverse=True)
        if not groups_fit(groups, nodes):
            return False
        limit = self.envelope.maximum_gpus
        if limit is not None and sum(map(sum, self.groups.values())) + replica.gpus > limit:
            return False
        money = self.envelope.maximum_cost_per_hour
        if money is not None and cost_per_hour([*self.replicas, replica], self.capacity) > money:
            return False
        self.groups[replica.gpu] = groups
        self.replicas.append(replica)
        return True


def _model_of_class(label: str) -> str:
    return label.rsplit("/", 1)[0]


@dataclass(frozen=True, slots=True)
class _Need:
    """What the envelope asks of one model: a minimum, and enough replicas that admit requests for its class floors."""

    minimum: int
    floor: int

    @property
    def replicas(self) -> int:
        return max(self.minimum, self.floor)

    def short(self, replicas: Sequence[Replica]) -> int:
        """Mixed replicas missing if the model has these."""
        admitting = sum(replica.role is not Role.DECODE for replica in replicas)
        return max(0, self.minimum - serving_count(replicas), self.floor - admitting)


def _needs(models: Sequence[str], envelope: Envelope) -> dict[str, _Need]:
    floors = dict.fromkeys(models, 0)
    for label, floor in envelope.class_floor.items():
        model = _model_of_class(label)
        floors[model] = max(floors.get(model, 0), floor)
    return {model: _Need(envelope.minimum_for(model), floors[model]) for model in models}


def _of(entries: Sequence[Entry], model: str) -> list[Replica]:
    return [replica for replica, _ in entries if replica.model == model]


def _missing(entries: Sequence[Entry], needs: Mapping[str, _Need]) -> tuple[int, int]:
    """Models that need a replica and cannot be served at all, and replicas missing in all."""
    short = {model: need.short(_of(entries, model)) for model, need in needs.items()}
    return sum(n > 0 and serving_count(_of(entries, model)) == 0 for model, n in short.items()), sum(short.values())


def _fitting(plan: ServingPlan, capacity: Capacity, envelope: Envelope, needs: Mapping[str, _Need]) -> list[Entry]:
    room = _Room(capacity, envelope)
    seen = Counter[tuple[str, Role]]()
    turns = []
    for position, replica in enumerate(plan.replicas):
        turn = seen[replica.model, replica.role]
        seen[replica.model, replica.role] += 1
        first = replica.model in needs and turn < needs[replica.model].replicas
        turns.append((turn if first else len(plan.replicas), position))
    return [(plan.replicas[position], position) for _, position in sorted(turns) if room.take(plan.replicas[position])]


def _with_consistent_roles(entries: Sequence[Entry]) -> list[Entry]:
    """Prefill replicas without decode replicas, or the reverse, become mixed."""
    roles: dict[str, set[Role]] = {}
    for replica, _ in entries:
        roles.setdefault(replica.model, set()).add(replica.role)
    return [
        (replace(replica, role=Role.MIXED) if len(roles[replica.model]) == 1 else replica, position)
        for replica, position in entries
    ]


def _grown(
    entries: Sequence[Entry],
    shapes: Sequence[Replica],
    needs: Mapping[str, _Need],
    capacity: Capacity,
    envelope: Envelope,
) -> list[Entry] | None:
    """The entries and the first of `shapes` that can be placed, with as few of the entries gone as that takes."""
    capped = envelope.maximum_gpus is not None or envelope.maximum_cost_per_hour is not None
    kinds = {shape.gpu for shape in shapes}
    left, evicted = list(entries), list[Entry]()
    while True:
        room = _Room(capacity, envelope)
        for replica, _ in left:
            room.take(replica)
        added = next((shape for shape in shapes if room.take(shape)), None)
        if added is not None:
            return [*left, (added, None), *(entry for entry in evicted if room.take(entry[0]))]
        spare = []
        for index, (replica, _) in enumerate(left):
            need = needs.get(replica.model, _Need(0, 0))
            now, rest = _of(left, replica.model), _of(left[:index] + left[index + 1 :], replica.model)
            if (capped or replica.gpu in kinds) and need.short(rest) <= need.short(now):
                spare.append((serving_count(now) - need.replicas, index))
        if not spare:
            return None
        evicted.append(left.pop(max(spare)[1]))


def _from_smallest(
    plan: ServingPlan,
    by_size: Mapping[str, Sequence[Replica]],
    needs: Mapping[str, _Need],
    capacity: Capacity,
    envelope: Envelope,
) -> list[Entry]:
    """Every model's minimum in its smallest shapes, those with the least choice of GPU kinds first; then old ones."""
    room = _Room(capacity, envelope)
    unused = list(range(len(plan.replicas)))
    entries: list[Entry] = []
    choosy = sorted(by_size, key=lambda model: len({s.gpu for s in by_size[model] if s.gpu in room.nodes}))
    for turn in range(max((need.replicas for need in needs.values()), default=0)):
        for model in choosy:
            shape = next((s for s in by_size[model] if turn < needs[model].replicas and room.take(s)), None)
            if shape is None:
                continue
            same = next((i for i in unused if _same_shape(plan.replicas[i], shape)), None)
            if same is None:
                entries.append((shape, None))
            else:
                unused.remove(same)
                entries.append((plan.replicas[same], same))
    return entries + [(plan.replicas[i], i) for i in unused if room.take(plan.replicas[i])]


def _same_shape(replica: Replica, shape: Replica) -> bool:
    return replica.role is Role.MIXED and all(
        getattr(replica, name) == getattr(shape, name)
        for name in ("model", "gpu", "tensor_parallel", "pipeline_parallel")
    )


def _rebuilt(plan: ServingPlan, entries: Sequence[Entry], envelope: Envelope) -> ServingPlan:
    """The entries as a plan, old replicas in their old order and new ones last, with the shares that still stand."""
    old = sorted((position, replica) for replica, position in entries if position is not None)
    new = [replica for replica, position in entries if position is None]
    replicas = tuple([replica for _, replica in old] + new)
    changed = {r.model for r in new} | {r.model for position, r in old if r != plan.replicas[position]}
    shares = []
    for entry in plan.shares:
        model = _model_of_class(entry.request_class)
        fractions = [entry.fractions[position] for position, _ in old]
        total = math.fsum(fractions)
        if model in changed or not total > 0:
            continue
        if len(old) < len(plan.replicas):
            fractions = [fraction / total for fraction in fractions]
        fractions += [0.0] * len(new)
        floor = envelope.class_floor.get(entry.request_class, 0)
        if sharing_count(model, replicas, fractions) >= floor:
            shares.append(ClassShares(entry.request_class, tuple(fractions)))
    return ServingPlan(replicas, tuple(shares))
