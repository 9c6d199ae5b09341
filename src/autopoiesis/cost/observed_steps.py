"""Engine steps as a client's telemetry shows them.

A step of continuous batching gives one token to every sequence that decodes and a first token to every prompt that it
finishes, and these tokens leave the engine together. So the streams themselves mark where steps end: step k + 1 ends
when the next token of every stream that was decoding arrives. Between two ends the batch is known: who decoded, on
what contexts, and, as prompts are taken in order and fill the token budget, which prompt tokens were processed.

The end of a step is the earliest arrival among its tokens: the network and the operating system only ever delay one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost.telemetry import Stream
from autopoiesis.errors import ScenarioError

BURST_S = 0.001
"""Tokens of one step arrive within about this time where nothing interferes …"""
STRAGGLING = 0.5
"""… and surely within this part of the step, if nothing comes between."""
MARGIN_S = 0.002
"""Whether an engine knew of a request that was sent closer than this to the beginning of a step cannot be told."""


@dataclass(frozen=True, slots=True)
class ObservedSteps:
    """Steps of one engine, a row each; columns as in `StepTimes.step_s`."""

    seconds: NDArray[np.float64]
    """From the end of the step before; for a step of an engine that was idle, from the sending of the request."""
    prefill_tokens: NDArray[np.int64]
    """New prompt tokens, all sequences together."""
    attention: NDArray[np.int64]
    """Σ(S² − p²) over the prompt chunks that end at S after p tokens."""
    sequences: NDArray[np.int64]
    """That decode."""
    contexts: NDArray[np.int64]
    """Σ over the decoding sequences of the tokens that they have, prompt and generated."""
    after_idle: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seconds)


@dataclass(slots=True)
class _Step:
    """One step while it is being put together."""

    start_s: float
    end_s: float
    decoding: int
    contexts: int
    after_idle: bool
    firsts: list[int]
    """Streams whose prompt it finishes."""
    clear: bool = True
    """Whether what it processed can be told."""
    prefill_tokens: int = 0
    attention: int = 0
    prompts: int = 0
    """From which they are."""


def observed_steps(streams: Sequence[Stream], batched_tokens: int, max_sequences: int) -> ObservedSteps:
    """The steps whose work can be told, in order of time; the others are left out.

    `batched_tokens` is the engine's token budget of one step, decoding sequences included, `max_sequences` how many run
    at once. Left out are the steps of a prompt whose chunks ran without any stream to mark their ends, and those for
    which it is unclear whether a prompt had come in time for them. Raises ScenarioError for a limit below 1.
    """
    if min(batched_tokens, max_sequences) < 1:
        raise ScenarioError(
            f"batched_tokens and max_sequences must be at least 1, not {batched_tokens} and {max_sequences}; "
            "give the engine's limits"
        )
    order = sorted(range(len(streams)), key=lambda i: (streams[i].token_s[0], streams[i].sent_s))
    steps = _ends([streams[i] for i in order])
    _share_prefill(steps, [streams[i] for i in order], batched_tokens, max_sequences)
    clear = [step for step in steps if step.clear]
    return ObservedSteps(
        seconds=np.array([step.end_s - step.start_s for step in clear], dtype=np.float64),
        prefill_tokens=np.array([step.prefill_tokens for step in clear], dtype=np.int64),
        attention=np.array([step.attention for step in clear], dtype=np.int64),
        sequences=np.array([step.decoding for step in clear], dtype=np.int64),
        contexts=np.array([step.contexts for step in clear], dtype=np.int64),
        after_idle=np.array([step.after_idle for step in clear], dtype=np.bool_),
    )


def _ends(streams: list[Stream]) -> list[_Step]:
    """Every step that a token came out of; `streams` in order of their first tokens."""
    sent_s = np.array([stream.sent_s for stream in streams])
    steps: list[_Step] = []
    made: dict[int, int] = {}  # tokens that a decoding stream has so far
    waiting = 0  # the next stream without a first token
    ended_s = -math.inf
    doubtful_before = False
    while made or waiting < len(streams):
        arrivals = [streams[i].token_s[count] for i, count in made.items()]
        first_s, last_s = (min(arrivals), max(arrivals)) if arrivals else (streams[waiting].token_s[0],) * 2
        upcoming = [streams[i].token_s[n + 1] for i, n in made.items() if n + 1 < len(streams[i].token_s)]
        next_s = min(upcoming, default=math.inf)
        begun_s = float(sent_s[waiting:].min()) if waiting < len(streams) else math.inf
        idle = not made and begun_s >= ended_s
        step = _Step(
            start_s=begun_s if idle else ended_s,
            end_s=first_s,
            decoding=len(made),
            contexts=sum(streams[i].prompt_tokens + count for i, count in made.items()),
            after_idle=idle,
            firsts=[],
        )
        while waiting < len(streams) and _belongs(streams[waiting].token_s[0], last_s, next_s):
            at_s, *later_s = streams[waiting].token_s[:2]
            # a straggler of this step came after the next one's tokens, and a first token in between
            step.clear = step.clear and at_s < next_s
            step.firsts.append(waiting)
            step.end_s, last_s, next_s = min(step.end_s, at_s), max(last_s, at_s), min([next_s, *later_s])
            waiting += 1
        doubtful = False
        if waiting < len(streams) and next_s == math.inf:
            # no stream goes on and marks the next end: a straggler, or already a step of its own?
            after_s = streams[waiting].token_s[0] - last_s
            doubtful = after_s < STRAGGLING * (first_s - step.start_s)
        for i in list(made):
            made[i] += 1
            if made[i] == len(streams[i].token_s):
                del made[i]
        for i in step.firsts:
            if len(streams[i].token_s) > 1:
                made[i] = 1
        ended_s = max(step.end_s, ended_s)
        step.clear = step.clear and not doubtful and not doubtful_before
        doubtful_before = doubtful
        steps.append(step)
    return steps


def _belongs(at_s: float, last_s: float, next_s: float) -> bool:
    """Whether a first token at `at_s` came out of the step whose last token came at `last_s`, rather than of
    the one whose tokens come from `next_s` on."""
    if at_s <= last_s:
        return True
    if next_s < math.inf:
        return at_s - last_s < next_s - at_s
    return at_s - last_s < BURST_S


def _share_prefill(steps: list[_Step], streams: list[Stream], batched_tokens: int, max_sequences: int) -> None:
    """Which steps processed which prompt tokens: in order, as much as the budget leaves, up to the first token."""
    left = [batched_tokens - step.decoding for step in steps]
    doubted: set[int] = set()
    """Steps that were several in truth, or may have processed something else."""
    for last, ending in enumerate(steps):
        for i in ending.firsts:
            stream = streams[i]
            first, sure = _first_step(steps, left, last, stream)
            if not sure or sum(left[first : last + 1]) < stream.prompt_tokens:
                doubted.update(range(first, last + 1))
                left[first : last + 1] = [0] * (last + 1 - first)
                continue
            before = steps[first - 1] if first > 0 and not steps[first].after_idle else None
            if before is not None and stream.sent_s < before.end_s:
                early_s = before.start_s - stream.sent_s
                unclear = first - 1 in doubted
                if 0 < left[first - 1] < stream.prompt_tokens and before.decoding + before.prompts < max_sequences:
                    # a little room was left in the step before: used, if the engine knew of the request by then
                    unclear = unclear or abs(early_s) < MARGIN_S
                    first -= early_s > 0
                if unclear:
                    doubted.update(range(max(first - 1, 0), last + 1))
            done = 0
            for j in range(first, last + 1):
                chunk = min(left[j], stream.prompt_tokens - done)
                left[j] -= chunk
                steps[j].prefill_tokens += chunk
                steps[j].attention += chunk * (2 * done + chunk)
                steps[j].prompts += 1
                done += chunk
    for j in doubted:
        steps[j].clear = False


def _first_step(steps: list[_Step], left: list[int], last: int, stream: Stream) -> tuple[int, bool]:
    """The latest step from which on there is room for the whole prompt, or else the earliest it can have run in; and
    whether the engine surely knew of the request by then."""
    first, room = last, left[last]
    sure = stream.sent_s < steps[last].start_s + MARGIN_S
    while room < stream.prompt_tokens and first > 0 and not steps[first].after_idle:
        early_s = steps[first - 1].start_s - stream.sent_s
        if early_s < -MARGIN_S:
            break
        sure = sure and early_s > MARGIN_S
        first -= 1
        room += left[first]
    return first, sure
