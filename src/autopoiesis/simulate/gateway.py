"""The gateway of the simulated world: requests arrive, the policy's `route` places them, holds them or sheds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autopoiesis.simulate.engine import end_request, enqueue, hash64
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import (
    ARRIVED,
    FAULTS,
    HELD,
    HOLD_INTERVAL,
    HOLD_LIMIT,
    LOST_UNSERVED,
    NEVER,
    NEXT_OFFER,
    OFFERS,
    PENDING,
    SECOND,
    SEED,
    SEQUENCE,
    UNSERVED_LIMIT,
    USE_PRIORITY,
    USE_ROUTE,
    State,
)
from autopoiesis.simulate.queues import heap_push, pop, push

Function = Callable[..., Any]

HOLD, SHED = -1, -2
LOST, SHED_STATUS, REJECTED = 2, 3, 4
SPARE_KV_TOKENS = 64
"""A replica takes a request only if its KV cache could hold the prompt and this many tokens more."""
PLACED, WAITS, OVER = 0, 1, 2


@inlined
def uniform(seed: int, counter: int) -> float:
    return np.float64(hash64(np.uint64(seed) ^ hash64(np.uint64(counter))) >> np.uint64(11)) * (1.0 / (1 << 53))


@inlined
def show_request(state: State, row: int, t: int) -> None:
    """Fill the scratch view of the request, in the order of `policy.interface.REQUEST_FIELDS`."""
    request = state.requests[row]
    slo = state.slos[request.model]
    view = state.request_view
    view[0] = request.model
    view[1] = request.request_class
    view[2] = request.input
    view[3] = request.phase
    view[4] = request.session
    view[5] = slo[0] + slo[1] * request.input
    view[6] = slo[2]
    view[7] = (t - request.held_since) / SECOND if request.held_since >= 0 else 0.0
    view[8] = request.sequence
    counter = state.scalars[OFFERS]
    view[9] = uniform(state.scalars[SEED], 2 * counter)
    view[10] = uniform(state.scalars[SEED], 2 * counter + 1)
    state.scalars[OFFERS] += 1


@inlined
def show_replicas(state: State, row: int, t: int) -> int:
    """Fill the scratch views of the replicas that could take the request; how many."""
    request = state.requests[row]
    group = 2 * request.model + request.phase
    tokens = np.int64(request.input) + request.generated + SPARE_KV_TOKENS
    count = 0
    previous = request.previous
    for i in range(state.candidate_count[group]):
        slot = state.candidates[group, i]
        replica = state.replicas[slot]
        if replica.kv_tokens < tokens:
            continue
        view = state.replica_view[count]
        sample = state.telemetry[slot]
        view[0] = replica.in_flight
        view[1] = replica.in_flight_tokens
        view[2] = sample[0]
        view[3] = sample[1]
        view[4] = sample[2]
        view[5] = t / SECOND - sample[3]
        # what the gateway believes: the replica that served the session's last call has its prompt
        believed = 0.0
        if previous >= 0 and request.prefix > 0:
            before = state.requests[previous]
            if before.slot == slot and before.generation == replica.generation:
                believed = np.float64(request.prefix)
        view[6] = believed
        view[7] = max(state.shares[request.request_class, slot], 0.0)
        view[8] = replica.max_sequences
        view[9] = replica.gpu_kind
        view[10] = replica.speed
        state.view_slot[count] = slot
        count += 1
    return count


@inlined
def built_in_route(state: State, row: int, count: int) -> int:
    """Fewest requests in flight relative to the plan's share, or to the replica's speed where the plan has none."""
    request_class = state.requests[row].request_class
    best = -1
    least = np.inf
    for i in range(count):
        share = state.shares[request_class, state.view_slot[i]]
        weight = state.replica_view[i, 10] if share < 0 else share
        if weight > 0:
            load = (state.replica_view[i, 0] + 1.0) / weight
            if load < least:
                least = load
                best = i
    if best >= 0 or count == 0:
        return best
    # every replica that is left has a share of nothing: better there than nowhere
    best = 0
    for i in range(1, count):
        if state.replica_view[i, 0] < state.replica_view[best, 0]:
            best = i
    return best


@compiled
def offer(state: State, row: int, t: int, route: Function, forced: bool) -> int:
    """Offer a request to the policy's `route`; PLACED, WAITS (hold) or OVER (shed). `forced` takes the built-in one."""
    count = show_replicas(state, row, t)
    if count == 0:
        return WAITS
    choice = -3
    if state.scalars[USE_ROUTE] == 1 and not forced:
        show_request(state, row, t)
        choice = route(state.request_view.ctypes, state.replica_view.ctypes, count)
        if choice == HOLD:
            return WAITS
        if choice == SHED:
            end_request(state, row, t, SHED_STATUS, 0)
            return OVER
        if choice < 0 or choice >= count:
            state.scalars[FAULTS] += 1
            choice = -3
    if choice < 0:
        choice = built_in_route(state, row, count)
    enqueue(state, state.view_slot[choice], row, t)
    return PLACED


