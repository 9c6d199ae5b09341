"""A CSV file as blocks of rows that remember their lines.

Most pieces of a trace are plain: as many commas in every line as in the header, and no quotes. Their cells are found by
their separators, and columns of numbers read from the bytes. Any other piece goes through the `csv` module, row by row;
from the first quote on all of them do, because a quoted cell may span lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autopoiesis.workload.digits import Bytes, Places, decimals, moments
from autopoiesis.workload.source import Piece, Source, fault, open_source, shown

BLOCK_ROWS = 4_096
"""Rows of a block that were read one by one."""

COMMA, LINE_FEED = b",\n"


class Block(Protocol):
    """Some consecutive rows, each with as many cells as the header; `lines` has the line (from 1) of each."""

    @property
    def lines(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def texts(self, at: int) -> list[str]:
        """The cells of a column as they stand in the file."""

    def decimals(self, at: int) -> NDArray[np.float64] | None:
        """The cells of a column as numbers, if they are plain ones and the block can do this fast."""

    def moments(self, at: int) -> NDArray[np.int64] | None:
        """The cells of a column as nanoseconds since 1970, if they are moments and the block can do this fast."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A block whose rows were read one by one."""

    rows: list[list[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, at: int) -> list[str]:
        return [row[at] for row in self.rows]

    def decimals(self, at: int) -> None:
        return None

    def moments(self, at: int) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Cells:
    """A block of plain lines: its bytes, and (rows, columns) where each cell starts and ends in them."""

    data: bytes
    starts: Places
    ends: Places
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.starts)

    def texts(self, at: int) -> list[str]:
        spans = zip(self.starts[:, at].tolist(), self.ends[:, at].tolist(), strict=True)
        if self.data.isascii():
            text = self.data.decode("ascii")
            return [text[start:end] for start, end in spans]
        return [self.data[start:end].decode() for start, end in spans]

    def decimals(self, at: int) -> NDArray[np.float64] | None:
        return decimals(self._bytes, self.starts[:, at], self.ends[:, at])

    def moments(self, at: int) -> NDArray[np.int64] | None:
        return moments(self._bytes, self.starts[:, at], self.ends[:, at])

    @property
    def _bytes(self) -> Bytes:
        return np.frombuffer(self.data, dtype=np.uint8)


class Table:
    """A CSV file below its header. Cells are text as it stands in the file; blank lines are passed over.

    Raises TraceError here or from `blocks` for a file that is empty or not CSV, and as `Source.pieces` does.
    """

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self._lines = _Lines(source.pieces())
        reader = csv.reader(self._lines, strict=True)
        try:
            header = next((row for row in reader if row), None)
        except csv.Error as error:
            raise fault(self.path, self._lines.read, f"not a CSV header ({error}); name the columns here") from None
        if header is None:
            raise fault(self.path, None, "is empty; a header and at least one row are needed")
        self.header = tuple(name.strip() for name in header)
        self.first_line = self._lines.read
        """Lines read up to the header's end."""

    def position(self, name: str) -> int | None:
        """Where in a row a column stands, if the file has it."""
        return self.header.index(name) if name in self.header else None

    def blocks(self) -> Iterator[Block]:
        """The rows below the header, none of the blocks empty; can be walked once."""
        while piece := self._lines.rest():
            if b'"' in piece.data or b"\r" in piece.data:
                self._lines.put_back(piece)
                yield from self._one_by_one()
                return
            block: Block | None = _cells(piece, len(self.header))
            if block is None:
                lines = iter(piece.data.decode().split("\n")[:-1])
                rows = self._next_rows(csv.reader(lines, strict=True), piece.first_line - 1, None)
                block = self._checked(rows, range(piece.first_line, piece.first_line + len(rows)))
            if len(block):
                yield block

    def _one_by_one(self) -> Iterator[Rows]:
        reader = csv.reader(self._lines, strict=True)
        before = self._lines.read
        while rows := self._next_rows(reader, before, BLOCK_ROWS):
            lines, before = _lines_of(rows, before)
            block = self._checked(rows, lines)
            if len(block):
                yield block

    def _next_rows(self, reader: Iterator[list[str]], before: int, most: int | None) -> list[list[str]]:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(reader, most))
        except csv.Error as error:
            line = _lines_of(rows, before)[1] + 1
            raise fault(self.path, line, f"not a row of CSV ({error}); mend the quotes in this row") from None
        return rows

    def _checked(self, rows: list[list[str]], lines: Sequence[int]) -> Rows:
        """The rows that are not blank. Raises TraceError where one has not as many cells as the header."""
        if not all(rows):
            lines = [line for line, row in zip(lines, rows, strict=True) if row]
            rows = [row for row in rows if row]
        width = len(self.header)
        if not set(map(len, rows)) <= {width}:
            for row, line in zip(rows, lines, strict=True):
                if len(row) < width:
                    missing = self.header[len(row)]
                    text = f"column {shown(missing)}: missing, {_fields(len(row))} under a header of {width}"
                    raise fault(self.path, line, f"{text}; complete the row or remove it")
                if len(row) > width:
                    text = (
                        f"{_fields(len(row))} under a header of {width} that ends with column {shown(self.header[-1])}"
                    )
                    raise fault(self.path, line, f"{text}; remove the extra commas")
        return Rows(rows, lines)


