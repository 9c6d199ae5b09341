"""The fluid model's arithmetic: one replica under a steady flow of requests, in closed form where there is one.

An engine step decodes one token of each of n sequences; a *mixed* step also takes prompt tokens, up to the budget B.
At flows of y prompt tokens/s and z decoded tokens/s the mean step lasts

    T = T_decode(n) / (1 - U),    U = the prompts' share of the time,    n = z · T      (Little's law),

linear in n between the knees of the roofline, hence solved branch by branch. A replica *saturates* either when every
step is full (then n = B·z / (y + z)) or when its sequences or its KV cache are. Below saturation a request waits as in
M/G/1 (prompts) and M/G/N (sequence slots), with the finite horizon of a window (Akçelik's sheared queue); beyond it the
queue also grows linearly over the window. A sequence sees the others of its batch and itself, n + 1.

Replicas that are equal in everything, shares included, are one *group*. Arrays are float64:

    groups (g, 17)   a replica's coefficients and the number of replicas, columns `FIXED` to `COUNT`
    classes (c, 12)  a request class's rate and lengths, columns `CLASS_MODEL` to `INPUT_SPREAD`
    sums (g, 9)      the flows of one replica of the group, columns `REQUESTS` to `DECODED_SQUARED`
    limits (g, 4)    where it saturates, columns `MULTIPLE` to `SLOTS_FIRST`
    state (g, 14)    it under a multiple of its flows, columns `BATCH` to `LEAST`
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.jit import compiled, inlined

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

FIXED, PREFILL_FIXED, WEIGHTS, TOKEN, COMMUNICATION, ATTENTION, CONTEXT, SEQUENCE, KV_TOKENS, TRANSFER = range(10)
BUDGET, MAX_SEQUENCES, ROLE, STAGES, SPEED, MODEL, COUNT = range(10, 17)
GROUP_COLUMNS = 17
"""`TRANSFER`: seconds to move the KV cache of one token. `SPEED`: by which the gateway compares replicas."""
MIXED, PREFILL, DECODE = 0, 1, 2

CLASS_MODEL, RATE, INPUT, INPUT_SIGMA, PREFIX, STEPS, STEPS_SQUARED, TTFT_SLO, TTFT_SLO_TOKEN, TPOT_SLO = range(10)
UNLOADED, INPUT_SPREAD = 10, 11
CLASS_COLUMNS = 12
"""`INPUT_SIGMA`: of a log-normal. `STEPS`: output tokens after the first; then the mean of their square. `UNLOADED`:
seconds of the request alone on the fastest shape. `INPUT_SPREAD`: mean square of prompts over their squared mean."""

REQUESTS, TOKENS, TOKENS_SQUARED, CHUNKS, SQUARES, DECODING, DECODED, CONTEXTS, DECODED_SQUARED = range(9)
SUM_COLUMNS = 9
"""Per second: requests prefilled, their uncached tokens, the squares of these, chunks beyond the first, S² − p²;
requests decoded, their tokens, Σ context over these tokens, squares of the tokens."""

MULTIPLE, BATCH_LIMIT, STEP_LIMIT, SLOTS_FIRST = range(4)
LIMIT_COLUMNS = 4
"""Multiple of the flows at which it saturates; n and mean step there; 1 if slots run out first, 0 if the budget."""

BATCH, STEP, SPREAD, MIXING, NOISE, RESIDUAL, COMPANY, BUSY, WAIT, GROWTH, SLOTS_BUSY, SLOT_WAIT, SLOT_GROWTH = range(
    13
)
LEAST = 13
"""n; mean step that a sequence sees; its deviation as n fluctuates; the variance that others' prompts bring to it, for
one step, and to a TTFT; wait for the step under way; others' prompt tokens in a mixed step. For the queue of prompts,
and again for that of slots: probability to wait, mean wait given that, seconds by which it grows over the window.
`LEAST`: a step without prompts."""
STATE_COLUMNS = 14

KV_MARGIN = 0.95
"""Fraction of the KV cache that can be full on average: beyond, preemption takes what more sequences would bring."""
OWN_NOISE = 0.1
"""Relative spread of the time a prompt of given length takes, and half of that for a step at saturation."""
BUSIEST = 0.98
"""Utilisation by prompts of a replica whose slots run out first: its queue of prompts must stay finite."""
BLOCK_WASTE = 8.0
"""KV tokens that a sequence holds beyond its context on average: half a block of 16."""
MEMORY = 0.74
"""Part of the variance of n that is left in a mean over one request's own decoding, n's correlation time."""


@inlined
def normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z * 0.7071067811865476)


@inlined
def decode_s(group: Array, n: float, context: float) -> float:
    """A step of n sequences and no prompts; one sequence alone fills one pipeline stage at a time."""
    linear: float = max(group[WEIGHTS], group[TOKEN] * max(n, group[STAGES]))
    seconds: float = group[FIXED] + linear + (group[COMMUNICATION] + group[SEQUENCE] + group[CONTEXT] * context) * n
    return seconds


@inlined
def token_s(group: Array, n: float, tokens: float, largest: float) -> float:
    """What prompt tokens add to the linear layers of a step of n sequences; the `largest` chunk cannot be in two
    pipeline stages at once."""
    together = max(tokens + n, group[STAGES] * largest)
    alone = max(n, group[STAGES])
    seconds: float = max(group[WEIGHTS], group[TOKEN] * together) - max(group[WEIGHTS], group[TOKEN] * alone)
    return max(seconds, 0.0)


@inlined
def prompts_s(group: Array, flow: Array, n: float, tokens: float) -> float:
    """What prompt tokens of the usual kind add to a step of n sequences."""
    if tokens <= 0.0:
        return 0.0
    largest = min(tokens, flow[TOKENS] / flow[REQUESTS])
    attended = max(tokens, group[STAGES] * largest) * group[ATTENTION] * flow[SQUARES] / flow[TOKENS]
    linear = token_s(group, n, tokens, largest)
    seconds: float = group[PREFILL_FIXED] + linear + group[COMMUNICATION] * tokens + attended
    return seconds


@inlined
def mixed_rate(group: Array, flow: Array, x: float, n: float, step: float) -> float:
    """Mixed steps/s: prompts that arrive during one step share the next, and none takes more than the budget."""
    shared: float = x * flow[CHUNKS] - math.expm1(-x * flow[REQUESTS] * step) / step
    full: float = x * flow[TOKENS] / max(group[BUDGET] - n, 1.0)
    return max(full, shared)


@inlined
def slot_count(group: Array, context: float) -> float:
    """Sequences that can run at once."""
    slots: float = min(group[MAX_SEQUENCES], KV_MARGIN * group[KV_TOKENS] / (context + BLOCK_WASTE))
    return max(slots, 1.0)


@compiled
def saturation(group: Array, flow: Array, limit: Array) -> None:
    """Fill the row of `limits`."""
    y, z = flow[TOKENS], flow[DECODED]
    budget = group[BUDGET]
    limit[:] = 0.0
    if y + z <= 0.0:
        limit[MULTIPLE] = np.inf
        return
    context = flow[CONTEXTS] / z if z > 0.0 else 0.0
    slots = slot_count(group, context) if z > 0.0 else group[MAX_SEQUENCES]
    n = budget * z / (y + z)
    if y > 0.0 and n <= slots:
        step = decode_s(group, n, context) + prompts_s(group, flow, n, budget - n)
        limit[MULTIPLE] = (budget - n) / (y * step)
        limit[BATCH_LIMIT] = n
        limit[STEP_LIMIT] = step
        return
    n = min(slots, budget)
    pure = decode_s(group, n, context)
    x = n / (z * pure)
    if y > 0.0:
        for _ in range(8):
            rate = mixed_rate(group, flow, x, n, n / (z * x))
            x = n / (z * pure + n * rate / x * prompts_s(group, flow, n, x * y / rate))
    limit[MULTIPLE] = x
    limit[BATCH_LIMIT] = n
    limit[STEP_LIMIT] = n / (z * x)
    limit[SLOTS_FIRST] = 1.0


@inlined
def mean_wait(load: float, scale: float, horizon_s: float) -> float:
    """Akçelik: scale·load/(1−load) of a steady queue, sheared so that it stays finite within the horizon."""
    idle = 1.0 - min(load, 1.0)
    return 0.25 * horizon_s * (math.sqrt(idle * idle + 8.0 * scale * load / horizon_s) - idle)


@compiled
def solve(group: Array, flow: Array, limit: Array, x: float, window_s: float, dispersion: float, state: Array) -> None:
    """Fill the row of `state` for x times the flows; `dispersion` is that of the replica's own arrivals."""
    state[:] = 0.0
    y, z = flow[TOKENS], flow[DECODED]
    if y + z <= 0.0:
        return
    load = x / limit[MULTIPLE]
    x = min(x, limit[MULTIPLE])
    context = flow[CONTEXTS] / z if z > 0.0 else 0.0
    base = group[COMMUNICATION] + group[SEQUENCE] + group[CONTEXT] * context
    n = rate = share = tokens = 0.0
    step = usual = decode_s(group, 1.0, context)
    for _ in range(30):
        before = step
        if y > 0.0:
            rate = mixed_rate(group, flow, x, n, usual)
            tokens = x * y / rate
            share = min(rate * prompts_s(group, flow, n, tokens), 0.999)
        mixed = decode_s(group, n, context) + prompts_s(group, flow, n, tokens)
        if z <= 0.0:
            step = usual = mixed
        else:
            pace = x * z / (1.0 - share)
            n = limit[BATCH_LIMIT]
            bound = group[FIXED] + group[WEIGHTS] + base
            slope = base + group[TOKEN]
            if pace * slope < 1.0:
                # convex in n: the larger of the two branches' solutions is the solution
                n = min(
                    n, max(pace * bound / (1.0 - pace * base), pace * (group[FIXED] + slope) / (1.0 - pace * slope))
                )
            step = min(decode_s(group, n + 1.0, context) / (1.0 - share), limit[STEP_LIMIT])
            usual = mixed + (step - mixed) * -math.expm1(-n)
        if abs(step - before) <= 1e-7 * step:
            break
    slots = slot_count(group, context)
    full = min(load, 1.0) if limit[SLOTS_FIRST] > 0.0 else min(n / slots, BUSIEST)
    if y > 0.0:
        room = max(group[BUDGET] - n, 1.0)
        busy = min(load, 1.0)
        if limit[SLOTS_FIRST] > 0.0:
            busy = min(x * y * (decode_s(group, n, context) + prompts_s(group, flow, n, room)) / room, BUSIEST)
        state[BUSY] = busy
    state[BATCH], state[STEP], state[SLOTS_BUSY] = n, step, full
    fluctuate(group, flow, x, rate, tokens, share, usual, window_s, dispersion, state)
    if limit[SLOTS_FIRST] > 0.0:
        state[SLOT_GROWTH] = max(0.0, load - 1.0) * window_s if z > 0.0 else 0.0
    elif y > 0.0:
        state[GROWTH] = max(0.0, load - 1.0) * window_s


