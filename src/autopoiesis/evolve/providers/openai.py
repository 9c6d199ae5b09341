"""Completions from any endpoint that speaks the OpenAI chat protocol, with nothing but the standard library.

The key is read from the environment at each call and lives in one header; it is in no message, no error, no record.
"""

from __future__ import annotations

import email.utils
import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import msgspec

from autopoiesis.errors import ProviderError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, redact, token_count

DEFAULT_BASE_URL = "https://api.openai.com/v1"
RETRIES = 2
LONGEST_WAIT_S = 30.0
MAX_ANSWER_BYTES = 8 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class OpenAIProvider:
    """POST {base_url}/chat/completions.

    `base_url` and `model` come from OPENAI_BASE_URL and OPENAI_MODEL unless given; the key from the variable
    `key_variable`, and may be absent for an endpoint of one's own. 429 and 5xx are tried twice more, as late as
    Retry-After says. `timeout_s` bounds each attempt's silence and its answer as a whole.
    """

    name = "openai"

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        timeout_s: float = 120.0,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._model = model or self._environment.get("OPENAI_MODEL", "")
        if not self._model:
            raise ProviderError("provider 'openai' needs a model; name it or set OPENAI_MODEL")
        self._url = _chat_url(base_url or self._environment.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL)
        self._key_variable = key_variable
        self._timeout_s = timeout_s
        self._clock = clock
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        if self._url.startswith(DEFAULT_BASE_URL) and not self._key():
            raise ProviderError(f"provider 'openai' needs a key; set the environment variable {key_variable}")

    def complete(self, request: CompletionRequest) -> Completion:
        body = {
            "model": self._model,
            "messages": [message.as_json() for message in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        started = self._clock()
        answer = self._ask(msgspec.json.encode(body))
        latency_s = self._clock() - started
        usage = answer.get("usage")
        given = token_count(usage, "prompt_tokens", "input_tokens")
        made = token_count(usage, "completion_tokens", "output_tokens")
        return Completion(self._redact(self._content(answer)), given, made, latency_s, metered=False)

    @property
    def _place(self) -> str:
        """The endpoint without its query, which may carry a credential."""
        parts = urllib.parse.urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def _key(self) -> str:
        key = self._environment.get(self._key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ProviderError(f"{self._key_variable} holds characters no HTTP header can carry; set it again")
        return key

    def _redact(self, text: str) -> str:
        return redact(redact(text, self._environment), {"KEY": self._key()})

    def _ask(self, body: bytes) -> dict[str, Any]:
        for attempt in range(RETRIES + 1):
            try:
                return self._attempt(body)
            except urllib.error.HTTPError as error:
                with error:
                    again = error.code == 429 or error.code >= 500
                    if again and attempt < RETRIES:
                        self._sleep(_wait_s(error.headers.get("Retry-After"), attempt))
                        continue
                    said = self._redact(_error_message(error))
                raise ProviderError(
                    f"{self._place} answered HTTP {error.code}" + (f": {said}" if said else "")
                ) from None
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                said = self._redact(str(reason) or type(reason).__name__)
                raise ProviderError(f"{self._place} gave no answer: {said}; check the base URL") from None
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self._timeout_s
        answer = bytearray()
        with self._opener.open(request, timeout=self._timeout_s) as response:
            while chunk := response.read1(1 << 16):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ProviderError(f"{self._place} answered more than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no complete answer within {self._timeout_s:g} s")
        try:
            value = json.loads(answer)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ProviderError(f"{self._place} answered something else than a JSON object; is it a chat endpoint?")
        return value

    def _content(self, answer: dict[str, Any]) -> str:
        try:
            choice = answer["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ProviderError(f"{self._place} answered without 'choices[0].message.content'") from None
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not content.strip():
            reason = self._redact(str(choice.get("finish_reason")))[:40]
            raise ProviderError(f"{self._place} answered an empty completion (finish_reason {reason})")
        return content


def _chat_url(base_url: str) -> str:
    parts = urllib.parse.urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProviderError("the base URL must start with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ProviderError("the base URL must not carry credentials; put the key into the environment")
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/chat/completions", parts.query, "")
    )


def _error_message(error: urllib.error.HTTPError) -> str:
    """What the endpoint says of the failure, one short line; empty if it says nothing readable."""
    try:
        value = json.loads(error.read(1 << 16))
        said = value["error"]["message"] if isinstance(value["error"], dict) else value["error"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
    return " ".join(str(said).split())[:300]


def _wait_s(retry_after: str | None, attempt: int) -> float:
    """Seconds to wait: what the endpoint asks for (a number or a date), else 1, 2, 4…; never above half a minute."""
    wait_s = float(2**attempt)
    if retry_after is not None:
        try:
            wait_s = float(retry_after)
        except ValueError:
            with suppress(ValueError):
                wait_s = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    return LONGEST_WAIT_S if math.isnan(wait_s) else min(max(wait_s, 0.0), LONGEST_WAIT_S)
