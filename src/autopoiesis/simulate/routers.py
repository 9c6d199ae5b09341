"""The built-in routers: where a request goes if the policy in force does not say.

*Balanced* is the default: fewest requests in flight relative to the plan's share, or to speed where the plan gives
none. The others are what engines' own routers do: round robin, least outstanding requests, the less busy of two drawn
at random, a weighted score of cached prefix, load and KV use (llm-d's weights, prefix : queue : KV = 2 : 1 : 1), and
the plan's shares themselves, dealt out evenly (smooth weighted round robin; balanced where there are none). Load is
what is in flight by our own count: a scraped queue is seconds old, and all that comes between two scrapes would herd
onto one replica. Only KV use is telemetry. Ties go to the lower slot.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.draws import hash64, uniform
from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import (
    BALANCED,
    BLOCK_TOKENS,
    DECODE,
    LEAST_OUTSTANDING,
    OFFERS,
    POWER_OF_TWO,
    ROUND_ROBIN,
    ROUTER,
    SEED,
    SHARES,
    WEIGHTED,
    State,
    Whole,
)

ROUTERS = {
    "balanced": BALANCED,
    "round-robin": ROUND_ROBIN,
    "least-outstanding": LEAST_OUTSTANDING,
    "power-of-two": POWER_OF_TWO,
    "weighted": WEIGHTED,
    "shares": SHARES,
}
"""By the names that configurations use."""
PREFIX_WEIGHT = 2.0
SPARE_KV_TOKENS = 64
"""A replica takes a request only if its KV cache could hold the prompt and this many tokens more."""


@inlined
def fits(state: State, row: Whole, slot: Whole) -> bool:
    """Whether the replica's KV cache could hold the request."""
    request = state.requests[row]
    tokens = np.int64(request.input) + request.generated + SPARE_KV_TOKENS
    could: bool = state.replicas[slot].kv_blocks * BLOCK_TOKENS >= tokens
    return could


@inlined
def find_believed(state: State, row: Whole) -> None:
    """Fill the scratch `believed` for the candidates: prompt tokens that each of them should have cached.

    A replica that was sent a segment has it until as many prompt tokens have been sent there since as its cache holds;
    and who has a segment has those before it.
    """
    request = state.requests[row]
    group = 2 * request.model + request.phase
    for i in range(state.candidate_count[group]):
        state.believed[state.candidates[group, i]] = 0
    blocks = np.int64(request.segment_blocks)
    for i in range(request.chain + request.segments - 1, request.chain - 1, -1):
        segment = state.segments[state.chains[i, 0]]
        if segment.slot >= 0:
            replica = state.replicas[segment.slot]
            alive = replica.generation == segment.generation
            recent = replica.routed_tokens - segment.mark <= replica.kv_blocks * BLOCK_TOKENS
            if alive and recent and state.believed[segment.slot] == 0:
                state.believed[segment.slot] = blocks * BLOCK_TOKENS
        blocks -= state.chains[i, 1]


@inlined
def remember_prompt(state: State, slot: Whole, row: Whole) -> None:
    """The request's prompt is sent to this replica, to be computed there as far as it is not cached."""
    request = state.requests[row]
    replica = state.replicas[slot]
    if len(state.segments) == 0:
        return
    for i in range(request.chain, request.chain + request.segments):
        segment = state.segments[state.chains[i, 0]]
        if segment.slot != slot or segment.generation != replica.generation:
            replica.routed_tokens += state.chains[i, 1] * BLOCK_TOKENS
        segment.slot = slot
        segment.generation = replica.generation
        segment.mark = replica.routed_tokens
    replica.routed_tokens += np.int64(request.input) - np.int64(request.segment_blocks) * BLOCK_TOKENS
    if request.own >= 0:
        segment = state.segments[request.own]
        segment.slot = slot
        segment.generation = replica.generation
        segment.mark = replica.routed_tokens


