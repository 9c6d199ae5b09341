"""What every reader of a trace gives, what it may be asked, and how its calls become `Requests`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import TraceError
from autopoiesis.workload.cells import Labels, Number
from autopoiesis.workload.requests import Requests, spans
from autopoiesis.workload.source import fault

Given = TypeVar("Given", contravariant=True)

NOMINAL_CALL_S = 1.0
NOMINAL_TOKEN_S = 0.03
"""How long a call took on the system that recorded the trace, where the trace does not say: an assumption, one second
for queue and prompt and 33 tokens a second, typical of a hosted chat service. Think times are derived from it."""

TOKENS_MAX = 1e9
SECONDS_MAX = 1e10
"""Beyond these a number is a slip of units or of the pen. Unix time in seconds is still below."""
REQUESTS_MAX = 50_000_000
"""Of one trace, 4 GB of columns: twice what the largest public trace has."""


class Order(Enum):
    """How the calls of a file stand; those that are not strictly in order are sorted, equal ones as they stand."""

    STRICT = "in order of arrival; anything else is an error"
    NEARLY = "in order but for neighbours; reading stops once a whole block lies beyond the hours asked for"
    ANY = "in no order; all of the file is read"


@dataclass(frozen=True, slots=True)
class Draw:
    """How the arrivals of a file are drawn that records rates only: Poisson or Gamma, by the seed."""

    seed: int = 0
    scale: float = 1.0
    """Times the recorded rates of windows. A benchmark has as many requests as it has, at the rate that it had."""


@dataclass(slots=True)
class Reading:
    """What is asked of a reader, and what it finds beside the calls."""

    draw: Draw = field(default_factory=Draw)
    models: Labels = field(default_factory=Labels)
    """The names of models as recorded."""
    sessions: Labels = field(default_factory=Labels)
    left_out: int = 0
    """Calls without a prompt: nothing was computed for them."""
    drawn: str = ""
    """What is not recorded and was drawn."""
    blocks: str = "column 'block_ids'"
    """Where prefix blocks stand, as errors name it."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Some consecutive calls of a file. None stands for what a format does not record, the same in all its calls; NaN
    for what a single call does not."""

    lines: NDArray[np.int64]
    """The line (from 1) of each call."""
    arrival_s: NDArray[np.float64]
    """Seconds since any moment, the same for all calls of the file."""
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    session: NDArray[np.int64] | None = None
    """Number of the session, -1 for a single request."""
    model: NDArray[np.int64] | None = None
    """Number of the recorded model, -1 where none is."""
    prefix_tokens: NDArray[np.float64] | None = None
    think_s: NDArray[np.float64] | None = None
    api_s: NDArray[np.float64] | None = None
    block_count: NDArray[np.int64] | None = None
    block_ids: NDArray[np.int64] | None = None
    """Of all calls, one after the other."""

    def having_prompts(self, reading: Reading) -> Calls:
        """The calls with a prompt; the others are counted. For formats without blocks."""
        keep = self.input_tokens > 0
        if keep.all():
            return self
        reading.left_out += int(len(keep) - keep.sum())
        return _picked(self, keep)


class Format(Protocol[Given]):
    """One way of writing traces down.

    `Given` is a `Table` for CSV and a `Source` for JSON, opened and not read further than the header.
    """

    @property
    def name(self) -> str: ...

    @property
    def marks(self) -> tuple[str, ...]:
        """Names that the header, or the first line, has to have; the first is that of the arrivals."""

    @property
    def others(self) -> tuple[str, ...]:
        """Further names that are read if they are there."""

    @property
    def order(self) -> Order:
        """What is known of the order of arrivals in a file."""

    @property
    def step_s(self) -> float:
        """The step of the clock, where it is so coarse that arrivals fall together; else 0."""

    def read(self, given: Given, reading: Reading) -> Iterator[Calls]:
        """The calls in the order of the file, read as they are asked for. Raises TraceError with file and line."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A file as read: its requests, and what it says beyond them."""

    format: str
    requests: Requests
    models: tuple[str, ...]
    """Names of models as recorded."""
    model: NDArray[np.int64]
    """(n,) number of each request's model among them, -1 where none is recorded."""
    step_s: float
    left_out: int
    drawn: str


