"""A provider that asks once: what was answered is in the store, and a resumed run reads it there."""

from __future__ import annotations

from dataclasses import replace

from autopoiesis.errors import ProviderError, StoreError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, Provider, redact
from autopoiesis.evolve.providers.transcript import Entry, Recording
from autopoiesis.evolve.store import CompletionRecord, Store


class RecordedProvider:
    """Answers from the store, else from the recording, else from `inner`; then both have it, under the request's id.

    A failure is repeated like an answer, since a run that goes on must go the way it went. All is redacted before it
    is kept or handed on. Raises StoreError when store or recording hold an answer to another prompt under the id.
    """

    def __init__(self, store: Store, inner: Provider, run_key: str, recording: Recording | None = None) -> None:
        self._store = store
        self._inner = inner
        self._run_key = run_key
        self._recording = recording

    @property
    def name(self) -> str:
        return self._inner.name

    def complete(self, request: CompletionRequest) -> Completion:
        digest = request.digest()
        record = self._store.get_completion(self._run_key, request.request_id)
        if record is None:
            record = self._recorded(request, digest) or self._ask(request, digest)
            self._store.put_completion(record)
        elif record.digest != digest:
            raise StoreError(
                f"completion {request.request_id!r} of run {self._run_key!r} was recorded for another prompt; "
                "continue with the options the run began with, or use another store"
            )
        if self._recording is not None:
            self._recording.put(entry_of(record))
        if record.text is None:
            raise ProviderError(record.failure or "the recorded completion failed")
        return Completion(record.text, record.input_tokens, record.output_tokens, record.latency_s, record.metered)

    def _recorded(self, request: CompletionRequest, digest: str) -> CompletionRecord | None:
        entry = None if self._recording is None else self._recording.transcript.get(request.request_id, digest)
        if entry is None:
            return None
        return replace(
            self._blank(request, digest),
            text=entry.text,
            failure=entry.failure,
            input_tokens=entry.input_tokens,
            output_tokens=entry.output_tokens,
            latency_s=entry.latency_s,
            metered=entry.metered,
        )

    def _ask(self, request: CompletionRequest, digest: str) -> CompletionRecord:
        blank = self._blank(request, digest)
        try:
            answer = self._inner.complete(request)
        except ProviderError as error:
            return replace(blank, failure=redact(str(error)))
        return replace(
            blank,
            text=redact(answer.text),
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            latency_s=answer.latency_s,
            metered=answer.metered,
        )

    def _blank(self, request: CompletionRequest, digest: str) -> CompletionRecord:
        prompt = tuple({**message.as_json(), "content": redact(message.content)} for message in request.messages)
        return CompletionRecord(self._run_key, request.request_id, prompt, text=None, digest=digest)


def entry_of(record: CompletionRecord) -> Entry:
    """A completion of the store as a recording has it."""
    return Entry(
        record.request_id,
        record.digest,
        record.text,
        record.failure,
        record.input_tokens,
        record.output_tokens,
        record.latency_s,
        record.metered,
    )
