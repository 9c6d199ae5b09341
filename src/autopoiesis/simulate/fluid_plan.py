"""The fluid model's arithmetic for a whole plan: how classes spread over replicas, and what becomes of them.

Arrays are those of `fluid_replica`; beside them

    shares (c, g)       fraction of the class that the plan gives to the whole group; `shared[c]`: whether it gives any
    flows (2, c, g)     requests/s of the class that one replica of the group prefills (0) and decodes (1)
    lengths (c, 3)      prompt tokens at the nodes of a log-normal (`NODE`)
    own_s (c, g, 3)     seconds from a prompt's first step to its first token, at these lengths
"""

from __future__ import annotations

import math

import numpy as np

from autopoiesis.simulate.fluid_replica import (
    BUDGET,
    BUSY,
    CHUNKS,
    CLASS_MODEL,
    CONTEXTS,
    COUNT,
    DECODE,
    DECODED,
    DECODED_SQUARED,
    DECODING,
    GROWTH,
    INPUT,
    INPUT_SIGMA,
    INPUT_SPREAD,
    KV_TOKENS,
    LIMIT_COLUMNS,
    MIXED,
    MODEL,
    MULTIPLE,
    PREFILL,
    PREFIX,
    RATE,
    REQUESTS,
    RESIDUAL,
    ROLE,
    SLOT_GROWTH,
    SLOT_WAIT,
    SLOTS_BUSY,
    SQUARES,
    STATE_COLUMNS,
    STEPS,
    STEPS_SQUARED,
    SUM_COLUMNS,
    TOKENS,
    TOKENS_SQUARED,
    TPOT_SLO,
    TRANSFER,
    TTFT_SLO,
    TTFT_SLO_TOKEN,
    UNLOADED,
    WAIT,
    Array,
    Flags,
    decoding_step_s,
    own_prefill_s,
    saturation,
    solve,
    tpot_cdf,
    ttft_cdf,
    waited_s,
)
from autopoiesis.simulate.jit import compiled, inlined

NODE = (-1.7320508075688772, 0.0, 1.7320508075688772)
NODE_WEIGHT = (1 / 6, 2 / 3, 1 / 6)
"""Gauss–Hermite: means over a log-normal prompt length."""
ATTAINMENT = 0.9
"""A class is served within SLO if this fraction of its requests is: what the 90th percentiles speak of, too."""
MOST_HEADROOM = 100.0
SPARE_KV_TOKENS = 64
"""A replica takes a request only if its KV cache holds the prompt and this many tokens more."""


@compiled
def add_flow(group: Array, entry: Array, prefilled: float, decoded: float, flow: Array) -> None:
    """Add a class's requests/s to the row of `sums`."""
    spread = entry[INPUT_SPREAD]
    tokens = entry[INPUT]
    fresh = max(tokens - entry[PREFIX], 1.0)
    flow[REQUESTS] += prefilled
    flow[TOKENS] += prefilled * fresh
    flow[TOKENS_SQUARED] += prefilled * fresh * fresh * spread
    flow[CHUNKS] += prefilled * max(0.0, fresh / group[BUDGET] - 1.0)
    flow[SQUARES] += prefilled * spread * (tokens * tokens - (tokens - fresh) ** 2)
    if entry[STEPS] > 0.0:
        flow[DECODING] += decoded
        flow[DECODED] += decoded * entry[STEPS]
        flow[DECODED_SQUARED] += decoded * entry[STEPS_SQUARED]
        flow[CONTEXTS] += decoded * (tokens * entry[STEPS] + 0.5 * entry[STEPS_SQUARED])


@inlined
def takes(group: Array, entry: Array) -> bool:
    """Whether the replica serves the class's model and holds its mean prompt."""
    fits: bool = group[MODEL] == entry[CLASS_MODEL] and group[KV_TOKENS] >= entry[INPUT] + SPARE_KV_TOKENS
    return fits


@inlined
def short_steps(entry: Array) -> float:
    """The harmonic mean of a log-normal number of steps: few steps average little."""
    steps: float = entry[STEPS] ** 3 / entry[STEPS_SQUARED]
    return max(steps, 1.0)


@compiled
def capacities(groups: Array, classes: Array) -> Array:
    """(g,) the multiple of all of its model's load that the replicas of each group could take together."""
    capacity = np.zeros(len(groups))
    flow = np.zeros(SUM_COLUMNS)
    limit = np.zeros(LIMIT_COLUMNS)
    for g in range(len(groups)):
        flow[:] = 0.0
        for entry in classes:
            if takes(groups[g], entry):
                rate = entry[RATE]
                role = groups[g, ROLE]
                add_flow(groups[g], entry, 0.0 if role == DECODE else rate, 0.0 if role == PREFILL else rate, flow)
        if flow[TOKENS] + flow[DECODED] > 0.0:
            saturation(groups[g], flow, limit)
            capacity[g] = limit[MULTIPLE] * groups[g, COUNT]
    return capacity