@inlined
def find_able(state: State, row: Whole) -> Whole:
    """Fill the scratch `view_slot` with the replicas that could take the request; how many.

    Decoding apart from prefill goes to decode replicas; to mixed ones if there are no others.
    """
    request = state.requests[row]
    group = 2 * request.model + request.phase
    count = 0
    decoders = False
    for i in range(state.candidate_count[group]):
        slot = state.candidates[group, i]
        if not fits(state, row, slot):
            continue
        if request.phase == 1:
            decodes = state.replicas[slot].role == DECODE
            if decodes and not decoders:
                decoders = True
                count = 0
            if decoders and not decodes:
                continue
        state.view_slot[count] = slot
        count += 1
    return count


@inlined
def pick_balanced(state: State, row: Whole, count: Whole) -> Whole:
    request_class = state.requests[row].request_class
    best = best_shared = np.int64(-1)
    least = least_shared = np.inf
    for i in range(count):
        slot = state.view_slot[i]
        replica = state.replicas[slot]
        load = replica.in_flight + 1.0
        share = state.shares[request_class, slot]
        if share > 0 and load / share < least_shared:
            least_shared = load / share
            best_shared = slot
        if load / replica.speed < least:
            least = load / replica.speed
            best = slot
    return best_shared if best_shared >= 0 else best


@inlined
def pick_next(state: State, row: Whole, count: Whole) -> Whole:
    request = state.requests[row]
    group = 2 * request.model + request.phase
    best = state.view_slot[0]
    for i in range(count):
        if state.view_slot[i] > state.turn[group]:
            best = state.view_slot[i]
            break
    state.turn[group] = best
    return best


@inlined
def pick_least(state: State, count: Whole) -> Whole:
    best = state.view_slot[0]
    for i in range(1, count):
        if state.replicas[state.view_slot[i]].in_flight < state.replicas[best].in_flight:
            best = state.view_slot[i]
    return best


@inlined
def pick_of_two(state: State, count: Whole) -> Whole:
    scalars = state.scalars
    seed = hash64(np.uint64(scalars[SEED]))
    a = np.int64(uniform(seed, 2 * scalars[OFFERS]) * count)
    b = np.int64(uniform(seed, 2 * scalars[OFFERS] + 1) * max(count - 1, 1))
    scalars[OFFERS] += 1
    if b >= a and count > 1:
        b += 1
    first, second = state.view_slot[min(a, b)], state.view_slot[max(a, b)]
    return second if state.replicas[second].in_flight < state.replicas[first].in_flight else first


@inlined
def pick_weighted(state: State, row: Whole, count: Whole) -> Whole:
    find_believed(state, row)
    tokens = max(np.int64(state.requests[row].input), np.int64(1))
    most = 1.0
    for i in range(count):
        most = max(most, np.float64(state.replicas[state.view_slot[i]].in_flight))
    best = np.int64(-1)
    highest = -np.inf
    for i in range(count):
        slot = state.view_slot[i]
        score = PREFIX_WEIGHT * state.believed[slot] / tokens
        score += (1.0 - state.replicas[slot].in_flight / most) + (1.0 - state.telemetry[slot, 2])
        if score > highest:
            highest = score
            best = slot
    return best


@inlined
def pick_by_share(state: State, row: Whole, count: Whole) -> Whole:
    request_class = state.requests[row].request_class
    total = 0.0
    for i in range(count):
        total += max(state.shares[request_class, state.view_slot[i]], 0.0)
    if total <= 0.0:
        return pick_balanced(state, row, count)
    best = np.int64(-1)
    for i in range(count):
        slot = state.view_slot[i]
        share = max(state.shares[request_class, slot], 0.0)
        state.credit[request_class, slot] += share / total
        if share > 0.0 and (best < 0 or state.credit[request_class, slot] > state.credit[request_class, best]):
            best = slot
    state.credit[request_class, best] -= 1.0
    return best


@inlined
def pick(state: State, row: Whole) -> Whole:
    """The slot that the built-in router chooses, -1 where none could take the request."""
    count = find_able(state, row)
    if count == 0:
        return np.int64(-1)
    router = state.scalars[ROUTER]
    if router == ROUND_ROBIN:
        return pick_next(state, row, count)
    if router == LEAST_OUTSTANDING:
        return pick_least(state, count)
    if router == POWER_OF_TWO:
        return pick_of_two(state, count)
    if router == WEIGHTED:
        return pick_weighted(state, row, count)
    if router == SHARES:
        return pick_by_share(state, row, count)
    return pick_balanced(state, row, count)
