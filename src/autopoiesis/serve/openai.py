"""What the gateway understands of the OpenAI protocol: as little of a body as it needs, and the form of errors.

A body is parsed for the fields that decide where a request goes and is otherwise passed on byte for byte. Rewrites are
these and no others:

* `model` becomes the name the replicas know, where that differs from the one asked for;
* `stream_options.include_usage` is set on streams while accounting is on; the event that answers it is taken out of
  the stream again if the client had not asked for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

JSON = b"application/json"
_NOTHING = msgspec.Raw()


class Body(msgspec.Struct):
    """The fields of a request's body that the gateway reads; the others are kept as they came."""

    model: str
    stream: bool | None = None
    messages: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    stream_options: msgspec.Raw = _NOTHING
    prompt_cache_key: str | None = None

    @property
    def text(self) -> bytes | memoryview:
        """The prompt as it stands in the body, JSON's quotes and escapes included; empty if there is none."""
        return bytes(self.messages) or bytes(self.prompt) or bytes(self.input)


class ApiError(Exception):
    """An answer in the form of OpenAI's errors. `close` where the connection cannot be used any further."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.close = close

    @property
    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def unavailable(message: str, code: str, retry_after_s: float | None = None) -> ApiError:
    return ApiError(503, message, kind="server_error", code=code, retry_after_s=retry_after_s)


def overloaded(message: str, code: str, retry_after_s: float) -> ApiError:
    return ApiError(429, message, kind="rate_limit_error", code=code, retry_after_s=retry_after_s)


_body = msgspec.json.Decoder(Body)


def read_body(content: bytes) -> Body:
    """Raises ApiError (400) for what is no JSON object or has a field of the wrong type."""
    try:
        return _body.decode(content)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"the body cannot be used: {error}", code="invalid_body") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError(400, "the body is not valid JSON", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_USAGE_WANTED = b'"stream_options":{"include_usage":true},'


def renamed(content: bytes, model: str) -> bytes:
    """The body with another `model`; its other members keep their bytes. Raises ApiError (400) as `read_body`."""
    members = _split(content)
    members["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members)


def asking_for_usage(content: bytes, body: Body) -> bytes:
    """The body of a stream that will end with its usage. Raises ApiError (400) if `stream_options` is no object."""
    if not bytes(body.stream_options) or bytes(body.stream_options) == b"null":
        if not bytes(body.stream_options):
            start = content.index(b"{") + 1
            return b"%b%b%b" % (content[:start], _USAGE_WANTED, content[start:])
        options: dict[str, msgspec.Raw] = {}
    else:
        options = _stream_options(body)
    members = _split(content)
    options["include_usage"] = msgspec.Raw(b"true")
    members["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)


def wants_usage(body: Body) -> bool:
    """Whether the client itself asked for usage at the end of its stream. Raises ApiError as `asking_for_usage`."""
    options = bytes(body.stream_options)
    return bool(options) and options != b"null" and bytes(_stream_options(body).get("include_usage", b"")) == b"true"


def _split(content: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _members.decode(content)
    except UnicodeDecodeError:  # in the name of a member that `read_body` has skipped
        raise ApiError(400, "the body is not valid JSON", code="invalid_json") from None


def _stream_options(body: Body) -> dict[str, msgspec.Raw]:
    try:
        return _members.decode(body.stream_options)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = "stream_options must be an object"
        raise ApiError(400, message, param="stream_options", code="invalid_body") from None


class Usage(NamedTuple):
    """Tokens of one request, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


# Quotes inside JSON strings are escaped, so these never match what a model has said.
USAGE = b'"prompt_tokens"'
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')


def read_usage(content: bytes) -> Usage | None:
    """The last usage in a response or an event, if it has any."""
    start = content.rfind(USAGE)
    if start < 0 or (prompt := _PROMPT.match(content, start)) is None:
        return None
    # The members of `usage` come in any order; a completion's tokens are never further away than this, and before
    # the blank line is another event.
    least = max(content.rfind(b"\n\n", 0, start), content.rfind(b"\r\n\r\n", 0, start), start - 300, 0)
    completion = _COMPLETION.search(content, start, start + 600) or _COMPLETION.search(content, least, start)
    return Usage(int(prompt[1]), int(completion[1]) if completion else 0)


class _Error(msgspec.Struct):
    """What OpenAI's clients expect below `error`; engines put the status where OpenAI has a word."""

    message: str
    type: str
    param: str | None
    code: str | int | None


def as_error(status: int, content: bytes) -> bytes:
    """An engine's answer of status 400 or more in the form of OpenAI's errors; as it is if it has that form already."""
    answer = _decoded(content)
    message: object = None
    kind: object = None
    if isinstance(answer, dict):
        error = answer.get("error")
        if _is_error(error):
            return content
        inner = error if isinstance(error, dict) else answer
        message = inner.get("message") or inner.get("detail") or (error if isinstance(error, str) else None)
        kind = inner.get("type")
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode() if message else f"the engine answered with status {status}"
    if not isinstance(kind, str):
        kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return ApiError(status, message, kind=kind, code="engine_error").body


def _decoded(content: bytes) -> object:
    """None for what a strict reader of JSON would not take."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_error(error: object) -> bool:
    try:
        msgspec.convert(error, _Error)
    except msgspec.ValidationError:
        return False
    return True
