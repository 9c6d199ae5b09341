"""Recorded traces as `Requests`, recognised by their content and not by their name.

Each format is a module that gives the calls of a file as columns, block by block (`recorded.Format`); what they become
is decided in one place. `docs/traces.md` lists the formats, their columns and what becomes of them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from autopoiesis.errors import ScenarioError
from autopoiesis.workload.readers.azure import Azure
from autopoiesis.workload.readers.benchmarks import SGLANG, VLLM
from autopoiesis.workload.readers.burstgpt import BurstGPT
from autopoiesis.workload.readers.gateway_log import GatewayLog
from autopoiesis.workload.readers.mooncake import Mooncake
from autopoiesis.workload.readers.normalised import Normalised
from autopoiesis.workload.readers.recorded import (
    Calls,
    Draw,
    Format,
    Reading,
    Trace,
    collected,
    nominal_duration_s,
    requests_of,
)
from autopoiesis.workload.readers.servegen import ServeGen
from autopoiesis.workload.requests import Requests
from autopoiesis.workload.source import Progress, Source, fault, open_source, shown
from autopoiesis.workload.table import Table

__all__ = ["Draw", "Trace", "nominal_duration_s", "read_requests", "read_trace"]

CSV_FORMATS: tuple[Format[Table], ...] = (Normalised(), Azure(), BurstGPT(), ServeGen())
JSON_FORMATS: tuple[Format[Source], ...] = (Mooncake(), GatewayLog(), VLLM, SGLANG)

KEY = re.compile(rb'"([A-Za-z_][A-Za-z0-9_]{0,40})"[ \t\r\n]*:')

Given = TypeVar("Given")


def read_requests(path: str, model: int = 0, hours: float | None = None) -> Requests:
    """Read a trace of one model, plain or gzipped, up to `hours` after its first arrival.

    Arrivals start at 0; equal ones keep the order of the file. `previous` is the row before in the same session; a
    blank session is a single request. `think_s` is the later call's recorded think time, or else the recorded gap less
    the earlier call's recorded duration, or else less its nominal duration, and never negative. A blank optional cell
    counts as not recorded. `prefix_tokens` is at most the prompt, and 0 for a first call. Prefix blocks are numbered
    afresh from 0: only which of them are equal matters. What a file does not record and a request needs, arrivals
    where there are only rates, is drawn with seed 0. Calls without a prompt are left out of foreign formats. Reading
    stops at the block of rows in which `hours` end: what is wrong beyond goes unseen.

    Raises TraceError (one line: file, line, column and the mend) for a file that is no trace, ScenarioError for
    `hours` that are not a positive number.
    """
    return read_trace(path, model, hours).requests


def read_trace(
    path: str,
    model: int = 0,
    hours: float | None = None,
    draw: Draw | None = None,
    progress: Progress | None = None,
) -> Trace:
    """As `read_requests`, with what the file says beyond the requests.

    `draw` says how to draw what is not recorded; `progress` is told how much of the file has been read.
    """
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise ScenarioError(f"hours must be a positive number, not {hours!r}; leave it out to read the whole trace")
    until_s = math.inf if hours is None else hours * 3600.0
    reading = Reading(draw or Draw())
    with open_source(path, progress) as source:
        begin = source.head().lstrip()
        if begin.startswith((b"{", b"[")):
            keys = tuple(dict.fromkeys(key.decode() for key in KEY.findall(begin)))
            lines_format = _recognised(path, 1, "field", keys, JSON_FORMATS)
            name, step_s = lines_format.name, lines_format.step_s
            calls = collected(path, lines_format, lines_format.read(source, reading), until_s)
        else:
            table = Table(source)
            table_format = _recognised(path, table.first_line, "column", table.header, CSV_FORMATS)
            name, step_s = table_format.name, table_format.step_s
            parts = _some(table, table_format.read(table, reading))
            calls = collected(path, table_format, parts, until_s)
    requests = requests_of(path, calls, model, reading.blocks)
    models = np.full(len(requests), -1, dtype=np.int64) if calls.model is None else calls.model
    return Trace(name, requests, reading.models.names, models, step_s, reading.left_out, reading.drawn)


def _some(table: Table, parts: Iterator[Calls]) -> Iterator[Calls]:
    """The parts. Raises TraceError if there are none."""
    empty = True
    for part in parts:
        empty = False
        yield part
    if empty:
        text = "no row follows the header; a trace needs at least one request"
        raise fault(table.path, table.first_line, text)


def _recognised(
    path: str, line: int, word: str, names: Sequence[str], formats: Sequence[Format[Given]]
) -> Format[Given]:
    """The format whose marks are among the names. Raises TraceError where none is, or more than one."""

    def near(mark: str) -> list[str]:
        return difflib.get_close_matches(mark, names[:200], n=3, cutoff=0.6)

    def likeness(candidate: Format[Given]) -> int:
        return sum(2 if mark in names else bool(near(mark)) for mark in candidate.marks)

    whole = [candidate for candidate in formats if set(candidate.marks) <= set(names)]
    if len(whole) > 1:
        both = " and ".join(candidate.name for candidate in whole)
        raise fault(path, line, f"has the {word}s of {both}; keep those of one")
    format_ = whole[0] if whole else max(formats, key=likeness)
    if not whole and word == "field" and "prompt" in names:
        text = "holds prompts without lengths or arrivals, so it is no trace; give the result of a benchmark with them"
        raise fault(path, line, text)
    if not likeness(format_):
        known = " or ".join(",".join(candidate.marks) for candidate in formats)
        text = f"not a request trace: no {word} is known; name the {word}s {known}"
        raise fault(path, line, f"{text}, separated by commas" if word == "column" else text)
    for mark in format_.marks:
        if mark not in names:
            others = [other for other in near(mark) if other not in format_.marks]
            mend = (
                f"rename {' or '.join(map(shown, others))}"
                if others
                else f"{format_.name} has the {word}s {','.join(format_.marks)}"
            )
            place = "the header" if word == "column" else "the first line"
            raise fault(path, line, f"{word} {mark!r}: missing from {place}; {mend}")
    for name in (*format_.marks, *format_.others):
        if names.count(name) > 1:
            raise fault(path, line, f"{word} {name!r}: named {names.count(name)} times in the header; keep one")
    return format_
