"""Reading spot histories: CSV with the columns `t_s,nodes`, a step function whose last row says when it ends.

Times count from the first row. What is wrong is answered in one line: file, line, column and the mend.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from autopoiesis.cluster.spot import SHORTEST_HISTORY_S, SpotHistory
from autopoiesis.errors import TraceError

COLUMNS = ("t_s", "nodes")
FILE_BYTES = 1 << 26
"""Largest file that is read; a row a minute for a century is smaller."""
SECONDS_MAX = 1e10
NODES_MAX = 1e6
"""Beyond these a number is a slip of units or of the pen."""


def read_spot_history(path: str, notice_s: float = 120.0) -> SpotHistory:
    """A history, announced `notice_s` ahead: files do not record notices, providers document theirs (AWS 120 s,
    Google Cloud and Azure 30 s). Other columns than the two are ignored.

    Raises TraceError for a file that is no history, ScenarioError for a notice that is no time.
    """
    t_s: list[float] = []
    nodes: list[int] = []
    line = 1
    for line, at, count in _rows(path):
        if t_s and at < t_s[-1]:
            raise _fault(path, line, "column 't_s': earlier than the row before; sort the rows by t_s")
        t_s.append(at)
        nodes.append(int(count))
    if len(t_s) < 2:
        raise _fault(path, line, "a history needs two rows at least; the last one says when it ends")
    first = t_s[0]
    t_s = [at - first for at in t_s]
    if t_s[-1] < SHORTEST_HISTORY_S:
        raise _fault(path, line, f"column 't_s': the history spans {t_s[-1]:g} s; give at least 60 s")
    if not any(nodes[:-1]):
        raise _fault(path, line, "column 'nodes': 0 in every row; a history must have a node at some time")
    return SpotHistory(tuple(t_s), tuple(nodes), notice_s)


def _rows(path: str) -> Iterator[tuple[int, float, float]]:
    """Line, time and nodes of every row."""
    reader = csv.reader(_text(path).splitlines(), strict=True)
    places: list[int] = []
    try:
        for row in reader:
            if not row:
                continue
            if not places:
                places = _places(path, reader.line_num, [cell.strip() for cell in row])
                width = len(row)
                continue
            if len(row) != width:
                raise _fault(path, reader.line_num, f"{len(row)} fields under a header of {width}; mend the commas")
            at, count = (
                _number(path, reader.line_num, name, row[place], most)
                for name, place, most in zip(COLUMNS, places, (SECONDS_MAX, NODES_MAX), strict=True)
            )
            if count != math.floor(count):
                raise _fault(path, reader.line_num, f"column 'nodes': {count:g} is not whole; count whole nodes")
            yield reader.line_num, at, count
    except csv.Error as error:
        raise _fault(path, reader.line_num, f"not a row of CSV ({error}); mend the quotes in this row") from None
    if not places:
        raise _fault(path, None, "is empty; a header t_s,nodes and two rows at least are needed")


def _text(path: str) -> str:
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise _fault(path, None, "is no file; name a CSV file with the columns t_s,nodes")
        data = Path(path).read_bytes() if Path(path).stat().st_size <= FILE_BYTES else None
    except FileNotFoundError:
        raise _fault(path, None, "no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _fault(path, None, f"cannot be read ({reason}); name a CSV file with the columns t_s,nodes") from None
    if data is None:
        raise _fault(path, None, f"is larger than {FILE_BYTES >> 20} MiB; no spot history is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _fault(path, line, "not UTF-8 text; save the file as CSV in UTF-8") from None


def _places(path: str, line: int, header: list[str]) -> list[int]:
    for name in COLUMNS:
        if header.count(name) != 1:
            found = "missing from the header" if name not in header else f"named {header.count(name)} times"
            raise _fault(path, line, f"column {name!r}: {found}; a spot history has the columns t_s,nodes")
    return [header.index(name) for name in COLUMNS]


def _number(path: str, line: int, name: str, cell: str, most: float) -> float:
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        shown = repr(cell if len(cell) <= 40 else cell[:37] + "...")
        raise _fault(path, line, f"column {name!r}: {shown} is not a number from 0 to {most:g}; write one")
    return value


def _fault(path: str, line: int | None, message: str) -> TraceError:
    name = path if path.isprintable() else repr(path)
    return TraceError(f"{name}: {message}" if line is None else f"{name}: line {line}: {message}")
