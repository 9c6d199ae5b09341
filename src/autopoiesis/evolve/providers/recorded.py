"""A provider that asks once: what was answered is in the store, and a resumed run reads it there."""

from __future__ import annotations

from autopoiesis.errors import ProviderError, StoreError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, Provider, redact
from autopoiesis.evolve.store import CompletionRecord, Store


class RecordedProvider:
    """Answers from the store, else from `inner`, whose answer or failure it stores under (run key, request id).

    A failure is repeated like an answer, since a run that goes on must go the way it went. Raises StoreError when the
    store holds an answer to another prompt under the same id.
    """

    def __init__(self, store: Store, inner: Provider, run_key: str) -> None:
        self._store = store
        self._inner = inner
        self._run_key = run_key

    @property
    def name(self) -> str:
        return self._inner.name

    def complete(self, request: CompletionRequest) -> Completion:
        prompt = tuple(message.as_json() for message in request.messages)
        stored = self._store.get_completion(self._run_key, request.request_id)
        if stored is None:
            stored = self._ask(request, prompt)
            self._store.put_completion(stored)
        elif stored.prompt != prompt:
            raise StoreError(
                f"completion {request.request_id!r} of run {self._run_key!r} was recorded for another prompt; "
                "continue with the options the run began with, or use another store"
            )
        if stored.text is None:
            raise ProviderError(stored.failure or "the recorded completion failed")
        return Completion(stored.text, stored.input_tokens, stored.output_tokens, stored.latency_s, stored.metered)

    def _ask(self, request: CompletionRequest, prompt: tuple[dict[str, str], ...]) -> CompletionRecord:
        key = (self._run_key, request.request_id, prompt)
        try:
            answer = self._inner.complete(request)
        except ProviderError as error:
            return CompletionRecord(*key, text=None, failure=redact(str(error)))
        return CompletionRecord(
            *key,
            text=answer.text,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            latency_s=answer.latency_s,
            metered=answer.metered,
        )
