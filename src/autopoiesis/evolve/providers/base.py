"""What a provider of completions is, and what all of them share."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from autopoiesis.policy.source import PolicySource


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str

    def as_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked. A model reads the messages; structural synthesis reads parents and seed."""

    request_id: str
    """Unique within a run and equal when the run is repeated."""
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    parents: tuple[PolicySource, ...]
    """The incumbent first."""
    seed: int

    def digest(self) -> str:
        """Of everything that a provider may read, and so of everything that an answer may depend on."""
        asked = (
            [message.as_json() for message in self.messages],
            self.temperature,
            self.max_tokens,
            [parent.identity for parent in self.parents],
            self.seed,
        )
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back."""

    text: str
    input_tokens: int | None
    """None where the provider does not say."""
    output_tokens: int | None
    latency_s: float
    metered: bool
    """True when `latency_s` counts work times a constant and repeats exactly; False when a clock was read."""


class Provider(Protocol):
    """Answers one request at a time, from whatever thread asks. A failure of any kind is a ProviderError."""

    @property
    def name(self) -> str: ...

    def complete(self, request: CompletionRequest) -> Completion: ...


_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_SECRET_SHAPE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{8,}|(?i:bearer)\s+[\w~+/.=*-]{8,}")
_SECRET_STARTS = ("sk-", "pk-", "rk-")
_SHORTEST_SECRET = 8


@lru_cache(maxsize=1024)
def _is_secret(variable: str) -> bool:
    return _SECRET_NAME.search(variable) is not None


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without secrets: values of variables named like one, and what looks like an API key.

    All that enters from outside passes through here, since errors and answers are logged and stored.
    """
    variables = os.environ if environment is None else environment
    named = [variables[name] for name in variables if _is_secret(name)]
    for value in sorted({v for v in named if len(v.strip()) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(value, "[redacted]").replace(value.strip(), "[redacted]")
    # The expression takes its time over a long prompt, in which there is hardly ever what it must begin with.
    if any(start in text for start in _SECRET_STARTS) or "bearer" in text.lower():
        text = _SECRET_SHAPE.sub("[redacted]", text)
    return text


def token_count(usage: Any, *names: str) -> int | None:
    """The first of these fields of a usage object that is a count."""
    if isinstance(usage, dict):
        for name in names:
            value = usage.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
    return None
