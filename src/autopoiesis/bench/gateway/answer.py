"""The answer to one request as it arrives: its framing, its form, and whether it answers that request."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from autopoiesis.bench.gateway.ticket import Stamp, stamp_in


class Ending(StrEnum):
    """How a request ended for the client."""

    WHOLE = "whole"
    ERROR_EVENT = "error event"
    """A stream that had begun and could not go on: an event `{"error": …}`, `[DONE]`, and the end of the encoding."""
    REFUSED = "refused"
    """A status other than 200, with an error in OpenAI's form."""
    SHORT = "short"
    """A stream that ended as if it were whole, and was not."""
    CUT = "cut"
    """The connection ended before the answer did."""
    MALFORMED = "malformed"
    """No answer in OpenAI's form, or that to another request."""
    HUNG = "hung"
    """Nothing came any more."""
    UNREACHABLE = "unreachable"
    """No connection to the gateway."""


class Malformed(Exception):
    """What is wrong with an answer."""


class _Said(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    message: _Said | None = None
    delta: _Said | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage


class _Reason(msgspec.Struct):
    message: str
    type: str


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Reason | None = None


class _Refusal(msgspec.Struct):
    error: _Reason


_completion = msgspec.json.Decoder(_Completion)
_chunk = msgspec.json.Decoder(_Chunk)
_refusal = msgspec.json.Decoder(_Refusal)


class Answer:
    """What has been read so far of the answer to the request `number`, which asked for so many tokens."""

    __slots__ = (
        "_body", "_chunked", "_done", "_failed", "_head", "_left", "_number", "_raw", "_reason", "_stream", "_tokens",
        "delays_ns", "first", "first_ns", "keeps_open", "status",
    )  # fmt: skip

    def __init__(self, number: int, tokens: int, *, stream: bool) -> None:
        self._number = number
        self._tokens = tokens
        self._stream = stream
        self._head = b""
        self._raw = b""
        """Of the encoding, not yet taken apart."""
        self._body = b""
        """Not yet looked at."""
        self._chunked = False
        self._left = 0
        self._done = self._failed = False
        self.status = 0
        """0: not even the head has come."""
        self.keeps_open = True
        self.first: Stamp | None = None
        self.first_ns = 0
        """When its first token was read."""
        self.delays_ns: list[int] = []
        """From when the engine wrote a token to when it was read here."""
        self._reason = ""

    @property
    def begun(self) -> bool:
        """Whether a token has come."""
        return self.first is not None

    def feed(self, data: bytes, now_ns: int) -> bool:
        """Take what was read; whether the answer is over. Raises Malformed."""
        if not self.status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            data = self._head[end + 4 :]
            self._read_head(self._head[:end].lower())
        if not self._chunked:
            self._left -= len(data)
            if self._left < 0:
                raise Malformed("more came than `content-length` says")
            self._body += data
            over = self._left == 0
        else:
            over = self._unchunk(data)
        if self._stream and self.status == 200:
            self._read_events(now_ns)
        elif over and self.status == 200:
            self._read_completion(now_ns)
        if over and self.status != 200:
            self._read_refusal()
        return over

    @property
    def ending(self) -> Ending:
        """How it ended, once it is over."""
        if self.status != 200:
            return Ending.REFUSED
        if self._failed:
            return Ending.ERROR_EVENT if self._done else Ending.MALFORMED
        if self._stream and not (self._done and len(self.delays_ns) == self._tokens):
            return Ending.SHORT
        return Ending.WHOLE

    @property
    def reason(self) -> str:
        """What a refusal or an error event says, or what is missing."""
        if self.ending is Ending.SHORT:
            return f"{len(self.delays_ns)} of {self._tokens} tokens, {'and' if self._done else 'no'} [DONE]"
        return self._reason

    def _read_head(self, head: bytes) -> None:
        if head[:9] != b"http/1.1 " or not head[9:12].isdigit():
            raise Malformed("no head of HTTP/1.1")
        self.status = int(head[9:12])
        self.keeps_open = b"\r\nconnection: close" not in head
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        at = head.find(b"\r\ncontent-length:")
        if self._chunked == (at >= 0):
            raise Malformed("not one of `content-length` and `transfer-encoding: chunked`")
        if at >= 0:
            self._left = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if self._stream and self.status == 200 and b"\r\ncontent-type: text/event-stream" not in head:
            raise Malformed("a stream that is no text/event-stream")

    def _unchunk(self, data: bytes) -> bool:
        """Take the encoding off; whether its end has come."""
        raw, at, parts = self._raw + data, 0, list[bytes]()
        while (line := raw.find(b"\r\n", at)) >= 0:
            try:
                size = int(raw[at:line].split(b";", 1)[0], 16)
            except ValueError:
                raise Malformed("a chunk without its size") from None
            end = line + 2 + size
            if len(raw) < end + 2:
                break
            if raw[end : end + 2] != b"\r\n":
                raise Malformed("a chunk longer than its size")
            at = end + 2
            if size == 0:
                if at != len(raw):
                    raise Malformed("more came after the last chunk")
                self._body += b"".join(parts)
                return True
            parts.append(raw[line + 2 : end])
        self._raw = raw[at:]
        self._body += b"".join(parts)
        return False

    def _read_completion(self, now_ns: int) -> None:
        try:
            answer = _completion.decode(self._body)
        except msgspec.MsgspecError as error:
            raise Malformed(f"no completion: {error}") from None
        if len(answer.choices) != 1 or answer.choices[0].message is None:
            raise Malformed("a completion without its choice")
        self._read_stamp(answer.choices[0].message.content, now_ns)
        if answer.usage.completion_tokens != self._tokens:
            raise Malformed("the usage of another completion")

    def _read_events(self, now_ns: int) -> None:
        *events, self._body = self._body.split(b"\n\n")
        for event in events:
            if self._done or not event.startswith(b"data: "):
                raise Malformed("an event after the last one" if self._done else "a line that is no data")
            if event == b"data: [DONE]":
                self._done = True
                continue
            if self._failed:
                raise Malformed("an event between the error and [DONE]")
            try:
                chunk = _chunk.decode(event[6:])
            except msgspec.MsgspecError as error:
                raise Malformed(f"no chunk: {error}") from None
            if chunk.error is not None:
                self._failed, self._reason = True, chunk.error.message
            elif len(chunk.choices) != 1 or chunk.choices[0].delta is None:
                raise Malformed("a chunk without its choice")
            elif chunk.choices[0].delta.content:
                self._read_stamp(chunk.choices[0].delta.content, now_ns)

    def _read_stamp(self, text: str, now_ns: int) -> None:
        stamp = stamp_in(text)
        if stamp is None or stamp.number != self._number:
            raise Malformed("the answer to another request")
        if self.first is None:
            self.first, self.first_ns = stamp, now_ns
        self.delays_ns.append(now_ns - stamp.sent_ns)

    def _read_refusal(self) -> None:
        try:
            self._reason = f"{self.status}: {_refusal.decode(self._body).error.message}"
        except msgspec.MsgspecError:
            raise Malformed(f"status {self.status} without an error in OpenAI's form") from None
