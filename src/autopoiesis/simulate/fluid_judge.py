"""What has flowed, judged: which requests keep their SLO, and how long they take.

Prefill is first come, first served, so a prompt that arrives when A tokens have come waits until A have been
prefilled; a sequence of L steps ends when the replica has taken L more of them. Both are read off the cumulative curves
of `fluid_time`, whose arrays these are; `chance` says how requests stray from the mean.
"""

from __future__ import annotations

import math

import numpy as np

from autopoiesis.simulate.fluid_plan import NODE, NODE_WEIGHT, add_flow, short_steps
from autopoiesis.simulate.fluid_replica import (
    BUSY,
    COUNT,
    DECODE,
    INPUT,
    INPUT_SIGMA,
    PREFILL,
    PREFIX,
    RESIDUAL,
    ROLE,
    SLOT_WAIT,
    SLOTS_BUSY,
    STEPS,
    SUM_COLUMNS,
    TPOT_SLO,
    TRANSFER,
    TTFT_SLO,
    TTFT_SLO_TOKEN,
    UNLOADED,
    WAIT,
    Array,
    own_prefill_s,
    paced_cdf,
    ttft_cdf,
    wait_cdf,
    waited_s,
)
from autopoiesis.simulate.fluid_time import BEGUN, COME, FULL_STEP, HANDED, PREFILLED, STEPS_TAKEN
from autopoiesis.simulate.jit import compiled

OUT_WAITING, OUT_RUNNING, OUT_ARRIVED, OUT_GOOD, OUT_DELAY = range(5)
OUT_COLUMNS = 5
"""Of a window and class: requests that wait and that run at its end; arrivals, those of them that will be good, and
the sum of their seconds beyond the unloaded time."""


@compiled
def reach(curves: Array, g: int, column: int, level: float, first: int, dt: float) -> float:
    """When the cumulative curve reaches the level, at the earliest at step `first`; seconds. Beyond the end of the
    curve it is taken to go on as in its last step."""
    last = len(curves) - 1
    t = first
    while t < last and curves[t + 1, g, column] < level:
        t += 1
    if t >= last:
        slope = (curves[last, g, column] - curves[last - 1, g, column]) / dt
        return last * dt + ((level - curves[last, g, column]) / slope if slope > 0.0 else np.inf)
    low, high = curves[t, g, column], curves[t + 1, g, column]
    part = (level - low) / (high - low) if high > low else 0.0
    return (t + min(max(part, 0.0), 1.0)) * dt


@compiled
def decoded(
    group: Array, entry: Array, curves: Array, chance: Array, g: int, at_s: float, handed: bool, dt: float
) -> tuple[float, float]:
    """Probability that a sequence which begins to decode, or is `handed` over, at a time keeps its TPOT; and the
    seconds it decodes, a transfer included."""
    last = len(chance) - 1
    t = int(min(at_s / dt, float(last)))
    moved = 0.0
    begin_s = at_s
    if handed:
        part = min(at_s / dt - t, 1.0)
        level = curves[t, g, HANDED] + part * (curves[t + 1, g, HANDED] - curves[t, g, HANDED])
        begin_s = max(reach(curves, g, BEGUN, level - 1e-6, t, dt), at_s)
        moved = begin_s - at_s + (group[TRANSFER] * entry[INPUT] if group[ROLE] == DECODE else 0.0)
        t = int(min(begin_s / dt, float(last)))
    if begin_s == np.inf:
        return 0.0, np.inf
    part = min(begin_s / dt - t, 1.0)
    level = curves[t, g, STEPS_TAKEN] + part * (curves[t + 1, g, STEPS_TAKEN] - curves[t, g, STEPS_TAKEN])
    seconds = max(reach(curves, g, STEPS_TAKEN, level + entry[STEPS], t, dt) - begin_s, 1e-6)
    row = chance[t, g]
    most = max(row[FULL_STEP], seconds / entry[STEPS]) * entry[STEPS]
    # prompts that queued behind its own are prefilled first of all
    seconds = min(seconds + row[BUSY] * row[WAIT], most)
    steps = short_steps(entry)
    mean = (seconds + moved) / entry[STEPS]
    within = paced_cdf(row, steps, mean, (most + moved) / entry[STEPS], entry[TPOT_SLO])
    if handed:
        slack = max(0.0, (entry[TPOT_SLO] - mean) * steps)
        within *= wait_cdf(slack, row[SLOTS_BUSY], row[SLOT_WAIT], 0.0)
        moved += waited_s(row[SLOTS_BUSY], row[SLOT_WAIT], 0.0)
    return within, seconds + moved


