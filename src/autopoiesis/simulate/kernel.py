"""The event kernel: advance the simulated world to a given instant.

Ties are settled in a fixed order (replicas by slot, then pending rows by number, then arrivals by row), so the same
state always advances to the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from autopoiesis.simulate.engine import end_run
from autopoiesis.simulate.gateway import arrive, come_of_age, offer_held
from autopoiesis.simulate.jit import compiled
from autopoiesis.simulate.layout import (
    DRAINED,
    DRAINING,
    EMPTY,
    GROW,
    HELD,
    HOLD_INTERVAL,
    NEVER,
    NEXT_OFFER,
    NEXT_ORDER,
    NOW,
    ORDER_END,
    OUT_SLOT,
    PENDING,
    REACHED,
    SLOTS,
    STOP_EMPTY,
    UNFINISHED,
    State,
)
from autopoiesis.simulate.queues import heap_remove

ROUTE_TYPE = types.FunctionType(types.int64(types.CPointer(types.float64), types.CPointer(types.float64), types.int64))
PRIORITY_TYPE = types.FunctionType(types.float64(types.CPointer(types.float64)))


@compiled
def advance(state: State, until: int, route: Callable[..., Any], priority: Callable[..., Any]) -> int:
    """Process every event at or before `until`.

    Returns REACHED, or earlier: DRAINED (a draining replica is empty, its slot in `OUT_SLOT`), EMPTY (no request is
    unfinished, where `STOP_EMPTY` asks for it) or GROW (the pending heap is nearly full).
    """
    scalars = state.scalars
    replicas = state.replicas
    room = len(state.pending_time) - 2 * len(state.heap_key[0]) - 64
    while True:
        slots = scalars[SLOTS]
        slot = -1
        t = NEVER
        for i in range(slots):
            if replicas[i].ends < t:
                t = replicas[i].ends
                slot = i
        source = 0
        if scalars[PENDING] > 0 and state.pending_time[0] < t:
            t = state.pending_time[0]
            source = 1
        if scalars[NEXT_ORDER] < scalars[ORDER_END]:
            arrival = state.requests[state.order[scalars[NEXT_ORDER]]].arrival
            if arrival < t:
                t = arrival
                source = 2
        if scalars[NEXT_OFFER] < t:
            t = scalars[NEXT_OFFER]
            source = 3
        if t > until or t == NEVER:
            scalars[NOW] = max(scalars[NOW], until)
            return REACHED
        scalars[NOW] = t
        if source == 0:
            end_run(state, slot)
        elif source == 1:
            row = state.pending_row[0]
            heap_remove(state.pending_time, state.pending_row, scalars[PENDING], 0)
            scalars[PENDING] -= 1
            come_of_age(state, row, t, route, priority)
        elif source == 2:
            row = state.order[scalars[NEXT_ORDER]]
            scalars[NEXT_ORDER] += 1
            arrive(state, row, t, route, priority)
        else:
            scalars[NEXT_OFFER] = t + HOLD_INTERVAL
            state.changed[:] = 1
        for model in range(len(state.changed)):
            if state.changed[model] == 1:
                state.changed[model] = 0
                if state.held[2 * model] >= 0 or state.held[2 * model + 1] >= 0:
                    offer_held(state, model, t, route)
        if scalars[HELD] == 0:
            scalars[NEXT_OFFER] = NEVER
        if source == 0 and replicas[slot].phase == DRAINING and replicas[slot].in_flight == 0:
            scalars[OUT_SLOT] = slot
            return DRAINED
        if scalars[STOP_EMPTY] == 1 and scalars[UNFINISHED] == 0:
            return EMPTY
        if scalars[PENDING] > room:
            return GROW
