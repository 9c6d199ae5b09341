"""The shares of a plan, applied to the replicas that serve at this moment.

During a transition neither the plan in force nor the one to come describes what is there. A class keeps the shares of
the plan in force while every replica that they name serves, takes those of the plan to come once every replica that
they name does, and between the two has none, so that nothing that could serve it stands idle.
"""

from __future__ import annotations

from collections.abc import Mapping

from autopoiesis.plan import ClassShares, Replica, ServingPlan


def fleet_shares(
    serving: Mapping[int, Replica], in_force: ServingPlan, to_come: ServingPlan
) -> tuple[ServingPlan, dict[int, int]]:
    """A plan of exactly the serving replicas (slot → replica) with the shares that hold, and its positions' slots."""
    slots = dict(enumerate(serving))
    shares: dict[str, ClassShares] = {}
    for plan in (in_force,) if in_force is to_come else (in_force, to_come):
        if not plan.shares:
            continue
        position_of = _matching(plan, list(serving.values()))
        for entry in plan.shares:
            named = [position for position, fraction in enumerate(entry.fractions) if fraction > 0]
            if entry.request_class in shares or not all(position in position_of for position in named):
                continue
            fractions = [0.0] * len(slots)
            for position in named:
                fractions[position_of[position]] = entry.fractions[position]
            shares[entry.request_class] = ClassShares(entry.request_class, tuple(fractions))
    return ServingPlan(tuple(serving.values()), tuple(shares.values())), slots


def _matching(plan: ServingPlan, serving: list[Replica]) -> dict[int, int]:
    """Position in the plan → position among the serving, each used once, in order."""
    free = list(range(len(serving)))
    matching = {}
    for position, replica in enumerate(plan.replicas):
        match = next((i for i in free if serving[i] == replica), None)
        if match is not None:
            free.remove(match)
            matching[position] = match
    return matching
