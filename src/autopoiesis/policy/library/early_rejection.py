"""Never change the plan; hold requests while every replica is full, and turn away what would come too late.

Overload-oriented early rejection as in Mooncake (Qin et al., FAST 2025): a request that cannot be answered in time is
refused before any work is done for it, because serving it late makes those behind it late as well. Mooncake compares a
predicted load with the SLO of either phase; here a replica is full at a part of its sequence cap, or of its KV cache as
last seen, and a request has waited too long at a part of the TTFT that it is promised. Decoding of a prompt that has
been prefilled is never refused.
"""

from autopoiesis.policy import HOLD, SHED, Decision, ReplicaView, Request, ServingState

interface = 1

# Part of a replica's sequence cap that may be in flight.
OCCUPANCY = 0.25
# Part of a replica's KV cache that may be in use.
KV = 0.9
# Part of the promised TTFT that a request may wait for room.
PATIENCE = 0.5


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    if request.phase > 0:
        return min(replicas, key=lambda r: (r.in_flight + 1) / r.speed).index
    if sum(1 for r in replicas if r.in_flight < OCCUPANCY * r.max_sequences and r.kv_use < KV) > 0:
        return min(
            (r for r in replicas if r.in_flight < OCCUPANCY * r.max_sequences and r.kv_use < KV),
            key=lambda r: (r.in_flight + 1) / r.speed,
        ).index
    return SHED if request.waited_s > PATIENCE * request.ttft_slo_s else HOLD