@compiled
def spread(groups: Array, classes: Array, shares: Array, shared: Flags, flows: Array) -> bool:
    """Fill `flows`; False if some load has nowhere to go.

    Fractions of a plan are taken within each phase. Without them, a class goes to the replicas that prefill by what
    they could take of the model's load, and from prefill replicas on to decode replicas (to mixed ones if there are
    none); prefill replicas then take no more than what follows them can.
    """
    flows[:] = 0.0
    capacity = capacities(groups, classes)
    weight = np.zeros((2, len(groups)))
    for c in range(len(classes)):
        entry = classes[c]
        if entry[RATE] <= 0.0:
            continue
        weight[:] = 0.0
        decoders = False
        after = before = 0.0
        for g in range(len(groups)):
            if takes(groups[g], entry):
                if groups[g, ROLE] == PREFILL:
                    before += capacity[g]
                elif groups[g, ROLE] == DECODE:
                    decoders = True
                    after += capacity[g]
        for g in range(len(groups)):
            if takes(groups[g], entry):
                role = groups[g, ROLE]
                if role == MIXED:
                    weight[0, g] = capacity[g]
                    weight[1, g] = 0.0 if decoders else capacity[g]
                elif role == DECODE:
                    weight[1, g] = capacity[g]
                else:
                    limited = decoders and entry[STEPS] > 0.0 and before > after
                    weight[0, g] = capacity[g] * (after / before if limited else 1.0)
        if shared[c]:
            for phase in range(2):
                given = 0.0
                for g in range(len(groups)):
                    given += shares[c, g] if weight[phase, g] > 0.0 else 0.0
                    if phase == 0 and shares[c, g] > 0.0 and not takes(groups[g], entry):
                        return False
                if given > 0.0:
                    for g in range(len(groups)):
                        weight[phase, g] = shares[c, g] if weight[phase, g] > 0.0 else 0.0
        total = weight[0].sum()
        if total <= 0.0:
            return False
        moved = 0.0
        for g in range(len(groups)):
            rate = entry[RATE] * weight[0, g] / total
            flows[0, c, g] = rate / groups[g, COUNT]
            if groups[g, ROLE] == PREFILL:
                moved += rate
            else:
                flows[1, c, g] = rate / groups[g, COUNT]
        if moved > 0.0 and entry[STEPS] > 0.0:
            total = weight[1].sum()
            if total <= 0.0:
                return False
            for g in range(len(groups)):
                flows[1, c, g] += moved * weight[1, g] / total / groups[g, COUNT]
    return True


@compiled
def serve(
    x: float, groups: Array, classes: Array, flows: Array, sums: Array, limits: Array, window_s: float,
    dispersion: Array, lengths: Array, state: Array, own_s: Array, good: Array,
) -> None:  # fmt: skip
    """Fill `state`, `own_s` and (c,) `good`, the fraction of each class within SLO at x times its rate."""
    for g in range(len(groups)):
        solve(groups[g], sums[g], limits[g], x, window_s, dispersion[g], state[g])
    for c in range(len(classes)):
        entry = classes[c]
        whole = prefilled = decoded = moved = 0.0
        for g in range(len(groups)):
            group = groups[g]
            first = second = 1.0
            if flows[0, c, g] > 0.0:
                first = 0.0
                for j in range(3):
                    tokens = lengths[c, j]
                    cached = tokens * min(entry[PREFIX] / entry[INPUT], 1.0)
                    own_s[c, g, j] = own_prefill_s(group, sums[g], state[g], tokens, cached)
                    slo = entry[TTFT_SLO] + entry[TTFT_SLO_TOKEN] * tokens
                    first += NODE_WEIGHT[j] * ttft_cdf(state[g], own_s[c, g, j], slo)
            if flows[1, c, g] > 0.0 and entry[STEPS] > 0.0:
                transfer = group[TRANSFER] * entry[INPUT] if group[ROLE] == DECODE else 0.0
                second = tpot_cdf(
                    state[g], limits[g], short_steps(entry), transfer, group[ROLE] == DECODE, entry[TPOT_SLO]
                )
            rate = flows[0, c, g] * group[COUNT]
            if group[ROLE] == PREFILL:
                moved += rate
                prefilled += rate * first
            else:
                whole += rate * first * second
                decoded += max(flows[1, c, g] - flows[0, c, g], 0.0) * group[COUNT] * second
        if moved > 0.0:
            whole += prefilled * (decoded / moved if entry[STEPS] > 0.0 else 1.0)
        good[c] = whole / entry[RATE] if entry[RATE] > 0.0 else 1.0


