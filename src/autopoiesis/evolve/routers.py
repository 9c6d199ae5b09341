"""Routers that structural synthesis can start from, beside those of its parents.

Each is a module of a `route`, sometimes a `priority`, and the constants that perturbation then turns. They are known
ideas: least outstanding work, the weighted scorers of llm-d and production-stack, and admission control that holds
requests back from full replicas and sheds what is late anyway, which is what keeps goodput up in overload. The first
model and all others have limits of their own.
"""

from __future__ import annotations

_LEAST_TOKENS = '''\
"""Fewest prompt tokens in flight for the replica's speed; a request in flight counts as some tokens more."""
from autopoiesis.policy import ReplicaView, Request
TOKENS_PER_REQUEST = 400.0
def route(request: Request, replicas: list[ReplicaView]) -> int:
    best = min(replicas, key=lambda r: (r.in_flight_tokens + TOKENS_PER_REQUEST * r.in_flight) / r.speed)
    return best.index
'''

_WEIGHTED = '''\
"""Cached prefix against queue and KV use, as llm-d's scorers weigh them."""
from autopoiesis.policy import ReplicaView, Request
PREFIX_WEIGHT = 2.0
QUEUE_WEIGHT = 1.0
KV_WEIGHT = 1.0
QUEUE_SCALE = 32.0
def route(request: Request, replicas: list[ReplicaView]) -> int:
    best = max(
        replicas,
        key=lambda r: PREFIX_WEIGHT * r.cached_tokens / request.prompt_tokens
        - QUEUE_WEIGHT * r.in_flight / QUEUE_SCALE / r.speed
        - KV_WEIGHT * r.kv_use,
    )
    return best.index
'''

_ADMISSION_ROUTE = """\
from autopoiesis.policy import HOLD, SHED, ReplicaView, Request
CONCURRENCY = 96.0
OTHER_CONCURRENCY = 64.0
PATIENCE = 0.7
def route(request: Request, replicas: list[ReplicaView]) -> int:
    if request.waited_s > PATIENCE * request.ttft_slo_s:
        return SHED
    best = min(replicas, key=lambda r: r.in_flight / r.speed)
    limit = CONCURRENCY if request.model < 0.5 else OTHER_CONCURRENCY
    if best.in_flight >= limit * best.speed:
        return HOLD
    return best.index
"""

_ADMISSION = f'''\
"""Fewest requests in flight; hold while every replica is full, shed what has waited too long to be in time."""
{_ADMISSION_ROUTE}'''

_ADMISSION_SHORT_FIRST = f'''\
"""Hold while every replica is full, shortest prompt first; shed what has waited too long to be in time."""
{_ADMISSION_ROUTE}def priority(request: Request) -> float:
    return -request.prompt_tokens
'''

_BUDGET = '''\
"""Keep each replica's prompt tokens in flight within a budget of seconds; hold beyond it, shed what is late."""
from autopoiesis.policy import HOLD, SHED, ReplicaView, Request
TOKEN_BUDGET = 60000.0
PATIENCE = 0.6
def route(request: Request, replicas: list[ReplicaView]) -> int:
    if request.waited_s > PATIENCE * request.ttft_slo_s:
        return SHED
    best = min(replicas, key=lambda r: r.in_flight_tokens / r.speed)
    if best.in_flight_tokens > TOKEN_BUDGET * best.speed:
        return HOLD
    return best.index
'''

ROUTERS = {
    "least-tokens": _LEAST_TOKENS,
    "weighted": _WEIGHTED,
    "admission": _ADMISSION,
    "admission-short-first": _ADMISSION_SHORT_FIRST,
    "token-budget": _BUDGET,
}
"""By name, in the order in which a seeded choice sees them."""
