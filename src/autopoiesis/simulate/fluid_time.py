"""The fluid model in time: flows of requests through queues and batches, step by step, backlog carried along.

In each step of time every request class flows to the replicas (`fluid_routing`), its prompts queue there for prefill,
its sequences decode at the pace of the batch and leave. Means are those of `fluid_replica`; batches now take time to
grow and queues to empty. Sequences leave at a rate, so that a batch decays as exp(−t/τ), τ their mean steps times
the seconds of a step; within a step of time the batch and its pace are solved for together.

Cumulative curves are left behind, from which `fluid_judge` reads when whoever came was served.

    steps of time T, classes C, groups G; rows of `classes` may differ from window to window: (windows, C, 12)
    state of a replica   waiting, decoding, handed (C, G): requests to prefill, sequences, handed over and waiting
    curves (T+1, G, 5)   cumulative: tokens come and prefilled, sequences handed over and begun, decode steps
    chance (T, G, 18)    `fluid_replica.state`; seconds of a full step, of a usual one, of a usual prompt's prefill,
                         of work in the mean queue
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.fluid_plan import add_flow, takes
from autopoiesis.simulate.fluid_replica import (
    BATCH,
    BUDGET,
    BUSIEST,
    BUSY,
    CLASS_MODEL,
    CONTEXTS,
    COUNT,
    DECODE,
    DECODED,
    INPUT,
    MIXED,
    MODEL,
    PREFILL,
    PREFIX,
    RATE,
    REQUESTS,
    RESIDUAL,
    ROLE,
    SLOTS_BUSY,
    SPEED,
    STATE_COLUMNS,
    STEP,
    STEPS,
    STEPS_SQUARED,
    SUM_COLUMNS,
    TOKENS,
    WAIT,
    Array,
    Flags,
    decode_s,
    fluctuate,
    mixed_rate,
    prompts_s,
    slot_count,
    waited_s,
)
from autopoiesis.simulate.fluid_routing import route
from autopoiesis.simulate.jit import compiled, inlined

Numbers = NDArray[np.int64]

COME, PREFILLED, HANDED, BEGUN, STEPS_TAKEN = range(5)
CURVES = 5
FULL_STEP, USUAL, PREFILL_S, LATE = range(STATE_COLUMNS, STATE_COLUMNS + 4)
CHANCE_COLUMNS = STATE_COLUMNS + 4
ITERATIONS, SETTLED = 8, 5e-3
"""Most iterations of a step of time, and the relative change of the pace at which they end."""
NOTHING = 1e-9


@inlined
def fresh_tokens(entry: Array) -> float:
    """Prompt tokens that are not cached."""
    tokens: float = max(entry[INPUT] - entry[PREFIX], 1.0)
    return tokens


@compiled
def weigh(groups: Array, classes: Array, shares: Array, shared: Flags, weights: Array) -> bool:
    """Fill (2, C, G) `weights` of one replica by phase, as the balancer takes them; False if a class has nowhere to go.

    A decode flow goes to decode replicas, to mixed ones only where there are none.
    """
    weights[:] = 0.0
    for c in range(len(classes)):
        entry = classes[c]
        for phase in range(2):
            decoders = given = False
            for g in range(len(groups)):
                if phase == 1 and takes(groups[g], entry) and groups[g, ROLE] == DECODE:
                    decoders = True
            for g in range(len(groups)):
                able = takes(groups[g], entry) and groups[g, ROLE] != (DECODE if phase == 0 else PREFILL)
                if able and not (decoders and groups[g, ROLE] == MIXED):
                    weights[phase, c, g] = groups[g, SPEED]
                    given = given or (shared[c] and shares[c, g] > 0.0)
            if given:
                for g in range(len(groups)):
                    if weights[phase, c, g] > 0.0:
                        weights[phase, c, g] = shares[c, g] / groups[g, COUNT]
        handed = False
        for g in range(len(groups)):
            handed = handed or (weights[0, c, g] > 0.0 and groups[g, ROLE] == PREFILL)
        if weights[0, c].sum() <= 0.0 or (handed and entry[STEPS] > 0.0 and weights[1, c].sum() <= 0.0):
            return False
    return True


@compiled
def mean_queue(queue_s: float, load: float, scale: float, dt: float) -> float:
    """The mean queue after `dt`, in seconds of work, when work comes at `load` per second.

    Pointwise stationary (Rider 1976; Wang, Tipper and Banerjee 1996): a queue of mean Q is served at the utilisation
    that has this mean when it is steady, Q = scale·u/(1−u). So it is M/G/1 when the load stands still, grows with the
    load when that is above 1, and takes its time to go. Implicit in time: the step may be longer than the queue.
    """
    middle = 0.5 * (queue_s + dt * (load - 1.0) - scale)
    return middle + math.sqrt(middle * middle + scale * (queue_s + dt * load))


@compiled
def pace(
    group: Array, classes: Array, mine: Numbers, prompts: Array, handed: Array, decoding: Array, dt: float, flow: Array,
    chance: Array,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Solve one replica for `dt` seconds: which parts of the (C,) `prompts` and sequences `handed` over it begins, the
    mixed steps/s and the prompts' share of the time. Fills `BATCH`, `STEP`, `SLOTS_BUSY`, `FULL_STEP` and `USUAL`.

    The pace of the batch follows from its mean size, and that from the pace, by which sequences leave.
    """
    work, decodes = flow[TOKENS] * dt, group[ROLE] != PREFILL
    n = tokens = weight = 0.0
    starts = False
    for c in mine:
        entry = classes[c]
        if decodes and entry[STEPS] > 0.0:
            n += decoding[c]
            starts = starts or prompts[c] > 0.0
            # newcomers count where nobody decodes
            much = decoding[c] + NOTHING * (prompts[c] + handed[c])
            tokens += much * (entry[INPUT] + 0.5 * entry[STEPS_SQUARED] / entry[STEPS])
            weight += much
    context = tokens / weight if weight > 0.0 else 0.0
    slots = slot_count(group, context)
    served = begun = 1.0
    step = chance[STEP] if chance[STEP] > 0.0 else decode_s(group, n + 1.0, context)
    rate = share = usual = full = room = previous = 0.0
    for iteration in range(ITERATIONS):
        room = max(group[BUDGET] - n, 1.0)
        pure = decode_s(group, n, context)
        full = pure + prompts_s(group, flow, n, room) if work > 0.0 else pure
        # sequences at the end and on average: of those here, and more for what starts, prompts and handed over
        here = here_mean = begin = prompt_mean = handed_mean = 0.0
        for c in mine:
            if decodes and classes[c, STEPS] > 0.0 and decoding[c] + prompts[c] + handed[c] > 0.0:
                tau = classes[c, STEPS] * step
                gone = -math.expm1(-dt / tau)
                stay = tau * gone / dt
                stay_mean = tau * (1.0 - stay) / dt
                here += decoding[c] * (1.0 - gone)
                here_mean += decoding[c] * stay
                begin += (prompts[c] + handed[c]) * stay
                prompt_mean += prompts[c] * stay_mean
                handed_mean += handed[c] * stay_mean
        begun = min(1.0, max(0.0, slots - here) / begin) if begin > 0.0 else 1.0
        served = begun if starts else 1.0
        if work > 0.0:
            served = min(served, room / full * dt / work)
        n = min(here_mean + served * prompt_mean + begun * handed_mean, slots)
        share = rate = 0.0
        if work > 0.0 and served > 0.0:
            rate = mixed_rate(group, flow, served, n, usual if usual > 0.0 else step)
            more = prompts_s(group, flow, n, served * flow[TOKENS] / rate)
            share = min(rate * more, 1.0 - pure / full)
            usual = pure + more + (step - pure - more) * -math.expm1(-n)
        found = min(decode_s(group, n + 1.0, context) / (1.0 - share), max(full, pure))
        if abs(found - step) <= SETTLED * step:
            step = found
            break
        # Aitken: two fixed-point steps, then their limit
        if iteration % 3 == 2:
            bend = found - 2.0 * step + previous
            limit = previous - (step - previous) ** 2 / bend if abs(bend) > 1e-12 else found
            found = limit if decode_s(group, 1.0, context) <= limit <= max(full, pure) else found
        previous, step = step, found
    chance[BATCH], chance[STEP], chance[FULL_STEP] = n, step, full
    chance[SLOTS_BUSY] = min(n / slots, BUSIEST)
    chance[USUAL] = usual if usual > 0.0 else step
    return served, begun, rate, share


