"""The books on requests: where they go when they leave a replica, and how they end."""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import ENDED, FINISHED, PENDING, UNCHANGED, UNFINISHED, State, Whole
from autopoiesis.simulate.queues import heap_push


@inlined
def return_at(state: State, row: Whole, t: Whole) -> None:
    """The request, at no replica now, comes to the gateway at `t`."""
    scalars = state.scalars
    heap_push(state.pending_time, state.pending_row, scalars[PENDING], t, row)
    scalars[PENDING] += 1


@inlined
def end_request(state: State, row: Whole, t: Whole, status: Whole, reason: Whole) -> None:
    """The request is over; the next call of its session arrives after the think time."""
    request = state.requests[row]
    request.status = status
    request.reason = reason
    request.done = t
    scalars = state.scalars
    state.finished[scalars[FINISHED]] = row
    scalars[FINISHED] += 1
    scalars[UNFINISHED] -= 1
    following = np.int64(request.next)
    if following >= 0:
        return_at(state, following, t + state.requests[following].think)


@inlined
def leave(state: State, slot: Whole, row: Whole) -> None:
    """Our own books: the request is no longer in flight at this replica."""
    replica = state.replicas[slot]
    replica.in_flight -= 1
    replica.in_flight_tokens -= state.requests[row].input
    if state.changed[replica.model] == UNCHANGED:
        state.changed[replica.model] = ENDED
