"""What a request tells the stub engine, and what the engine's answers tell the load.

Gateways may parse bodies and drop what they do not know, so both travel in the text of messages: a ticket with the
request's number and how long the engine shall take, a stamp with the number and two times of the machine's monotonic
clock.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DIGITS = 10
"""Of a request's number, so that all requests have one length."""
_NUMBERS = re.compile(rf"\[(\d{{{DIGITS}}}) (\d+) (\d+)\]")


class Ticket(NamedTuple):
    """What the engine shall do."""

    number: int
    """Of the request."""
    first_ms: int
    """Until the answer, or its first token."""
    each_ms: int
    """Between two tokens of a stream."""

    def __str__(self) -> str:
        return f"[{self.number:0{DIGITS}} {self.first_ms} {self.each_ms}]"


class Stamp(NamedTuple):
    """What the engine says of an answer, or of one token of it."""

    number: int
    """Of the request that it answers."""
    arrived_ns: int
    """When the engine had read the request."""
    sent_ns: int
    """When it wrote this."""


def ticket_in(text: str) -> Ticket:
    """The ticket of a request; that of number 0, without any delay, where there is none: a probe."""
    found = _NUMBERS.search(text)
    return Ticket(*map(int, found.groups())) if found else Ticket(0, 0, 0)


def stamp_in(text: str) -> Stamp | None:
    """The stamp in the text of an answer."""
    found = _NUMBERS.fullmatch(text)
    return Stamp(*map(int, found.groups())) if found else None
