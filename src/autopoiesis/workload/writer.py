"""`Requests` as a normalised CSV file, which `read_requests` reads back to the same."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.workload.load import first_calls
from autopoiesis.workload.requests import Requests

ROWS = 100_000
"""Rows formatted at a time."""
COMPRESSION = 6


def write_requests(requests: Requests, path: str) -> None:
    """Write requests of one model to a CSV file, gzipped if its name ends with `.gz`, in one step: a reader sees the
    old content or the new, never a part. The same requests give the same bytes.

    The columns are `arrival_s,input_tokens,output_tokens`; `session_id,prefix_tokens,think_time_s` where there are
    sessions, blank for single requests; and `block_ids` where there are prefix blocks, as ids and runs of ids.

    Raises TraceError for requests of several models, which a file cannot say; ScenarioError if the file cannot be
    written.
    """
    if len(requests) and requests.model.min() != requests.model.max():
        raise TraceError("column 'model': a trace file holds one model; write one file for each")
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            # A device or a pipe, such as /dev/stdout: to be written, not replaced.
            _write(requests, target, path)
            return
        try:
            _write(requests, draft, path)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be written: {error.strerror}; name another file") from error


def _write(requests: Requests, target: Path, path: str) -> None:
    with target.open("wb") as raw:
        if not path.endswith(".gz"):
            raw.writelines(part.encode() for part in _parts(requests))
            return
        # neither the name nor the time go into the file, so that equal requests give equal bytes
        with gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as packed:
            for part in _parts(requests):
                packed.write(part.encode())


def _parts(requests: Requests) -> Iterator[str]:
    """The text of the file, some rows at a time."""
    first = first_calls(requests.previous)
    calls = np.bincount(first, minlength=len(requests))
    in_session = calls[first] > 1
    sessions, blocks = bool(in_session.any()), len(requests.block_ids) > 0
    header = ["arrival_s", "input_tokens", "output_tokens"]
    header += ["session_id", "prefix_tokens", "think_time_s"] if sessions else []
    header += ["block_ids"] if blocks else []
    yield ",".join(header) + "\n"
    number = np.cumsum(calls > 1) - 1  # of the session that begins in a row
    for begin in range(0, len(requests), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(requests)))
        columns = [_seconds(requests.arrival_s[rows]), _whole(requests.input_tokens[rows])]
        columns.append(_whole(requests.output_tokens[rows]))
        if sessions:
            inside = in_session[rows]
            for cells in (
                _whole(number[first[rows]]),
                _whole(requests.prefix_tokens[rows]),
                _seconds(requests.think_s[rows]),
            ):
                columns.append([cell if kept else "" for cell, kept in zip(cells, inside.tolist(), strict=True)])
        if blocks:
            columns.append(_block_cells(requests, rows))
        yield "".join(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _whole(values: NDArray[np.int64]) -> list[str]:
    return list(map(str, values.tolist()))


def _seconds(values: NDArray[np.float64]) -> list[str]:
    """The shortest decimals that are read back to the same floats."""
    return [text[:-2] if text.endswith(".0") else text for text in map(repr, values.tolist())]


def _block_cells(requests: Requests, rows: NDArray[np.int64]) -> list[str]:
    """Ids and runs of ids with blanks between, for each of the rows."""
    blocks = requests.blocks_of(rows)
    ids, count = blocks["block_ids"], blocks["block_count"]
    opens = np.ones(len(ids), dtype=np.bool_)
    opens[1:] = np.diff(ids) != 1
    opens[blocks["block_start"][count > 0]] = True
    start = np.flatnonzero(opens)
    last = np.append(start[1:], len(ids)) - 1
    runs = [
        str(low) if low == high else f"{low}-{high}"
        for low, high in zip(ids[start].tolist(), ids[last].tolist(), strict=True)
    ]
    ends = np.searchsorted(start, np.cumsum(count)).tolist()
    return [" ".join(runs[low:high]) for low, high in zip([0, *ends], ends, strict=False)]
