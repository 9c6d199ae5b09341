"""Who may use which model now, and what each key has used."""

from __future__ import annotations

from collections.abc import Mapping

from autopoiesis.serve.board import Board
from autopoiesis.serve.keys import Key, KeyRing
from autopoiesis.serve.metrics import Metrics
from autopoiesis.serve.openai import ApiError, Usage, overloaded
from autopoiesis.serve.served import Served


class Admission:
    """The keys and the models, with what is counted of keys over all workers."""

    def __init__(
        self, keys: KeyRing, models: Mapping[str, Served], board: Board, metrics: Metrics, retry_after_s: float
    ) -> None:
        self._keys = keys
        self._models = models
        """By every name that clients may use."""
        self._board = board
        self._metrics = metrics
        self._retry_after_s = retry_after_s

    def key(self, authorization: bytes | None) -> Key:
        """Whose request it is. Raises ApiError (401)."""
        key = self._keys.find(authorization)
        if key is None:
            message = "the API key is missing or unknown; send `Authorization: Bearer KEY`"
            raise ApiError(401, message, kind="authentication_error", code="invalid_api_key", close=True)
        return key

    def model(self, name: str, key: Key) -> Served:
        """The model of a name. Raises ApiError: 404 if there is none, 403 if the key may not use it."""
        served = self._models.get(name)
        if served is None:
            message = f"the model {name[:200]!r} does not exist; GET /v1/models lists those that do"
            raise ApiError(404, message, code="model_not_found", param="model")
        if key.models is not None and served.name not in key.models:
            message = "this API key may not use the model"
            raise ApiError(403, message, kind="permission_error", code="model_not_allowed", param="model")
        return served

    def allowed(self, key: Key) -> dict[str, Served]:
        """The models that the key may use, by every name."""
        return {
            name: served for name, served in self._models.items() if key.models is None or served.name in key.models
        }

    def check(self, key: Key, tokens: int, now: float) -> None:
        """Raises ApiError (429) where the key is over one of its limits."""
        metrics, total = self._metrics, self._board.total
        if key.concurrent is not None and total(metrics.key_in_flight + key.index) >= key.concurrent:
            message = f"the API key may have {key.concurrent} requests under way at once"
            raise overloaded(message, "concurrency_limit", self._retry_after_s)
        for bucket, column, cost, what in (
            (key.requests, metrics.key_requests, 1, "requests"),
            (key.tokens, metrics.key_tokens, tokens, "tokens"),
        ):
            if bucket is not None:
                wait_s = bucket.retry_after_s(now, total(column + key.index), cost)
                if wait_s > 0:
                    raise overloaded(f"the API key is over its {what} per minute", "rate_limit_exceeded", wait_s)

    def look(self, now: float) -> None:
        """See what all workers have let keys spend; every process does so now and then (`rate`)."""
        for key in self._keys.limited:
            for bucket, column in ((key.requests, self._metrics.key_requests), (key.tokens, self._metrics.key_tokens)):
                if bucket is not None:
                    bucket.look(now, self._board.total(column + key.index))

    def begin(self, key: Key, tokens: int) -> None:
        """A request of the key is under way, with so many prompt tokens by estimate."""
        row, metrics = self._board.mine, self._metrics
        row[metrics.key_in_flight + key.index] += 1.0
        row[metrics.key_requests + key.index] += 1.0
        row[metrics.key_tokens + key.index] += tokens

    def end(self, key: Key) -> None:
        self._board.mine[self._metrics.key_in_flight + key.index] -= 1.0

    def correct(self, key: Key, estimated: int, usage: Usage) -> None:
        """Charge what the engine counted instead of the estimate."""
        charged = usage.prompt_tokens + usage.completion_tokens - estimated
        self._board.mine[self._metrics.key_tokens + key.index] += charged
