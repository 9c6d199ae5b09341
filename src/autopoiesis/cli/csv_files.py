"""The tables of a simulation as CSV files, each there whole or not at all. The same run gives the same bytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

from autopoiesis.cli.output import WholeFile
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.scenario import Mode
from autopoiesis.simulate.tables import (
    ReplicaTable,
    ReplicaWindowTable,
    RequestTable,
    Table,
    WindowTable,
    csv_header,
    csv_lines,
    replica_table,
    replica_window_table,
    request_table,
    window_table,
)

PART = 1 << 16
"""Requests that are a table at one time: a part of a large run takes little memory."""
COMPRESSION = 6


def _requests(run: Run) -> Iterator[Table]:
    for start in range(0, len(run.scenario.requests), PART):
        yield request_table(run, slice(start, start + PART))


def _only(table: Callable[[Run], Table]) -> Callable[[Run], Iterator[Table]]:
    return lambda run: iter([table(run)])


TABLES: dict[str, tuple[type[Table], Callable[[Run], Iterator[Table]]]] = {
    "--requests-csv": (RequestTable, _requests),
    "--windows-csv": (WindowTable, _only(window_table)),
    "--replicas-csv": (ReplicaTable, _only(replica_table)),
    "--replica-windows-csv": (ReplicaWindowTable, _only(replica_window_table)),
}
"""By the flags of `flags.TABLES`."""


@contextmanager
def csv_files(paths: dict[str, str]) -> Iterator[Callable[[Mode, Run], None]]:
    """What to call with every mode's run once it has ended; its rows follow those of the mode before.

    `paths` are by flag; a name that ends with `.gz` is written gzipped. Raises ScenarioError where a file cannot be
    written.
    """
    with ExitStack() as stack:
        writes = {flag: stack.enter_context(_csv_file(path, flag)) for flag, path in paths.items()}
        for flag, write in writes.items():
            write(csv_header(TABLES[flag][0], "mode").encode())

        def served(mode: Mode, run: Run) -> None:
            for flag, write in writes.items():
                for table in TABLES[flag][1](run):
                    for lines in csv_lines(table, mode.value):
                        write(lines.encode())

        yield served


@contextmanager
def _csv_file(path: str, flag: str) -> Iterator[Callable[[bytes], object]]:
    with WholeFile(path, flag) as file:
        if not path.endswith(".gz"):
            yield file.write
            return
        # neither a name nor a time in it: equal runs are equal bytes
        with gzip.GzipFile("", "wb", COMPRESSION, cast(BinaryIO, file), mtime=0) as packed:
            yield packed.write
