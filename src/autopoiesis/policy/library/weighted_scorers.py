"""Never change the plan, and give each request to the replica with the best weighted score of prefix, queue and KV use.

The inference scheduler of llm-d (the scorers of the Kubernetes gateway API's inference extension) and the router of
vLLM's production stack: every scorer gives every replica 0 to 1, and the largest weighted sum wins. The prefix scorer
gives the part of the prompt believed to be cached there; the queue scorer 1 to the shortest queue, 0 to the longest
and in proportion between; the KV scorer the part of the cache that is free. They scrape queues many times a second.
Telemetry is seconds old here, and all that comes between two scrapes would go to one replica, so a queue is what is
outstanding there by our own count beyond what was last seen running.
"""

from math import inf

from autopoiesis.policy import HOLD, Decision, ReplicaView, Request, ServingState

interface = 1

# Weight of the part of the prompt that is cached.
PREFIX = 2.0
# Weight of the queue, relative to the others' queues.
QUEUE = 1.0
# Weight of the free part of the KV cache.
KV = 1.0


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if len(replicas) == 0:
        return HOLD
    shortest = min(max(0.0, r.in_flight - r.running) for r in replicas)
    longest = max(max(0.0, r.in_flight - r.running) for r in replicas)
    best = 0
    most = -inf
    for i, r in enumerate(replicas):
        score = PREFIX * r.cached_tokens / max(1.0, request.prompt_tokens) + KV * (1.0 - r.kv_use)
        score += QUEUE * (longest - max(0.0, r.in_flight - r.running)) / max(1.0, longest - shortest)
        if score > most:
            most = score
            best = i
    return best
