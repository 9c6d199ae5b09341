"""The event kernel: advance the simulated world to a given instant.

Ties are settled in a fixed order: replicas by slot, then the held requests for which these ends have changed
something, then pending entries by number, then arrivals by row, then the regular offer to the held. So the same state
always advances to the same state, in one call or in many.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.engine import end_run
from autopoiesis.simulate.gateway import come, offer_held
from autopoiesis.simulate.jit import borrowed, compiled, inlined
from autopoiesis.simulate.layout import (
    DRAINED,
    DRAINING,
    EMPTY,
    ENDED,
    FOREVER,
    HELD,
    HOLD_INTERVAL,
    NEVER,
    NEXT_OFFER,
    NEXT_ORDER,
    NOW,
    ORDER_END,
    OUT_SLOT,
    OWES_EMPTY,
    PENDING,
    REACHED,
    SLOTS,
    STOP_EMPTY,
    UNFINISHED,
    State,
    Whole,
)
from autopoiesis.simulate.queues import heap_remove

END, DUE, ARRIVAL, OFFER = 0, 1, 2, 3


@inlined
def borrowed_state(state: State) -> State:
    """The same arrays without reference counts, which would take most of the time."""
    return State(
        borrowed(state.requests),
        borrowed(state.links),
        borrowed(state.replicas),
        borrowed(state.ends),
        borrowed(state.heap_key),
        borrowed(state.heap_row),
        borrowed(state.prefills),
        borrowed(state.growth),
        borrowed(state.link_free),
        borrowed(state.segments),
        borrowed(state.chains),
        borrowed(state.nodes),
        borrowed(state.table),
        borrowed(state.candidates),
        borrowed(state.candidate_count),
        borrowed(state.shares),
        borrowed(state.credit),
        borrowed(state.turn),
        borrowed(state.telemetry),
        borrowed(state.slos),
        borrowed(state.context),
        borrowed(state.order),
        borrowed(state.pending_time),
        borrowed(state.pending_row),
        borrowed(state.held),
        borrowed(state.unfit),
        borrowed(state.changed),
        borrowed(state.arrived),
        borrowed(state.finished),
        borrowed(state.scalars),
        borrowed(state.request_view),
        borrowed(state.replica_view),
        borrowed(state.view_slot),
        borrowed(state.believed),
    )


@inlined
def process_events(state: State, until: Whole) -> Whole:
    scalars = state.scalars
    if scalars[OWES_EMPTY] == 1:
        scalars[OWES_EMPTY] = 0
        if scalars[UNFINISHED] == 0:
            return EMPTY
    while True:
        slot: Whole = np.int64(-1)
        t = NEVER
        for i in range(scalars[SLOTS]):
            if state.ends[i] < t:
                t = state.ends[i]
                slot = i
        source = END
        if scalars[PENDING] > 0 and state.pending_time[0] < t:
            t = state.pending_time[0]
            source = DUE
        if scalars[NEXT_ORDER] < scalars[ORDER_END]:
            arrival = state.requests[state.order[scalars[NEXT_ORDER]]].arrival
            if arrival < t:
                t = arrival
                source = ARRIVAL
        if scalars[NEXT_OFFER] < t:
            t = scalars[NEXT_OFFER]
            source = OFFER
        if scalars[HELD] > 0 and (source != END or t > scalars[NOW]) and offer_held(state, scalars[NOW]):
            if scalars[STOP_EMPTY] == 1 and scalars[UNFINISHED] == 0:
                return EMPTY
            continue
        if t > until or t == NEVER:
            if until != FOREVER:
                scalars[NOW] = max(scalars[NOW], until)
            return REACHED
        scalars[NOW] = t
        if source == END:
            end_run(state, slot)
            replica = state.replicas[slot]
            if replica.phase == DRAINING and replica.in_flight == 0:
                scalars[OUT_SLOT] = slot
                scalars[OWES_EMPTY] = scalars[STOP_EMPTY]
                return DRAINED
        elif source == OFFER:
            scalars[NEXT_OFFER] = t + HOLD_INTERVAL
            for model in range(len(state.changed)):
                state.changed[model] |= ENDED
        else:
            if source == DUE:
                entry = state.pending_row[0]
                heap_remove(state.pending_time, state.pending_row, scalars[PENDING], 0)
                scalars[PENDING] -= 1
            else:
                entry = state.order[scalars[NEXT_ORDER]]
                scalars[NEXT_ORDER] += 1
            come(state, entry, source == ARRIVAL, t)
        if scalars[STOP_EMPTY] == 1 and scalars[UNFINISHED] == 0:
            return EMPTY


@compiled
def advance(state: State, until: Whole) -> Whole:
    """Process every event at or before `until`; the time is `until` then, unless that is FOREVER.

    Returns REACHED, or earlier: DRAINED (a draining replica is empty, its slot in `OUT_SLOT`) or EMPTY (no request is
    unfinished any more, where `STOP_EMPTY` asks for it). What else is due at that instant is left to the next call.
    """
    return process_events(borrowed_state(state), until)