@contextmanager
def open_table(path: str) -> Iterator[Table]:
    """Open a CSV file, plain or gzipped. Raises TraceError as `open_source` and `Table`."""
    with open_source(path) as source:
        yield Table(source)


class _Lines:
    """The lines of a file one by one, or what is left of a piece of them at once."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._data = b""
        self._at = 0
        self.read = 0
        """Lines handed out."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._at >= len(self._data):
            piece = self.rest()
            if piece is None:
                raise StopIteration
            self.put_back(piece)
        end = self._data.index(b"\n", self._at) + 1
        line = self._data[self._at : end].decode()
        self._at = end
        self.read += 1
        return line

    def rest(self) -> Piece | None:
        """What is left of the present piece, or else the next one; None at the end of the file."""
        if self._at < len(self._data):
            piece = Piece(self._data[self._at :], self.read + 1)
        else:
            following = next(self._pieces, None)
            if following is None:
                return None
            piece = Piece(following.data.replace(b"\r\n", b"\n"), following.first_line)
        self._data, self._at = b"", 0
        self.read = piece.first_line - 1 + piece.data.count(b"\n")
        return piece

    def put_back(self, piece: Piece) -> None:
        """Undo the `rest` that gave this piece."""
        self._data, self._at = piece.data, 0
        self.read = piece.first_line - 1


def _cells(piece: Piece, width: int) -> Cells | None:
    """The cells of lines without quotes; None if one has not as many as the header."""
    data = np.frombuffer(piece.data, dtype=np.uint8)
    separators = np.flatnonzero((data == COMMA) | (data == LINE_FEED))
    rows = len(separators) // width
    if rows * width != len(separators):
        return None
    ends = separators.reshape(rows, width)
    breaks = data[ends] == LINE_FEED
    if not breaks[:, -1].all() or breaks[:, :-1].any() or width == 1:
        return None
    starts = np.empty_like(separators)
    starts[0] = 0
    starts[1:] = separators[:-1] + 1
    return Cells(piece.data, starts.reshape(rows, width), ends, range(piece.first_line, piece.first_line + rows))


def _lines_of(rows: list[list[str]], before: int) -> tuple[Sequence[int], int]:
    """The line of each row and the last line of all of them; a quoted cell may span lines."""
    if "\n" not in "".join(chain.from_iterable(rows)):
        return range(before + 1, before + 1 + len(rows)), before + len(rows)
    heights = (1 + sum(cell.count("\n") for cell in row) for row in rows)
    ends = list(accumulate(heights, initial=before))
    return [end + 1 for end in ends[:-1]], ends[-1]


def _fields(count: int) -> str:
    return f"{count} field" if count == 1 else f"{count} fields"
