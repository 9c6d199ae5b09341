"""The end of a window, as a run notes it down for whoever looks back: how far everything had come by then."""

from __future__ import annotations

from dataclasses import dataclass

from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.lives import Snapshot


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything that is counted is counted from the beginning of the run, so windows are differences of marks."""

    at: int
    """Picoseconds."""
    arrived: int
    """Length of the kernel's log of arrivals …"""
    finished: int
    """… and of ends."""
    cost_usd: float
    gpu_hours: float
    scheduling_s: float
    """Seconds in which the policy computed and no transition was under way."""
    reconfiguration_s: float
    """Seconds in which a transition was under way."""
    reschedules: int
    plan: ServingPlan
    """Where the deployment is, or is going to."""
    policy: str
    """Identity of the policy at work."""
    replicas: Snapshot
