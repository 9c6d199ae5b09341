"""A CSV file, plain or gzipped, as blocks of rows that remember their lines.

Traces come from strangers: cut off downloads, wrong encodings, spreadsheets. Everything that can go wrong below the
level of a number goes wrong here, as a `TraceError` that names the line, so that readers only deal with cells. One
block of rows is held at a time, whatever the size of the file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import BinaryIO, cast

from autopoiesis.errors import TraceError

BLOCK_ROWS = 4_096
LINE_BYTES = 1_000_000
"""A longer line is no row of a trace; the limit keeps a file without line breaks from filling the memory."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive rows, each with as many cells as the header, and the line (from 1) on which each begins."""

    rows: list[list[str]]
    lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class Table:
    """An open CSV file. Cells are text as it stands in the file; blank lines are passed over."""

    path: str
    header: tuple[str, ...]
    first_line: int
    """Lines read up to the header's end."""
    _rows: Iterator[list[str]]

    def position(self, name: str) -> int | None:
        """Where in a row a column stands, if the file has it."""
        return self.header.index(name) if name in self.header else None

    def blocks(self) -> Iterator[Block]:
        """The rows below the header, at most `BLOCK_ROWS` at a time; can be walked once."""
        before = self.first_line
        while rows := self._next_rows(before):
            lines, before = _lines_of(rows, before)
            if not all(rows):
                lines = [line for line, row in zip(lines, rows, strict=True) if row]
                rows = [row for row in rows if row]
            block = Block(rows, lines)
            self._check_widths(block)
            yield block

    def _next_rows(self, before: int) -> list[list[str]]:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(self._rows, BLOCK_ROWS))
        except csv.Error as error:
            line = _lines_of(rows, before)[1] + 1
            raise fault(self.path, line, f"not a row of CSV ({error}); mend the quotes in this row") from None
        return rows

    def _check_widths(self, block: Block) -> None:
        width = len(self.header)
        if set(map(len, block.rows)) <= {width}:
            return
        for row, line in zip(block.rows, block.lines, strict=True):
            if len(row) < width:
                missing = self.header[len(row)]
                text = f"column {missing!r}: missing, {_fields(len(row))} under a header of {width}"
                raise fault(self.path, line, f"{text}; complete the row or remove it")
            if len(row) > width:
                text = f"{_fields(len(row))} under a header of {width} that ends with column {self.header[-1]!r}"
                raise fault(self.path, line, f"{text}; remove the extra commas")


def fault(path: str, line: int | None, message: str) -> TraceError:
    """The one-line error for a place in a file."""
    name = path if path.isprintable() else repr(path)
    return TraceError(f"{name}: {message}" if line is None else f"{name}: line {line}: {message}")


@contextmanager
def open_table(path: str) -> Iterator[Table]:
    """Open a CSV file with a header; whether it is gzipped is seen from its first bytes, not from its name.

    Raises TraceError here or from `Table.blocks` for a file that is missing, a directory, unreadable, empty,
    truncated, corrupt, not UTF-8 or not CSV.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 - closed below; only the opening may fail with these words
    except FileNotFoundError:
        raise fault(path, None, "no such file; check the path") from None
    except IsADirectoryError:
        raise fault(path, None, "is a directory; name one CSV file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise fault(path, None, f"cannot be opened ({reason}); name a readable CSV file") from None
    with raw:
        rows = csv.reader(_text_lines(path, raw), strict=True)
        try:
            header = next((row for row in rows if row), None)
        except csv.Error as error:
            raise fault(path, rows.line_num, f"not a CSV header ({error}); name the columns here") from None
        if header is None:
            raise fault(path, None, "is empty; a header and at least one row are needed")
        yield Table(path, tuple(name.strip() for name in header), rows.line_num, rows)


def _text_lines(path: str, raw: io.BufferedReader) -> Iterator[str]:
    line = 0
    try:
        # GzipFile.readline is Python; a buffer in front of it reads lines an order of magnitude faster.
        stream = raw
        if raw.peek(2)[:2] == GZIP_MAGIC:
            stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=cast(BinaryIO, raw))), 1 << 18)
        while data := stream.readline(LINE_BYTES):
            line += 1
            if line == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            if len(data) >= LINE_BYTES:
                raise fault(
                    path, line, f"longer than {LINE_BYTES} bytes; this is not a CSV file with one request a line"
                )
            yield data.decode()
    except UnicodeDecodeError:
        raise fault(path, line, "not UTF-8 text; save the file as CSV in UTF-8, plain or gzipped") from None
    except EOFError:
        raise fault(path, line + 1, "the gzip data end early; fetch or write the file again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise fault(path, line + 1, f"the gzip data are corrupt ({error}); fetch or write the file again") from None
    except OSError as error:
        raise fault(path, line + 1, f"cannot be read ({error.strerror or error}); check the file") from None


def _lines_of(rows: list[list[str]], before: int) -> tuple[Sequence[int], int]:
    """The line of each row and the last line of all of them; a quoted cell may span lines."""
    if "\n" not in "".join(chain.from_iterable(rows)):
        return range(before + 1, before + 1 + len(rows)), before + len(rows)
    heights = (1 + sum(cell.count("\n") for cell in row) for row in rows)
    ends = list(accumulate(heights, initial=before))
    return [end + 1 for end in ends[:-1]], ends[-1]


def shown(cell: str) -> str:
    """A cell as an error quotes it: escaped, and cut where it is long."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


def _fields(count: int) -> str:
    return f"{count} field" if count == 1 else f"{count} fields"
