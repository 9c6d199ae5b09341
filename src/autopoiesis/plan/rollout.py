"""The way from what runs to a plan, as a state machine that both worlds carry out.

A `Rollout` knows where every new replica will go and who holds those GPUs now. It does no I/O and has no clock: shown
the present phase of every replica, it answers what to do next. The simulator asks it in virtual time, the live system
in wall time, and the estimate of a transition's cost is the same code run ahead.

The order is: undo the drains of replicas that are wanted again; stop replicas still loading that nobody wants; start
every new replica whose GPUs are free; drain a leaving replica once all its model's wanted replicas serve; and where a
new replica waits for GPUs that leaving ones hold, drain those in batches that leave every model its floor.

A model's floor is its minimum of replicas and `capacity_kept` of the GPUs it held at the beginning, but never more
than the plan itself gives it. GPUs of draining and loading replicas count as held, so that a rollout that replaces an
unfinished one does not start from a lower floor. Where waiting cannot help (nothing loads, nothing drains, nothing
can start, and every further drain would break a floor), the drain that breaks it least is made, one new replica at a
time: a rollout never stands still. With one replica, no spare GPU and another shape wanted, that means an outage
as long as the new replica's start.

There is no way to change a rollout. To go elsewhere, build a new one from what `placed` says and the present phases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autopoiesis.plan.capacity import Node
from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.placement import GPUs, Placed, place
from autopoiesis.plan.serving_plan import Replica, ServingPlan
from autopoiesis.plan.validity import serving_count

Phase = Literal["loading", "serving", "draining"]


@dataclass(frozen=True, slots=True)
class Start:
    """Start a replica on these GPUs; it is `loading` from now on."""

    id: int
    replica: Replica
    gpus: GPUs


@dataclass(frozen=True, slots=True)
class Stop:
    """Let a serving replica drain: no new requests, then release its GPUs. One that is loading is ended at once."""

    id: int


@dataclass(frozen=True, slots=True)
class KeepServing:
    """Undo a drain: the replica takes requests again."""

    id: int


Action = Start | Stop | KeepServing


class Rollout:
    """One transition under way. The only thing it remembers is which starts and stops it has ordered."""

    def __init__(
        self,
        plan: ServingPlan,
        nodes: Sequence[Node],
        running: Sequence[Placed],
        status: Mapping[int, Phase],
        *,
        capacity_kept: float,
        envelope: Envelope,
        next_id: int,
    ) -> None:
        """`status` holds the phase of every replica of `running` that is there; the others are taken for gone.

        New replicas get the ids from `next_id` on, which must be larger than any in use. Raises PlanError if the plan
        does not pack on the nodes.
        """
        # Those that serve now are kept first, then those that could serve at once; the last give way first.
        eagerness = {"serving": 0, "draining": 1, "loading": 2}
        present = sorted((p for p in running if p.id in status), key=lambda p: (eagerness[status[p.id]], p.id))
        placement = place(plan, nodes, present)
        self.plan = plan
        self.kept = placement.kept
        self.new = tuple(
            Placed(next_id + position, replica, gpus)
            for position, (replica, gpus) in enumerate(zip(placement.to_start, placement.targets, strict=True))
        )
        self.leaving = placement.to_stop
        self._blockers = {
            new.id: tuple(old for old in self.leaving if not set(old.gpus).isdisjoint(new.gpus)) for new in self.new
        }
        self._replica_floor: dict[str, int] = {}
        self._gpu_floor: dict[str, int] = {}
        for model in {placed.replica.model for placed in present}:
            target = plan.replicas_of(model)
            held = sum(placed.replica.gpus for placed in present if placed.replica.model == model)
            self._replica_floor[model] = min(envelope.minimum_for(model), serving_count(target))
            self._gpu_floor[model] = min(math.ceil(capacity_kept * held - 1e-9), sum(r.gpus for r in target))
        self._started: set[int] = set()
        self._stopped: set[int] = set()

    @property
    def started(self) -> int:
        """New replicas whose start has been ordered, of `len(new)`."""
        return len(self._started)

    def placed(self, status: Mapping[int, Phase]) -> tuple[Placed, ...]:
        """Every replica that is there, whatever its phase."""
        return tuple(p for p in (*self.kept, *self.new, *self.leaving) if p.id in status)

    def lost(self, status: Mapping[int, Phase]) -> tuple[Placed, ...]:
        """Wanted replicas that are gone. The old replicas of their models are then not stopped, so the rollout cannot
        finish: the caller reports it failed and moves on to a repaired plan."""
        return tuple(p for p in (*self.kept, *self.new) if p.id not in status and not self._pending(p))

    def done(self, status: Mapping[int, Phase]) -> bool:
        """Everything wanted serves and everything leaving is gone."""
        return all(status.get(p.id) == "serving" for p in (*self.kept, *self.new)) and all(
            p.id not in status for p in self.leaving
        )

    def actions(self, status: Mapping[int, Phase]) -> list[Action]:
        """What to do next. Call again whenever a phase has changed; `status` must reflect all earlier actions."""
        actions: list[Action] = [KeepServing(p.id) for p in self.kept if status.get(p.id) == "draining"]
        stops = [p for p in self.leaving if status.get(p.id) == "loading"]
        broken = {placed.replica.model for placed in self.lost(status)}
        starts = self._starts(status)
        self._started.update(p.id for p in starts)
        waiting = [p for p in self.new if self._pending(p)]

        serving = self._serving(status)
        unready = broken | {p.replica.model for p in (*waiting, *starts)}
        unready |= {p.replica.model for p in (*self.kept, *self.new) if status.get(p.id) == "loading"}
        for placed in self.leaving:
            if placed.id in serving and placed.replica.model not in unready:
                stops.append(serving.pop(placed.id))

        groups = []
        for new in waiting:
            group = [old for old in self._blockers[new.id] if old.id in serving]
            if not group or any(old.replica.model in broken for old in group):
                continue
            if self._breach(serving, group) == (0, 0):
                stops += [serving.pop(old.id) for old in group]
            else:
                groups.append(group)
        stops = [p for p in stops if p.id not in self._stopped]
        if groups and not starts and not stops and not self._moving(status):
            stops = min(groups, key=lambda group: self._breach(serving, group))
        self._stopped.update(p.id for p in stops)
        return actions + [Start(p.id, p.replica, p.gpus) for p in starts] + [Stop(p.id) for p in stops]

    def _pending(self, placed: Placed) -> bool:
        return placed.id in self._blockers and placed.id not in self._started

    def _starts(self, status: Mapping[int, Phase]) -> list[Placed]:
        held = {gpu for placed in self.placed(status) for gpu in placed.gpus}
        return [p for p in self.new if self._pending(p) and held.isdisjoint(p.gpus)]

    def _serving(self, status: Mapping[int, Phase]) -> dict[int, Placed]:
        """What takes requests once the drains of kept replicas are undone."""
        kept = {p.id: p for p in self.kept if status.get(p.id) in ("serving", "draining")}
        others = {p.id: p for p in (*self.new, *self.leaving) if status.get(p.id) == "serving"}
        return {id: placed for id, placed in (kept | others).items() if id not in self._stopped}

    def _moving(self, status: Mapping[int, Phase]) -> bool:
        """Whether something loads or drains, so that waiting will change the picture."""
        return any(
            status.get(p.id) == "draining" or (p.id in status and p.id in self._stopped) for p in self.leaving
        ) or any(status.get(p.id) == "loading" for p in (*self.kept, *self.new))

    def _breach(self, serving: Mapping[int, Placed], group: Iterable[Placed]) -> tuple[int, int]:
        """Replicas and GPUs by which the models of `group` fall short of their floors without it."""
        without = {placed.id for placed in group}
        replicas = gpus = 0
        for model in {placed.replica.model for placed in group}:
            rest = [p.replica for p in serving.values() if p.replica.model == model and p.id not in without]
            replicas += max(0, self._replica_floor[model] - serving_count(rest))
            gpus += max(0, self._gpu_floor[model] - sum(replica.gpus for replica in rest))
        return replicas, gpus
