"""What a compiler and its process say to each other. Light to import: see `frames`."""

from __future__ import annotations

from autopoiesis.policy.frames import Message


class Compile(Message, frozen=True):
    """The question: a policy module that has been checked."""

    text: str


class Objects(Message, frozen=True):
    """The answer: object files for `native`, None for a function that the module does not have."""

    route: bytes | None
    priority: bytes | None


class Uncompiled(Message, frozen=True):
    """The other answer: why there are none."""

    reason: str
