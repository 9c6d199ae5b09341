"""The tables of the store, version by version."""

from __future__ import annotations

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
    """
    CREATE TABLE runs (key TEXT PRIMARY KEY, used INTEGER NOT NULL, finished INTEGER NOT NULL);
    INSERT INTO runs SELECT run_key, 0, 0 FROM (
        SELECT run_key FROM completions UNION SELECT run_key FROM gates UNION SELECT run_key FROM logs
    );
    CREATE TABLE windows (
        run_key TEXT, id TEXT, mode TEXT NOT NULL, start_s REAL NOT NULL, end_s REAL NOT NULL,
        requests INTEGER NOT NULL, PRIMARY KEY (run_key, id)
    );
    CREATE TABLE deployments (
        run_key TEXT, mode TEXT, name TEXT, step INTEGER, t REAL NOT NULL, cause TEXT NOT NULL, plan TEXT NOT NULL,
        PRIMARY KEY (run_key, mode, name, step)
    );
    ALTER TABLE completions ADD COLUMN digest TEXT NOT NULL DEFAULT '';
    ALTER TABLE memo ADD COLUMN run_key TEXT NOT NULL DEFAULT '';
    ALTER TABLE scores ADD COLUMN run_key TEXT NOT NULL DEFAULT '';
    DELETE FROM memo WHERE key LIKE 'fitness:%';
    UPDATE memo SET run_key = substr(key, 5, 32) WHERE key LIKE 'leg:%';
    CREATE INDEX memo_of_run ON memo (run_key);
    CREATE INDEX scores_of_run ON scores (run_key);
    """,
)
"""Statement n takes a file of schema n to schema n + 1; what has been released is never edited.

The second drops remembered replays: their keys hold the release that made them, and no other one asks for them.
"""
