"""Never change the plan, and give each request to the less loaded of two replicas drawn at random.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (IEEE TPDS 2001): with two independent, uniform
choices the longest queue is exponentially shorter than with one, and more choices add little. Load is the gateway's
own count of outstanding requests; a tie goes to the first draw.
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
    first = replicas[floor(request.uniform1 * len(replicas))]
    second = replicas[floor(request.uniform2 * len(replicas))]
    return second.index if second.in_flight < first.in_flight else first.index
