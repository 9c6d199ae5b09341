"""Server-sent events on their way through: only whole ones are passed on, so that a stream can always be ended well."""

from __future__ import annotations

import msgspec

from autopoiesis.serve.openai import USAGE, ApiError, Usage, read_usage

DONE = b"data: [DONE]\n\n"
EVENT_BYTES = 1024 * 1024
"""Longest event."""
_ENDS = (b"\n\n", b"\r\n\r\n")


class EventTooLong(Exception):
    """A stream of bytes in which no event ends."""


class _Choices(msgspec.Struct):
    choices: list[msgspec.Raw] = []


_choices = msgspec.json.Decoder(_Choices)


class Events:
    """The events of one stream."""

    __slots__ = ("_hide_usage", "_last", "_part", "count", "usage")

    def __init__(self, *, hide_usage: bool) -> None:
        self._hide_usage = hide_usage
        """Whether the event that has nothing but usage is taken out: the client did not ask for it."""
        self._part = self._last = b""
        self.usage: Usage | None = None
        self.count = 0
        """Pieces passed on: with most engines, events."""

    def whole(self, data: bytes) -> bytes:
        """The events that end with this data. Raises EventTooLong."""
        if self._part:
            data = self._part + data
            self._part = b""
        if not data.endswith(_ENDS):
            end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
            end = 0 if end < 4 else end
            self._part = data[end:]
            if len(self._part) > EVENT_BYTES:
                raise EventTooLong
            data = data[:end]
        if USAGE in data:
            self.usage = read_usage(data) or self.usage
            if self._hide_usage:
                data = _without_usage(data)
        self.count += 1
        self._last = data
        return data

    @property
    def done(self) -> bool:
        """Whether the stream has said that it is over."""
        return (self._part or self._last).rstrip().endswith(b"[DONE]")

    def rest(self) -> bytes:
        """What is left at the end: an engine may leave the last blank line out."""
        self._part = self._part.rstrip(b"\r\n")
        return self.whole(b"\n\n") if self._part else b""


def error_event(error: ApiError) -> bytes:
    """The end of a stream that cannot go on."""
    return b"data: %b\n\n%b" % (error.body, DONE)


def _without_usage(data: bytes) -> bytes:
    """The events that have choices."""
    kept = []
    for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        if event and not (USAGE in event and _is_usage_alone(event)):
            kept.append(event + b"\n\n")
    return b"".join(kept)


def _is_usage_alone(event: bytes) -> bool:
    try:
        return not _choices.decode(event.removeprefix(b"data:").strip()).choices
    except msgspec.MsgspecError:
        return False
