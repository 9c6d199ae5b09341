"""Completions in a file: what a run was answered, line by line, so that it can be repeated without a provider.

The first line says what the file is and who answered; every other line is one completion, written as it arrives. All
are JSON. A prompt is there as a digest only; answers and failures come redacted, so the file holds no key.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from autopoiesis.errors import ProviderError, StoreError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, redact

KIND = "autopoiesis completions 1"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    kind: str
    provider: str
    model: str | None


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One completion; `text` is None for one that failed, and `failure` then says why."""

    request: str
    """The request's id."""
    prompt: str
    """The request's digest."""
    text: str | None
    failure: str | None
    input_tokens: int | None
    output_tokens: int | None
    latency_s: float
    metered: bool


class Transcript:
    """A recording that has been read."""

    def __init__(self, path: str, header: Header, entries: dict[str, Entry], digest: str) -> None:
        self.path = path
        self.header = header
        self.entries = entries
        """By request id, as they came."""
        self.digest = digest
        """Of the file's content."""

    def get(self, request_id: str, digest: str) -> Entry | None:
        """The completion of a request. Raises StoreError if it was recorded for another prompt."""
        entry = self.entries.get(request_id)
        if entry is not None and entry.prompt != digest:
            raise StoreError(
                f"{self.path}: completion {request_id!r} was recorded for another prompt; give the options, the traces "
                "and the release that it was recorded with, or record into another file"
            )
        return entry


def read_transcript(path: str) -> Transcript:
    """Read a recording. A last line that a killed run left unfinished is not there; StoreError for any other fault."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    whole = content[: content.rfind(b"\n") + 1]
    first, *lines = whole.splitlines() or [b""]
    try:
        header = msgspec.json.decode(first, type=Header)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path}: no recording of completions; name a file that --record wrote") from error
    if header.kind != KIND:
        raise StoreError(f"{path}: is {header.kind!r}, and this release reads {KIND!r}; record it anew")
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 2):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{path}:{number}: not a completion ({error}); record it anew") from error
        if entries.setdefault(entry.request, entry) != entry:
            raise StoreError(f"{path}:{number}: request {entry.request!r} has two answers; record it anew")
    return Transcript(path, header, entries, hashlib.sha256(whole).hexdigest())


class Recording:
    """A transcript that grows; a context manager. What a file has already stays, so that a killed run goes on in it."""

    def __init__(self, path: str, provider: str, model: str | None = None) -> None:
        header = Header(KIND, provider, None if model is None else redact(model))
        present = Path(path)
        if present.exists() and not present.is_file():
            raise StoreError(f"{path}: not a regular file; record into another one")
        begun = present.exists() and present.stat().st_size > 0
        self.transcript = read_transcript(path) if begun else Transcript(path, header, {}, "")
        if self.transcript.header != header:
            theirs = self.transcript.header
            raise StoreError(
                f"{path}: was recorded with provider {theirs.provider!r} and model {theirs.model!r}; "
                "give the same, or record into another file"
            )
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._fault(error) from error
        if begun:
            # A killed run may have left part of a line.
            os.ftruncate(self._file, present.read_bytes().rfind(b"\n") + 1)
        else:
            self._append(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def put(self, entry: Entry) -> None:
        """Write a completion that the file lacks, at once. Raises StoreError if it has another answer."""
        known = self.transcript.get(entry.request, entry.prompt)
        if known is None:
            self._append(entry)
            self.transcript.entries[entry.request] = entry
        elif known != entry:
            raise StoreError(
                f"{self._path}: has another answer to request {entry.request!r} than the store; "
                "record into another file, or use the store that it was recorded with"
            )

    def _append(self, line: Header | Entry) -> None:
        try:
            unwritten = memoryview(msgspec.json.encode(line) + b"\n")
            while unwritten:
                unwritten = unwritten[os.write(self._file, unwritten) :]
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> StoreError:
        return StoreError(f"{self._path}: cannot be written: {error.strerror}; make room, or record into another file")


class ReplayedProvider:
    """Answers from a transcript and nowhere else: the same answers and failures, at the same charges."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    @property
    def name(self) -> str:
        return self._transcript.header.provider

    def complete(self, request: CompletionRequest) -> Completion:
        entry = self._transcript.get(request.request_id, request.digest())
        if entry is None:
            raise StoreError(
                f"{self._transcript.path}: has no completion {request.request_id!r}; give the options and traces that "
                "it was recorded with, or record a whole run with --record"
            )
        if entry.text is None:
            raise ProviderError(entry.failure or "the recorded completion failed")
        return Completion(entry.text, entry.input_tokens, entry.output_tokens, entry.latency_s, entry.metered)
