"""The gateway of the simulated world: requests arrive, the policy's `route` places them, holds them or sheds them.

Held requests wait in one queue per model and phase, larger priority first, then by age. Whenever something of the
model's has ended or its fleet has changed, and every 100 ms, the queue is offered to `route` from its head until one
must go on waiting: those behind it wait with it, so that nobody overtakes. A newcomer behind the head joins the queue
without being offered; one that is before it (a larger priority, or an older request that was evicted) is offered at
once. A request that no replica of the fleet could hold blocks nobody: it stands aside until the fleet changes.

After 60 s in the queue the built-in router places a request, whatever `route` says; after 600 s without any replica
that could hold it, it is lost.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.callouts import call_priority, call_route
from autopoiesis.simulate.draws import uniform
from autopoiesis.simulate.engine import enqueue
from autopoiesis.simulate.holding import hold, must_queue, release, run_timer, without_stale
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import (
    ARRIVED,
    FAULTS,
    FLEET,
    HOLD_INTERVAL,
    HOLD_LIMIT,
    LOST_UNSERVED,
    NEVER,
    NOT_LOST,
    OFFERS,
    PRIORITY,
    ROUTE,
    SECOND,
    SEED,
    SEQUENCE,
    SERVES_ALL,
    UNCHANGED,
    UNSERVED_LIMIT,
    State,
    Whole,
)
from autopoiesis.simulate.ledger import end_request
from autopoiesis.simulate.queues import meld, pop, push
from autopoiesis.simulate.routers import find_believed, fits, pick, remember_prompt

HOLD, SHED = -1, -2
LOST, SHED_STATUS, REJECTED = 2, 3, 4
RETRY_INTERVAL = 10 * SECOND
"""How often a request out of patience is offered where nothing could take it."""
PLACED, WAITS, OVER, UNFIT = 0, 1, 2, 3


@inlined
def show_request(state: State, row: Whole, t: Whole) -> None:
    """Fill the scratch view of the request, in the order of `policy.interface.REQUEST_FIELDS`."""
    request = state.requests[row]
    scalars = state.scalars
    view = state.request_view
    view[0] = request.model
    view[1] = request.request_class
    view[2] = request.input
    view[3] = request.phase
    view[4] = request.session
    view[5] = state.slos[request.model, 0] + state.slos[request.model, 1] * request.input
    view[6] = state.slos[request.model, 2]
    view[7] = (t - request.arrival) / SECOND
    view[8] = request.sequence
    view[9] = uniform(scalars[SEED], 2 * scalars[OFFERS])
    view[10] = uniform(scalars[SEED], 2 * scalars[OFFERS] + 1)
    scalars[OFFERS] += 1


@inlined
def show_replicas(state: State, row: Whole, t: Whole) -> Whole:
    """Fill the scratch views of the replicas that could take the request; how many."""
    request = state.requests[row]
    group = 2 * request.model + request.phase
    count = 0
    find_believed(state, row)
    for i in range(state.candidate_count[group]):
        slot = state.candidates[group, i]
        if not fits(state, row, slot):
            continue
        replica = state.replicas[slot]
        view = state.replica_view[count]
        view[0] = replica.in_flight
        view[1] = replica.in_flight_tokens
        view[2] = state.telemetry[slot, 0]
        view[3] = state.telemetry[slot, 1]
        view[4] = state.telemetry[slot, 2]
        view[5] = t / SECOND - state.telemetry[slot, 3]
        view[6] = state.believed[slot]
        view[7] = max(state.shares[request.request_class, slot], 0.0)
        view[8] = replica.max_sequences
        view[9] = replica.gpu_kind
        view[10] = replica.speed
        state.view_slot[count] = slot
        count += 1
    return count


@inlined
def offer(state: State, row: Whole, t: Whole) -> Whole:
    """Offer a request to the policy's `route`, or to the built-in router if there is none or its patience is over.

    PLACED; WAITS, if held or if no replica serves its model and phase; UNFIT, if none of those could hold it; OVER, if
    shed.
    """
    request = state.requests[row]
    impatient = request.held_since >= 0 and t - request.held_since >= HOLD_LIMIT
    if state.scalars[ROUTE] != 0 and not impatient:
        slot: Whole = np.int64(-1)
        count = show_replicas(state, row, t)
        if count > 0:
            show_request(state, row, t)
            choice = call_route(state.scalars[ROUTE], state.request_view, state.replica_view, count)
            if choice == HOLD:
                return WAITS
            if choice == SHED and state.scalars[SERVES_ALL] == 0:
                end_request(state, row, t, SHED_STATUS, NOT_LOST)
                return OVER
            if 0 <= choice < count:
                slot = state.view_slot[choice]
            else:
                state.scalars[FAULTS] += 1
                slot = pick(state, row)
    else:
        slot = pick(state, row)
    if slot < 0:
        return UNFIT if state.candidate_count[2 * request.model + request.phase] > 0 else WAITS
    if request.phase == 0:
        remember_prompt(state, slot, row)
    enqueue(state, slot, row, t)
    return PLACED


@inlined
def place(state: State, row: Whole, t: Whole) -> None:
    """Offer a request to the replicas and hold it if need be; nobody overtakes those held before it.

    A request that is held already is here because its timer is due: it is offered wherever it stands in the queue.
    """
    request = state.requests[row]
    held = request.held == 1
    answer = WAITS if not held and must_queue(state, row) else offer(state, row, t)
    if answer in (PLACED, OVER):
        if held:
            release(state, row)
    elif not held:
        hold(state, row, t, answer == WAITS)
    elif t - request.held_since >= UNSERVED_LIMIT:
        release(state, row)
        end_request(state, row, t, LOST, LOST_UNSERVED)
    elif t - request.held_since >= HOLD_LIMIT:
        run_timer(state, row, min(t + RETRY_INTERVAL, request.held_since + UNSERVED_LIMIT))
    else:
        waited = max(t - request.held_since, HOLD_INTERVAL)
        run_timer(state, row, min(t + waited, request.held_since + HOLD_LIMIT))
    if held and request.held == 0:
        group = 2 * np.int64(request.model) + request.phase
        state.held[group] = without_stale(state, state.held[group])


@inlined
def arrive(state: State, row: Whole, t: Whole) -> bool:
    """A request reaches the gateway for the first time; whether the model can serve it at all."""
    request = state.requests[row]
    scalars = state.scalars
    request.arrival = t
    request.sequence = scalars[SEQUENCE]
    scalars[SEQUENCE] += 1
    state.arrived[scalars[ARRIVED]] = row
    scalars[ARRIVED] += 1
    if np.int64(request.input) + request.output > state.context[request.model]:
        end_request(state, row, t, REJECTED, NOT_LOST)
        return False
    if scalars[PRIORITY] != 0:
        show_request(state, row, t)
        value = call_priority(scalars[PRIORITY], state.request_view)
        if np.isnan(value):
            scalars[FAULTS] += 1
        else:
            request.key = -value
    return True


@inlined
def come(state: State, entry: Whole, first: bool, t: Whole) -> None:
    """Something is due at the gateway: a row arrives (for the `first` time), or the timer of a held one."""
    n = len(state.requests)
    row = entry
    if entry >= n:
        row -= n
        request = state.requests[row]
        request.timed = 0
        if request.held == 0:
            return
    elif (first or state.requests[row].arrival == NEVER) and not arrive(state, row, t):
        return
    place(state, row, t)


@compiled
def offer_group(state: State, group: Whole, t: Whole) -> None:
    """Offer the held requests of a model and phase from the head on, until one must go on waiting."""
    root = without_stale(state, state.held[group])
    while root >= 0:
        row = root % len(state.requests)
        answer = offer(state, row, t)
        if answer == WAITS:
            break
        if answer == UNFIT:
            node = root
            root = pop(state.requests, state.links, root)
            state.unfit[group] = push(state.requests, state.links, state.unfit[group], node)
        else:
            release(state, row)
        root = without_stale(state, root)
    state.held[group] = root


@inlined
def offer_held(state: State, t: Whole) -> bool:
    """Offer the held requests of the models for which something has changed; whether any was offered."""
    offered = False
    for group in range(len(state.held)):
        change = state.changed[group >> 1]
        if change == FLEET and state.unfit[group] >= 0:
            root = state.held[group]
            aside = state.unfit[group]
            state.held[group] = aside if root < 0 else meld(state.requests, state.links, root, aside)
            state.unfit[group] = -1
        if change != UNCHANGED and state.held[group] >= 0:
            offer_group(state, group, t)
            offered = True
    state.changed[:] = UNCHANGED
    return offered