@compiled
def fluctuate(
    group: Array, flow: Array, x: float, rate: float, tokens: float, share: float, usual: float, window_s: float,
    dispersion: float, state: Array,
) -> float:  # fmt: skip
    """What chance adds to the mean: fill the other columns of `state`, but for growth; the scale of the prompts' wait.

    Given are `BATCH` and `STEP`, in `BUSY` the utilisation by prompts and in `SLOTS_BUSY` that of the slots; x times
    the flows are served, in `rate` mixed steps/s of so many prompt `tokens`, which take that `share` of the time.
    """
    y, z = flow[TOKENS], flow[DECODED]
    n, step = state[BATCH], state[STEP]
    context = flow[CONTEXTS] / z if z > 0.0 else 0.0
    base = group[COMMUNICATION] + group[SEQUENCE] + group[CONTEXT] * context
    pure = decode_s(group, n, context)
    mixed = pure + prompts_s(group, flow, n, tokens)
    mixing = min(1.0, rate * mixed)
    waiting = 0.0
    state[LEAST] = pure
    state[RESIDUAL] = 0.5 * (1.0 - mixing) * pure * -math.expm1(-n)
    if y > 0.0:
        room = max(group[BUDGET] - n, 1.0)
        mean = y / flow[REQUESTS]
        variation = max(0.0, flow[TOKENS_SQUARED] / flow[REQUESTS] / (mean * mean) - 1.0)
        scale = mean / room * (pure + prompts_s(group, flow, n, room)) * 0.5 * (dispersion + variation)
        # as a busy period: prompts that arrive while others are prefilled prolong it further
        prompt = share * share * (1.0 + variation) / (x * flow[REQUESTS])
        state[MIXING] = step * prompt * dispersion / (1.0 - share) ** 2
        waiting = scale
        busy = state[BUSY]
        state[WAIT] = mean_wait(busy, scale, window_s) / busy
        state[RESIDUAL] += mixing * max(0.0, 0.5 * mixed - scale)
        state[NOISE] = usual * prompt + state[RESIDUAL] ** 2
        state[COMPANY] = max(0.0, tokens - mean)
    full = state[SLOTS_BUSY]
    state[SLOTS_BUSY] = 0.0
    if z > 0.0:
        slope = (base + (group[TOKEN] if group[TOKEN] * (n + 1.0) > group[WEIGHTS] else 0.0)) / (1.0 - share)
        burst = 0.5 * (1.0 + dispersion) * decode_s(group, n + 1.0, context) / decode_s(group, 1.0, context)
        state[SPREAD] = slope * math.sqrt(MEMORY * n * burst)
        slots = slot_count(group, context)
        mean = z / flow[DECODING]
        variation = max(0.0, flow[DECODED_SQUARED] / flow[DECODING] / (mean * mean) - 1.0)
        waits = full ** (math.sqrt(2.0 * (slots + 1.0)) - 1.0)
        scale = mean * step / slots * 0.5 * (dispersion + variation)
        if waits > 1e-9:
            state[SLOTS_BUSY] = waits
            state[SLOT_WAIT] = mean_wait(full, scale * waits, window_s) / waits
    return waiting


