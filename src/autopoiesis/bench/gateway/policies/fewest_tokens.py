"""Never change the plan, and give each request to the replica with the fewest tokens in flight for its speed."""

from autopoiesis.policy import HOLD, Decision, ReplicaView, Request, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    return min(replicas, key=lambda r: (r.in_flight_tokens + request.prompt_tokens) / r.speed).index
