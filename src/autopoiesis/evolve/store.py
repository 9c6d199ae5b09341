"""One SQLite file that remembers everything a run of evolution did, and from which a killed run goes on.

A row is a pure function of its primary key, so that a resumed run which does a step again writes the same row again.
Writes are transactions of their own, or of `with store.transaction()`. The file is in WAL mode with
`synchronous=NORMAL`: a killed process loses nothing that was committed; a power cut may lose the last moments, which
a resumed run computes again, and never the file.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

from autopoiesis.errors import StoreError
from autopoiesis.evolve.records import (
    TABLES,
    CompletionRecord,
    DeploymentRecord,
    GateRecord,
    PolicyRecord,
    Record,
    RunRecord,
    ScoreRecord,
    SwapRecord,
    WindowRecord,
    decoded,
    encoded,
)
from autopoiesis.evolve.schema import APPLICATION_ID, MIGRATIONS

__all__ = [
    "CompletionRecord",
    "DeploymentRecord",
    "GateRecord",
    "PolicyRecord",
    "RunRecord",
    "ScoreRecord",
    "Store",
    "SwapRecord",
    "WindowRecord",
]

OF_A_RUN = ("completions", "gates", "logs", "windows", "deployments", "memo", "scores")
"""Tables whose rows go with their run; swaps stay, and with them who ever took over."""


class Store:
    """An open store; a context manager. Every failure is a StoreError that names the file.

    May be used from several threads; a transaction holds the others off. Several processes may have the file open,
    one writes at a time. `max_bytes` caps the file: beyond it everything that writes fails as on a full disk.

    After `begin_run` what is remembered or scored belongs to that run, and so does what it recalls of another's:
    what a run stands on is dropped with the last run that used it. What is written before, or without a run, belongs
    to nobody and is never dropped.
    """

    def __init__(self, path: str | Path, max_bytes: int | None = None, busy_timeout_s: float = 10.0) -> None:
        self.path = str(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._run_key = ""
        if self.path != ":memory:" and not Path(self.path).parent.is_dir():
            raise StoreError(f"store {self.path}: its folder does not exist; create it or name another file")
        with self._errors():
            self._db = sqlite3.connect(self.path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._open(max_bytes)
        except StoreError:
            self._db.close()
            raise

    def _open(self, max_bytes: int | None) -> None:
        if self._recognise():
            # What is dropped leaves the file; can only be chosen before there are tables.
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if max_bytes is not None:
            pages = max(1, max_bytes // self._pragma("page_size"))
            self._db.execute(f"PRAGMA max_page_count = {pages}")
        if self._pragma("user_version") < len(MIGRATIONS):
            self._migrate()

    def _recognise(self) -> bool:
        """Whether the file is new. Refuses one that is not ours, before anything is written to it."""
        version, tables = self._pragma("user_version"), self._db.execute("SELECT count(*) FROM sqlite_master")
        empty = version == 0 and tables.fetchone()[0] == 0
        if not empty and self._pragma("application_id") != APPLICATION_ID:
            raise StoreError(f"store {self.path}: a SQLite file, but no store of ours; name another file")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"store {self.path}: schema {version} was written by a newer release (this one knows "
                f"{len(MIGRATIONS)}); update autopoiesis or name another file"
            )
        return empty

    def _migrate(self) -> None:
        with self.transaction():
            # Another process may have done it since; the transaction now holds it off.
            for version in range(self._pragma("user_version"), len(MIGRATIONS)):
                for statement in MIGRATIONS[version].split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {version + 1}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._errors():
            self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(f"store {self.path}: {_mend(error)}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together or not at all; a nested one belongs to the outer."""
        with self._errors():
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._depth == 1 and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def check(self) -> None:
        """Read the whole file; StoreError if it is damaged."""
        with self._errors():
            found = [row[0] for row in self._db.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise StoreError(f"store {self.path}: damaged ({' '.join(found[0].split())}); {_RESTORE}")

    # --- rows ---

    def _put(self, record: Record, **more: object) -> None:
        columns: dict[str, object] = {f.name: encoded(f.name, getattr(record, f.name)) for f in fields(record)}
        columns |= more
        self._write(TABLES[type(record)], list(columns), list(columns.values()))

    def _write(self, table: str, names: list[str], values: list[object]) -> None:
        marks = ", ".join("?" * len(names))
        with self.transaction():
            self._db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", values)

    def _get(self, kind: type[Record], order: str, **where: object) -> tuple[Record, ...]:
        names = [field.name for field in fields(kind)]
        query = f"SELECT {', '.join(names)} FROM {TABLES[kind]}"
        if where:
            query += " WHERE " + " AND ".join(f"{name} = ?" for name in where)
        with self._errors():
            rows = self._db.execute(f"{query} ORDER BY {order}", list(where.values())).fetchall()
        return tuple(kind(*(decoded(name, value) for name, value in zip(names, row, strict=True))) for row in rows)

    def put_policy(self, record: PolicyRecord) -> None:
        self._put(record)

    def get_policy(self, id: str) -> PolicyRecord | None:
        return next(iter(self._get(PolicyRecord, "id", id=id)), None)

    def policies(self) -> tuple[PolicyRecord, ...]:
        """By identity."""
        return self._get(PolicyRecord, "id")

    def remember(self, key: str, value: bytes) -> None:
        self._write("memo", ["key", "value", "run_key"], [key, value, self._run_key])

    def knows(self, key: str) -> bool:
        """Whether it would be recalled; nobody's it becomes."""
        with self._errors():
            return self._db.execute("SELECT 1 FROM memo WHERE key = ?", [key]).fetchone() is not None

    def recall(self, key: str) -> bytes | None:
        with self._errors():
            row = self._db.execute("SELECT value, run_key FROM memo WHERE key = ?", [key]).fetchone()
        if row is None:
            return None
        if self._run_key and row[1] not in ("", self._run_key):
            with self.transaction():
                self._db.execute("UPDATE memo SET run_key = ? WHERE key = ?", [self._run_key, key])
        return bytes(row[0])

    def put_completion(self, record: CompletionRecord) -> None:
        self._put(record)

    def get_completion(self, run_key: str, request_id: str) -> CompletionRecord | None:
        found = self._get(CompletionRecord, "request_id", run_key=run_key, request_id=request_id)
        return next(iter(found), None)

    def completions(self, run_key: str) -> tuple[CompletionRecord, ...]:
        """As they came."""
        return self._get(CompletionRecord, "rowid", run_key=run_key)

    def put_score(self, record: ScoreRecord) -> None:
        if record.value is not None and not math.isfinite(record.value):
            raise ValueError("a score is a finite number, or None where the objective is undefined")
        self._put(record, run_key=self._run_key)

    def scores(self, policy: str | None = None) -> tuple[ScoreRecord, ...]:
        """Of one policy or of all, by policy, window, versions, mode and fidelity."""
        where = {} if policy is None else {"policy": policy}
        return self._get(ScoreRecord, "policy, window, versions, mode, fidelity", **where)

    def put_window(self, record: WindowRecord) -> None:
        self._put(record)

    def windows(self) -> tuple[WindowRecord, ...]:
        """By run and time."""
        return self._get(WindowRecord, "run_key, mode, start_s, end_s, id")

    def put_gate(self, record: GateRecord) -> None:
        self._put(record)

    def gates(self, run_key: str, mode: str) -> tuple[GateRecord, ...]:
        """By time, then policy and gate."""
        return self._get(GateRecord, "t, policy, gate", run_key=run_key, mode=mode)

    def put_swap(self, record: SwapRecord) -> None:
        self._put(record)

    def swaps(self, run_key: str, mode: str) -> tuple[SwapRecord, ...]:
        """By time."""
        return self._get(SwapRecord, "t", run_key=run_key, mode=mode)

    def all_swaps(self) -> tuple[SwapRecord, ...]:
        """Of every run there ever was, by run, mode and time."""
        return self._get(SwapRecord, "run_key, mode, t")

    def put_deployments(self, records: Iterable[DeploymentRecord]) -> None:
        with self.transaction():
            for record in records:
                self._put(record)

    def deployments(self, run_key: str, mode: str, name: str) -> tuple[DeploymentRecord, ...]:
        """Of one row, in order."""
        return self._get(DeploymentRecord, "step", run_key=run_key, mode=mode, name=name)

    def put_log(self, run_key: str, mode: str, name: str, blob: bytes) -> None:
        self._write("logs", ["run_key", "mode", "name", "blob"], [run_key, mode, name, blob])

    def get_log(self, run_key: str, mode: str, name: str) -> bytes | None:
        return self._blob("SELECT blob FROM logs WHERE run_key = ? AND mode = ? AND name = ?", run_key, mode, name)

    def rows_with_log(self, run_key: str) -> tuple[tuple[str, str], ...]:
        """Mode and name of every row whose event log is kept."""
        with self._errors():
            query = "SELECT mode, name FROM logs WHERE run_key = ? ORDER BY mode, name"
            return tuple(self._db.execute(query, [run_key]).fetchall())

    def _blob(self, query: str, *values: str) -> bytes | None:
        with self._errors():
            row = self._db.execute(query, values).fetchone()
        return None if row is None else bytes(row[0])

    # --- runs, and what can be done without ---

    def begin_run(self, key: str) -> None:
        """From here on everything belongs to this run, which is now the one used last."""
        with self.transaction():
            (used,) = self._db.execute("SELECT coalesce(max(used), 0) + 1 FROM runs").fetchone()
            self._put(RunRecord(key, used, False))
        self._run_key = key

    def finish_run(self) -> None:
        """The run has nothing left to do."""
        with self.transaction():
            self._db.execute("UPDATE runs SET finished = 1 WHERE key = ?", [self._run_key])

    def runs(self) -> tuple[RunRecord, ...]:
        """The one used last comes last."""
        return self._get(RunRecord, "used, key")

    def used_bytes(self) -> int:
        """Of the file, without pages that are free to be written again."""
        with self._errors():
            return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def drop_run(self, key: str) -> None:
        """Forget a run but for its swaps; the current one cannot be dropped."""
        if key == self._run_key:
            raise ValueError("the run that is under way stands on its rows")
        with self.transaction():
            for table in OF_A_RUN:
                self._db.execute(f"DELETE FROM {table} WHERE run_key = ?", [key])
            self._db.execute("DELETE FROM runs WHERE key = ?", [key])

    def drop_ownerless_scores(self) -> None:
        """Forget scores that were kept before scores had a run."""
        with self.transaction():
            self._db.execute("DELETE FROM scores WHERE run_key = ''")

    def drop_policies(self, kept: Iterable[str]) -> None:
        """Forget evolved policies that no gate or swap names, but for those `kept`."""
        with self.transaction():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS kept (id TEXT PRIMARY KEY)")
            self._db.execute("DELETE FROM kept")
            self._db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", [[id] for id in kept])
            self._db.execute(
                "DELETE FROM policies WHERE provider <> 'human' AND id NOT IN (SELECT id FROM kept) "
                "AND id NOT IN (SELECT policy FROM gates) AND id NOT IN (SELECT policy FROM swaps)"
            )

    def drop_prompts(self, most: int) -> int:
        """Forget the words of the current run's oldest prompts, at most so many; how many that were."""
        with self.transaction():
            done = self._db.execute(
                "UPDATE completions SET prompt = '[]' WHERE rowid IN (SELECT rowid FROM completions "
                "WHERE run_key = ? AND prompt <> '[]' ORDER BY rowid LIMIT ?)",
                [self._run_key, most],
            )
        return done.rowcount

    def shrink(self) -> None:
        """Give free pages back to the file system, where the file was made for it."""
        with self._errors():
            self._db.execute("PRAGMA incremental_vacuum").fetchall()


_RESTORE = "restore a copy, or move it away and start a new one"


def _mend(error: sqlite3.Error) -> str:
    said = str(error)
    if "not a database" in said:
        return f"not a SQLite file; name another one, or {_RESTORE}"
    if "malformed" in said:
        return f"damaged ({said}); {_RESTORE}"
    if "full" in said:
        return "the disk, or the space allowed for the store, is full; make room and resume the run"
    if "locked" in said or "busy" in said:
        return "another process keeps it locked; end that one or name another file"
    if "readonly" in said or "unable to open" in said:
        return f"cannot be opened for writing ({said}); check the path and its permissions"
    return f"{said}; check the file, or {_RESTORE}"
