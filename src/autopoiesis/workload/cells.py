"""Cells of a trace as numbers, moments and prefix blocks.

A whole column of a block is converted at once; only when that fails is the offending cell looked for, so that a good
file is read fast and a bad one is still answered with the line and column at fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import TraceError
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS, spans
from autopoiesis.workload.source import fault, shown
from autopoiesis.workload.table import Block, Table

TIMESTAMP = re.compile(
    r"((?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)"
    r"(Z|[+-](?:0[0-9]|1[0-4]):?[0-5][0-9])?"
)
"""A moment, to the nanosecond at most, and its offset from UTC."""

RUN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
"""An id of a prefix block, or the first and last of consecutive ones."""
BLOCKS_MAX = 100_000_000
"""Prefix blocks of one trace, 800 MB of ids: prompts of absurd lengths could name any number of them in a few bytes."""


@dataclass(frozen=True, slots=True)
class Number:
    """What a column of numbers may hold. A blank cell is allowed, and read as NaN, where the column is optional."""

    name: str
    low: float
    high: float
    whole: bool
    optional: bool = False


def recorded(table: Table, block: Block, column: Number) -> NDArray[np.float64] | None:
    """(rows,) the values of an optional column; None if it is not in the file."""
    return None if table.position(column.name) is None else numbers(table, block, column)


def numbers(table: Table, block: Block, column: Number) -> NDArray[np.float64]:
    """(rows,) the column's values; NaN throughout if an optional column is not in the file."""
    at = table.position(column.name)
    if at is None:
        return np.full(len(block), np.nan)
    values = block.decimals(at)
    if values is not None and _fit(values, column):
        return values
    cells = block.texts(at)
    joined = "".join(cells)
    # float() also takes 1_000 and digits of other scripts, which in a CSV are slips; those go the strict way.
    if joined.isascii() and "_" not in joined:
        try:
            values = np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
        except ValueError:
            pass  # blank cells of an optional column are good, and the strict way knows them
        else:
            if _fit(values, column):
                return values
    strict = np.empty(len(cells), dtype=np.float64)
    for i, cell in enumerate(cells):
        try:
            strict[i] = _number(cell, column)
        except TraceError as error:
            raise fault(table.path, block.lines[i], f"column {column.name!r}: {error}") from None
    return strict


def _fit(values: NDArray[np.float64], column: Number) -> bool:
    if not np.all((values >= column.low) & (values <= column.high)):
        return False
    return not (column.whole and np.any(values != np.floor(values)))


def _number(cell: str, column: Number) -> float:
    """One cell; raises TraceError with what is wrong with it and how to mend it."""
    text = cell.strip()
    if not text:
        if column.optional:
            return math.nan
        raise TraceError("blank; write a number or remove the row")
    if text == column.name:
        raise TraceError("the header stands here again; remove this line")
    try:
        value = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        raise TraceError(f"{shown(text)} is not a number; write digits, with a point for the decimals")
    if not math.isfinite(value):
        raise TraceError(f"{shown(text)} is not finite; write the number or remove the row")
    if value < 0:
        raise TraceError(f"{shown(text)} is negative; write a number of {column.low:g} or more")
    if column.whole and value != math.floor(value):
        raise TraceError(f"{shown(text)} is not a whole number; write tokens without decimals")
    if value < column.low:
        raise TraceError(f"{shown(text)} is too small; write {column.low:g} or more, or remove the row")
    if value > column.high:
        raise TraceError(f"{shown(text)} is beyond {column.high:g}; check the unit")
    return value


