"""The shape of a load in the numbers by which traces are compared: rate, bursts, lengths, reuse, days, drift.

Pure functions of columns. All of them take arrivals in seconds, sorted, counted from the beginning of the load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median_grouped
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, Requests

Floats = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]

LONG_PROMPT, LONG_OUTPUT = 2048, 256
"""A prompt or output of so many tokens is long."""
WINDOW_S = 600.0
DAY_WINDOWS = 144
"""Windows of 10 minutes, in which days and surges are measured."""
SURGE_BASE = 12
"""Windows, two hours, whose median a surge exceeds."""


def windows(arrival_s: Floats, window_s: float, span_s: float | None = None) -> Counts:
    """(k,) arrivals in each whole window of the span, by default from 0 to the last arrival."""
    span_s = (float(arrival_s[-1]) if len(arrival_s) else 0.0) if span_s is None else span_s
    count = math.floor(span_s / window_s)
    index = (arrival_s / window_s).astype(np.int64)
    return np.bincount(index[index < count], minlength=count)[:count]


def mean_rate(arrival_s: Floats) -> float:
    """Requests per second: n / last arrival; NaN for a load without a span."""
    return len(arrival_s) / float(arrival_s[-1]) if len(arrival_s) and arrival_s[-1] > 0 else math.nan


def peak_to_mean(arrival_s: Floats, window_s: float) -> float:
    """max over windows of arrivals ÷ (mean rate · window)."""
    counts = windows(arrival_s, window_s)
    return float(counts.max()) / (mean_rate(arrival_s) * window_s) if len(counts) else math.nan


def interarrival_cv(arrival_s: Floats) -> float:
    """Standard deviation ÷ mean of the inter-arrival times; 1 for a Poisson process."""
    gaps_s = np.diff(arrival_s)
    return float(gaps_s.std() / gaps_s.mean()) if len(gaps_s) and gaps_s.mean() > 0 else math.nan


def index_of_dispersion(arrival_s: Floats, window_s: float) -> float:
    """Variance ÷ mean of the arrivals per window; 1 for a Poisson process, at any window."""
    counts = windows(arrival_s, window_s)
    return float(counts.var() / counts.mean()) if len(counts) and counts.mean() > 0 else math.nan


def liso_share(requests: Requests) -> float:
    """Share of requests with a prompt of 2048 tokens or more and an output of fewer than 256: long in, short out."""
    return _share((requests.input_tokens >= LONG_PROMPT) & (requests.output_tokens < LONG_OUTPUT))


def silo_share(requests: Requests) -> float:
    """Share of requests with a prompt of fewer than 2048 tokens and an output of 256 or more: short in, long out."""
    return _share((requests.input_tokens < LONG_PROMPT) & (requests.output_tokens >= LONG_OUTPUT))


def reusable_tokens(requests: Requests) -> NDArray[np.int64]:
    """(n,) prompt tokens that an unbounded cache already holds: the leading blocks that an earlier request had, or what
    the session's call before it had, whichever is more."""
    user = np.repeat(np.arange(len(requests)), requests.block_count)
    ids = requests.blocks_of(np.arange(len(requests)))["block_ids"]
    distinct, code = np.unique(ids, return_inverse=True)
    first = np.empty(len(distinct), dtype=np.int64)
    first[code[::-1]] = user[::-1]  # of several values given to one place the last one stays: the first user
    # Equal ids are equal beginnings, so the blocks seen before are the leading ones.
    seen = np.bincount(user[first[code] < user], minlength=len(requests))
    return np.maximum(seen * PREFIX_BLOCK_TOKENS, requests.prefix_tokens).astype(np.int64)


def reusable_share(requests: Requests) -> float:
    """Σ reusable tokens ÷ Σ prompt tokens, with an unbounded cache that all requests share."""
    total = int(requests.input_tokens.sum())
    return float(reusable_tokens(requests).sum()) / total if total else math.nan


def daily_ratio(arrival_s: Floats, days: int) -> float:
    """Median over days of the busiest ÷ the quietest 10 minutes of a day; windows without arrivals are passed over."""
    counts = windows(arrival_s, WINDOW_S, days * DAY_WINDOWS * WINDOW_S).reshape(days, DAY_WINDOWS)
    ratios = [day.max() / day[day > 0].min() for day in counts if day.any()]
    return float(np.median(ratios)) if ratios else math.nan


@dataclass(frozen=True, slots=True)
class SurgeCount:
    """Surges of a load."""

    per_day: float
    minutes_p50: float
    """Their median length, interpolated as for values grouped in windows; NaN without surges."""


def surges(counts: Counts, times: float) -> SurgeCount:
    """Surges in arrivals per 10 minutes: a window with more than `times` the median of the 12 windows before it begins
    one, and it lasts while windows exceed that same level."""
    lengths = []
    window = SURGE_BASE
    while window < len(counts):
        level = times * float(np.median(counts[window - SURGE_BASE : window]))
        if not counts[window] > level > 0:
            window += 1
            continue
        begin = window
        while window < len(counts) and counts[window] > level:
            window += 1
        lengths.append((window - begin) * WINDOW_S / 60.0)
    days = len(counts) / DAY_WINDOWS
    median = median_grouped(lengths, interval=WINDOW_S / 60.0) if lengths else math.nan
    return SurgeCount(len(lengths) / days if days else math.nan, median)


@dataclass(frozen=True, slots=True)
class Wandering:
    """How the mean of a length moves from block to block."""

    mean: float
    """e to the mean of the logarithms."""
    log_sd: float
    ar1: float
    """Correlation of the logarithm in a block with that in the block before."""


def wandering(arrival_s: Floats, tokens: NDArray[np.int64], block_s: float = 21_600.0) -> Wandering:
    """The log of the mean length in blocks, by default of 6 hours: its standard deviation and lag-1 autocorrelation.

    Blocks without arrivals are passed over; a last block that is not whole is left out.
    """
    blocks = math.floor(float(arrival_s[-1]) / block_s + 0.01) if len(arrival_s) else 0
    block = (arrival_s / block_s).astype(np.int64)
    inside = block < blocks
    count = np.bincount(block[inside], minlength=blocks)
    total = np.bincount(block[inside], weights=tokens[inside], minlength=blocks)
    logs = np.log(total[count > 0] / count[count > 0])
    if not len(logs):
        return Wandering(math.nan, math.nan, math.nan)
    moves = len(logs) > 2 and logs.std() > 0
    ar1 = float(np.corrcoef(logs[1:], logs[:-1])[0, 1]) if moves else math.nan
    return Wandering(math.exp(logs.mean()), float(logs.std()), ar1)


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if len(chosen) else math.nan