@compiled
def run_replica(
    group: Array, classes: Array, mine: Numbers, coming: Array, handing: Array, waiting: Array, decoding: Array,
    handed: Array, dt: float, window_s: float, dispersion: float, flow: Array, prompts: Array, done: Array,
    chance: Array, curve: Array,
) -> None:  # fmt: skip
    """One replica for `dt` seconds: update (C,) `waiting`, `decoding` and `handed` and the cumulative `curve`, fill
    (C,) `done`, requests prefilled, and the row of `chance`. `coming` and `handing` are requests/s, `mine` the classes
    of its model; `flow` and (C,) `prompts` are scratch."""
    flow[:] = 0.0
    anything = come = 0.0
    for c in mine:
        prompts[c] = waiting[c] + coming[c] * dt
        if prompts[c] > NOTHING:
            add_flow(group, classes[c], prompts[c] / dt, 0.0, flow)
        come += coming[c] * fresh_tokens(classes[c])
        curve[HANDED] += handing[c] * dt
        handed[c] += handing[c] * dt
        anything += prompts[c] + handed[c] + decoding[c]
        done[c] = 0.0
    late = chance[LATE]
    if anything <= NOTHING:
        chance[:] = 0.0
        chance[STEP] = decode_s(group, 1.0, 0.0)
        curve[STEPS_TAKEN] += dt / chance[STEP]
        return
    served, begun, rate, share = pace(group, classes, mine, prompts, handed, decoding, dt, flow, chance)
    n, step, full, usual = chance[BATCH], chance[STEP], chance[FULL_STEP], chance[USUAL]
    slots_busy = chance[SLOTS_BUSY]
    curve[COME] += come * dt
    curve[STEPS_TAKEN] += dt / step
    for c in mine:
        entry = classes[c]
        done[c] = served * prompts[c]
        waiting[c] = prompts[c] - done[c]
        curve[PREFILLED] += done[c] * fresh_tokens(entry)
        started = begun * handed[c]
        handed[c] -= started
        curve[BEGUN] += started
        if entry[STEPS] > 0.0 and group[ROLE] != PREFILL and done[c] + started + decoding[c] > 0.0:
            start = (done[c] + started) / dt
            tau = entry[STEPS] * step
            decoding[c] = start * tau + (decoding[c] - start * tau) * math.exp(-dt / tau)
            if start > 0.0:
                add_flow(group, entry, 0.0, start, flow)
    # the rest is chance
    chance[:] = 0.0
    chance[BATCH], chance[STEP], chance[FULL_STEP], chance[USUAL] = n, step, full, usual
    chance[SLOTS_BUSY] = slots_busy
    y = flow[TOKENS]
    room = max(group[BUDGET] - n, 1.0)
    together = served * y / rate if rate > 0.0 else 0.0
    chance[BUSY] = 1.0
    scale = fluctuate(
        group, flow, max(served, 1e-6), max(rate, 1e-9), together, share, usual, window_s, dispersion, chance
    )
    chance[BUSY] = 0.0
    if y > 0.0:
        scale = max(scale, 1e-6)
        late = mean_queue(late, come * full / room, scale, dt)
        chance[LATE] = late
        chance[BUSY] = max(late / (late + scale), 1e-6)
        chance[WAIT] = max(late - (curve[COME] - curve[PREFILLED]) * full / room, 0.0) / chance[BUSY]
        mean = y / flow[REQUESTS]
        chunks = math.ceil(mean / room)
        context = flow[CONTEXTS] / flow[DECODED] if flow[DECODED] > 0.0 else 0.0
        own_s = chunks * (decode_s(group, n, context) + prompts_s(group, flow, n, mean / chunks))
        chance[PREFILL_S] = own_s + chance[RESIDUAL] + waited_s(chance[BUSY], chance[WAIT], 0.0)


