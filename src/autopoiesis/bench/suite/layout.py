"""A table as text: Markdown for the page, aligned columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

WIDTH = 100
"""Columns of a terminal. A wider table is cut into parts, each with the words that begin its rows."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: int = 1
    """Columns that begin a row and are read from the left; what follows are numbers."""
    marked: frozenset[tuple[int, int]] = frozenset()
    """Row and column of entries that stand out."""
    mark: str = "the best"
    """What it means to stand out."""


def markdown(table: Table) -> str:
    """Under a heading of the fourth level, with its notes as a list."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rules = ["---" if column < table.words else "--:" for column in range(len(table.headings))]
    lines = [f"#### {table.title}", "", line([_escaped(heading) for heading in table.headings]), line(rules)]
    for position, row in enumerate(table.rows):
        cells = [_escaped(cell) for cell in row]
        lines.append(line([f"**{c}**" if (position, at) in table.marked else c for at, c in enumerate(cells)]))
    if table.notes:
        lines += ["", *(f"* {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def plain(table: Table) -> str:
    """Aligned, at most `WIDTH` columns unless one entry is wider; what stands out has an asterisk."""
    starred = [
        [f"{cell}*" if (position, column) in table.marked else cell for column, cell in enumerate(row)]
        for position, row in enumerate(table.rows)
    ]
    grid = [list(table.headings), *starred]
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.headings))]
    lines = [table.title]
    for columns in _parts(widths, table.words):
        lines += ["", *(_aligned(row, columns, widths, table.words) for row in grid)]
    if table.marked:
        lines += ["", f"* {table.mark}"]
    notes = [line for note in table.notes for line in wrap(note, WIDTH, break_on_hyphens=False)]
    return "\n".join([*lines, *([""] if notes and not table.marked else []), *notes]) + "\n"


def _aligned(row: Sequence[str], columns: Sequence[int], widths: Sequence[int], words: int) -> str:
    cells = (row[at].ljust(widths[at]) if at < words else row[at].rjust(widths[at]) for at in columns)
    return "  ".join(cells).rstrip()


def _parts(widths: Sequence[int], words: int) -> Iterator[list[int]]:
    first = list(range(words))
    columns, used = list(first), sum(widths[:words]) + 2 * (words - 1)
    for at in range(words, len(widths)):
        if len(columns) > words and used + 2 + widths[at] > WIDTH:
            yield columns
            columns, used = list(first), sum(widths[:words]) + 2 * (words - 1)
        columns.append(at)
        used += 2 + widths[at]
    yield columns


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
