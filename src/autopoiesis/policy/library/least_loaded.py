"""Never change the plan, and give each request to the replica with the fewest outstanding requests.

Common practice in load balancers: "least connections" in NGINX and HAProxy, "least request" in Envoy (their
documentation). Outstanding is what the gateway sent and has not seen end, its own exact count; unlike replicas are not
told apart.
"""

from autopoiesis.policy import HOLD, Decision, ReplicaView, Request, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    return min(replicas, key=lambda r: r.in_flight).index