@compiled
def flow_through(
    groups: Array, windows: Array, shares: Array, shared: Flags, arrivals: Array, dispersions: Array, dt: float,
    window_steps: int, window_s: float, most_steps: int, curves: Array, chance: Array, first: Array, second: Array,
    held: Array,
) -> int:  # fmt: skip
    """Let (T, C) `arrivals`, requests of each step, flow through and what is left flow out; how many steps it took, -1
    if a class has nowhere to go. Fills `curves`, `chance`, (T, C, G) `first` and `second`, requests/s of one replica
    to prefill and to decode, and (windows, C, 2) `held`, requests that wait and that run at the end of each window.
    """
    size, count = len(groups), windows.shape[1]
    weights = np.zeros((2, count, size))
    waiting, decoding, handed = np.zeros((size, count)), np.zeros((size, count)), np.zeros((size, count))
    done = np.zeros((size, count))
    flow, prompts = np.zeros(SUM_COLUMNS), np.zeros(count)
    mine = np.zeros((size, count), dtype=np.int64)
    classes_of = np.zeros(size, dtype=np.int64)
    for g in range(size):
        for c in range(count):
            if windows[0, c, CLASS_MODEL] == groups[g, MODEL]:
                mine[g, classes_of[g]] = c
                classes_of[g] += 1
    staying, stay_s, rates = np.zeros(size), np.zeros(size), np.zeros(size)
    order = np.zeros((size, 2))
    coming, handing = np.zeros((count, size)), np.zeros((count, size))
    arriving = np.zeros(count)
    curve = np.zeros((size, CURVES))
    row = np.zeros((size, CHANCE_COLUMNS))
    uneven = np.ones(size)
    flight, left = np.zeros(size), np.zeros(size)
    for t in range(most_steps):
        window = min(t // window_steps, len(windows) - 1)
        classes = windows[window]
        if t < len(arrivals):
            if t % window_steps == 0 and not weigh(groups, classes, shares, shared, weights):
                return -1
            for c in range(count):
                arriving[c] = arrivals[t, c] / dt
        else:
            arriving[:] = 0.0
        # how long a newcomer stays within this step: by Little's law, or if nobody has left what it takes alone
        for g in range(size):
            response = 0.0
            if left[g] > NOTHING:
                response = flight[g] / left[g]
            else:
                total = 0.0
                for c in range(count):
                    if weights[0, c, g] + weights[1, c, g] > 0.0:
                        steps = 0.0 if groups[g, ROLE] == PREFILL else classes[c, STEPS]
                        response += classes[c, RATE] * steps * decode_s(groups[g], 1.0, classes[c, INPUT])
                        total += classes[c, RATE]
                response = response / total if total > 0.0 else dt
            response = max(response, 1e-3)
            staying[g] = flight[g] * math.exp(-dt / response)
            stay_s[g] = response * -math.expm1(-dt / response)
        route(arriving, weights[0], groups, staying, stay_s, coming, rates, order)
        total = arriving.sum()
        for g in range(size):
            part = coming[:, g].sum() / total if total > 0.0 else 1.0
            uneven[g] = 1.0 + (dispersions[window] - 1.0) * min(part, 1.0)
        handing[:] = 0.0
        arriving[:] = 0.0
        moved = 0.0
        for g in range(size):
            if groups[g, ROLE] == PREFILL:
                run_replica(groups[g], classes, mine[g, : classes_of[g]], coming[:, g], handing[:, g], waiting[g],
                            decoding[g], handed[g], dt, window_s, uneven[g], flow, prompts, done[g], row[g],
                            curve[g])  # fmt: skip
                for c in range(count):
                    if classes[c, STEPS] > 0.0:
                        arriving[c] += done[g, c] * groups[g, COUNT] / dt
                        moved += done[g, c]
        if moved > 0.0:
            route(arriving, weights[1], groups, staying, stay_s, handing, rates, order)
        remaining = 0.0
        for g in range(size):
            if groups[g, ROLE] != PREFILL:
                run_replica(groups[g], classes, mine[g, : classes_of[g]], coming[:, g], handing[:, g], waiting[g],
                            decoding[g], handed[g], dt, window_s, uneven[g], flow, prompts, done[g], row[g],
                            curve[g])  # fmt: skip
            has = waiting[g].sum() + decoding[g].sum() + handed[g].sum()
            remaining += groups[g, COUNT] * has
            has += done[g].sum() / dt * row[g, PREFILL_S]
            left[g] = max((flight[g] - has) / dt + coming[:, g].sum() + handing[:, g].sum(), 0.0)
            flight[g] = has
        curves[t + 1] = curve
        chance[t] = row
        first[t] = coming
        second[t] = handing
        if (t + 1) % window_steps == 0 and t < len(arrivals):
            for c in range(count):
                held[window, c] = 0.0
                for g in range(size):
                    held[window, c, 0] += groups[g, COUNT] * (waiting[g, c] + handed[g, c])
                    held[window, c, 1] += groups[g, COUNT] * decoding[g, c]
        if t + 1 >= len(arrivals) and remaining < 1.0:
            return t + 1
    return most_steps
