"""What a trace is like, in the numbers by which workloads are compared.

Counts are over bins from the first arrival on; peaks and dispersion leave out the last bin unless it is whole, but a
trace shorter than a bin is one bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.readers import Trace
from autopoiesis.workload.shape import interarrival_cv, liso_share, reusable_share, silo_share
from autopoiesis.workload.synopsis import nearest_rank

DISPERSION_BINS_S = (1, 10, 60)
PEAK_BINS_S = (60, 10)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens: mean, percentiles by nearest rank, and the largest."""

    mean: float
    p50: float
    p90: float
    p99: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Description:
    """The characteristics of a trace."""

    format: str
    rows: int
    left_out: int
    """Calls without a prompt."""
    drawn: str
    """What is not recorded and was drawn."""
    span_s: float
    models: dict[str, int]
    """Requests by the name of the model, as recorded."""
    input_tokens: Lengths
    output_tokens: Lengths
    rate_rps: float
    peak_rps: dict[str, float]
    """The most arrivals in a bin ÷ its length, by its seconds."""
    iat_cv: float | None
    """Standard deviation ÷ mean of the gaps between arrivals."""
    dispersion: dict[str, float | None]
    """Variance ÷ mean of the arrivals per bin, by its seconds; 1 for a Poisson process."""
    liso_share: float
    silo_share: float
    sessions: int
    """Conversations of two calls or more."""
    session_share: float
    """Of the requests, those in such a conversation."""
    reusable_prefix_share: float
    """Of all prompt tokens, those that an unbounded cache would have: in prefix blocks seen before, or shared with the
    call before in the session, whichever is more."""


def describe(trace: Trace) -> Description:
    """The characteristics of a trace of at least one request, the first of which arrives at 0."""
    requests = trace.requests
    arrival_s, n = requests.arrival_s, len(requests)
    span_s = float(arrival_s[-1])
    cv = interarrival_cv(arrival_s)
    later = requests.previous >= 0
    first = later.copy()
    first[requests.previous[later]] = True
    by_model = np.bincount(trace.model[trace.model >= 0], minlength=len(trace.models)).tolist()
    return Description(
        format=trace.format,
        rows=n,
        left_out=trace.left_out,
        drawn=trace.drawn,
        span_s=span_s,
        models=dict(zip(trace.models, by_model, strict=True)),
        input_tokens=_lengths(requests.input_tokens),
        output_tokens=_lengths(requests.output_tokens),
        rate_rps=n / span_s if span_s > 0 else 0.0,
        peak_rps={str(bin_s): float(occupied_bins(arrival_s, bin_s)[0].max()) / bin_s for bin_s in PEAK_BINS_S},
        iat_cv=cv if n > 2 and math.isfinite(cv) else None,
        dispersion={str(bin_s): _dispersion(*occupied_bins(arrival_s, bin_s)) for bin_s in DISPERSION_BINS_S},
        liso_share=liso_share(requests),
        silo_share=silo_share(requests),
        sessions=int(np.sum(first & ~later)),
        session_share=float(np.mean(first)),
        reusable_prefix_share=reusable_share(requests),
    )


def occupied_bins(arrival_s: NDArray[np.float64], bin_s: float) -> tuple[NDArray[np.int64], int]:
    """The arrivals of each whole bin that has any, and how many bins there are, at least one.

    Two arrivals may lie three hundred years apart, so empty bins are only counted.
    """
    bins = max(int(arrival_s[-1] // bin_s), 1)
    inside = arrival_s[: int(np.searchsorted(arrival_s, bins * bin_s))]
    begins = np.flatnonzero(np.diff(inside // bin_s, prepend=-1.0))
    return np.diff(begins, append=len(inside)), bins


def _dispersion(occupied: NDArray[np.int64], bins: int) -> float | None:
    if bins < 2:
        return None
    mean = float(occupied.sum()) / bins
    return float((occupied.astype(np.float64) ** 2).sum()) / bins / mean - mean


def _lengths(tokens: NDArray[np.int64]) -> Lengths:
    p50, p90, p99 = (nearest_rank(tokens, q) for q in (0.5, 0.9, 0.99))
    return Lengths(float(tokens.mean()), p50, p90, p99, float(tokens.max()))
