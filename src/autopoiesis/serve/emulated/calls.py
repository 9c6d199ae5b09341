"""The bodies of calls: what of OpenAI's protocol the engine reads, and what it refuses.

Fields that are not named here (sampling, penalties, `stop`, tools' choice, response formats, `logprobs`) have no
meaning for words that are drawn, and are ignored.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from autopoiesis.serve.emulated.prompt import Prompt, chat_prompt, ids_prompt, text_prompt
from autopoiesis.serve.emulated.refusal import Refusal
from autopoiesis.serve.emulated.words import EMBEDDING_NUMBERS, answer_tokens

COMPLETION_TOKENS = 16
"""What OpenAI and vLLM give a completion that asks for no number."""
INPUTS = 2048
"""Most inputs of one call for embeddings, as OpenAI has it."""
Body = TypeVar("Body", bound=msgspec.Struct)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Part(msgspec.Struct):
    type: str
    text: str = ""


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None


class Common(msgspec.Struct, kw_only=True):
    """What both kinds of completions have."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = 1
    priority: int = 0


class ChatBody(Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw | None = None


class CompletionBody(Common, kw_only=True):
    prompt: str | list[Any]
    echo: bool | None = False
    best_of: int | None = 1


class EmbeddingBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: str | list[Any]
    encoding_format: str | None = "float"
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A call for one answer."""

    prompt: Prompt
    output_tokens: int
    chat: bool
    stream: bool
    usage: bool
    """Whether the stream ends with the usage …"""
    running_usage: bool
    """… and whether every event has it."""
    reason: str
    """Why the answer will end where it does: `length` or `stop`."""
    priority: int


@dataclass(frozen=True, slots=True)
class Embedding:
    """A call for the vectors of some inputs."""

    prompts: tuple[Prompt, ...]
    numbers: int
    base64: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """From bodies to calls; every method raises Refusal."""

    names: tuple[str, ...]
    """Of the model, the first being the one it goes by."""
    context: int
    """Tokens of prompt and answer together."""
    seed: int
    mean_answer: float
    """Tokens of an answer that nobody limits."""
    priorities: bool
    """Whether a call's `priority` counts."""

    def chat(self, body: bytes) -> Completion:
        read = _decode(body, ChatBody)
        self._check_model(read.model)
        if not read.messages:
            raise Refusal(400, "'messages' must have a message at least", "messages")
        messages = [(message.role, _content(message)) for message in read.messages]
        if read.tools is not None:
            messages.insert(0, ("tools", bytes(read.tools)))
        wanted = read.max_tokens if read.max_completion_tokens is None else read.max_completion_tokens
        return self._completion(read, chat_prompt(messages, self.seed), wanted, chat=True)

    def completion(self, body: bytes) -> Completion:
        read = _decode(body, CompletionBody)
        self._check_model(read.model)
        prompts = self._prompts(read.prompt, "prompt")
        if len(prompts) != 1:
            raise Refusal(400, "'prompt' must be one prompt: send a call for each", "prompt")
        if read.echo:
            raise Refusal(400, "'echo' is not emulated: leave it out", "echo")
        if read.best_of not in (None, 1):
            raise Refusal(400, "'best_of' must be 1: words are drawn, none are better", "best_of")
        wanted = COMPLETION_TOKENS if read.max_tokens is None else read.max_tokens
        return self._completion(read, prompts[0], wanted, chat=False)

    def embedding(self, body: bytes) -> Embedding:
        read = _decode(body, EmbeddingBody)
        self._check_model(read.model)
        prompts = self._prompts(read.input, "input")
        if len(prompts) > INPUTS:
            raise Refusal(400, f"'input' may have {INPUTS} inputs at most", "input")
        for prompt in prompts:
            self._check_length(prompt.tokens, 1)
        numbers = EMBEDDING_NUMBERS if read.dimensions is None else read.dimensions
        if not 1 <= numbers <= 4096:
            raise Refusal(400, "'dimensions' must be from 1 to 4096", "dimensions")
        if read.encoding_format not in (None, "float", "base64"):
            raise Refusal(400, "'encoding_format' must be float or base64", "encoding_format")
        return Embedding(prompts, numbers, read.encoding_format == "base64")

    def _completion(self, read: Common, prompt: Prompt, wanted: int | None, *, chat: bool) -> Completion:
        if read.n not in (None, 1):
            raise Refusal(400, "'n' must be 1: send a call for each answer", "n")
        if wanted is not None and wanted < 1:
            raise Refusal(400, "'max_tokens' must be at least 1", "max_tokens")
        self._check_length(prompt.tokens, 1 if wanted is None else wanted)
        room = self.context - prompt.tokens
        drawn = answer_tokens(prompt.digest, self.mean_answer) if wanted is None else room + 1
        options = read.stream_options or StreamOptions()
        return Completion(
            prompt,
            min(drawn, room) if wanted is None else wanted,
            chat,
            bool(read.stream),
            bool(options.include_usage),
            bool(options.continuous_usage_stats),
            "stop" if drawn <= room else "length",
            read.priority if self.priorities else 0,
        )

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in self.names:
            raise Refusal(404, f"The model does not exist; this engine serves {', '.join(self.names)}", "model")

    def _check_length(self, prompt: int, answer: int) -> None:
        if prompt + answer > self.context:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{prompt + answer} tokens ({prompt} in the messages, {answer} in the completion). Please reduce the "
                "length of the messages or completion.",
                "max_tokens" if prompt < self.context else None,
            )

    def _prompts(self, given: str | list[Any], name: str) -> tuple[Prompt, ...]:
        """One text or list of token ids, or several."""
        several = isinstance(given, list) and given and not isinstance(given[0], int)
        prompts = tuple(self._prompt(one, name) for one in (given if several else [given]))
        if min(prompt.tokens for prompt in prompts) < 1:
            raise Refusal(400, f"{name!r} must not be empty", name)
        return prompts

    def _prompt(self, given: Any, name: str) -> Prompt:
        if isinstance(given, str):
            return text_prompt(_bytes(given), self.seed)
        try:
            # an array of unsigned 32 bits takes whole numbers only, and only those
            return ids_prompt(array("I", given), self.seed)
        except (TypeError, OverflowError):
            raise Refusal(400, f"{name!r} must be text or token ids, or a list of these", name) from None


def _decode(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body is not as expected: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Refusal(400, "the body is not valid JSON") from None


def _content(message: Message) -> bytes:
    if message.content is None:
        return b""
    if isinstance(message.content, str):
        return _bytes(message.content)
    for part in message.content:
        if part.type != "text":
            raise Refusal(400, "content may have parts of type 'text' only: this is no multimodal model", "messages")
    return _bytes("".join(part.text for part in message.content))


def _bytes(text: str) -> bytes:
    # a lone surrogate can be written in JSON
    return text.encode(errors="surrogatepass")