@compiled
def judge(
    groups: Array, windows: Array, dt: float, window_steps: int, curves: Array, chance: Array, first: Array,
    second: Array, out: Array,
) -> None:  # fmt: skip
    """Fill (windows, C, 5) `out` but for its first columns from what has flowed."""
    size, count = len(groups), windows.shape[1]
    flow = np.zeros(SUM_COLUMNS)
    for t in range(len(first)):
        window = t // window_steps
        for g in range(size):
            if groups[g, ROLE] == DECODE or first[t, :, g].sum() <= 0.0:
                continue
            group = groups[g]
            row = chance[t, g]
            flow[:] = 0.0
            for c in range(count):
                if first[t, c, g] > 0.0:
                    add_flow(group, windows[window, c], first[t, c, g], first[t, c, g], flow)
            middle = 0.5 * (curves[t, g, COME] + curves[t + 1, g, COME])
            waits = max(reach(curves, g, PREFILLED, middle, t, dt) - (t + 0.5) * dt, 0.0)
            for c in range(count):
                number = first[t, c, g] * group[COUNT] * dt
                if number <= 0.0:
                    continue
                entry = windows[window, c]
                sigma = entry[INPUT_SIGMA]
                in_time = own = 0.0
                for j in range(3):
                    tokens = entry[INPUT] * math.exp(NODE[j] * sigma - 0.5 * sigma * sigma)
                    cached = tokens * min(entry[PREFIX] / entry[INPUT], 1.0)
                    own_s = own_prefill_s(group, flow, row, tokens, cached)
                    own += NODE_WEIGHT[j] * own_s
                    limit_s = entry[TTFT_SLO] + entry[TTFT_SLO_TOKEN] * tokens - waits
                    if limit_s > 0.0:
                        in_time += NODE_WEIGHT[j] * ttft_cdf(row, own_s, limit_s)
                seconds = waits + own + row[RESIDUAL] + waited_s(row[BUSY], row[WAIT], 0.0)
                seconds += waited_s(row[SLOTS_BUSY], row[SLOT_WAIT], 0.0)
                steady = 1.0
                if entry[STEPS] > 0.0:
                    at_s = (t + 0.5) * dt + seconds
                    if group[ROLE] == PREFILL:
                        then = int(min(at_s / dt, len(second) - 1.0))
                        total = within = lasts = 0.0
                        while total <= 0.0 and then >= 0:
                            for h in range(size):
                                part = second[then, c, h] * groups[h, COUNT]
                                if part > 0.0:
                                    kept, lasted = decoded(groups[h], entry, curves, chance, h, at_s, True, dt)
                                    total += part
                                    within += part * kept
                                    lasts += part * lasted
                            then -= 1
                        steady = within / total if total > 0.0 else 0.0
                        seconds += lasts / total if total > 0.0 else 0.0
                    else:
                        steady, lasted = decoded(group, entry, curves, chance, g, at_s, False, dt)
                        seconds += lasted
                out[window, c, OUT_ARRIVED] += number
                out[window, c, OUT_GOOD] += number * in_time * steady
                out[window, c, OUT_DELAY] += number * max(0.0, seconds - entry[UNLOADED])
