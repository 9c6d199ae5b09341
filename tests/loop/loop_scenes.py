"""A small cluster, and loops brought into each of the six states by the events that lead there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autopoiesis.cluster import Cluster, Pool
from autopoiesis.loop import (
    Apply,
    AskTrigger,
    Command,
    ControlLoop,
    Event,
    PlanReady,
    Repair,
    StartPlan,
    State,
    Tick,
    TriggerAnswered,
)
from autopoiesis.plan import Capacity, Envelope, Replica, ServingPlan
from autopoiesis.policy import Decision

OWN = Pool("own", gpu="h100", gpus_per_node=1, minimum=4, maximum=4, price_per_hour=2.0)
CLOUD = Pool("cloud", gpu="a100", gpus_per_node=2, minimum=0, maximum=8, price_per_hour=1.0)
CLUSTER = Cluster("small", (OWN, CLOUD))

H = Replica("m", "h100")
A = Replica("m", "a100")
SHAPES = (H, A)

START = ServingPlan((H, H))
NEXT = ServingPlan((H, H, H))
FULL = ServingPlan((H, H, H, H))
UNKNOWN_SHAPE = ServingPlan((H, replace(H, tensor_parallel=2)))


def new_loop(plan: ServingPlan = START, envelope: Envelope | None = None, **options: Any) -> ControlLoop:
    return ControlLoop(
        CLUSTER, envelope or Envelope(), ("m",), SHAPES, plan, Capacity.at_minimum(CLUSTER), **options
    )  # fmt: skip


def with_replicas(plan: ServingPlan, *more: Replica) -> ServingPlan:
    return ServingPlan((*plan.replicas, *more))


def tickets(commands: list[Command]) -> list[int]:
    """The new tickets that commands carry."""
    return [command.ticket for command in commands if isinstance(command, AskTrigger | StartPlan | Apply | Repair)]


@dataclass(slots=True)
class Scene:
    """A loop in some state, with the tickets that are waited for; 0 where none is."""

    loop: ControlLoop
    now_s: float = 0.0
    asking: int = 0
    planning: int = 0
    moving: int = 0
    next: int = 1

    def tell(self, event: Event) -> list[Command]:
        commands = self.loop.step(event, self.now_s)
        self.next = max([self.next, *(ticket + 1 for ticket in tickets(commands))])
        return commands

    def ask(self) -> None:
        (self.asking,) = tickets(self.tell(Tick()))

    def start_planning(self) -> None:
        self.ask()
        (self.planning,) = tickets(self.tell(TriggerAnswered(self.asking, True)))
        self.asking = 0

    def decide(self, decision: Decision) -> list[Command]:
        """From an idle policy to a decision and what follows from it."""
        self.start_planning()
        commands = self.tell(PlanReady(self.planning, decision))
        self.planning = 0
        return commands


MOVING_STATES = (State.IDLE_MOVING, State.ASKING_MOVING, State.PLANNING_MOVING)
STILL_STATES = (State.IDLE, State.ASKING, State.PLANNING)


def scene(state: State, waiting: bool = False, loop: ControlLoop | None = None) -> Scene:
    """A loop in `state`: still on START, or moving from there to NEXT. With `waiting`, the last decision also wanted
    two replicas on the cloud, which has been asked for two GPUs and has not given them."""
    made = Scene(loop or new_loop())
    target = NEXT if state in MOVING_STATES else START
    if waiting:
        made.decide(Decision(with_replicas(target, A, A), capacity={"cloud": 2}))
    elif state in MOVING_STATES:
        made.decide(Decision(target))
    if state in MOVING_STATES:
        made.moving = made.next - 1
    if state in (State.ASKING, State.ASKING_MOVING):
        made.ask()
    elif state in (State.PLANNING, State.PLANNING_MOVING):
        made.start_planning()
    assert made.loop.state is state
    return made


def canonical(commands: list[Command]) -> list[Command]:
    """The same commands with the replicas of their plans in canonical order."""
    return [
        replace(command, plan=command.plan.sorted()) if isinstance(command, Apply | Repair) else command
        for command in commands
    ]
