"""A small made-up chat load, for a first run without any trace and for tests.

It has what makes serving hard, in an hour or less: a rate that moves and surges, prompts and answers whose lengths
drift in opposite directions, so that the mix turns from answering to reading, and conversations that grow. The
shapes are those of public chat traces: lognormal lengths and minutes-long surges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.readers import nominal_duration_s
from autopoiesis.workload.requests import Requests, in_order_of_arrival

TOKENS_MIN, TOKENS_MAX = 8, 100_000
INPUT_SIGMA, OUTPUT_SIGMA = 1.0, 0.85
"""Standard deviation of the log length, as fitted to a public chat trace."""
TURNS = np.arange(2, 9)
"""A conversation's number of calls, each equally likely."""
MESSAGE_SHARE = 0.15
"""Median new text of a turn ÷ median prompt: with it the prompts of conversations, history included, lie around the
median of the others."""
THINK_MEAN_S = 30.0
DRIFT_HOURS = 1.0
"""Time the medians take from one end of their drift to the other (the whole of a shorter workload); then they drift
back."""
SURGE, SURGE_HOURS = 1.8, 0.2
"""Height of the surge over the rate around it, and its length (at most a fifth of the workload)."""
RATE_STEPS = 2_000
"""The rate is constant within each of so many parts of the workload."""


def generate_chat(
    rng: np.random.Generator,
    hours: float,
    rate_rps: float,
    input_median: float = 1000,
    output_median: float = 130,
    drift: float = 0.5,
    session_share: float = 0.3,
) -> Requests:
    """Requests of one model (index 0) over `hours`, `rate_rps` of them a second on average.

    The median prompt moves from `input_median`·e^-drift to `input_median`·e^drift within an hour and back in the next,
    the median answer the other way. A share of the requests are calls of conversations of 2 to 8 turns, whose recorded
    arrivals assume the nominal duration of a recorded call; what would arrive after the end is left out.

    Raises ScenarioError for a parameter outside its range.
    """
    for name, value, low, high in (
        ("hours", hours, 0.001, 10_000),
        ("rate_rps", rate_rps, 0.0, 100_000),
        ("input_median", input_median, 1, TOKENS_MAX),
        ("output_median", output_median, 1, TOKENS_MAX),
        ("drift", drift, 0, 5),
        ("session_share", session_share, 0, 1),
    ):
        if not low <= value <= high:
            raise ScenarioError(f"{name} of a generated load must be from {low:g} to {high:g}, not {value!r}")
    end_s = hours * 3600.0
    calls = rng.poisson(rate_rps * end_s)
    sessions = round(session_share * calls / float(TURNS.mean()))
    singles = round((1.0 - session_share) * calls)
    starts_s = _starts(rng, singles + sessions, end_s)
    turns = np.ones(singles + sessions, dtype=np.int64)
    turns[rng.permutation(singles + sessions)[:sessions]] = rng.choice(TURNS, sessions)

    drift_s = 3600.0 * min(DRIFT_HOURS, hours)

    def lengths(median: float, sigma: float, arrival_s: NDArray[np.float64], direction: int) -> NDArray[np.int64]:
        phase = -np.cos(np.pi * arrival_s / drift_s)
        drawn = median * np.exp(direction * drift * phase + sigma * rng.standard_normal(len(arrival_s)))
        return np.clip(np.rint(drawn), TOKENS_MIN, TOKENS_MAX).astype(np.int64)

    unit = np.arange(len(starts_s))
    arrival_s, think_s, history = starts_s, np.zeros(len(unit)), np.zeros(len(unit), dtype=np.int64)
    rounds: list[dict[str, NDArray[Any]]] = []
    for turn in range(1, int(TURNS[-1]) + 1):
        message = lengths(input_median, INPUT_SIGMA, arrival_s, 1)
        new_text = np.rint(message * np.where(turns[unit] > 1, MESSAGE_SHARE, 1.0)).astype(np.int64)
        prompt = np.clip(history + new_text, TOKENS_MIN, TOKENS_MAX)
        output = lengths(output_median, OUTPUT_SIGMA, arrival_s, -1)
        rounds.append(
            {
                "unit": unit,
                "arrival_s": arrival_s,
                "input_tokens": prompt,
                "output_tokens": output,
                "prefix_tokens": np.minimum(history, prompt),
                "think_s": think_s,
            }
        )
        think_s = rng.exponential(THINK_MEAN_S, len(unit))
        arrival_s = arrival_s + nominal_duration_s(output) + think_s
        goes_on = (turns[unit] > turn) & (arrival_s < end_s)
        unit, arrival_s, think_s = unit[goes_on], arrival_s[goes_on], think_s[goes_on]
        history = (prompt + output)[goes_on]

    columns = {name: np.concatenate([part[name] for part in rounds]) for name in rounds[0]}
    order = np.argsort(columns["unit"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    unit = columns.pop("unit")
    follows = np.diff(unit, prepend=-1) == 0
    columns["previous"] = np.where(follows, np.arange(len(unit)) - 1, -1)
    columns["model"] = np.zeros(len(unit), dtype=np.int64)
    return in_order_of_arrival(columns)


def _starts(rng: np.random.Generator, count: int, end_s: float) -> NDArray[np.float64]:
    """(count,) moments in [0, `end_s`), dense where the rate is high: two slow waves and one surge."""
    edges_s = np.linspace(0.0, end_s, RATE_STEPS + 1)
    t = (edges_s[:-1] + edges_s[1:]) / 2
    phase = rng.uniform(0.0, 2 * np.pi, 2)
    rate = 1.0 + 0.25 * np.sin(2 * np.pi * t / end_s + phase[0]) + 0.15 * np.sin(7 * np.pi * t / end_s + phase[1])
    surge_s = min(SURGE_HOURS * 3600.0, end_s / 5)
    begin_s = rng.uniform(0.0, end_s - surge_s)
    rate = rate * np.where((t >= begin_s) & (t < begin_s + surge_s), SURGE, 1.0)
    expected = np.concatenate([[0.0], np.cumsum(rate)])
    starts_s = np.interp(rng.uniform(0.0, expected[-1], count), expected, edges_s)
    return np.minimum(starts_s, np.nextafter(end_s, 0.0))
