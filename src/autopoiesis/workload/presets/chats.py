"""Conversations over documents: a prompt holds the history, and its beginning is known by prefix blocks.

The blocks of all conversations make one tree: at its root the system prompt that all share, below it each
conversation's own text, which forks where a history was rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.presets.arrivals import Floats
from autopoiesis.workload.presets.lengths import Integers, drawn_lengths, from_quantiles, texts, whole
from autopoiesis.workload.presets.rounds import previous_calls
from autopoiesis.workload.presets.specification import Chats, Lengths
from autopoiesis.workload.readers import nominal_duration_s
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, spans


@dataclass(frozen=True, slots=True)
class _Round:
    """The k-th call of every conversation that has one; blocks lie one request after the other."""

    conversation: Integers
    arrival_s: Floats
    input_tokens: Integers
    output_tokens: Integers
    prefix_tokens: Integers
    think_s: Floats
    block_count: Integers
    block_ids: Integers

    @property
    def block_start(self) -> Integers:
        return np.cumsum(self.block_count) - self.block_count


def calls_per_conversation(spec: Chats) -> float:
    """Expected number of calls of a conversation."""
    calls, reached = 1.0, 1.0
    for probability in spec.goes_on:
        reached *= probability
        calls += reached
    last = spec.goes_on[-1]
    return calls + reached * last / (1.0 - last)


def chat_calls(
    spec: Chats,
    lengths: Lengths,
    starts_s: Floats,
    end_s: float,
    lengths_rng: np.random.Generator,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """The attributes of `Requests` for conversations that start at `starts_s`, as far as they arrive before `end_s`.

    The recorded arrival of a later call is that of the call before it plus its nominal duration and the think time.
    """
    n = len(starts_s)
    goes_on = rng.uniform(size=n) < spec.goes_on[0]
    single, opening = (drawn_lengths(kind, n, lengths_rng) for kind in (lengths, spec.opening))
    prompts = whole(np.where(goes_on, opening[0], single[0]), lengths.input_max)
    outputs = whole(np.where(goes_on, opening[1], single[1]), lengths.output_max)
    now = _Round(
        np.arange(n), starts_s, prompts, outputs, np.zeros_like(prompts), np.zeros(n), *_first_blocks(spec, prompts)
    )
    fresh = int(now.block_ids.max(initial=0)) + 1
    rounds = [now]
    while True:
        now = _next_round(spec, lengths, now, goes_on, end_s, fresh, lengths_rng, rng)
        if not len(now.conversation):
            break
        fresh = max(fresh, int(now.block_ids.max(initial=0)) + 1)
        probability = spec.goes_on[min(len(rounds), len(spec.goes_on) - 1)]
        goes_on = rng.uniform(size=len(now.conversation)) < probability
        rounds.append(now)
    return _joined(rounds)


def _first_blocks(spec: Chats, prompts: Integers) -> tuple[Integers, Integers]:
    """Number of full blocks of each first prompt and their ids: those of the system prompt, then new ones."""
    shared = spec.system_tokens // PREFIX_BLOCK_TOKENS
    count = prompts // PREFIX_BLOCK_TOKENS
    own = np.maximum(count - shared, 0)
    first_own = shared + np.cumsum(own) - own
    place = spans(np.zeros_like(count), count)
    return count, np.where(place < shared, place, np.repeat(first_own - shared, count) + place)


def _next_round(
    spec: Chats,
    lengths: Lengths,
    now: _Round,
    goes_on: NDArray[np.bool_],
    end_s: float,
    fresh: int,
    lengths_rng: np.random.Generator,
    rng: np.random.Generator,
) -> _Round:
    """The next call of the conversations that go on and arrive before the end; new blocks get ids from `fresh` on."""
    rows = np.flatnonzero(goes_on)
    call_s = nominal_duration_s(now.output_tokens[rows])
    gap_s = spec.gap_median_s * np.exp(spec.gap_sigma * rng.standard_normal(len(rows)))
    think_s = np.rint(1e6 * np.maximum(gap_s - call_s, 0.0)) / 1e6
    arrival_s = now.arrival_s[rows] + call_s + think_s
    before = arrival_s < end_s
    rows, arrival_s, think_s = rows[before], arrival_s[before], think_s[before]

    n = len(rows)
    history = now.input_tokens[rows]
    message = texts(spec.messages, n, lengths_rng)
    outputs = whole(texts(spec.answers, n, lengths_rng), lengths.output_max)
    # The longer a history, the more often it is rewritten; rewritten, it keeps its length.
    rewritten = rng.uniform(size=n) < spec.rewritten * history / max(float(history.mean()), 1.0) if n else goes_on[:0]
    kept = np.where(rewritten, history * from_quantiles(spec.kept, n, rng), history)
    grown = np.where(rewritten, history, history + now.output_tokens[rows] + message)
    prompts = whole(grown, lengths.input_max)

    count = prompts // PREFIX_BLOCK_TOKENS
    reused = np.minimum((kept // PREFIX_BLOCK_TOKENS).astype(np.int64), np.minimum(now.block_count[rows], count))
    new = count - reused
    place = spans(np.zeros_like(count), count)
    old_ids = np.zeros(len(place), dtype=np.int64)
    is_old = place < np.repeat(reused, count)
    old_ids[is_old] = now.block_ids[spans(now.block_start[rows], reused)]
    new_ids = np.repeat(fresh + np.cumsum(new) - new - reused, count) + place
    return _Round(
        conversation=now.conversation[rows],
        arrival_s=arrival_s,
        input_tokens=prompts,
        output_tokens=outputs,
        prefix_tokens=reused * PREFIX_BLOCK_TOKENS,
        think_s=think_s,
        block_count=count,
        block_ids=np.where(is_old, old_ids, new_ids),
    )


def _joined(rounds: list[_Round]) -> dict[str, NDArray[Any]]:
    """Rounds one after the other."""
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in rounds])
        for name in (
            "arrival_s",
            "input_tokens",
            "output_tokens",
            "prefix_tokens",
            "think_s",
            "block_count",
            "block_ids",
        )
    }
    count = columns["block_count"]
    columns["previous"] = previous_calls([part.conversation for part in rounds])
    columns["block_start"] = np.where(count > 0, np.cumsum(count) - count, 0)
    return columns
