"""The control loop: one object that decides what happens next, and does none of it.

It is fed events and answers with commands; it performs no I/O, reads no clock and never waits, so the simulated
world drives it in virtual time and the live one in wall time, and a recorded run can be replayed exactly.

Every question and every transition has a ticket. An answer is taken only if it carries the ticket that is waited for,
so whatever arrives in a state where it means nothing (an answer after a swap, the end of a cancelled transition) is
counted as stale and dropped. `docs/architecture.md` says what each event does in each state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

from autopoiesis.cluster import Cluster
from autopoiesis.errors import PlanError
from autopoiesis.loop.decisions import bounded_requests, check_move, gpus_of, same_deployment, with_requests
from autopoiesis.loop.messages import (
    Apply,
    AskTrigger,
    CancelPlan,
    CancelTransition,
    CapacityChanged,
    CapacityNotice,
    Command,
    Event,
    PlanFailed,
    PlanReady,
    PolicySwapped,
    Repair,
    ReplicaLost,
    RequestCapacity,
    StartPlan,
    Tick,
    TransitionDone,
    TransitionFailed,
    TransitionProgress,
    TriggerAnswered,
)
from autopoiesis.loop.state import COUNTS, Moving, Planning, RecentStarts, State
from autopoiesis.plan import (
    Capacity,
    Envelope,
    Replica,
    ServingPlan,
    check_plan,
    packable,
    repair,
    serving_count,
)
from autopoiesis.policy.interface import Decision, Move, TransitionStatus


class ControlLoop:
    """Turns events into commands. Drivers read its attributes and call `step`, nothing else.

    `plan` is the plan last applied: in force, or (while moving) where the transition under way leads. `wanted` is what
    the last accepted decision asked for; `plan` is the part of it that the capacity can place, or a repair of it.
    `requested` counts GPUs per pool, the available ones included.

    Raises `PlanError` if the plan at the start does not stand on the capacity at the start.
    """

    def __init__(
        self,
        cluster: Cluster,
        envelope: Envelope,
        models: tuple[str, ...],
        shapes: tuple[Replica, ...],
        plan: ServingPlan,
        capacity: Capacity,
        planner_deadline_s: float = 30.0,
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        check_plan(plan, capacity, envelope, models, shapes, running=plan)
        self.cluster = cluster
        self.envelope = envelope
        self.models = models
        self.shapes = shapes
        self.planner_deadline_s = planner_deadline_s
        self.plan = plan
        self.wanted = plan
        self.capacity = capacity
        self.requested = {entry.pool.name: entry.gpus for entry in capacity.pools}
        self.announced: list[CapacityNotice] = []
        self.memory: dict[str, Any] = dict(memory or {})
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.last_refusal: str | None = None
        """Why the last refused plan was refused."""
        self._last_ticket = 0
        self._asking: int | None = None
        self._planning: Planning | None = None
        self._moving: Moving | None = None
        self._move = Move()
        self._releases: dict[str, int] = {}
        """Lower requests that wait until the plan in force stands without the GPUs."""
        self._starts = RecentStarts()

    @property
    def state(self) -> State:
        if self._asking is not None:
            return State.ASKING_MOVING if self._moving else State.ASKING
        if self._planning is not None:
            return State.PLANNING_MOVING if self._moving else State.PLANNING
        return State.IDLE_MOVING if self._moving else State.IDLE

    @property
    def moving(self) -> TransitionStatus | None:
        """The transition under way, as policies see it."""
        return self._moving.status if self._moving else None

    @property
    def pending(self) -> ServingPlan | None:
        """Where the transition under way leads."""
        return self._moving.status.plan if self._moving else None

    def step(self, event: Event, now_s: float) -> list[Command]:
        """What to do about `event`, in this order. Time must not run backwards from one call to the next."""
        match event:
            case Tick():
                return self._tick(now_s)
            case TriggerAnswered():
                return self._trigger_answered(event, now_s)
            case PlanReady():
                return self._plan_ready(event, now_s)
            case PlanFailed():
                return self._plan_failed(event)
            case TransitionProgress():
                return self._progress(event)
            case TransitionDone():
                return self._done(event, now_s)
            case TransitionFailed():
                return self._failed(event, now_s)
            case CapacityNotice():
                return self._notice(event)
            case CapacityChanged():
                return self._capacity_changed(event, now_s)
            case ReplicaLost():
                return self._lost(event, now_s)
            case PolicySwapped():
                return self._swapped(event)
            case _:
                assert_never(event)

    # --- the policy's side --------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> list[Command]:
        self.counts["ticks"] += 1
        self.announced = [notice for notice in self.announced if notice.at_s > now_s]
        if self._asking is not None or self._planning is not None:
            self.counts["ignored_ticks"] += 1
            return []
        self._asking = self._ticket()
        return [AskTrigger(self._asking)]

    def _trigger_answered(self, event: TriggerAnswered, now_s: float) -> list[Command]:
        if event.ticket != self._asking:
            return self._stale()
        self._asking = None
        if event.reschedule is None:
            self.counts["trigger_failures"] += 1
        if not event.reschedule:
            return []
        self.counts["triggers"] += 1
        self._planning = Planning(self._ticket(), now_s + self.planner_deadline_s, self.capacity)
        return [StartPlan(self._planning.ticket, self._planning.deadline_s)]

    def _plan_ready(self, event: PlanReady, now_s: float) -> list[Command]:
        planning = self._planning
        if planning is None or event.ticket != planning.ticket:
            return self._stale()
        self._planning = None
        if now_s > planning.deadline_s:
            self.counts["plan_failures"] += 1
            return []
        self.counts["plans"] += 1
        decision = event.decision
        try:
            requests = bounded_requests(
                self.cluster, self.envelope, {**self.requested, **self._releases}, decision.capacity
            )
            overtaken = self._check(decision, requests, planning.capacity, now_s)
        except PlanError as refusal:
            self.counts["plans_rejected"] += 1
            self.last_refusal = str(refusal)
            if same_deployment(decision.plan, self.plan):
                self._remember(decision)
            return []
        self._remember(decision)
        self.wanted = decision.plan
        self._move = decision.move
        commands = self._request(requests)
        self.counts["plans_repaired"] += overtaken
        target = self._placeable(self.wanted)
        if not same_deployment(target, self.plan):
            commands += self._set_out(target, now_s, by_policy=True)
        return commands + self._release()

    def _plan_failed(self, event: PlanFailed) -> list[Command]:
        if self._planning is None or event.ticket != self._planning.ticket:
            return self._stale()
        self._planning = None
        self.counts["plan_failures"] += 1
        return []

    def _swapped(self, event: PolicySwapped) -> list[Command]:
        self.counts["swaps"] += 1
        self.memory = event.memory
        self._asking = None
        if self._planning is None:
            return []
        ticket = self._planning.ticket
        self._planning = None
        return [CancelPlan(ticket)]

    def _check(self, decision: Decision, requests: dict[str, int], asked_on: Capacity, now_s: float) -> bool:
        """Raise `PlanError` unless the decision is valid; True if it was when it was asked for, and is no more."""
        check_move(decision.move)
        # Starts that are still ahead of the transition under way will come, whatever is decided now.
        ahead = self._moving.status.to_start if self._moving and self._moving.by_policy else 0
        recent_starts = self._starts.count(now_s) + ahead

        def check(capacity: Capacity) -> None:
            check_plan(
                decision.plan,
                with_requests(capacity, requests),
                self.envelope,
                self.models,
                self.shapes,
                recent_starts,
                self.plan,
            )

        try:
            check(self.capacity)
        except PlanError:
            check(asked_on)
            return True
        return False

    def _remember(self, decision: Decision) -> None:
        if decision.memory is not None:
            self.memory = decision.memory

    # --- the cluster's side -------------------------------------------------------------------------------------------

    def _progress(self, event: TransitionProgress) -> list[Command]:
        if self._moving is None or event.ticket != self._moving.ticket:
            return self._stale()
        status = replace(self._moving.status, started=event.started, to_start=event.to_start)
        self._moving = replace(self._moving, status=status)
        return []

    def _done(self, event: TransitionDone, now_s: float) -> list[Command]:
        if self._moving is None or event.ticket != self._moving.ticket:
            return self._stale()
        self._arrive(event.started, now_s)
        return self._release()

    def _failed(self, event: TransitionFailed, now_s: float) -> list[Command]:
        if self._moving is None or event.ticket != self._moving.ticket:
            return self._stale()
        self.counts["transition_failures"] += 1
        self._arrive(self._moving.status.started, now_s)
        self.plan = event.plan
        if packable(self.plan.replicas, self.capacity.nodes()) and self._keeps_minimum(self.plan):
            return self._release()
        target = self._placeable(self.plan)
        # Where nothing better can be placed, another attempt would only fail again, for ever.
        return [] if target.same_replicas(self.plan) else self._set_out(target, now_s, by_policy=False)

    def _lost(self, event: ReplicaLost, now_s: float) -> list[Command]:
        self.plan = event.plan
        return self._set_out(self._placeable(self.wanted), now_s, by_policy=False)

    def _notice(self, event: CapacityNotice) -> list[Command]:
        if event.pool not in self.requested:
            return self._stale()
        self.announced.append(event)
        return []

    def _capacity_changed(self, event: CapacityChanged, now_s: float) -> list[Command]:
        if event.pool not in self.requested:
            return self._stale()
        pool = self.cluster.pool(event.pool)
        before = gpus_of(self.capacity, pool.name)
        # Replicas are placed on whole nodes, so a part of one is no capacity.
        gpus = min(max(event.gpus - event.gpus % pool.gpus_per_node, 0), pool.maximum)
        self.announced = [n for n in self.announced if n.pool != event.pool or n.at_s > now_s]
        self.capacity = self.capacity.with_pool(pool.name, gpus)
        if gpus > before:
            # A trace of capacity may give what nobody asked for; it counts as requested until a policy says otherwise.
            self.requested[pool.name] = max(self.requested[pool.name], gpus)
            target = self._placeable(self.wanted)
            return [] if same_deployment(target, self.plan) else self._set_out(target, now_s, by_policy=True)
        if packable(self.plan.replicas, self.capacity.nodes()):
            return []
        return self._set_out(self._placeable(self.wanted), now_s, by_policy=False)

    def _set_out(self, target: ServingPlan, now_s: float, by_policy: bool) -> list[Command]:
        """Begin a transition to `target`, giving up the one under way."""
        commands: list[Command] = []
        if self._moving is not None:
            commands.append(CancelTransition(self._moving.ticket))
            self._arrive(self._moving.status.started, now_s)
        to_start = sum((Counter(target.replicas) - Counter(self.plan.replicas)).values())
        ticket = self._ticket()
        self.plan = target
        self._moving = Moving(ticket, by_policy, TransitionStatus(target, now_s, 0, to_start))
        self.counts["transitions" if by_policy else "repairs"] += 1
        return [*commands, Apply(ticket, target, self._move) if by_policy else Repair(ticket, target)]

    def _arrive(self, started: int, now_s: float) -> None:
        """The transition under way has ended, one way or another, after so many starts."""
        if self._moving is not None and self._moving.by_policy and started:
            self._starts.add(now_s, started)
        self._moving = None

    # --- capacity -----------------------------------------------------------------------------------------------------

    def _request(self, requests: Mapping[str, int]) -> list[Command]:
        """Raise requests at once; put lower ones off."""
        commands: list[Command] = []
        for pool, gpus in requests.items():
            self._releases.pop(pool, None)
            if gpus > self.requested[pool]:
                self.requested[pool] = gpus
                commands.append(RequestCapacity(pool, gpus))
            elif gpus < self.requested[pool]:
                self._releases[pool] = gpus
        return commands

    def _release(self) -> list[Command]:
        """Lower what was put off, as far as nothing moves and the plan in force stands on what stays."""
        commands: list[Command] = []
        capacity = self.capacity
        for pool, gpus in tuple(self._releases.items()):
            remaining = capacity.with_pool(pool, min(gpus, gpus_of(capacity, pool)))
            if self._moving is None and packable(self.plan.replicas, remaining.nodes()):
                capacity = remaining
                del self._releases[pool]
                self.requested[pool] = gpus
                commands.append(RequestCapacity(pool, gpus))
        return commands

    def _keeps_minimum(self, plan: ServingPlan) -> bool:
        return all(serving_count(plan.replicas_of(model)) >= self.envelope.minimum_for(model) for model in self.models)

    def _placeable(self, plan: ServingPlan) -> ServingPlan:
        """The part of `plan` that can be placed now, or a repair of it, should that lack a model's minimum."""
        return repair(plan, self.capacity, self.envelope, self.models, self.shapes)

    def _ticket(self) -> int:
        self._last_ticket += 1
        return self._last_ticket

    def _stale(self) -> list[Command]:
        self.counts["stale_events"] += 1
        return []
