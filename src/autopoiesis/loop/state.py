"""The states of the control loop, and what it remembers of a question or a transition under way.

The loop minds two things at once, and its six states are their product: the *policy* is `idle`, `asking` its trigger or
`planning`, one question at a time; the *cluster* stands still or is `moving` towards the plan last applied.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from autopoiesis.plan import Capacity
from autopoiesis.policy.interface import TransitionStatus

COUNTS = (
    "ticks", "ignored_ticks", "triggers", "trigger_failures", "plans", "plan_failures", "plans_rejected",
    "plans_repaired", "transitions", "transition_failures", "repairs", "swaps", "stale_events",
)  # fmt: skip
"""Keys of `ControlLoop.counts`. `triggers` said yes; `plans` arrived in time, refused ones included; `plans_repaired`
lost their capacity while they were computed; `transitions` and `repairs` were begun, by `Apply` and `Repair`."""


class State(Enum):
    """What the policy is doing × whether the cluster is moving."""

    IDLE = "idle"
    ASKING = "asking"
    PLANNING = "planning"
    IDLE_MOVING = "idle, moving"
    ASKING_MOVING = "asking, moving"
    PLANNING_MOVING = "planning, moving"


@dataclass(frozen=True, slots=True)
class Planning:
    """A planner at work."""

    ticket: int
    deadline_s: float
    """Absolute."""
    capacity: Capacity
    """Available when it was asked."""


@dataclass(frozen=True, slots=True)
class Moving:
    """A transition under way."""

    ticket: int
    by_policy: bool
    """Not a repair: its starts count against the envelope's moves per hour."""
    status: TransitionStatus


@dataclass(slots=True)
class RecentStarts:
    """Replica starts of policies' transitions within the last hour, which the envelope may bound."""

    entries: deque[tuple[float, int]] = field(default_factory=deque)
    """(second, replicas started), oldest first."""

    def add(self, now_s: float, started: int) -> None:
        self.entries.append((now_s, started))

    def count(self, now_s: float) -> int:
        while self.entries and self.entries[0][0] <= now_s - 3600.0:
            self.entries.popleft()
        return sum(started for _, started in self.entries)
