"""Sessions of agents: closed loops of calls whose context grows, is reset at times, and is reused nearly whole.

Sessions come in waves, each a burst of starts that drains over hours: people begin to work together and stop one by
one, and so did the recording that the preset comes from.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.arrivals import Floats
from autopoiesis.workload.presets.lengths import Integers, from_quantiles, texts, whole
from autopoiesis.workload.presets.rounds import previous_calls
from autopoiesis.workload.presets.specification import Agents
from autopoiesis.workload.readers import nominal_duration_s

CONTEXT_MAX = 1_000_000
OUTPUT_MAX = 100_000
SCALE_MIN = 1e-9
"""Below this a wave has no session, and no division by zero decides when it starts."""


def agent_calls(
    spec: Agents, scale: float, end_s: float, lengths_rng: np.random.Generator, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """The attributes of `Requests` for waves of `scale` times as many sessions as specified, as far as calls arrive
    before `end_s`."""
    starts_s = _starts(spec, scale, end_s, rng)
    n = len(starts_s)
    turns = np.rint(from_quantiles(spec.turns, n, rng)).astype(np.int64)
    pace = np.exp(spec.pace_sigma * rng.standard_normal(n) - spec.pace_sigma**2 / 2)

    session = np.arange(n)
    arrival_s, think_s = starts_s, np.zeros(n)
    prompts = whole(texts(spec.first, n, lengths_rng), CONTEXT_MAX)
    limit = whole(np.maximum(texts(spec.context_limits, n, rng), spec.headroom * prompts), CONTEXT_MAX)
    base = np.minimum(prompts, int(spec.first[0].median))
    prefix = np.zeros(n, dtype=np.int64)
    rounds: list[dict[str, NDArray[Any]]] = []
    turn = 0
    while len(session) or not rounds:
        turn += 1
        outputs = whole(texts(spec.outputs, len(session), lengths_rng), OUTPUT_MAX)
        rounds.append(
            {
                "session": session,
                "arrival_s": arrival_s,
                "input_tokens": prompts,
                "output_tokens": outputs,
                "prefix_tokens": prefix,
                "think_s": think_s,
            }
        )
        idle_s = np.minimum(pace[session] * texts(spec.thinking, len(session), rng), spec.think_max_s)
        think_s = np.rint(1e6 * idle_s) / 1e6
        arrival_s = arrival_s + nominal_duration_s(outputs) + think_s
        on = (turns[session] > turn) & (arrival_s < end_s)
        session, arrival_s, think_s = session[on], arrival_s[on], think_s[on]
        prompts, prefix = _next_prompts(spec, prompts[on], base[session], limit[session], lengths_rng, rng)

    columns = {name: np.concatenate([part[name] for part in rounds]) for name in rounds[0]}
    del columns["session"]
    columns["previous"] = previous_calls([part["session"] for part in rounds])
    return columns


def _starts(spec: Agents, scale: float, end_s: float, rng: np.random.Generator) -> Floats:
    """Sorted starts of all sessions before `end_s`; a wave begins with one."""
    waves = math.ceil(end_s / spec.wave_s)
    # Whole sessions wave by wave, with the fraction carried over to the next.
    sizes = np.diff(np.floor(spec.wave_sessions * scale * np.arange(waves + 1) + 0.5)).astype(np.int64)
    since_s = np.cumsum(rng.exponential(size=int(sizes.sum()))) * (spec.wave_gap_s / max(scale, SCALE_MIN))
    wave = np.repeat(np.arange(waves), sizes)
    first = np.searchsorted(wave, wave)
    starts_s = wave * spec.wave_s + (since_s - since_s[first])
    return np.sort(starts_s[starts_s < end_s])


def _next_prompts(
    spec: Agents,
    context: Integers,
    base: Integers,
    limit: Integers,
    lengths_rng: np.random.Generator,
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """The prompts after these and how much of each an engine can take from its cache."""
    n = len(context)
    growth = np.rint(texts(spec.growth, n, lengths_rng)).astype(np.int64)
    fate = rng.uniform(size=n)
    grown = context + growth
    reset = (fate < spec.reset) | (grown > limit)
    rewritten = ~reset & (fate < spec.reset + spec.rewritten)
    left = np.maximum((context * from_quantiles(spec.reset_kept, n, rng)).astype(np.int64), np.minimum(base, context))
    prompts = np.where(reset, left, grown)
    shared = np.where(reset, np.minimum(base, left), context)
    shared = np.where(rewritten, context * from_quantiles(spec.kept, n, rng), shared).astype(np.int64)
    return prompts, shared // spec.block_tokens * spec.block_tokens
