"""A load from a preset, a duration and a seed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.presets.agents import agent_calls
from autopoiesis.workload.presets.chats import calls_per_conversation, chat_calls
from autopoiesis.workload.presets.singles import client_calls, paced, single_calls
from autopoiesis.workload.presets.specification import Preset, preset
from autopoiesis.workload.presets.streams import Streams, streams
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, Requests, in_order_of_arrival

HOURS_MAX = 10_000.0
RATE_MAX = 100_000.0
REQUESTS_MAX = 100_000_000
"""Requests expected of one load: they are held in memory, at a hundred bytes each."""
AMPLITUDE_MAX = 5.0
CONTEXT_MIN = 16
TICKS_PER_S = 1e6
"""Times are whole microseconds, so that six decimals in a file say them exactly."""


def generate(
    name: str,
    hours: float,
    seed: int,
    *,
    rate: float | None = None,
    amplitude: float = 1.0,
    context: int | None = None,
) -> Requests:
    """Requests of one model (index 0) over `hours`, arrivals counted from the first one.

    A function of its arguments and of this package's and numpy's version: nothing else is random. `rate` is the mean
    requests per second, by default the preset's; sessions keep their pace, and their number changes. `amplitude`
    stretches the drift of mean lengths (1 as recorded, 0 none) of a preset that has one. With `context`, prompt and
    output are cut to fit together into so many tokens.

    Loads of presets with a day begin at midnight. Sessions under way at the end are cut there; those of `longcontext`
    also at the beginning, so that the rate neither starts nor ends low.

    Raises ScenarioError for an unknown preset and for a value that cannot be used.
    """
    spec = preset(name)
    rate = spec.rate_rps if rate is None else rate
    _check(spec, name, hours, seed, rate, amplitude)
    end_s = hours * 3600.0
    requests = _in_rows(_begun(_calls(spec, rate, end_s, amplitude, streams(name, seed))))
    return requests if context is None else cut_to_context(requests, context)[0]


def cut_to_context(requests: Requests, context: int) -> tuple[Requests, int]:
    """The requests with outputs, then prompts, cut so that both fit into `context` tokens together, and how many had
    to be cut. Raises ScenarioError for a context of fewer than `CONTEXT_MIN` tokens."""
    if context < CONTEXT_MIN:
        raise ScenarioError(f"context must be {CONTEXT_MIN} tokens or more, not {context}")
    over = requests.input_tokens + requests.output_tokens > context
    outputs = np.minimum(requests.output_tokens, context // 2)
    outputs = np.where(over, outputs, requests.output_tokens)
    prompts = np.minimum(requests.input_tokens, context - outputs)
    count = np.minimum(requests.block_count, prompts // PREFIX_BLOCK_TOKENS)
    cut = replace(
        requests,
        input_tokens=prompts,
        output_tokens=outputs,
        prefix_tokens=np.minimum(requests.prefix_tokens, prompts),
        block_count=count,
        block_start=np.where(count > 0, requests.block_start, 0),
    )
    return _in_rows(cut), int(over.sum())


def _calls(spec: Preset, rate: float, end_s: float, amplitude: float, drawn: Streams) -> Requests:
    if spec.agents is not None:
        scale = rate / spec.rate_rps
        columns = agent_calls(spec.agents, scale, end_s, drawn.lengths, drawn.sessions)
        return _requests(columns)
    assert spec.arrivals is not None, "a preset without agents has arrivals"
    assert spec.lengths is not None, "a preset without agents has lengths"
    if spec.chats is not None:
        until_s = spec.chats.lead_s + end_s
        starts_s = paced(spec.arrivals, rate / calls_per_conversation(spec.chats), until_s, drawn)
        calls = chat_calls(spec.chats, spec.lengths, starts_s, until_s, drawn.lengths, drawn.sessions)
        requests = _requests(calls)
        return requests.take(np.arange(np.searchsorted(requests.arrival_s, spec.chats.lead_s), len(requests)))
    if spec.clients is not None and spec.mix is not None:
        return _requests(
            client_calls(spec.arrivals, spec.clients, spec.lengths, spec.mix, rate, end_s, amplitude, drawn)
        )
    return _requests(single_calls(spec.arrivals, spec.lengths, rate, end_s, drawn))


def _requests(columns: dict[str, NDArray[Any]]) -> Requests:
    """Requests of model 0 in order of arrival; columns that are not given are those of single requests."""
    n = len(columns["arrival_s"])
    zeros = np.zeros(n, dtype=np.int64)
    singles = {"model": zeros, "prefix_tokens": zeros, "previous": zeros - 1, "think_s": np.zeros(n)}
    blocks = {"block_start": zeros, "block_count": zeros, "block_ids": zeros[:0]}
    return in_order_of_arrival({**singles, **blocks, **columns})


def _begun(requests: Requests) -> Requests:
    """The same with arrivals counted from the first, in whole microseconds."""
    since_s = requests.arrival_s - requests.arrival_s[:1]
    return replace(requests, arrival_s=np.rint(since_s * TICKS_PER_S) / TICKS_PER_S)


def _in_rows(requests: Requests) -> Requests:
    """The same with blocks lying in the order of the rows and numbered from 0 without gaps, as a reader would."""
    blocks = requests.blocks_of(np.arange(len(requests)))
    ids = blocks["block_ids"]
    used = np.zeros(int(ids.max(initial=-1)) + 1, dtype=np.int64)
    used[ids] = 1
    return replace(
        requests,
        block_start=blocks["block_start"],
        block_count=blocks["block_count"],
        block_ids=(np.cumsum(used) - 1)[ids],
    )


def _check(spec: Preset, name: str, hours: float, seed: int, rate: float, amplitude: float) -> None:
    for what, value, low, high in (
        ("hours", hours, 0.001, HOURS_MAX),
        ("rate", rate, 0.0, RATE_MAX),
        ("amplitude", amplitude, 0.0, AMPLITUDE_MAX),
    ):
        if not low <= value <= high:
            raise ScenarioError(f"{what} of a generated load must be from {low:g} to {high:g}, not {value!r}")
    if seed < 0:
        raise ScenarioError(f"seed must be 0 or more, not {seed}")
    if amplitude != 1.0 and spec.mix is None:
        raise ScenarioError(f"amplitude: the lengths of preset {name!r} do not drift; leave it out")
    expected = rate * hours * 3600.0
    if not math.isfinite(expected) or expected > REQUESTS_MAX:
        text = f"{expected:.3g} requests expected, more than {REQUESTS_MAX:.0e} that fit into memory"
        raise ScenarioError(f"{text}; lower rate or hours")
