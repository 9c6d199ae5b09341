"""One request of a load and what became of it."""

from __future__ import annotations

from asyncio import TimerHandle

from autopoiesis.bench.load.answer import Answer

CONNECT, RESET, TIMEOUT, ERROR_EVENT, MALFORMED, CUT = (
    "connect", "reset", "timeout", "error event", "malformed", "cut",
)  # fmt: skip
"""Kinds of faults beside `status N`: no connection, one that broke before the answer was there, no whole answer in
time, an error in the stream, an answer that is none, and a load that was ended first."""


class Exchange:
    """Times are of `time.monotonic`."""

    __slots__ = ("answer", "due_s", "end_s", "fault", "row", "sent_s", "timer")

    def __init__(self, row: int, due_s: float) -> None:
        self.row = row
        self.due_s = due_s
        """When it should have been sent."""
        self.sent_s = 0.0
        self.end_s = 0.0
        """When the whole answer, or the fault, was there; 0 before."""
        self.fault = ""
        self.answer = Answer()
        self.timer: TimerHandle | None = None
