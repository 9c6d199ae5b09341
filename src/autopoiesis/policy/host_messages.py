"""What the policy host and its processes say to each other: MessagePack in frames, typed at both ends.

    host      → template   OpenChild with one end of a socket pair | Kill
    template  → host       Ready | Opened | Killed | Refused
    host      → child      Load, then Check | Trigger | Plan | Adopt
    child     → host       Loaded, then Checked | Triggered | Planned | Adopted | Failed

A child runs code nobody trusts, so what comes from it is decoded into these types and nothing else; no message can
carry code. Every answer echoes the ticket of its question, a number the child cannot foresee.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from autopoiesis.policy.frames import Message, plain
from autopoiesis.policy.interface import MEMORY_BYTES, Decision, Observation
from autopoiesis.policy.limits import Limits, Wall
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.refusal import Refusal


class Ready(Message, frozen=True):
    """The template has imported everything."""


class OpenChild(Message, frozen=True):
    """Fork a child that serves the socket sent along."""


class Opened(Message, frozen=True):
    pid: int


class Kill(Message, frozen=True):
    """Kill a child, if it still runs, and reap it."""

    pid: int


class Killed(Message, frozen=True):
    status: int
    """Exit code, or minus the signal that ended it before it was told to go."""


class Refused(Message, frozen=True):
    """The template cannot start, or cannot fork."""

    reason: str


class Load(Message, frozen=True):
    source: str
    limits: Limits
    line_budget: int


class Loaded(Message, frozen=True):
    wall: Wall


class Check(Message, frozen=True):
    """Parse the source and say what is refused in it; nothing of it runs."""

    ticket: int


class Trigger(Message, frozen=True):
    ticket: int
    observation: Observation
    belief: bytes


class Plan(Message, frozen=True):
    ticket: int
    observation: Observation
    belief: bytes


class Adopt(Message, frozen=True):
    ticket: int
    memory: dict[str, Any]


class Checked(Message, frozen=True):
    ticket: int
    value: tuple[Refusal, ...]
    charge: Charge


class Triggered(Message, frozen=True):
    ticket: int
    value: bool
    charge: Charge


class Planned(Message, frozen=True):
    ticket: int
    value: Decision
    charge: Charge


class Adopted(Message, frozen=True):
    ticket: int
    value: dict[str, Any]
    charge: Charge


class Failed(Message, frozen=True):
    ticket: int
    reason: str
    charge: Charge


Call = Check | Trigger | Plan | Adopt
CallAnswer = Checked | Triggered | Planned | Adopted | Failed


def plain_memory(memory: Any) -> dict[str, Any]:
    """A memory as JSON gives it back (tuples become lists). Raises ValueError where it is not JSON or too large."""
    if not isinstance(memory, dict) or any(not isinstance(key, str) for key in memory):
        raise ValueError(f"memory must be a dict with str keys, got {type(memory).__name__}")
    try:
        text = json.dumps(memory, ensure_ascii=False, allow_nan=False, default=plain)
        size = len(text.encode())
    except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise ValueError(f"memory must be JSON without NaN or infinities: {error}") from error
    if size > MEMORY_BYTES:
        raise ValueError(f"memory is {size} bytes of JSON, more than {MEMORY_BYTES}; keep less")
    memory_again: dict[str, Any] = json.loads(text)
    return memory_again


def plain_decision(decision: Decision) -> Decision:
    """The same with its memory made plain. Raises ValueError as `plain_memory` does."""
    return decision if decision.memory is None else replace(decision, memory=plain_memory(decision.memory))