@compiled
def times(
    classes: Array, groups: Array, flows: Array, limits: Array, state: Array, own_s: Array
) -> tuple[float, float, float]:
    """Mean delay beyond the unloaded time, 90th percentiles of TTFT and TPOT; seconds."""
    delay = requests = decoded = 0.0
    for c in range(len(classes)):
        entry = classes[c]
        total = 0.0
        for g in range(len(groups)):
            count = groups[g, COUNT]
            row = state[g]
            if flows[0, c, g] > 0.0:
                own = row[RESIDUAL]
                for j in range(3):
                    own += NODE_WEIGHT[j] * own_s[c, g, j]
                wait = waited_s(row[BUSY], row[WAIT], row[GROWTH])
                wait += waited_s(row[SLOTS_BUSY], row[SLOT_WAIT], row[SLOT_GROWTH])
                total += flows[0, c, g] * count * (own + wait)
            if flows[1, c, g] > 0.0 and entry[STEPS] > 0.0:
                seconds = entry[STEPS] * decoding_step_s(row, limits[g], max(entry[STEPS], 1.0))
                if groups[g, ROLE] == DECODE:
                    seconds += groups[g, TRANSFER] * entry[INPUT]
                    seconds += waited_s(row[SLOTS_BUSY], row[SLOT_WAIT], row[SLOT_GROWTH])
                total += flows[1, c, g] * count * seconds
                decoded += flows[1, c, g] * count
        requests += entry[RATE]
        delay += max(0.0, total - entry[RATE] * entry[UNLOADED])
    quantiles = np.zeros(2)
    for phase in range(2):
        weight = requests if phase == 0 else decoded
        if weight <= 0.0:
            continue
        low, high = -10.0, 14.0
        while high - low > 0.003:
            middle = 0.5 * (low + high)
            limit_s = math.exp(middle)
            mass = 0.0
            for c in range(len(classes)):
                entry = classes[c]
                for g in range(len(groups)):
                    if flows[phase, c, g] <= 0.0:
                        continue
                    within = 0.0
                    if phase == 0:
                        for j in range(3):
                            within += NODE_WEIGHT[j] * ttft_cdf(state[g], own_s[c, g, j], limit_s)
                    elif entry[STEPS] > 0.0:
                        alone = groups[g, ROLE] == DECODE
                        transfer = groups[g, TRANSFER] * entry[INPUT] if alone else 0.0
                        within = tpot_cdf(state[g], limits[g], short_steps(entry), transfer, alone, limit_s)
                    mass += flows[phase, c, g] * groups[g, COUNT] * within
            if mass < 0.9 * weight:
                low = middle
            else:
                high = middle
        quantiles[phase] = math.exp(high)
    return delay / requests if requests > 0.0 else 0.0, quantiles[0], quantiles[1]


@compiled
def evaluate(
    groups: Array, classes: Array, shares: Array, shared: Flags, window_s: float, dispersion: float
) -> tuple[bool, float, float, float, float, float]:
    """Feasible, headroom, goodput, delay_s, ttft_p90_s, tpot_p90_s."""
    size, count = len(groups), len(classes)
    flows = np.zeros((2, count, size))
    if not spread(groups, classes, shares, shared, flows):
        return False, 0.0, 0.0, np.inf, np.inf, np.inf
    sums = np.zeros((size, SUM_COLUMNS))
    limits = np.zeros((size, LIMIT_COLUMNS))
    uneven = np.ones(size)
    state = np.zeros((size, STATE_COLUMNS))
    own_s = np.zeros((count, size, 3))
    lengths = np.zeros((count, 3))
    for c in range(count):
        sigma = classes[c, INPUT_SIGMA]
        for j in range(3):
            lengths[c, j] = classes[c, INPUT] * math.exp(NODE[j] * sigma - 0.5 * sigma * sigma)
    good = np.zeros(count)
    requests = classes[:, RATE].sum()
    if requests <= 0.0:
        return True, MOST_HEADROOM, 1.0, 0.0, 0.0, 0.0
    most = MOST_HEADROOM
    for g in range(size):
        for c in range(count):
            add_flow(groups[g], classes[c], flows[0, c, g], flows[1, c, g], sums[g])
        saturation(groups[g], sums[g], limits[g])
        most = min(most, limits[g, MULTIPLE])
        # a thinned stream is nearer to Poisson
        part = min(max(sums[g, REQUESTS], sums[g, DECODING]) / requests, 1.0)
        uneven[g] = 1.0 + (dispersion - 1.0) * part
    low, high = 0.0, most
    middle = most
    while high - low > 0.005 * high and high > 1e-6:
        serve(middle, groups, classes, flows, sums, limits, window_s, uneven, lengths, state, own_s, good)
        if good.min() >= ATTAINMENT:
            low = middle
        else:
            high = middle
        middle = 0.5 * (low + high)
    serve(1.0, groups, classes, flows, sums, limits, window_s, uneven, lengths, state, own_s, good)
    goodput = (good * classes[:, RATE]).sum() / requests
    delay, ttft, tpot = times(classes, groups, flows, limits, state, own_s)
    return True, low, min(goodput, 1.0), delay, ttft, tpot