@compiled
def hold(state: State, row: int, t: int) -> None:
    """Keep the request in the gateway's queue and note when its patience ends."""
    request = state.requests[row]
    scalars = state.scalars
    group = 2 * request.model + request.phase
    request.held = 1
    if request.held_since < 0:
        request.held_since = t
    if request.linked == 0:
        request.linked = 1
        state.held[group] = push(state.requests, state.links, state.held[group], len(state.requests) + row)
    limit = HOLD_LIMIT if state.candidate_count[group] > 0 else UNSERVED_LIMIT
    heap_push(state.pending_time, state.pending_row, scalars[PENDING], max(request.held_since + limit, t + SECOND), row)
    scalars[PENDING] += 1
    scalars[HELD] += 1
    if scalars[NEXT_OFFER] == NEVER:
        scalars[NEXT_OFFER] = t + HOLD_INTERVAL


@compiled
def place(state: State, row: int, t: int, route: Function) -> None:
    """Offer a request that is not in the gateway's queue; hold it if need be. Nobody overtakes those held before."""
    request = state.requests[row]
    group = 2 * request.model + request.phase
    ahead = state.held[group] - len(state.requests)
    waits = ahead >= 0 and state.requests[ahead].held == 1 and state.requests[ahead].key <= request.key
    if waits or offer(state, row, t, route, False) == WAITS:
        hold(state, row, t)


@compiled
def arrive(state: State, row: int, t: int, route: Function, priority: Function) -> None:
    """A request reaches the gateway for the first time."""
    request = state.requests[row]
    scalars = state.scalars
    request.arrival = t
    request.sequence = scalars[SEQUENCE]
    scalars[SEQUENCE] += 1
    state.arrived[scalars[ARRIVED]] = row
    scalars[ARRIVED] += 1
    if np.int64(request.input) + request.output > state.context[request.model]:
        end_request(state, row, t, REJECTED, 0)
        return
    if scalars[USE_PRIORITY] == 1:
        show_request(state, row, t)
        value = priority(state.request_view.ctypes)
        if np.isnan(value):
            scalars[FAULTS] += 1
        else:
            request.key = -value
    place(state, row, t, route)


@compiled
def come_of_age(state: State, row: int, t: int, route: Function, priority: Function) -> None:
    """A pending row is due: a first arrival, a transfer or eviction that ends, or a held request out of patience."""
    request = state.requests[row]
    if request.done >= 0 or request.slot >= 0:
        return
    if request.arrival == NEVER:
        arrive(state, row, t, route, priority)
        return
    if request.held == 0:
        place(state, row, t, route)
        return
    group = 2 * request.model + request.phase
    waited = t - request.held_since
    out_of_patience = state.candidate_count[group] > 0 and waited >= HOLD_LIMIT
    if out_of_patience and offer(state, row, t, route, True) == PLACED:
        request.held = 0
        state.scalars[HELD] -= 1
        return
    if waited >= UNSERVED_LIMIT:
        request.held = 0
        state.scalars[HELD] -= 1
        end_request(state, row, t, LOST, LOST_UNSERVED)
        return
    heap_push(state.pending_time, state.pending_row, state.scalars[PENDING], t + 10 * SECOND, row)
    state.scalars[PENDING] += 1


@compiled
def offer_held(state: State, model: int, t: int, route: Function) -> None:
    """Offer the model's held requests again, in order, until one must go on waiting."""
    for group in range(2 * model, 2 * model + 2):
        while state.held[group] >= 0:
            row = state.held[group] - len(state.requests)
            request = state.requests[row]
            if request.held == 1:
                if offer(state, row, t, route, False) == WAITS:
                    break
                request.held = 0
                state.scalars[HELD] -= 1
            request.linked = 0
            state.held[group] = pop(state.requests, state.links, state.held[group])
