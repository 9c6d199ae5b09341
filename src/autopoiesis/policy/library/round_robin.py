"""Never change the plan, and give each request to the next replica in turn.

The default of most load balancers, blind to load and to unlike replicas: the reference for what routing is worth.
"""

from math import floor

from autopoiesis.policy import HOLD, Decision, ReplicaView, Request, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    return floor(request.sequence % len(replicas))
