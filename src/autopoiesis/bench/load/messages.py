"""The bytes of every request of a load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from autopoiesis.bench.load.endpoint import Address, Endpoint, Kind
from autopoiesis.bench.load.prompts import Prompts
from autopoiesis.workload import Requests


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of the engine beside text, so that answers are as long as the trace says and can be counted."""

    ignore_eos: bool = True
    """An answer goes on to its last token: a field of vLLM, SGLang and llama.cpp, not of the protocol."""
    min_tokens: bool = False
    """The same by vLLM's and SGLang's `min_tokens`."""
    running_usage: bool = True
    """The number of tokens so far with every event, where the engine knows of `continuous_usage_stats`."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the body."""


class Messages:
    """Requests as they go over the wire."""

    def __init__(
        self,
        endpoint: Endpoint,
        address: Address,
        prompts: Prompts,
        requests: Requests,
        asking: Asking,
        keep_alive: bool = True,
    ) -> None:
        self._prompts = prompts
        self._output: list[int] = requests.output_tokens.tolist()
        self._min_tokens = asking.min_tokens
        chat = endpoint.kind is Kind.CHAT
        self._before_prompt = b'"messages":[{"role":"user","content":' if chat else b'"prompt":'
        self._after_prompt = b"}]}" if chat else b"}"
        usage = {"include_usage": True} | ({"continuous_usage_stats": True} if asking.running_usage else {})
        said = {"model": endpoint.model, "temperature": 0.0, "stream": True, "stream_options": usage}
        said |= {"ignore_eos": True} if asking.ignore_eos else {}
        self._said = msgspec.json.encode({**said, **asking.more}).removesuffix(b"}")
        host = f"[{address.host}]" if ":" in address.host else address.host
        key = f"Authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key is not None else ""
        close = "" if keep_alive else "Connection: close\r\n"
        self._head = (
            f"POST {address.path} HTTP/1.1\r\nHost: {host}:{address.port}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\n{key}{close}Content-Length: "
        ).encode()

    def message(self, row: int) -> bytes:
        """One request: head and body."""
        tokens = max(self._output[row], 1)
        lengths = b',"max_tokens":%d,' % tokens
        if self._min_tokens:
            lengths += b'"min_tokens":%d,' % tokens
        body = b"".join((self._said, lengths, self._before_prompt, self._prompts.json(row), self._after_prompt))
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
