"""Requests taken off a replica: they come to the gateway again and are continued elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.engine import account_steps, end_run, steps_by
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import NEVER, Records, State, Whole
from autopoiesis.simulate.ledger import return_at
from autopoiesis.simulate.links import send_cache
from autopoiesis.simulate.prefix_cache import forget, release
from autopoiesis.simulate.queues import pop


@compiled
def evict_waiting(state: State, slot: Whole, t: Whole, transfer: bool, pause: Whole) -> Whole:
    """Send back to the gateway what waits and has not begun here; how many.

    With `transfer`, a KV cache that was handed to this replica is handed on (a pause, then the transfer); otherwise
    the request is recomputed.
    """
    replica = state.replicas[slot]
    moved = 0
    while replica.queue >= 0:
        row = replica.queue
        request = state.requests[row]
        replica.queue = pop(state.requests, state.links, row)
        arrival = t
        if request.phase == 1 and transfer:
            arrival = send_cache(state, slot, np.int64(request.input) + request.generated - 1, t + pause)
        else:
            request.phase = 0
        request.slot = -1
        request.moves += 1
        return_at(state, row, arrival)
        replica.in_flight -= 1
        replica.in_flight_tokens -= request.input
        moved += 1
    replica.waiting = 0
    return moved


@inlined
def sort_by_admission(requests: Records, rows: NDArray[np.int64]) -> None:
    """In place; by insertion, since there are at most some hundreds."""
    for i in range(1, len(rows)):
        row = rows[i]
        j = i
        while j > 0 and requests[rows[j - 1]].admitted > requests[row].admitted:
            rows[j] = rows[j - 1]
            j -= 1
        rows[j] = row


@compiled
def evict(state: State, slot: Whole, t: Whole, transfer: bool, pause: Whole) -> Whole:
    """Take every request off a replica; how many. Tokens of finished steps are kept, the step under way is lost.

    With `transfer` the KV caches of decoding sequences move with them (a pause, then the transfer); otherwise they are
    recomputed, and so is every unfinished prefill. The replica is empty and idle afterwards.
    """
    replica = state.replicas[slot]
    if replica.steps > 0 and state.ends[slot] <= t:
        # this very instant has not been processed yet, and what ends with it has ended
        end_run(state, slot)
    if replica.prefilling == 0:
        account_steps(state, slot, steps_by(replica, state.ends[slot], t))
    moved = replica.decoding
    replica.decoding = 0
    # caches leave one after the other: in order of admission, since nobody knows yet who will end first
    rows = state.heap_row[slot, :moved]
    sort_by_admission(state.requests, rows)
    for row in rows:
        request = state.requests[row]
        request.generated = request.output - np.int32(request.finish - replica.decode_step)
        arrival = t
        if transfer:
            request.phase = 1
            arrival = send_cache(state, slot, np.int64(request.input) + request.generated - 1, t + pause)
        release(state, slot, row, np.int64(request.input) + request.generated - 1, False)
        request.slot = -1
        request.moves += 1
        return_at(state, row, arrival)
    for i in range(replica.prefilling):
        row = state.prefills[slot, i]
        request = state.requests[row]
        release(state, slot, row, np.int64(request.input) + request.generated, False)
        request.slot = -1
        request.moves += 1
        return_at(state, row, t)
        moved += 1
    moved += evict_waiting(state, slot, t, transfer, pause)
    forget(state, slot)
    state.growth[slot] = 0
    replica.prefilling = 0
    replica.contexts = 0
    replica.in_flight = 0
    replica.in_flight_tokens = 0
    replica.steps = 0
    state.ends[slot] = NEVER
    return moved
