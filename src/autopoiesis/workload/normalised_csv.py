"""Requests as normalised CSV, from which the same requests are read again."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import TraceError
from autopoiesis.workload.load import first_calls
from autopoiesis.workload.readers import Trace
from autopoiesis.workload.requests import Requests

CHUNK_ROWS = 100_000


def write_normalised(trace: Trace, path: str) -> None:
    """Write a trace in one step, gzipped if the name ends in .gz; equal traces give equal bytes.

    Columns of nothing are left out: sessions, models or blocks that the trace does not have. The model index of the
    requests is not written, being no part of a file; the names of recorded models are. Raises TraceError.
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as raw:
                _write(trace, raw, path.endswith(".gz"))
            return
        try:
            with open(draft, "wb") as raw:
                _write(trace, raw, path.endswith(".gz"))
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error


def write_requests(requests: Requests, path: str) -> None:
    """Write requests of one model that no file has recorded; as `write_normalised`."""
    none = np.full(len(requests), -1, dtype=np.int64)
    write_normalised(Trace("generated", requests, (), none, 0.0, 0, ""), path)


def _write(trace: Trace, raw: IO[bytes], packed: bool) -> None:
    # Neither the name nor the time of writing belong to the trace.
    binary: Any = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if packed else raw
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    for part in _parts(trace):
        text.write(part)
    text.detach()  # else closing it would close what is beneath
    if packed:
        binary.close()


def _parts(trace: Trace) -> Iterator[str]:
    requests = trace.requests
    sessions = _sessions(requests)
    names = ["arrival_s", "input_tokens", "output_tokens"]
    if sessions is not None:
        names += ["session_id", "prefix_tokens", "think_time_s"]
    if trace.models:
        names.append("model")
    if len(requests.block_ids):
        names.append("block_ids")
    yield ",".join(names) + "\n"
    labels = [_quoted(name) for name in trace.models]
    for start in range(0, len(requests), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        columns: list[list[str]] = [
            [_decimal(value) for value in requests.arrival_s[rows].tolist()],
            list(map(str, requests.input_tokens[rows].tolist())),
            list(map(str, requests.output_tokens[rows].tolist())),
        ]
        if sessions is not None:
            columns.append([str(session) if session >= 0 else "" for session in sessions[rows].tolist()])
            columns.append(list(map(str, requests.prefix_tokens[rows].tolist())))
            columns.append([_decimal(value) for value in requests.think_s[rows].tolist()])
        if trace.models:
            columns.append([labels[model] if model >= 0 else "" for model in trace.model[rows].tolist()])
        if len(requests.block_ids):
            spans = zip(requests.block_start[rows].tolist(), requests.block_count[rows].tolist(), strict=True)
            columns.append([_runs(requests.block_ids[first : first + count]) for first, count in spans])
        yield "".join(",".join(cells) + "\n" for cells in zip(*columns, strict=True))


def _sessions(requests: Requests) -> NDArray[np.int64] | None:
    """(n,) number of each request's session, -1 for a single request; None if there is no session."""
    previous = requests.previous
    if not np.any(previous >= 0):
        return None
    first = first_calls(previous)
    single = np.ones(len(previous), dtype=np.bool_)
    single[first[previous >= 0]] = False
    single &= previous < 0
    _, number = np.unique(first, return_inverse=True)
    return np.where(single, -1, number)


def _decimal(value: float) -> str:
    """The fewest digits that are read as the same float again."""
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text


def _runs(ids: NDArray[np.int64]) -> str:
    """`0 14-27`: ids and runs of consecutive ones."""
    if not len(ids):
        return ""
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    firsts = ids[np.concatenate([[0], breaks])].tolist()
    lasts = ids[np.concatenate([breaks - 1, [len(ids) - 1]])].tolist()
    pairs = zip(firsts, lasts, strict=True)
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in pairs)


def _quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"' if any(c in label for c in ',"\r\n') else label
