"""The rows of the store as values, and how a field becomes a column."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar


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
    digest: str = ""
    """Of everything that was asked (`CompletionRequest.digest`); what holds a resumed run to its prompts once
    retention has dropped them."""


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


@dataclass(frozen=True, slots=True)
class WindowRecord:
    """A stretch of a run over which policies were scored."""

    run_key: str
    id: str
    """As scores name it."""
    mode: str
    start_s: float
    end_s: float
    requests: int
    """That were replayed, those waiting at its beginning included."""


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A serving plan that a row was set to."""

    run_key: str
    mode: str
    name: str
    """Of the row."""
    step: int
    """Of the row's event log that commanded it; -1 for the plan that it began with."""
    t: float
    cause: str
    """`start`, or the command: `apply` or `repair`."""
    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    key: str
    used: int
    """Runs are numbered as they begin or go on; the largest number is the run used last."""
    finished: bool


Record = TypeVar(
    "Record",
    PolicyRecord,
    CompletionRecord,
    ScoreRecord,
    GateRecord,
    SwapRecord,
    WindowRecord,
    DeploymentRecord,
    RunRecord,
)

TABLES: dict[type, str] = {
    PolicyRecord: "policies",
    CompletionRecord: "completions",
    ScoreRecord: "scores",
    GateRecord: "gates",
    SwapRecord: "swaps",
    WindowRecord: "windows",
    DeploymentRecord: "deployments",
    RunRecord: "runs",
}
_JSON = frozenset({"parents", "prompt", "versions", "evidence", "plan"})
_TUPLES = frozenset({"parents", "prompt"})
_FLAGS = frozenset({"passed", "metered", "finished"})


def encoded(name: str, value: Any) -> object:
    """The value of a record's field as its column holds it."""
    # Canonical, because `versions` is part of a key.
    return json.dumps(value, sort_keys=True, separators=(",", ":")) if name in _JSON else value


def decoded(name: str, value: Any) -> Any:
    """The inverse of `encoded`."""
    if name in _JSON:
        read = json.loads(value)
        return tuple(read) if name in _TUPLES else read
    return bool(value) if name in _FLAGS else value
