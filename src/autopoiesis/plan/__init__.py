"""Serving plans: replicas, shares, placement, validity, the operator's envelope, and the way between two plans."""

from autopoiesis.plan.capacity import Capacity, Node, PoolCapacity
from autopoiesis.plan.envelope import Envelope, check_envelope
from autopoiesis.plan.placement import GPUs, Placed, Placement, assign_gpus, free_gpus, packable, place
from autopoiesis.plan.repair import fit, repair
from autopoiesis.plan.rollout import Action, KeepServing, Phase, Rollout, Start, Stop
from autopoiesis.plan.serving_plan import ClassShares, Replica, Role, ServingPlan
from autopoiesis.plan.transition import TransitionCost, estimate_transition
from autopoiesis.plan.validity import check_plan, cost_per_hour, serving_count

__all__ = [
    "Action",
    "Capacity",
    "ClassShares",
    "Envelope",
    "GPUs",
    "KeepServing",
    "Node",
    "Phase",
    "Placed",
    "Placement",
    "PoolCapacity",
    "Replica",
    "Role",
    "Rollout",
    "ServingPlan",
    "Start",
    "Stop",
    "TransitionCost",
    "assign_gpus",
    "check_envelope",
    "check_plan",
    "cost_per_hour",
    "estimate_transition",
    "fit",
    "free_gpus",
    "packable",
    "place",
    "repair",
    "serving_count",
]
