"""An engine on paper: steps of continuous batching with known times, and the streams that a client would see."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autopoiesis.cost.telemetry import Stream


@dataclass(frozen=True)
class Terms:
    fixed_s: float = 0.002
    prefill_fixed_s: float = 0.001
    weights_s: float = 0.006
    token_s: float = 0.0004
    attention_s: float = 2e-7
    context_s: float = 3e-6
    sequence_s: float = 0.0001
    request_s: float = 0.0015

    def step_s(self, prefill_tokens: int, attention: int, sequences: int, contexts: int) -> float:
        seconds = self.fixed_s + max(self.weights_s, self.token_s * (prefill_tokens + sequences))
        seconds += self.context_s * contexts + self.sequence_s * sequences + self.attention_s * attention
        return seconds + (self.prefill_fixed_s if prefill_tokens else 0.0)


@dataclass
class Running:
    """A request while it is served."""

    sent_s: float
    prompt: int
    answer: int
    done: int = 0
    """Prompt tokens processed."""
    token_s: list[float] = field(default_factory=list)


Step = tuple[int, int, int, int]
"""Prefill tokens, attention, decoding sequences, contexts."""


def serve(
    requests: list[tuple[float, int, int]],
    terms: Terms,
    *,
    batched_tokens: int,
    max_sequences: int,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
) -> tuple[list[Stream], dict[Step, float]]:
    """Serve (sent, prompt, answer) first come, first served; the streams, and every step that was taken.

    With `rng`, steps deviate by `noise`, one in fifty is ten times as long, and tokens arrive up to 0.2 ms late.
    """
    waiting = [Running(*request) for request in sorted(requests)]
    everyone = list(waiting)
    running: list[Running] = []
    steps: dict[Step, float] = {}
    now_s = 0.0
    while waiting or running:
        if not running and waiting[0].sent_s + terms.request_s > now_s:
            now_s = waiting[0].sent_s + terms.request_s
        decoding = [one for one in running if one.done == one.prompt]
        budget = batched_tokens - len(decoding)
        while waiting and waiting[0].sent_s + terms.request_s <= now_s and len(running) < max_sequences:
            running.append(waiting.pop(0))
        prefill = attention = 0
        ready = list(decoding)
        for one in running:
            chunk = min(one.prompt - one.done, budget)
            if chunk > 0:
                attention += chunk * (2 * one.done + chunk)
                prefill += chunk
                budget -= chunk
                one.done += chunk
                if one.done == one.prompt:
                    ready.append(one)
        step = prefill, attention, len(decoding), sum(one.prompt + len(one.token_s) for one in decoding)
        seconds = terms.step_s(*step)
        if rng is not None:
            seconds *= max(0.2, 1 + noise * rng.standard_normal()) * (10 if rng.random() < 0.02 else 1)
        steps[step] = seconds
        now_s += seconds
        for one in ready:
            one.token_s.append(now_s + (0.0 if rng is None else rng.uniform(0.0, 0.0002)))
        running = [one for one in running if len(one.token_s) < one.answer]
    streams = [Stream(one.sent_s, one.prompt, tuple(np.maximum.accumulate(one.token_s).tolist())) for one in everyone]
    return streams, steps
