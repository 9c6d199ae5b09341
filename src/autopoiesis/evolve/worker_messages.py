"""What a pool and its workers say to each other: MessagePack in frames, as between a policy host and its processes.

pool   → worker   Job
worker → pool     Started, then one Done for every Job
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from autopoiesis.policy.frames import Message

KEPT_CONTEXTS = 4
"""Contexts that a worker keeps; the oldest goes when another one comes. Both sides count alike."""


class Priority(Enum):
    """How a worker, and all that it starts, stands against other processes of the machine."""

    NORMAL = "normal"
    LOW = "low"
    """nice 10: about a tenth of a core that somebody else wants whole."""
    IDLE = "idle"
    """Linux's SCHED_IDLE: only what nobody else wants. A deadline by the clock may then pass before the work began."""


class Evaluator(Protocol):
    """What a worker does. Made once in each worker, by a factory without arguments."""

    def evaluate(self, job: bytes, context: bytes | None) -> bytes:
        """The job's value; an AutopoiesisError is the reason of a job that has none."""
        ...

    def close(self) -> None:
        """Called before the worker ends by itself."""
        ...


class Given(Message, frozen=True):
    key: str
    data: bytes | None
    """None for a context that the worker has."""


class Job(Message, frozen=True):
    ticket: int
    job: bytes
    context: Given | None


class Started(Message, frozen=True):
    """The evaluator stands, or why it does not."""

    refusal: str | None


class Done(Message, frozen=True):
    ticket: int
    value: bytes | None
    failure: str | None


FromWorker = Started | Done
