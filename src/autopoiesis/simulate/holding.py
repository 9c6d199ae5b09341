"""Requests held at the gateway: one queue per model and phase, larger priority first, then by age.

Whoever is taken out of the middle of a queue leaves a stale node behind, which goes when it comes to the head; the
head is never stale. The head is offered on any change and every 100 ms; a timer per held request offers it, wherever it
stands, each time it has waited twice as long as at the time before, so that `route` can shed it or, for another reason
than its place, take it. So a queue of any length costs a few offers a request.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import (
    HELD,
    HOLD_INTERVAL,
    NEVER,
    NEXT_OFFER,
    PENDING,
    UNCHANGED,
    State,
    Whole,
)
from autopoiesis.simulate.queues import heap_push, pop, push


@inlined
def in_queue(state: State, node: Whole) -> bool:
    """Whether the request of a node in a gateway's queue still waits there."""
    n = len(state.requests)
    request = state.requests[node % n]
    waits: bool = request.held == 1 and request.phase == node // n - 1
    return waits


@inlined
def unlink(state: State, root: Whole) -> Whole:
    """The queue without its root."""
    n = len(state.requests)
    state.requests[root % n].linked &= ~(1 << (root // n - 1))
    return pop(state.requests, state.links, root)


@inlined
def without_stale(state: State, root: Whole) -> Whole:
    """The queue without those at its head that no longer wait."""
    while root >= 0 and not in_queue(state, root):
        root = unlink(state, root)
    return root


@inlined
def run_timer(state: State, row: Whole, t: Whole) -> None:
    """Offer a held request again at `t`, unless that is due already."""
    request = state.requests[row]
    if request.timed == 0:
        request.timed = 1
        scalars = state.scalars
        heap_push(state.pending_time, state.pending_row, scalars[PENDING], t, len(state.requests) + row)
        scalars[PENDING] += 1


@inlined
def hold(state: State, row: Whole, t: Whole, fits: bool) -> None:
    """Keep the request at the gateway, in the queue or, if it does not fit, aside."""
    request = state.requests[row]
    scalars = state.scalars
    if scalars[HELD] == 0:
        # what changed before concerned nobody
        state.changed[:] = UNCHANGED
        scalars[NEXT_OFFER] = t + HOLD_INTERVAL
    scalars[HELD] += 1
    request.held = 1
    request.held_since = t
    group = 2 * np.int64(request.model) + request.phase
    if request.linked & (1 << request.phase) == 0:
        request.linked |= 1 << request.phase
        node = (1 + request.phase) * len(state.requests) + row
        if fits:
            state.held[group] = push(state.requests, state.links, state.held[group], node)
        else:
            state.unfit[group] = push(state.requests, state.links, state.unfit[group], node)
    run_timer(state, row, t + HOLD_INTERVAL)


@inlined
def release(state: State, row: Whole) -> None:
    """The request is held no longer; its node in the queue, if it stays, is stale."""
    request = state.requests[row]
    request.held = 0
    request.held_since = -1
    scalars = state.scalars
    scalars[HELD] -= 1
    if scalars[HELD] == 0:
        scalars[NEXT_OFFER] = NEVER


@inlined
def must_queue(state: State, row: Whole) -> bool:
    """Whether somebody who is before this request is held already."""
    request = state.requests[row]
    root = state.held[2 * np.int64(request.model) + request.phase]
    if root < 0:
        return False
    head = state.requests[root % len(state.requests)]
    before: bool = head.key < request.key or (head.key == request.key and head.sequence < request.sequence)
    return before
