"""ServeGen windows: rates, clients and mean lengths per window, from which arrivals are drawn.

A window's load is that of its clients: the largest has `top_client_share` of the rate, the others equal parts of the
rest, and the calls of each are a renewal process whose gaps are Gamma with the recorded CV, in equilibrium at the
window's start. Without the columns on clients there is one Poisson process. Lengths are the means, rounded up or down
at random so that they stay the means: windows say nothing of their spread. A window of which no lengths are known has
those of the window before.
Source: Xiang et al., arXiv 2505.09999, which finds Gamma the best family for most clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.cells import Number, numbers, recorded
from autopoiesis.workload.readers.recorded import (
    TOKENS_MAX,
    Calls,
    Order,
    Reading,
    seconds,
)
from autopoiesis.workload.source import fault
from autopoiesis.workload.table import Block, Table

START = "window_start_s"
RATE = Number("rate_rps", 0, 1e7, whole=False)
INPUT = Number("mean_input_tokens", 0, TOKENS_MAX, whole=False, optional=True)
OUTPUT = Number("mean_output_tokens", 0, TOKENS_MAX, whole=False, optional=True)
CLIENTS = Number("active_clients", 0, 100_000, whole=True, optional=True)
CV = Number("mean_client_iat_cv", 0, 1e6, whole=False, optional=True)
TOP = Number("top_client_share", 0, 1, whole=False, optional=True)
CV_LEAST, CV_MOST = 0.05, 10.0
"""Below, arrivals are as good as a clock's; above are one client window in twenty, where a mean over clients says
nothing of any of them."""
DRAWN_MAX = 10_000_000
"""Requests that are drawn of one file, about 1 GB of columns: a digit too many in a rate must not take the machine."""
SEED = 2505_09999
"""Beside the seed that is given, so that other draws by that seed are others."""


@dataclass(frozen=True, slots=True)
class _Window:
    line: int
    start_s: float
    rate_rps: float
    input_mean: float
    output_mean: float
    clients: int
    cv: float
    top_share: float


@dataclass(frozen=True, slots=True)
class ServeGen:
    """`window_start_s,rate_rps,…,mean_input_tokens,mean_output_tokens`."""

    name: str = "ServeGen windows"
    marks: tuple[str, ...] = (START, RATE.name, INPUT.name, OUTPUT.name)
    others: tuple[str, ...] = (CLIENTS.name, CV.name, TOP.name)
    order: Order = Order.STRICT
    step_s: float = 0.0

    def read(self, given: Table, reading: Reading) -> Iterator[Calls]:
        draw = reading.draw
        reading.drawn = f"arrivals: Gamma gaps per client at {draw.scale:g} times the recorded rates, seed {draw.seed}"
        reading.drawn += "; lengths: the means of each window, or of the last before it that has any"
        rng = np.random.default_rng([draw.seed, SEED])
        windows = [window for block in given.blocks() for window in _windows(given, block)]
        if len(windows) < 2:
            raise fault(given.path, given.first_line, "two windows at least are needed, to know how long they are")
        length_s = expected = 0.0
        input_mean = output_mean = math.nan
        for window, following in pairwise([*windows, None]):
            assert window is not None
            length_s = length_s if following is None else following.start_s - window.start_s
            if not length_s > 0:
                assert following is not None
                text = f"column {START!r}: not later than the row before; sort the rows by {START}"
                raise fault(given.path, following.line, text)
            expected += window.rate_rps * draw.scale * length_s
            if expected > DRAWN_MAX:
                text = f"column {RATE.name!r}: {expected:.3g} requests up to here, more than {DRAWN_MAX:,}"
                raise fault(given.path, window.line, f"{text}; read fewer hours, or convert it at a smaller scale")
            input_mean = input_mean if math.isnan(window.input_mean) else window.input_mean
            output_mean = output_mean if math.isnan(window.output_mean) else window.output_mean
            if math.isnan(input_mean + output_mean):
                text = f"columns {INPUT.name!r} and {OUTPUT.name!r}: blank in the first window; remove the row"
                raise fault(given.path, window.line, text)
            arrival_s = window.start_s + _arrivals(rng, window, draw.scale, length_s)
            yield Calls(
                lines=np.full(len(arrival_s), window.line, dtype=np.int64),
                arrival_s=arrival_s,
                input_tokens=np.maximum(_rounded(rng, input_mean, len(arrival_s)), 1),
                output_tokens=_rounded(rng, output_mean, len(arrival_s)),
            )


def _windows(table: Table, block: Block) -> Iterator[_Window]:
    n = len(block)

    def optional(column: Number, absent: float) -> NDArray[np.float64]:
        values = recorded(table, block, column)
        return np.full(n, absent) if values is None else np.where(np.isnan(values), absent, values)

    columns = (
        numbers(table, block, seconds(START)),
        numbers(table, block, RATE),
        optional(INPUT, math.nan),
        optional(OUTPUT, math.nan),
        optional(CLIENTS, 1),
        optional(CV, 1.0),
        optional(TOP, 0.0),
    )
    for line, start_s, rate, input_mean, output_mean, clients, cv, top in zip(
        block.lines, *(column.tolist() for column in columns), strict=True
    ):
        yield _Window(
            line, start_s, rate, input_mean, output_mean, max(int(clients), 1), min(max(cv, CV_LEAST), CV_MOST), top
        )


def _arrivals(rng: np.random.Generator, window: _Window, scale: float, length_s: float) -> NDArray[np.float64]:
    """Sorted seconds from the window's start, of all clients."""
    rate = window.rate_rps * scale
    if rate <= 0:
        return np.zeros(0)
    n = window.clients
    top = max(window.top_share, 1 / n)
    rates = [rate] if n == 1 else [top * rate] + [(1 - top) * rate / (n - 1)] * (n - 1)
    shape = window.cv**-2
    return np.sort(np.concatenate([_renewal(rng, shape, of_one, length_s) for of_one in rates if of_one > 0]))


def _renewal(rng: np.random.Generator, shape: float, rate: float, length_s: float) -> NDArray[np.float64]:
    """Events within `length_s` of a renewal process in equilibrium: the first gap is what is left of one that an
    instant falls into, which are drawn by their length, so as Gamma with one more of shape."""
    mean_s = 1.0 / rate
    at_s = rng.uniform() * rng.gamma(shape + 1.0, mean_s / shape)
    parts = []
    chunk = int(1.2 * length_s * rate) + 64
    total = 0
    while at_s < length_s and total <= DRAWN_MAX:
        times_s = at_s + np.concatenate([[0.0], np.cumsum(rng.gamma(shape, mean_s / shape, chunk))])
        parts.append(times_s[:-1])
        at_s = float(times_s[-1])
        total += chunk
    if not parts:
        return np.zeros(0)
    times_s = np.concatenate(parts)
    return times_s[times_s < length_s]


def _rounded(rng: np.random.Generator, mean: float, n: int) -> NDArray[np.int64]:
    return np.floor(mean + rng.uniform(size=n)).astype(np.int64)
