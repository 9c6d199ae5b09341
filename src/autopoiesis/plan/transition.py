"""What a transition will take: the rollout itself, run ahead in virtual time with expected durations.

The estimate and the thing estimated share their code, of rollouts and of starts beside one another, so a change of how
transitions are carried out changes what policies are told about them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from autopoiesis.cost import Starts
from autopoiesis.plan.capacity import Node
from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.placement import Placed
from autopoiesis.plan.rollout import KeepServing, Phase, Rollout, Start, Stop
from autopoiesis.plan.serving_plan import ServingPlan


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
    starts: Starts,
    drain_s: float,
    price: Callable[[str], float],
    capacity_kept: float,
    envelope: Envelope,
) -> TransitionCost:
    """The cost of going from `running` (in the phases of `status`) to `plan`.

    `starts` knows the nodes that have just joined and nothing else yet, and is used up; `drain_s` is the time from a
    stop to gone, `price` US dollars per GPU-hour by GPU kind. Replicas that load or drain already are taken to have
    just begun. Raises PlanError if the plan does not pack on the nodes.
    """
    next_id = max((placed.id for placed in running), default=-1) + 1
    rollout = Rollout(plan, nodes, running, status, capacity_kept=capacity_kept, envelope=envelope, next_id=next_id)
    replicas = {placed.id: placed.replica for placed in (*rollout.kept, *rollout.new, *rollout.leaving)}
    phases: dict[int, Phase] = {id: status[id] for id in replicas if id in status}
    gpus = {placed.id: placed.gpus for placed in (*rollout.kept, *rollout.new, *rollout.leaving)}
    drains: list[tuple[float, int]] = []
    """When which drain ends; one that was undone stays until then."""
    now = money = 0.0

    def begin(id: int, phase: Phase) -> None:
        phases[id] = phase
        replica = replicas[id]
        if phase == "loading":
            starts.begin(id, replica.model, replica.gpu, gpus[id], now)
        else:
            heapq.heappush(drains, (now + drain_s, id))

    def pay(id: int, seconds: float) -> float:
        return price(replicas[id].gpu) * replicas[id].gpus * seconds / 3600

    def serving_gpus() -> int:
        return sum(replicas[id].gpus for id, phase in phases.items() if phase == "serving")

    before = least = serving_gpus()
    for id, phase in list(phases.items()):
        if phase != "loading":
            starts.serves(id, replicas[id].model, replicas[id].gpu, gpus[id])
        if phase != "serving":
            begin(id, phase)
    while True:
        while actions := rollout.actions(phases):
            for action in actions:
                match action:
                    case Start(id=id):
                        begin(id, "loading")
                    case Stop(id=id) if phases[id] == "loading":
                        starts.end(id, now)
                        del phases[id]
                    case Stop(id=id):
                        begin(id, "draining")
                    case KeepServing(id=id):
                        phases[id] = "serving"
        least = min(least, serving_gpus())
        if rollout.done(phases):
            return TransitionCost(now, money, least / before if before else 1.0)
        now = min(starts.due_s, drains[0][0] if drains else math.inf)
        if now == math.inf:
            raise AssertionError("a rollout stands still")
        for up in starts.advance(now):
            phases[up.id] = "serving"
            money += pay(up.id, up.seconds)
        while drains and drains[0][0] <= now:
            _, id = heapq.heappop(drains)
            if phases.get(id) == "draining":
                starts.end(id, now)
                del phases[id]
                money += pay(id, drain_s)
