"""What engines say of their load: Prometheus pages in, one set of numbers out.

Pages are hundreds of kilobytes of histograms of which a handful of lines matters; only these are looked at. A page
may come from anybody: whatever is in it, the outcome is telemetry or ReplicaError, after one pass over it for each
name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec

from autopoiesis.errors import ReplicaError

PAGE_BYTES_MAX = 4 << 20
"""Longest page that is read."""
_NUMBER_BYTES_MAX = 64
_NUMBER_MAX = 1e18
_BLOCK_SIZE = re.compile(rb'[{,]\s*block_size="(\d{1,12})"')
_BLOCKS = re.compile(rb'[{,]\s*num_gpu_blocks="(\d{1,12})"')


@dataclass(frozen=True, slots=True)
class Telemetry:
    """An engine's load, over all its ranks."""

    running: float
    """Requests in its batches."""
    waiting: float
    """Requests in its queue."""
    kv_use: float
    """Part of the KV cache that is taken, 0 to 1."""
    prefix_queries: float
    """Prompt tokens looked up in the prefix cache since the engine started, …"""
    prefix_hits: float
    """… and those found there."""
    kv_tokens: float | None
    """Tokens that the KV cache holds; None where the engine does not say."""


Length = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class Slot(msgspec.Struct):
    """One entry of llama.cpp's `/slots`; whatever else is in it, prompts above all, is never kept."""

    n_ctx: Length
    is_processing: bool
    n_prompt_tokens: Length = 0


_slots = msgspec.json.Decoder(list[Slot])


def detect(page: bytes) -> str | None:
    """Whose page it is: `vllm`, `sglang` or `llamacpp`; None for anybody else's."""
    page = b"\n" + page
    return next((engine for engine, name in _RUNNING.items() if any(_lines(page, name))), None)


def read(engine: str, page: bytes, slots: bytes | None = None) -> Telemetry:
    """The telemetry on the page of a `vllm`, `sglang` or `llamacpp`, for the last with its `/slots` if it shows them.

    Raises ReplicaError for a page that lacks a load or has a number that cannot be one.
    """
    if max(len(page), len(slots or b"")) > PAGE_BYTES_MAX:
        raise ReplicaError(f"metrics: longer than {PAGE_BYTES_MAX >> 20} MiB, so no engine's")
    page = b"\n" + page
    if engine == "vllm":
        return _vllm(page)
    if engine == "sglang":
        return _sglang(page)
    return _llamacpp(page, slots)


_RUNNING = {
    "vllm": b"vllm:num_requests_running",
    "sglang": b"sglang:num_running_reqs",
    "llamacpp": b"llamacpp:requests_processing",
}


def _vllm(page: bytes) -> Telemetry:
    return Telemetry(
        running=_sum(page, _RUNNING["vllm"]),
        waiting=_sum(page, b"vllm:num_requests_waiting"),
        kv_use=_share(page, b"vllm:kv_cache_usage_perc"),
        prefix_queries=_sum(page, b"vllm:prefix_cache_queries_total", 0.0),
        prefix_hits=_sum(page, b"vllm:prefix_cache_hits_total", 0.0),
        kv_tokens=_vllm_kv_tokens(page),
    )


def _vllm_kv_tokens(page: bytes) -> float | None:
    tokens = 0
    for line in _lines(page, b"vllm:cache_config_info"):
        size, blocks = _BLOCK_SIZE.search(line), _BLOCKS.search(line)
        if size and blocks:
            tokens += int(size[1]) * int(blocks[1])
    return float(tokens) or None


def _sglang(page: bytes) -> Telemetry:
    """One scheduler of each data-parallel rank is on the page, unless SGLang was told to let all of them speak."""
    return Telemetry(
        running=_sum(page, _RUNNING["sglang"]),
        waiting=_sum(page, b"sglang:num_queue_reqs"),
        kv_use=_share(page, b"sglang:token_usage"),
        prefix_queries=_sum(page, b"sglang:prompt_tokens_total", 0.0),
        prefix_hits=_sum(page, b"sglang:cached_tokens_total", 0.0),
        kv_tokens=_sum(page, b"sglang:max_total_num_tokens", 0.0) or None,
    )


def _llamacpp(page: bytes, slots: bytes | None) -> Telemetry:
    """The page has nothing on the KV cache: what running requests hold of their slots' context stands for its use."""
    hits = _sum(page, b"llamacpp:prompt_tokens_cached_total", 0.0)
    context, taken = _context(slots) if slots is not None else (0, 0)
    return Telemetry(
        running=_sum(page, _RUNNING["llamacpp"]),
        waiting=_sum(page, b"llamacpp:requests_deferred"),
        kv_use=min(1.0, taken / context) if context else 0.0,
        prefix_queries=hits + _sum(page, b"llamacpp:prompt_tokens_total", 0.0),
        prefix_hits=hits,
        kv_tokens=float(context) or None,
    )


def _context(page: bytes) -> tuple[int, int]:
    """Tokens that llama.cpp's slots hold, and those that running requests have filled."""
    try:
        slots = _slots.decode(page)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ReplicaError("/slots: not what llama.cpp's server shows there") from None
    return sum(slot.n_ctx for slot in slots), sum(slot.n_prompt_tokens for slot in slots if slot.is_processing)


def _sum(page: bytes, name: bytes, default: float | None = None) -> float:
    """The sum over all label sets; `default` where the page has none."""
    values = [_value(line, name) for line in _lines(page, name)]
    if not values and default is not None:
        return default
    return sum(_present(values, name))


def _share(page: bytes, name: bytes) -> float:
    """The mean over all label sets, at most 1."""
    values = _present([_value(line, name) for line in _lines(page, name)], name)
    return min(1.0, sum(values) / len(values))


def _present(values: list[float], name: bytes) -> list[float]:
    if not values:
        raise ReplicaError(f"metrics: {name.decode()} is missing; set the replica's `engine` to what runs there")
    return values


def _value(line: bytes, name: bytes) -> float:
    """The number after the labels, which may hold spaces and braces; a time stamp may follow it."""
    words = line[line.rfind(b"}") + 1 :].split(None, 1)
    try:
        value = float(words[0]) if len(words[0]) <= _NUMBER_BYTES_MAX else math.nan
    except (IndexError, ValueError):
        value = math.nan
    if not 0 <= value <= _NUMBER_MAX:
        raise ReplicaError(f"metrics: {name.decode()} is not a number from 0 to {_NUMBER_MAX:g}")
    return value


def _lines(page: bytes, name: bytes) -> Iterator[bytes]:
    """What follows the name on each line that begins with it; the page begins with a line break."""
    start = b"\n" + name
    at = page.find(start)
    while at >= 0:
        at += len(start)
        end = page.find(b"\n", at)
        line = page[at:] if end < 0 else page[at:end]
        if line.startswith((b"{", b" ", b"\t")):
            yield line
        at = page.find(start, at + len(line))