@inlined
def wait_cdf(slack_s: float, busy: float, wait_s: float, growth_s: float) -> float:
    """Probability of waiting at most so long: exponential, plus a uniform part where the queue grows."""
    if growth_s > 1e-9 * wait_s and growth_s > 0.0:
        ended = min(slack_s, growth_s)
        if wait_s <= 0.0:
            return ended / growth_s
        tail = wait_s * math.exp((ended - slack_s) / wait_s) * -math.expm1(-ended / wait_s)
        return (ended - tail) / growth_s
    if wait_s <= 0.0:
        return 1.0
    return 1.0 - busy * math.exp(-slack_s / wait_s)


@compiled
def own_prefill_s(group: Array, flow: Array, state: Array, tokens: float, cached: float) -> float:
    """From the first step that takes a prompt to its first token."""
    n = state[BATCH]
    room = max(group[BUDGET] - n, 1.0)
    fresh = max(tokens - cached, 1.0)
    chunks = math.ceil(fresh / room)
    company = min(state[COMPANY], room - fresh / chunks)
    context = flow[CONTEXTS] / flow[DECODED] if flow[DECODED] > 0.0 else 0.0
    chunk = fresh / chunks
    step = decode_s(group, n, context) + group[PREFILL_FIXED] + token_s(group, n, chunk + company, chunk)
    squares = tokens * tokens - cached * cached
    squares = max(squares + chunks * company * flow[SQUARES] / max(flow[TOKENS], 1e-12), group[STAGES] * squares)
    seconds: float = chunks * step + group[COMMUNICATION] * (fresh + chunks * company) + group[ATTENTION] * squares
    return seconds


