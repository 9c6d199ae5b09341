"""Serving plans: replicas, shares, placement, validity, the operator's envelope, and the way from one plan to another."""

from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.serving_plan import ClassShares, Replica, Role, ServingPlan

__all__ = ["ClassShares", "Envelope", "Replica", "Role", "ServingPlan"]
