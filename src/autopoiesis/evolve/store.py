"""One SQLite file that remembers everything a run of evolution did, and from which a killed run goes on.

A row is a pure function of its primary key, so that a resumed run which does a step again writes the same row again.
Writes are transactions of their own, or of `with store.transaction()`. The file is in WAL mode with
`synchronous=NORMAL`: a killed process loses nothing that was committed; a power cut may lose the last moments, which
a resumed run computes again, and never the file.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from autopoiesis.errors import StoreError

APPLICATION_ID = 0x4155504F
"""Marks a SQLite file as ours."""

MIGRATIONS = (
    """
    CREATE TABLE policies (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, source TEXT NOT NULL, provider TEXT NOT NULL,
        parents TEXT NOT NULL, summary TEXT NOT NULL
    );
    CREATE TABLE memo (key TEXT PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE completions (
        run_key TEXT, request_id TEXT, prompt TEXT NOT NULL, text TEXT, failure TEXT, input_tokens INTEGER,
        output_tokens INTEGER, latency_s REAL NOT NULL, metered INTEGER NOT NULL, PRIMARY KEY (run_key, request_id)
    );
    CREATE TABLE scores (
        policy TEXT, window TEXT, versions TEXT, mode TEXT, fidelity TEXT, value REAL,
        PRIMARY KEY (policy, window, versions, mode, fidelity)
    );
    CREATE TABLE gates (
        run_key TEXT, mode TEXT, t REAL, policy TEXT, gate TEXT, passed INTEGER NOT NULL, evidence TEXT NOT NULL,
        PRIMARY KEY (run_key, mode, t, policy, gate)
    );
    CREATE TABLE swaps (
        run_key TEXT, mode TEXT, t REAL, policy TEXT NOT NULL, parent TEXT, provider TEXT NOT NULL,
        evidence TEXT NOT NULL, PRIMARY KEY (run_key, mode, t)
    );
    CREATE TABLE logs (run_key TEXT, mode TEXT, name TEXT, blob BLOB NOT NULL, PRIMARY KEY (run_key, mode, name));
    """,
)
"""Statement n takes a file of schema n to schema n + 1; what has been released is never edited."""


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    id: str
    """The policy's identity."""
    name: str
    source: str
    provider: str
    """Who made it: a provider's name, or `human`."""
    parents: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """`text` is None for a completion that failed; `failure` then says why."""

    run_key: str
    request_id: str
    prompt: tuple[dict[str, str], ...]
    text: str | None
    failure: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_s: float = 0.0
    metered: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    policy: str
    window: str
    """Digest of the window's content."""
    versions: dict[str, str]
    """Of interface, tools, simulator and cost data: a score is worth something only beside equal ones."""
    mode: str
    fidelity: str
    value: float | None
    """None where the objective is undefined, as a cost without one good request."""


@dataclass(frozen=True, slots=True)
class GateRecord:
    run_key: str
    mode: str
    t: float
    policy: str
    gate: str
    passed: bool
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SwapRecord:
    run_key: str
    mode: str
    t: float
    policy: str
    parent: str | None
    """The policy that served before."""
    provider: str
    evidence: dict[str, Any]


Record = TypeVar("Record", PolicyRecord, CompletionRecord, ScoreRecord, GateRecord, SwapRecord)

_TABLES: dict[type, str] = {
    PolicyRecord: "policies",
    CompletionRecord: "completions",
    ScoreRecord: "scores",
    GateRecord: "gates",
    SwapRecord: "swaps",
}
_JSON = frozenset({"parents", "prompt", "versions", "evidence"})
_TUPLES = frozenset({"parents", "prompt"})
_FLAGS = frozenset({"passed", "metered"})


class Store:
    """An open store; a context manager. Every failure is a StoreError that names the file.

    May be used from several threads; a transaction holds the others off. Several processes may have the file open,
    one writes at a time. `max_bytes` caps the file.
    """

    def __init__(self, path: str | Path, max_bytes: int | None = None, busy_timeout_s: float = 10.0) -> None:
        self.path = str(path)
        self._lock = threading.RLock()
        self._depth = 0
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
        self._recognise()
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if max_bytes is not None:
            pages = max(1, max_bytes // self._pragma("page_size"))
            self._db.execute(f"PRAGMA max_page_count = {pages}")
        if self._pragma("user_version") < len(MIGRATIONS):
            self._migrate()

    def _recognise(self) -> None:
        """Refuse a file that is not ours, before anything is written to it."""
        version, tables = self._pragma("user_version"), self._db.execute("SELECT count(*) FROM sqlite_master")
        empty = version == 0 and tables.fetchone()[0] == 0
        if not empty and self._pragma("application_id") != APPLICATION_ID:
            raise StoreError(f"store {self.path}: a SQLite file, but no store of ours; name another file")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"store {self.path}: schema {version} was written by a newer release (this one knows "
                f"{len(MIGRATIONS)}); update autopoiesis or name another file"
            )

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

    def _put(self, record: Record) -> None:
        names = [field.name for field in fields(record)]
        values = [_encoded(name, getattr(record, name)) for name in names]
        self._write(_TABLES[type(record)], names, values)

    def _write(self, table: str, names: list[str], values: list[object]) -> None:
        marks = ", ".join("?" * len(names))
        with self.transaction():
            self._db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", values)

    def _get(self, kind: type[Record], order: str, **where: object) -> tuple[Record, ...]:
        names = [field.name for field in fields(kind)]
        query = f"SELECT {', '.join(names)} FROM {_TABLES[kind]}"
        if where:
            query += " WHERE " + " AND ".join(f"{name} = ?" for name in where)
        with self._errors():
            rows = self._db.execute(f"{query} ORDER BY {order}", list(where.values())).fetchall()
        return tuple(kind(*(_decoded(name, value) for name, value in zip(names, row, strict=True))) for row in rows)

    def put_policy(self, record: PolicyRecord) -> None:
        self._put(record)

    def get_policy(self, id: str) -> PolicyRecord | None:
        return next(iter(self._get(PolicyRecord, "id", id=id)), None)

    def policies(self) -> tuple[PolicyRecord, ...]:
        """By identity."""
        return self._get(PolicyRecord, "id")

    def remember(self, key: str, value: bytes) -> None:
        self._write("memo", ["key", "value"], [key, value])

    def recall(self, key: str) -> bytes | None:
        return self._blob("SELECT value FROM memo WHERE key = ?", key)

    def put_completion(self, record: CompletionRecord) -> None:
        self._put(record)

    def get_completion(self, run_key: str, request_id: str) -> CompletionRecord | None:
        found = self._get(CompletionRecord, "request_id", run_key=run_key, request_id=request_id)
        return next(iter(found), None)

    def completions(self, run_key: str) -> tuple[CompletionRecord, ...]:
        """By request id."""
        return self._get(CompletionRecord, "request_id", run_key=run_key)

    def put_score(self, record: ScoreRecord) -> None:
        if record.value is not None and not math.isfinite(record.value):
            raise ValueError("a score is a finite number, or None where the objective is undefined")
        self._put(record)

    def scores(self, policy: str) -> tuple[ScoreRecord, ...]:
        return self._get(ScoreRecord, "window, versions, mode, fidelity", policy=policy)

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

    def put_log(self, run_key: str, mode: str, name: str, blob: bytes) -> None:
        self._write("logs", ["run_key", "mode", "name", "blob"], [run_key, mode, name, blob])

    def get_log(self, run_key: str, mode: str, name: str) -> bytes | None:
        return self._blob("SELECT blob FROM logs WHERE run_key = ? AND mode = ? AND name = ?", run_key, mode, name)

    def _blob(self, query: str, *values: str) -> bytes | None:
        with self._errors():
            row = self._db.execute(query, values).fetchone()
        return None if row is None else bytes(row[0])


def _encoded(name: str, value: Any) -> object:
    # Canonical, because `versions` is part of a key.
    return json.dumps(value, sort_keys=True, separators=(",", ":")) if name in _JSON else value


def _decoded(name: str, value: Any) -> Any:
    if name in _JSON:
        read = json.loads(value)
        return tuple(read) if name in _TUPLES else read
    return bool(value) if name in _FLAGS else value


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