def timestamps(table: Table, block: Block, name: str) -> NDArray[np.int64]:
    """(rows,) nanoseconds since 1970 in UTC; a time without an offset is taken as UTC."""
    at = table.header.index(name)
    fast = block.moments(at)
    if fast is not None:
        return fast
    cells = [cell.strip() for cell in block.texts(at)]
    matches = [match for match in map(TIMESTAMP.fullmatch, cells) if match]
    if len(matches) == len(cells):
        try:
            moments = np.array([match[1] for match in matches], dtype="datetime64[ns]").astype(np.int64)
        except ValueError:
            pass  # a day or an hour that does not exist: the search below says which
        else:
            offsets = [match[2] for match in matches]
            ahead_ns = {offset: _ahead_of_utc_ns(offset) for offset in set(offsets)}
            return moments - np.array([ahead_ns[offset] for offset in offsets], dtype=np.int64)
    line, cell = next((line, cell) for line, cell in zip(block.lines, cells, strict=True) if not _is_time(cell))
    if cell == name:
        text = "the header stands here again; remove this line"
    else:
        text = f"{shown(cell)} is not a time; write it like 2023-11-16 18:15:46.6805900, with or without +00:00"
    raise fault(table.path, line, f"column {name!r}: {text}")


def _is_time(cell: str) -> bool:
    match = TIMESTAMP.fullmatch(cell)
    if match is None:
        return False
    try:
        np.datetime64(match[1], "ns")
    except ValueError:
        return False
    return True


def _ahead_of_utc_ns(offset: str | None) -> int:
    if offset is None or offset == "Z":
        return 0
    minutes = 60 * int(offset[1:3]) + int(offset[-2:])
    return (-60 if offset[0] == "-" else 60) * minutes * 10**9


def prefix_blocks(
    table: Table, block: Block, name: str, input_tokens: NDArray[np.int64], before: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(rows,) number of full prefix blocks of each row, and (their sum,) their ids; None without such a column.

    A trace may also name the block in which a prompt ends; that one is passed over. `before` is the number of blocks
    read from the rows before.
    """
    counts = np.zeros(len(block), dtype=np.int64)
    at = table.position(name)
    if at is None:
        return None
    runs: list[range] = []
    total = before
    for i, (cell, tokens) in enumerate(zip(block.texts(at), input_tokens.tolist(), strict=True)):
        try:
            mine = _runs(cell, tokens)
            counts[i] = sum(map(len, mine))
            total += int(counts[i])
            if total > BLOCKS_MAX:
                raise TraceError(f"more than {BLOCKS_MAX:,} blocks up to here; read fewer hours of the trace")
        except TraceError as error:
            raise fault(table.path, block.lines[i], f"column {name!r}: {error}") from None
        runs += mine
    first = np.array([run.start for run in runs], dtype=np.int64)
    return counts, spans(first, np.array([len(run) for run in runs], dtype=np.int64))


def _runs(cell: str, tokens: int) -> list[range]:
    """The ids in a cell, cut where the full blocks of a prompt of so many tokens end; raises TraceError as `_number`.

    Ranges, so that a run of any length costs nothing before it is checked.
    """
    full = tokens // PREFIX_BLOCK_TOKENS
    runs: list[range] = []
    named = 0
    for text in cell.split():
        match = RUN.fullmatch(text)
        if match is None:
            raise TraceError(
                f"{shown(text)} is no block id; write whole numbers and runs like 14-27, with blanks between"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise TraceError(f"{shown(text)} runs down; write the smaller id first")
        run = range(first, last + 1)
        runs.append(run[: max(full - named, 0)])
        named += len(run)
    if named > -(-tokens // PREFIX_BLOCK_TOKENS):
        text = f"names {named} blocks, and a prompt of {tokens} tokens has {-(-tokens // PREFIX_BLOCK_TOKENS)}"
        raise TraceError(f"{text} of {PREFIX_BLOCK_TOKENS}; name the blocks of this prompt only")
    return runs


class Labels:
    """Numbers for the labels of a column, in order of appearance; a blank label has none, and is -1."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {"": -1}

    def __call__(self, labels: Iterable[str]) -> NDArray[np.int64]:
        known = self._known
        # The blank one is in the table already, so that the first label gets number 0.
        return np.array([known.setdefault(label.strip(), len(known) - 1) for label in labels], dtype=np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        """All labels but the blank one, by number."""
        return tuple(self._known)[1:]


def labels(table: Table, block: Block, name: str, numbered: Labels) -> NDArray[np.int64] | None:
    """(rows,) the number of each row's label; None if the file has no such column."""
    at = table.position(name)
    return None if at is None else numbered(block.texts(at))
