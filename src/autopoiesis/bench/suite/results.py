"""What a run of the suite keeps: one file from which every table, plot and page is made.

`results.json` holds one row a line, sorted by what it measures. A run with the same seeds keeps the same measurements,
but for seconds, and what the machine was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from autopoiesis.errors import AutopoiesisError

FILE = "results.json"
DIGITS = 9
"""Significant digits of every float."""
ENDLESS = ("score", "delay_s", "total_s")
"""Fields that may be infinite. JSON has no infinity: it is written as null there, and null is read as infinity."""


class Measured(msgspec.Struct, frozen=True):
    """What one policy gave on one load. Of `per-window` only the score says something; the rest is zero."""

    score: float
    """The objective as one number, smaller is better; infinite where no request was good."""
    goodput: float
    """Share of the requests answered within their SLO."""
    cost_per_good_usd: float | None
    delay_s: float
    """Mean over completed requests of the time beyond the unloaded time."""
    cost_usd: float
    reschedules: int
    """Transitions that changed something."""
    failures: int
    """Calls of the policy that failed."""
    charged_s: float
    """Metered seconds of trigger and planner."""
    completed: int
    requests: int
    wall_s: float


class RowResult(msgspec.Struct, frozen=True):
    """One policy in one cell under one objective and seed."""

    cell: str
    group: str
    objective: str
    seed: int
    policy: str
    """A name of the library, `evolving`, `best-fixed`, `best-found` or `per-window`."""
    kind: str
    """`default` or `tuned` (human policies), `evolving`, `bound` or `reference`."""
    measured: Measured
    detail: dict[str, Any]
    """Tuned parameters, swaps of the evolving system, switches of the best found."""


class SweepResult(msgspec.Struct, frozen=True):
    """The same where one driver of a cell was set to a value."""

    cell: str
    group: str
    objective: str
    seed: int
    driver: str
    """`window_s`, `load`, `amplitude`, `weight_loading`, `planner_cost`, `price` or `churn`."""
    value: float
    policy: str
    kind: str
    measured: Measured
    own: bool = False
    """Whether the value is the cell's own."""


class PaperResult(msgspec.Struct, frozen=True):
    """Where the time of one policy went in paper mode, under one accounting."""

    cell: str
    group: str
    seed: int
    policy: str
    kind: str
    accounting: str
    """`overlapped` or `additive`."""
    total_s: float
    scheduling_s: float
    reconfiguration_s: float
    serving_s: float


class Meta(msgspec.Struct, frozen=True):
    """How the results came about."""

    suite: str
    version: str
    seeds: list[int]
    """Days and worlds on which policies were measured."""
    jobs: int
    """Processes that worked beside one another."""
    cores: int
    """Of the machine."""
    wall_s: float
    cpu_s: float
    machine: str
    """Model of its CPU."""
    commands: str
    """How to repeat it."""
    planned_rows: list[tuple[str, str, str, int, str, str]] = []
    """Group, cell, objective, seed, policy and kind of every row that the run was to measure, done or not."""
    planned_sweeps: list[tuple[str, str, str, str, float, int, str, str]] = []
    """Group, cell, objective, driver, value, seed, policy and kind of the same of sweeps."""
    planned_papers: list[tuple[str, str, int, str, str, str]] = []
    """Group, cell, seed, policy, kind and accounting of the same of paper mode."""


class Results(msgspec.Struct, frozen=True):
    """A run of the suite, whole or interrupted."""

    meta: Meta
    rows: list[RowResult]
    sweeps: list[SweepResult]
    papers: list[PaperResult]


Row = RowResult | SweepResult | PaperResult


def identity(row: Row) -> tuple[Any, ...]:
    """What a row measures: no two rows of a run have the same."""
    match row:
        case RowResult():
            return row.group, row.cell, row.objective, row.policy, row.kind, row.seed
        case SweepResult():
            driven = row.driver, row.group, row.cell, row.objective, row.value
            return *driven, row.policy, row.kind, row.seed
        case PaperResult():
            return row.group, row.cell, row.policy, row.kind, row.accounting, row.seed


def read(folder: Path) -> Results:
    """The results in a folder. Raises AutopoiesisError where there are none, or none that can be read."""
    path = folder / FILE
    try:
        tree = msgspec.json.decode(path.read_bytes())
        results = msgspec.convert(_endless(tree), Results)
    except OSError as error:
        raise AutopoiesisError(f"{path}: {error.strerror}; `autopoiesis bench --out` writes it") from error
    except msgspec.MsgspecError as error:
        raise AutopoiesisError(f"{path}: {error}; write it anew with `autopoiesis bench --out`") from error
    _check(results, str(path))
    return results


def write(folder: Path, results: Results) -> Path:
    """Write the results into a folder, which is made; a reader sees the old file or the new, never a part.

    Raises AutopoiesisError for a measure that is no number, and for two rows of the same.
    """
    path = folder / FILE
    _check(results, str(path))
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE}.{os.getpid()}.part")
    try:
        draft.write_bytes(b"".join(_lines(results)))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _lines(results: Results) -> Iterator[bytes]:
    yield b'{"meta": ' + _encoded(results.meta)
    tables: list[tuple[str, list[Any]]] = [
        ("rows", results.rows),
        ("sweeps", results.sweeps),
        ("papers", results.papers),
    ]
    for name, rows in tables:
        lines = b",\n".join(map(_encoded, sorted(rows, key=identity)))
        yield b',\n"%b": [\n%b\n]' % (name.encode(), lines)
    yield b"}\n"


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(_rounded(msgspec.to_builtins(value)), order="deterministic")


def _rounded(value: Any) -> Any:
    match value:
        case float():
            # Adding zero takes the sign off a negative zero.
            return float(f"{value:.{DIGITS}g}") + 0.0
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value


def _endless(tree: Any) -> Any:
    match tree:
        case dict():
            return {k: math.inf if v is None and k in ENDLESS else _endless(v) for k, v in tree.items()}
        case list():
            return [_endless(item) for item in tree]
        case _:
            return tree


def _check(results: Results, path: str) -> None:
    seen: set[tuple[Any, ...]] = set()
    for rows in (results.rows, results.sweeps, results.papers):
        seen.clear()
        for row in rows:
            name = identity(row)
            if name in seen:
                raise AutopoiesisError(f"{path}: two rows of {name}; keep the one that counts")
            seen.add(name)
            for field, value in _floats(row):
                if math.isnan(value) or (math.isinf(value) and field not in ENDLESS):
                    raise AutopoiesisError(
                        f"{path}: {field} of {name} is {value}; only {', '.join(ENDLESS)} may be inf"
                    )


def _floats(row: Row) -> Iterator[tuple[str, float]]:
    measures = row if isinstance(row, PaperResult) else row.measured
    for field in measures.__struct_fields__:
        value = getattr(measures, field)
        if isinstance(value, float):
            yield field, value
