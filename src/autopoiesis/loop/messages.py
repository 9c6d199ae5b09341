"""What goes into the control loop and what comes out of it.

Both worlds speak these: the simulated one in virtual time, the live one in wall time. A *ticket* ties an answer to
the question it belongs to, so that an answer to a question nobody waits for any more is recognised and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autopoiesis.plan import ServingPlan
from autopoiesis.policy.interface import Decision, Move

# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """A monitoring point."""


@dataclass(frozen=True, slots=True)
class TriggerAnswered:
    ticket: int
    reschedule: bool | None
    """None: the trigger failed, which counts as no."""


@dataclass(frozen=True, slots=True)
class PlanReady:
    ticket: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class PlanFailed:
    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class TransitionProgress:
    ticket: int
    started: int
    to_start: int


@dataclass(frozen=True, slots=True)
class TransitionDone:
    ticket: int
    started: int
    stopped: int


@dataclass(frozen=True, slots=True)
class TransitionFailed:
    ticket: int
    reason: str
    plan: ServingPlan
    """What runs now instead."""


@dataclass(frozen=True, slots=True)
class CapacityNotice:
    """A pool will change: at `at_s` it will have `gpus` GPUs."""

    pool: str
    gpus: int
    at_s: float


@dataclass(frozen=True, slots=True)
class CapacityChanged:
    """A pool has `gpus` GPUs from now on."""

    pool: str
    gpus: int


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica died; `plan` is what still runs or loads."""

    plan: ServingPlan


@dataclass(frozen=True, slots=True)
class PolicySwapped:
    policy: str
    """Identity of the new policy."""
    memory: dict[str, Any]


Event = (
    Tick
    | TriggerAnswered
    | PlanReady
    | PlanFailed
    | TransitionProgress
    | TransitionDone
    | TransitionFailed
    | CapacityNotice
    | CapacityChanged
    | ReplicaLost
    | PolicySwapped
)

# --- commands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskTrigger:
    ticket: int


@dataclass(frozen=True, slots=True)
class StartPlan:
    ticket: int
    deadline_s: float
    """Absolute; a planner that has not answered by then has failed."""


@dataclass(frozen=True, slots=True)
class CancelPlan:
    ticket: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Move to `plan`. While a transition is under way the world has been told to cancel it first."""

    ticket: int
    plan: ServingPlan
    move: Move = field(default_factory=Move)


@dataclass(frozen=True, slots=True)
class CancelTransition:
    """Start nothing more and let drains that have begun be undone; the next command says where to go instead."""

    ticket: int


@dataclass(frozen=True, slots=True)
class RequestCapacity:
    """Ask for `gpus` GPUs in all from an elastic pool; the cluster may grant them later or not."""

    pool: str
    gpus: int


@dataclass(frozen=True, slots=True)
class Repair:
    """Move to `plan` at once, without trigger or planner: capacity was lost and the plan in force no longer stands."""

    ticket: int
    plan: ServingPlan


Command = AskTrigger | StartPlan | CancelPlan | Apply | CancelTransition | RequestCapacity | Repair
