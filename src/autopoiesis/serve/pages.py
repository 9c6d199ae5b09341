"""What the gateway answers by itself: whether it is ready, and which models there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from autopoiesis.serve.http import reply
from autopoiesis.serve.openai import ApiError
from autopoiesis.serve.request import Request
from autopoiesis.serve.served import Served

APIS = frozenset((b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"))
"""What goes to replicas."""
MODELS = b"/v1/models"
PAGES = frozenset((b"/health", b"/ready", b"/metrics", MODELS))


def ready_page(models: Iterable[Served], *, stopping: bool) -> bytes:
    """Ready if every model has a replica that could take a request, and the gateway is not about to end."""
    missing = [served.name for served in models if not served.able]
    if stopping or missing:
        state = {"status": "stopping" if stopping else "not ready", "models_without_replica": missing}
        return reply(503, msgspec.json.encode(state))
    return reply(200, b'{"status":"ready"}')


def models_page(allowed: Mapping[str, Served], name: str) -> bytes:
    """The list of models under all their names, or one of them. Raises ApiError (404)."""
    cards = {
        alias: {"id": alias, "object": "model", "created": 0, "owned_by": "autopoiesis", "root": served.name}
        for alias, served in allowed.items()
    }
    if not name:
        return reply(200, msgspec.json.encode({"object": "list", "data": list(cards.values())}))
    if name not in cards:
        raise ApiError(404, "the model does not exist; GET /v1/models lists those that do", code="model_not_found")
    return reply(200, msgspec.json.encode(cards[name]))


def no_such(request: Request) -> ApiError:
    """What is said of a path or a method that there is none of."""
    if request.path in APIS | PAGES:
        return ApiError(405, "the method is not allowed here", code="method_not_allowed", close=True)
    message = "there is no such path; there are /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models"
    return ApiError(404, message, code="not_found", close=True)
