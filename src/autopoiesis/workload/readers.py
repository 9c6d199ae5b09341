"""Recorded traces as `Requests`, recognised by their header and not by their name.

Two formats: normalised (`arrival_s,input_tokens,output_tokens`, and optionally `session_id`, `prefix_tokens`,
`think_time_s`, `api_time_s`, `block_ids`) and Azure's (`TIMESTAMP,ContextTokens,GeneratedTokens`). Further columns are
ignored.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.cells import Number, numbers, prefix_blocks, timestamps
from autopoiesis.workload.requests import Requests
from autopoiesis.workload.table import Block, Table, fault, open_table, shown

NOMINAL_CALL_S = 1.0
NOMINAL_TOKEN_S = 0.03
"""How long a call took on the system that recorded the trace, where the trace does not say: an assumption, one second
for queue and prompt and 33 tokens a second, typical of a hosted chat service. Think times are derived from it."""

TOKENS_MAX = 1e9
SECONDS_MAX = 1e10
"""Beyond these a number is a slip of units or of the pen. Unix time in seconds is still below."""


@dataclass(frozen=True, slots=True)
class _Format:
    arrival: str
    input: str
    output: str
    """Names of the three columns that must be there."""
    clock: Callable[[Table, Block, str], NDArray[Any]]
    """Reads the column of arrivals as ticks."""
    ticks_per_s: float
    """Nanoseconds stay whole numbers until the first is taken off: as float seconds since 1970 they lose digits."""

    @property
    def required(self) -> tuple[str, str, str]:
        return self.arrival, self.input, self.output


def _seconds(table: Table, block: Block, name: str) -> NDArray[np.float64]:
    return numbers(table, block, Number(name, 0, SECONDS_MAX, whole=False))


NORMALISED = _Format("arrival_s", "input_tokens", "output_tokens", _seconds, 1.0)
AZURE = _Format("TIMESTAMP", "ContextTokens", "GeneratedTokens", timestamps, 1e9)

PREFIX = Number("prefix_tokens", 0, TOKENS_MAX, whole=True, optional=True)
THINK = Number("think_time_s", 0, SECONDS_MAX, whole=False, optional=True)
API = Number("api_time_s", 0, SECONDS_MAX, whole=False, optional=True)
SESSION = "session_id"
BLOCKS = "block_ids"


def nominal_duration_s(output_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds a call is taken to have lasted in a recording that does not say."""
    return NOMINAL_CALL_S + NOMINAL_TOKEN_S * output_tokens.astype(np.float64)


