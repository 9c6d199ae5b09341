"""Answers on their way to a client: whole, as a stream of events, or as vectors.

A token of a stream costs two concatenations and a write: all words are equally long, so what stands around them in an
event, and the size of its chunk, are made once for each stream.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from autopoiesis.serve.emulated.calls import Completion, Embedding
from autopoiesis.serve.emulated.connection import Connection
from autopoiesis.serve.emulated.refusal import Refusal
from autopoiesis.serve.emulated.sequence import Sequence
from autopoiesis.serve.emulated.words import TOKEN_BYTES, Words, embedding, text

Abort = Callable[[Iterable[Sequence]], None]
"""Takes sequences off the engine."""
SLOT = "\0"
"""Stands for the text in the pattern of an event; JSON has it in no other place."""
END = b"data: [DONE]\n\n"


class Answer(Protocol):
    """What becomes of one or several sequences."""

    sequences: list[Sequence]

    def advance(self, sequence: Sequence) -> str | None:
        """A token more; the last one if the sequence has ended, and then why."""

    def give_up(self) -> None:
        """The engine has dropped the sequences."""

    def cut(self) -> None:
        """The engine dies."""


class _Pending:
    """An answer whose client may go away before it is ready."""

    def __init__(self, connection: Connection, sequences: list[Sequence], abort: Abort) -> None:
        self.sequences = sequences
        self._connection = connection
        self._abort = abort
        connection.answering = self

    def lost(self) -> None:
        self._abort(self.sequences)

    def resumed(self) -> None:
        pass

    def cut(self) -> None:
        self._connection.abort()


class _Text(_Pending):
    """An answer in words."""

    def __init__(self, call: Completion, connection: Connection, abort: Abort, id: str, model: str, at: int) -> None:
        super().__init__(connection, [call.prompt.sequence(call.output_tokens, call.priority)], abort)
        self._call = call
        kind = "chat.completion" if call.chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if call.chat else 'cmpl'}-{id}",
            "object": kind,
            "created": at,
            "model": model,
        }

    def _usage(self) -> dict[str, Any]:
        (sequence,) = self.sequences
        return {
            "prompt_tokens": sequence.prompt_tokens,
            "total_tokens": sequence.tokens,
            "completion_tokens": sequence.generated,
            "prompt_tokens_details": {"cached_tokens": sequence.cached_tokens},
        }


class WholeAnswer(_Text):
    """Sent when the last token is out."""

    def advance(self, sequence: Sequence) -> str | None:
        if not sequence.ended:
            return None
        self._respond(self._call.reason)
        return self._call.reason

    def give_up(self) -> None:
        self._respond("abort")

    def _respond(self, reason: str) -> None:
        (sequence,) = self.sequences
        words = text(self._call.prompt.digest, sequence.generated).decode()
        said = {"message": {"role": "assistant", "content": words}} if self._call.chat else {"text": words}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        self._connection.respond(200, msgspec.json.encode({**self._head, "choices": [choice], "usage": self._usage()}))


class StreamedAnswer(_Text):
    """Sent token by token. What a client does not read in time is sent as one event once it reads again."""

    def __init__(self, call: Completion, connection: Connection, abort: Abort, id: str, model: str, at: int) -> None:
        super().__init__(call, connection, abort, id, model, at)
        if call.chat:
            self._head["object"] = "chat.completion.chunk"
        self._words = Words(call.prompt.digest)
        self._kept = b""
        before, after = self._event(SLOT).split(msgspec.json.encode(SLOT)[1:-1])
        size = len(before) + TOKEN_BYTES + len(after)
        self._chunked = connection.begin_stream()
        self._before = (b"%x\r\n" % size if self._chunked else b"") + before
        self._after = after + (b"\r\n" if self._chunked else b"")

    def advance(self, sequence: Sequence) -> str | None:
        word = self._words.draw()
        if sequence.generated == 1 and self._call.chat:
            self._connection.write(self._frame(self._event("", role=True)))
        if sequence.ended:
            self._finish(self._kept + word, self._call.reason)
            return self._call.reason
        if self._connection.blocked:
            self._kept += word
        elif self._call.running_usage:
            self._connection.write(self._frame(self._event(word.decode())))
        else:
            self._connection.write(self._before + word + self._after)
        return None

    def resumed(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, b""
            self._connection.write(self._frame(self._event(kept.decode())))

    def give_up(self) -> None:
        self._finish(self._kept, "abort")

    def _finish(self, words: bytes, reason: str) -> None:
        last = self._frame(self._event(words.decode(), reason))
        if self._call.usage:
            last += self._frame(_data({**self._head, "choices": [], "usage": self._usage()}))
        self._connection.end_stream(last + self._frame(END) + (b"0\r\n\r\n" if self._chunked else b""))

    def _event(self, words: str, reason: str | None = None, *, role: bool = False) -> bytes:
        said: dict[str, Any] = {"text": words}
        if self._call.chat:
            said = {"delta": {"role": "assistant", "content": words} if role else {"content": words}}
        event: dict[str, Any] = {
            **self._head,
            "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": reason}],
        }
        if self._call.running_usage:
            event["usage"] = self._usage()
        return _data(event)

    def _frame(self, event: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event


class Vectors(_Pending):
    """The vectors of all inputs, sent when the last of them has been computed."""

    def __init__(self, call: Embedding, connection: Connection, abort: Abort, id: str, model: str) -> None:
        super().__init__(connection, [prompt.sequence(1) for prompt in call.prompts], abort)
        self._call = call
        self._id, self._model = id, model
        self._left = len(self.sequences)

    def advance(self, sequence: Sequence) -> str | None:
        self._left -= 1
        if not self._left:
            self._respond()
        return "stop"

    def give_up(self) -> None:
        refusal = Refusal(503, "the engine goes to sleep and has dropped what it was asked")
        self._connection.respond(refusal.status, refusal.body)

    def _respond(self) -> None:
        tokens = sum(sequence.prompt_tokens for sequence in self.sequences)
        data = [
            {"index": i, "object": "embedding", "embedding": self._vector(prompt.digest)}
            for i, prompt in enumerate(self._call.prompts)
        ]
        body = {
            "id": f"embd-{self._id}",
            "object": "list",
            "model": self._model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        self._connection.respond(200, msgspec.json.encode(body))

    def _vector(self, digest: int) -> list[float] | str:
        numbers = embedding(digest, self._call.numbers)
        if not self._call.base64:
            return numbers
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
