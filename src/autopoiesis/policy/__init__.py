"""Policies: the interface, and all that stands between a policy's source and its effect.

A policy module imports what it needs from here: `from autopoiesis.policy import Decision, ServingState, tools`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_PLAN = frozenset({"ClassShares", "Replica", "Role", "ServingPlan"})


def __getattr__(name: str) -> Any:
    """Imported when first asked for: who checks, keeps or sends policies needs none of what they are written with."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("autopoiesis.plan" if name in _PLAN else "autopoiesis.policy.interface"), name)
