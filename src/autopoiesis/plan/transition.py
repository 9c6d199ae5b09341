"""What a transition will take: the rollout itself, run ahead in virtual time with expected durations.

The estimate and the thing estimated share their code, so a change of how transitions are carried out changes what
policies are told about them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from autopoiesis.plan.capacity import Node
from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.placement import Placed
from autopoiesis.plan.rollout import KeepServing, Phase, Rollout, Start, Stop
from autopoiesis.plan.serving_plan import Replica, ServingPlan


class TransitionCost(NamedTuple):
    """What moving to a plan takes."""

    seconds: float
    money_usd: float
    """Price of the GPUs held by loading and draining replicas, for as long as they are."""
    capacity_kept: float
    """Least fraction of the GPUs serving at the beginning that serves at any time; 1 if none serves."""


def estimate_transition(
    plan: ServingPlan,
    nodes: Sequence[Node],
    running: Sequence[Placed],
    status: Mapping[int, Phase],
    start_s: Callable[[Replica], float],
    drain_s: float,
    price: Callable[[str], float],
    capacity_kept: float,
    envelope: Envelope,
) -> TransitionCost:
    """The cost of going from `running` (in the phases of `status`) to `plan`.

    `start_s` is the time from a start to serving, `drain_s` that from a stop to gone, `price` US dollars per GPU-hour
    by GPU kind. Replicas that load or drain already are taken to have just begun. Raises PlanError if the plan does
    not pack on the nodes.
    """
    next_id = max((placed.id for placed in running), default=-1) + 1
    rollout = Rollout(plan, nodes, running, status, capacity_kept=capacity_kept, envelope=envelope, next_id=next_id)
    replicas = {placed.id: placed.replica for placed in (*rollout.kept, *rollout.new, *rollout.leaving)}
    phases: dict[int, Phase] = {id: status[id] for id in replicas if id in status}
    events: list[tuple[float, int, Phase]] = []
    now = money = 0.0

    def begin(id: int, phase: Phase) -> None:
        phases[id] = phase
        heapq.heappush(events, (now + (start_s(replicas[id]) if phase == "loading" else drain_s), id, phase))

    def serving_gpus() -> int:
        return sum(replicas[id].gpus for id, phase in phases.items() if phase == "serving")

    before = least = serving_gpus()
    for id, phase in list(phases.items()):
        if phase != "serving":
            begin(id, phase)
    while True:
        while actions := rollout.actions(phases):
            for action in actions:
                match action:
                    case Start(id=id):
                        begin(id, "loading")
                    case Stop(id=id) if phases[id] == "loading":
                        del phases[id]
                    case Stop(id=id):
                        begin(id, "draining")
                    case KeepServing(id=id):
                        phases[id] = "serving"
        least = min(least, serving_gpus())
        if rollout.done(phases):
            return TransitionCost(now, money, least / before if before else 1.0)
        at, id, phase = heapq.heappop(events)
        if phases.get(id) != phase:
            continue  # this drain was undone, or this start ended
        now = at
        replica = replicas[id]
        if phase == "loading":
            phases[id] = "serving"
            seconds = start_s(replica)
        else:
            del phases[id]
            seconds = drain_s
        money += price(replica.gpu) * replica.gpus * seconds / 3600