@inlined
def ttft_cdf(state: Array, own_s: float, limit_s: float) -> float:
    own = own_s + state[RESIDUAL]
    slack = max(0.0, limit_s - own)
    waits = wait_cdf(slack, state[BUSY], state[WAIT], state[GROWTH])
    waits *= wait_cdf(slack, state[SLOTS_BUSY], state[SLOT_WAIT], state[SLOT_GROWTH])
    return normal_cdf((limit_s - own) / math.sqrt((OWN_NOISE * own) ** 2 + state[NOISE])) * waits


@inlined
def decoding_step_s(state: Array, limit: Array, steps: float) -> float:
    """The mean step while a sequence decodes: prompts that queued behind its own are prefilled first of all."""
    seconds: float = min(state[STEP] + state[BUSY] * state[WAIT] / steps, limit[STEP_LIMIT])
    return seconds


@inlined
def tail_cdf(limit: float, mean: float, variance: float) -> float:
    """Of a log-normal; but where its median would fall because the spread grows, the spread is taken as no larger."""
    spread = math.sqrt(math.log1p(variance / (mean * mean)))
    distance = math.log(limit / mean)
    if distance <= 0.0:
        return normal_cdf(min(distance / spread + 0.5 * spread, 0.0))
    spread = min(spread, math.sqrt(2.0 * distance))
    return normal_cdf(distance / spread + 0.5 * spread)


@inlined
def paced_cdf(state: Array, steps: float, mean: float, most: float, limit_s: float) -> float:
    """Of the TPOT of so many steps whose expectation is `mean`; none lasts longer than `most` but for its own noise.

    Right for the mean of many steps; for that of two or three it is rough.
    """
    # steps between two bounds vary no more than if all were one or the other (Bhatia and Davis 2000)
    mixing = min(state[MIXING] / steps, max(mean - state[LEAST], 0.0) * max(most - mean, 0.0))
    within = tail_cdf(limit_s, mean, state[SPREAD] ** 2 + mixing + (0.02 * mean) ** 2)
    always = tail_cdf(limit_s, most, (mixing if limit_s > most else 0.0) + (0.5 * OWN_NOISE * most) ** 2)
    return always + (1.0 - always) * within


@inlined
def tpot_cdf(state: Array, limit: Array, steps: float, transfer_s: float, decode_only: bool, limit_s: float) -> float:
    """A batch cannot outgrow its limit, so the step at saturation bounds the fluctuation from above."""
    moved = transfer_s / steps
    mean = decoding_step_s(state, limit, steps) + moved
    within = paced_cdf(state, steps, mean, limit[STEP_LIMIT] + moved, limit_s)
    if decode_only:
        slack = max(0.0, (limit_s - mean) * steps)
        within *= wait_cdf(slack, state[SLOTS_BUSY], state[SLOT_WAIT], state[SLOT_GROWTH])
    return within


@inlined
def waited_s(busy: float, wait_s: float, growth_s: float) -> float:
    return busy * wait_s + 0.5 * growth_s