def read_requests(path: str, model: int = 0, hours: float | None = None) -> Requests:
    """Read a trace of one model, plain or gzipped, up to `hours` after its first arrival.

    Arrivals start at 0; equal ones keep the order of the file. `previous` is the row before in the same session; a
    blank `session_id` is a single request. `think_s` is the later call's `think_time_s`, or else the recorded gap less
    the earlier call's `api_time_s`, or else less its nominal duration, and never negative. A blank optional cell
    counts as not recorded. `prefix_tokens` is at most the prompt, and 0 for a first call. `block_ids` names the
    prompt's blocks of 512 tokens from its beginning, as ids and runs of ids with blanks between (`0 14-27`); only which
    of them are equal matters, so they are numbered afresh from 0. Reading stops at the block of rows in which `hours`
    end: what is wrong beyond goes unseen.

    Raises TraceError (one line: file, line, column and the mend) for a file that is no trace, ScenarioError for
    `hours` that are not a positive number.
    """
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise ScenarioError(f"hours must be a positive number, not {hours!r}; leave it out to read the whole trace")
    with open_table(path) as table:
        columns = _read_columns(table, math.inf if hours is None else hours * 3600.0)
    return _requests(replace(columns, block_ids=_numbered_blocks(path, columns)), model)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The cells as numbers; NaN where an optional one is not recorded."""

    line: NDArray[np.int64]
    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    session: NDArray[np.int64]
    """Number of the session in order of appearance, -1 for a single request."""
    prefix_tokens: NDArray[np.float64]
    think_s: NDArray[np.float64]
    api_s: NDArray[np.float64]
    block_count: NDArray[np.int64]
    block_ids: NDArray[np.int64]
    """Of all rows, one after the other."""


def _read_columns(table: Table, until_s: float) -> _Columns:
    format_ = _format_of(table)
    input_ = Number(format_.input, 1, TOKENS_MAX, whole=True)
    output = Number(format_.output, 0, TOKENS_MAX, whole=True)
    sessions: dict[str, int] = {"": -1}
    parts: list[_Columns] = []
    origin: Any = None
    last_s = 0.0
    blocks_before = 0
    for block in table.blocks():
        if not block.rows:
            continue
        clock = format_.clock(table, block, format_.arrival)
        origin = clock[0] if origin is None else origin
        arrival_s: NDArray[np.float64] = (clock - origin) / format_.ticks_per_s
        back = np.flatnonzero(np.diff(arrival_s, prepend=last_s) < 0)
        if len(back):
            text = f"column {format_.arrival!r}: earlier than the row before; sort the rows by {format_.arrival}"
            raise fault(table.path, block.lines[int(back[0])], text)
        last_s = float(arrival_s[-1])
        keep = int(np.searchsorted(arrival_s, until_s))
        block = Block(block.rows[:keep], block.lines[:keep])
        input_tokens = numbers(table, block, input_).astype(np.int64)
        block_count, block_ids = prefix_blocks(table, block, BLOCKS, input_tokens, blocks_before)
        blocks_before += len(block_ids)
        parts.append(
            _Columns(
                line=np.array(block.lines, dtype=np.int64),
                arrival_s=arrival_s[:keep],
                input_tokens=input_tokens,
                output_tokens=numbers(table, block, output).astype(np.int64),
                session=_sessions(block, sessions, table.position(SESSION)),
                prefix_tokens=numbers(table, block, PREFIX),
                think_s=numbers(table, block, THINK),
                api_s=numbers(table, block, API),
                block_count=block_count,
                block_ids=block_ids,
            )
        )
        if last_s >= until_s:
            break
    if not parts:
        raise fault(table.path, table.first_line, "no row follows the header; a trace needs at least one request")
    return _Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Columns.__slots__))


def _numbered_blocks(path: str, columns: _Columns) -> NDArray[np.int64]:
    """The block ids numbered afresh from 0.

    Equal ids mean equal prompts up to that block. So what comes before an id in one prompt comes before it in every
    other, and no prompt has an id twice; raises TraceError where that does not hold.
    """
    ids, ends = columns.block_ids, np.cumsum(columns.block_count)
    distinct, code = np.unique(ids, return_inverse=True)
    begins = (ends - columns.block_count)[columns.block_count > 0]
    before = np.concatenate([[-1], code[:-1]])[: len(ids)]
    before[begins] = -1
    recorded = np.empty(len(distinct), dtype=np.int64)
    recorded[code[::-1]] = before[::-1]  # of several values given to one place the last one stays: the first use
    wrong = np.flatnonzero(before != recorded[code])
    if len(wrong):
        row = int(np.searchsorted(ends, wrong[0], side="right"))
        text = f"column {BLOCKS!r}: block {ids[wrong[0]]} does not follow what it followed before"
        mend = "give one id only to equal beginnings of prompts, or remove the column"
        raise fault(path, int(columns.line[row]), f"{text}; {mend}")
    return code.astype(np.int64, copy=False)


def _requests(columns: _Columns, model: int) -> Requests:
    n = len(columns.arrival_s)
    previous = np.full(n, -1, dtype=np.int64)
    order = np.argsort(columns.session, kind="stable")
    session = columns.session[order]
    follows = np.flatnonzero((session[1:] == session[:-1]) & (session[1:] >= 0))
    previous[order[follows + 1]] = order[follows]

    later = previous >= 0
    nominal_s = nominal_duration_s(columns.output_tokens)
    duration_s = np.where(np.isnan(columns.api_s), nominal_s, columns.api_s)
    gap_s = columns.arrival_s - columns.arrival_s[previous]
    derived_s = np.maximum(gap_s - duration_s[previous], 0.0)
    think_s = np.where(np.isnan(columns.think_s), derived_s, columns.think_s)
    prefix = np.minimum(np.nan_to_num(columns.prefix_tokens), columns.input_tokens).astype(np.int64)
    return Requests(
        arrival_s=columns.arrival_s,
        model=np.full(n, model, dtype=np.int64),
        input_tokens=columns.input_tokens,
        output_tokens=columns.output_tokens,
        prefix_tokens=np.where(later, prefix, 0),
        previous=previous,
        think_s=np.where(later, think_s, 0.0),
        block_start=np.where(columns.block_count > 0, np.cumsum(columns.block_count) - columns.block_count, 0),
        block_count=columns.block_count,
        block_ids=columns.block_ids,
    )


def _format_of(table: Table) -> _Format:
    """The format whose columns the header has, or nearly has."""
    header = table.header

    def near(name: str) -> list[str]:
        return difflib.get_close_matches(name, header, n=3, cutoff=0.6)

    def likeness(format_: _Format) -> int:
        return sum(2 if name in header else bool(near(name)) for name in format_.required)

    format_ = max((NORMALISED, AZURE), key=likeness)
    if not likeness(format_):
        known = " or ".join(",".join(candidate.required) for candidate in (NORMALISED, AZURE))
        text = f"not a request trace: no column is known; name the columns {known}, separated by commas"
        raise fault(table.path, table.first_line, text)
    for name in format_.required:
        if name not in header:
            others = [other for other in near(name) if other not in format_.required]
            mend = (
                f"rename {' or '.join(map(shown, others))}"
                if others
                else f"a request trace has the columns {','.join(format_.required)}"
            )
            raise fault(table.path, table.first_line, f"column {name!r}: missing from the header; {mend}")
    for name in (*format_.required, SESSION, PREFIX.name, THINK.name, API.name, BLOCKS):
        if header.count(name) > 1:
            text = f"column {name!r}: named {header.count(name)} times in the header; keep one"
            raise fault(table.path, table.first_line, text)
    return format_


def _sessions(block: Block, known: dict[str, int], position: int | None) -> NDArray[np.int64]:
    if position is None:
        return np.full(len(block.rows), -1, dtype=np.int64)
    names = (row[position].strip() for row in block.rows)
    # The blank name is in the table already, so that the first session gets number 0.
    return np.array([known.setdefault(name, len(known) - 1) for name in names], dtype=np.int64)