def tokens(name: str, low: int) -> Number:
    """A column of lengths."""
    return Number(name, low, TOKENS_MAX, whole=True)


def seconds(name: str, optional: bool = False) -> Number:
    """A column of times."""
    return Number(name, 0, SECONDS_MAX, whole=False, optional=optional)


def lengths(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return values.astype(np.int64)


def numbered(lines: Iterable[int]) -> NDArray[np.int64]:
    """Lines as a column."""
    if isinstance(lines, range):
        return np.arange(lines.start, lines.stop, dtype=np.int64)
    return np.array(list(lines), dtype=np.int64)


def nominal_duration_s(output_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds a call is taken to have lasted in a recording that does not say."""
    return NOMINAL_CALL_S + NOMINAL_TOKEN_S * output_tokens.astype(np.float64)


def collected(path: str, format_: Format[Any], parts: Iterator[Calls], until_s: float) -> Calls:
    """The calls up to `until_s` after the first, in order of arrival, which begins at 0.

    Of a format whose files are in order little more is read than up to there. Raises TraceError where time must not
    run back and does, for a file without calls and for one with too many.
    """
    kept: dict[str, list[NDArray[Any]]] = {attribute.name: [] for attribute in fields(Calls)}
    origin = last_s = 0.0
    total = 0
    for part in parts:
        if not len(part.arrival_s):
            continue
        origin = origin if total else float(part.arrival_s[0])
        part = replace(part, arrival_s=part.arrival_s - origin)
        if format_.order is Order.STRICT:
            back = np.flatnonzero(np.diff(part.arrival_s, prepend=last_s) < 0)
            if len(back):
                text = f"column {format_.marks[0]!r}: earlier than the row before; sort the rows by {format_.marks[0]}"
                raise fault(path, int(part.lines[back[0]]), text)
            last_s = float(part.arrival_s[-1])
            part = _first(part, int(np.searchsorted(part.arrival_s, until_s)))
        elif format_.order is Order.NEARLY and total and float(part.arrival_s.min()) >= until_s:
            break
        total += len(part.arrival_s)
        if total > REQUESTS_MAX:
            text = f"more than {REQUESTS_MAX:,} requests up to here; read fewer hours, or a rate at a smaller scale"
            raise fault(path, int(part.lines[-1]), text)
        for name, values in _attributes(part):
            # Only what is said of blocks later names a line.
            if values is not None and (name != "lines" or part.block_ids is not None):
                kept[name].append(values)
        if last_s >= until_s:
            break
    if not total:
        raise fault(path, None, "no request with a prompt is in it; a trace needs at least one")
    joined: dict[str, Any] = {}
    for name in list(kept):
        values_of_parts = kept.pop(name)
        joined[name] = np.concatenate(values_of_parts) if values_of_parts else None
    if joined["lines"] is None:
        joined["lines"] = np.zeros(0, dtype=np.int64)
    calls = Calls(**joined)
    return calls if format_.order is Order.STRICT else _sorted(calls, until_s)


def requests_of(path: str, calls: Calls, model: int, blocks_name: str) -> Requests:
    """Calls in order of arrival as requests of one model.

    Raises TraceError, with `blocks_name` for where they stand in the file, for prefix blocks that cannot be.
    """
    n = len(calls.arrival_s)
    nothing = np.zeros(n, dtype=np.float64)
    previous = np.full(n, -1, dtype=np.int64)
    prefix, think_s = np.zeros(n, dtype=np.int64), nothing
    if calls.session is not None:
        order = np.argsort(calls.session, kind="stable")
        session = calls.session[order]
        follows = np.flatnonzero((session[1:] == session[:-1]) & (session[1:] >= 0))
        previous[order[follows + 1]] = order[follows]
        later = previous >= 0
        duration_s = nominal_duration_s(calls.output_tokens)
        if calls.api_s is not None:
            duration_s = np.where(np.isnan(calls.api_s), duration_s, calls.api_s)
        gap_s = calls.arrival_s - calls.arrival_s[previous]
        think_s = np.maximum(gap_s - duration_s[previous], 0.0)
        if calls.think_s is not None:
            think_s = np.where(np.isnan(calls.think_s), think_s, calls.think_s)
        think_s = np.where(later, think_s, 0.0)
        if calls.prefix_tokens is not None:
            shared = np.minimum(np.nan_to_num(calls.prefix_tokens), calls.input_tokens).astype(np.int64)
            prefix = np.where(later, shared, 0)
    blocks: dict[str, NDArray[np.int64]] = {}
    if calls.block_count is not None:
        count = calls.block_count
        blocks["block_start"] = np.where(count > 0, np.cumsum(count) - count, 0)
        blocks["block_count"] = count
        blocks["block_ids"] = _numbered_blocks(path, calls, blocks_name)
    return Requests(
        arrival_s=calls.arrival_s,
        model=np.full(n, model, dtype=np.int64),
        input_tokens=calls.input_tokens,
        output_tokens=calls.output_tokens,
        prefix_tokens=prefix,
        previous=previous,
        think_s=think_s,
        **blocks,
    )


def _attributes(calls: Calls) -> Iterator[tuple[str, NDArray[Any] | None]]:
    return ((attribute.name, getattr(calls, attribute.name)) for attribute in fields(calls))


def _picked(calls: Calls, rows: Any) -> Calls:
    """The calls that an index, a slice or a mask picks; of their blocks only the counts."""
    picked: dict[str, Any] = {name: None if values is None else values[rows] for name, values in _attributes(calls)}
    return Calls(**picked)


def _first(calls: Calls, rows: int) -> Calls:
    if rows == len(calls.arrival_s):
        return calls
    ids = calls.block_ids
    if ids is not None and calls.block_count is not None:
        ids = ids[: int(calls.block_count[:rows].sum())]
    return replace(_picked(calls, slice(rows)), block_ids=ids)


def _sorted(calls: Calls, until_s: float) -> Calls:
    arrival_s = calls.arrival_s
    if np.any(np.diff(arrival_s) < 0):
        order = np.argsort(arrival_s, kind="stable")
        ids, count = calls.block_ids, calls.block_count
        if ids is not None and count is not None:
            ids = ids[spans((np.cumsum(count) - count)[order], count[order])]
        lines = calls.lines[order] if len(calls.lines) else order
        calls = replace(_picked(replace(calls, lines=lines, block_ids=None), order), lines=lines, block_ids=ids)
    arrival_s = calls.arrival_s - calls.arrival_s[0]
    return _first(replace(calls, arrival_s=arrival_s), int(np.searchsorted(arrival_s, until_s)))


def _numbered_blocks(path: str, calls: Calls, name: str) -> NDArray[np.int64]:
    """The block ids numbered afresh from 0.

    Equal ids mean equal prompts up to that block. So what comes before an id in one prompt comes before it in every
    other, and no prompt has an id twice; raises TraceError where that does not hold.
    """
    if calls.block_ids is None or calls.block_count is None:
        raise TraceError(f"{path}: ids of blocks come with their counts")
    ids, ends = calls.block_ids, np.cumsum(calls.block_count)
    distinct, code = np.unique(ids, return_inverse=True)
    begins = (ends - calls.block_count)[calls.block_count > 0]
    before = np.concatenate([[-1], code[:-1]])[: len(ids)]
    before[begins] = -1
    recorded = np.empty(len(distinct), dtype=np.int64)
    recorded[code[::-1]] = before[::-1]  # of several values given to one place the last one stays: the first use
    wrong = np.flatnonzero(before != recorded[code])
    if len(wrong):
        row = int(np.searchsorted(ends, wrong[0], side="right"))
        text = f"{name}: block {ids[wrong[0]]} does not follow what it followed before"
        mend = "give one id only to equal beginnings of prompts, or leave the blocks out"
        raise fault(path, int(calls.lines[row]), f"{text}; {mend}")
    return code.astype(np.int64, copy=False)
