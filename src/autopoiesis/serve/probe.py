"""What a replica is asked in order to know that it lives, and that it can do what it is there for."""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeVar

import msgspec

from autopoiesis.errors import ReplicaError
from autopoiesis.serve.http_request import Answer, Endpoint, get, post

ANSWER_BYTES_MAX = 1 << 20
COMPLETION_PATIENCE = 10.0
"""A token may have to wait behind the prompts of others: so many times what another probe may take."""

_PROMPT = "Hello"
_NO_COMPLETIONS = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""What an engine answers that knows chats only."""


Said = TypeVar("Said")


class _Model(msgspec.Struct):
    id: str
    aliases: list[str] | None = None
    """Further names, of llama.cpp."""


class _Models(msgspec.Struct):
    data: list[_Model]


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]


_models = msgspec.json.Decoder(_Models)
_completion = msgspec.json.Decoder(_Completion)


async def check_alive(endpoint: Endpoint, engine: str, timeout_s: float) -> None:
    """Whether the server answers that it is well. Raises ReplicaError that says what is wrong."""
    path = "/v1/models" if engine == "openai" else "/health"
    answer = await get(endpoint, path, timeout_s=timeout_s, bytes_max=ANSWER_BYTES_MAX)
    if answer.status == HTTPStatus.NOT_FOUND and engine == "auto":
        path = "/v1/models"
        answer = await get(endpoint, path, timeout_s=timeout_s, bytes_max=ANSWER_BYTES_MAX)
    _expect_ok(answer, f"GET {path}")


async def check_model(endpoint: Endpoint, served_as: str, timeout_s: float) -> None:
    """Whether it serves a model of that name. Raises ReplicaError."""
    answer = await get(endpoint, "/v1/models", timeout_s=timeout_s, bytes_max=ANSWER_BYTES_MAX)
    _expect_ok(answer, "GET /v1/models")
    models = _decoded(_models, answer, "GET /v1/models").data
    if not any(served_as == model.id or served_as in (model.aliases or ()) for model in models):
        raise ReplicaError(
            f"it does not serve {served_as!r}; set `served_as` of the model to a name that its /v1/models lists, "
            "or mend the replica's `url`"
        )


async def check_completion(endpoint: Endpoint, served_as: str, timeout_s: float) -> None:
    """Whether it completes one token, of a prompt or else of a chat. Raises ReplicaError."""
    asked: dict[str, object] = {"model": served_as, "max_tokens": 1, "temperature": 0}
    paths: dict[str, dict[str, object]] = {
        "/v1/completions": asked | {"prompt": _PROMPT},
        "/v1/chat/completions": asked | {"messages": [{"role": "user", "content": _PROMPT}]},
    }
    for path, body in paths.items():
        answer = await post(
            endpoint,
            path,
            msgspec.json.encode(body),
            timeout_s=timeout_s * COMPLETION_PATIENCE,
            bytes_max=ANSWER_BYTES_MAX,
        )
        if answer.status not in _NO_COMPLETIONS:
            break
    if answer.status in _NO_COMPLETIONS:
        raise ReplicaError("it completes neither prompts nor chats; if it need not, set `probe_completion: false`")
    _expect_ok(answer, f"POST {path}")
    if not _decoded(_completion, answer, f"POST {path}").choices:
        raise ReplicaError(f"POST {path} answers without a choice")


def _expect_ok(answer: Answer, asked: str) -> None:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ReplicaError(f"{asked} answers {answer.status}; name the variable that holds its key: `api_key_env`")
    if answer.status != HTTPStatus.OK:
        raise ReplicaError(f"{asked} answers {answer.status}")


def _decoded(decoder: msgspec.json.Decoder[Said], answer: Answer, asked: str) -> Said:
    try:
        return decoder.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ReplicaError(f"{asked} answers what no OpenAI-compatible server does") from None
