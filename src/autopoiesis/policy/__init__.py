"""Policies: the interface, and all that stands between a policy's source and its effect.

A policy module imports what it needs from here: `from autopoiesis.policy import Decision, ServingState, tools`.
"""

from autopoiesis.plan import ClassShares, Replica, Role, ServingPlan
from autopoiesis.policy.interface import (
    HOLD,
    SHED,
    Decision,
    Estimate,
    Move,
    ReplicaView,
    Request,
    ServingState,
    Transition,
)

__all__ = [
    "HOLD",
    "SHED",
    "ClassShares",
    "Decision",
    "Estimate",
    "Move",
    "Replica",
    "ReplicaView",
    "Request",
    "Role",
    "ServingPlan",
    "ServingState",
    "Transition",
]
