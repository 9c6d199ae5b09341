"""A streamed answer as it comes in: which tokens there are and when each was read."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

from autopoiesis.cost.telemetry import TOKENS_MAX

LINE_BYTES = 4 << 20
"""A longer line is no event."""
TOKENS_AT_ONCE = 1_000_000
"""More than that, an event does not bring; a number beyond it is not believed, nor one beyond `TOKENS_MAX` of all."""


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: _Delta | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


_DECODER = msgspec.json.Decoder(_Event)


class Answer:
    """What has come of one answer. Times are of the caller's clock."""

    __slots__ = ("_rest", "cached_tokens", "done", "prompt_tokens", "token_s")

    def __init__(self) -> None:
        self.token_s = array("d")
        """When each token was read."""
        self.prompt_tokens = 0
        """As the engine counts them, 0 until it has said so."""
        self.cached_tokens: int | None = None
        """Of these, taken from a prefix cache; None where the engine does not say."""
        self.done = False
        """Whether the stream has said that it is complete."""
        self._rest = b""

    def feed(self, data: bytes, at_s: float) -> str:
        """Take in what has been read. The kind of fault, `error event` or `malformed`; empty where there is none."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        lines = data.split(b"\n")
        if rest := lines.pop():
            self._rest = rest
            if len(rest) > LINE_BYTES:
                return "malformed"
        for line in lines:
            if line.startswith(b"data:"):
                fault = self._event(line[5:].strip(), at_s)
                if fault:
                    return fault
        return ""

    def _event(self, text: bytes, at_s: float) -> str:
        if text == b"[DONE]":
            self.done = True
            return ""
        try:
            event = _DECODER.decode(text)
        except (msgspec.DecodeError, ValueError):
            # an error may have any form, a fault in it is still one
            return "error event" if text.startswith((b'{"error"', b'{"object":"error"')) else "malformed"
        if event.error is not None or event.object == "error":
            return "error event"
        before = count = len(self.token_s)
        usage = event.usage
        if usage is not None:
            self.prompt_tokens = min(max(usage.prompt_tokens, self.prompt_tokens), TOKENS_MAX)
            details = usage.prompt_tokens_details
            if details is not None and details.cached_tokens is not None:
                self.cached_tokens = min(max(details.cached_tokens, 0), self.prompt_tokens)
        if usage is not None and usage.completion_tokens:
            # the running usage where the engine gives it
            count = min(usage.completion_tokens, before + TOKENS_AT_ONCE, TOKENS_MAX)
        elif event.choices and _has_text(event.choices[0]):
            count += 1
        if count == before + 1:
            self.token_s.append(at_s)
        elif count > before:
            self.token_s.extend([at_s] * (count - before))
        return ""


def _has_text(choice: _Choice) -> bool:
    delta = choice.delta
    return bool(choice.text or (delta is not None and (delta.content or delta.reasoning_content or delta.reasoning)))
