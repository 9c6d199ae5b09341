"""What a client sees of a streaming engine: when each request was sent and when each of its tokens came.

A telemetry file is JSON lines, one request a line, numbers only:

    {"sent_s": 0.512, "prompt_tokens": 130, "token_s": [0.641, 0.648, 0.656]}

Times are seconds of one monotonic clock with any origin. Prompts or answers are never part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from autopoiesis.errors import TraceError

TOKENS_MAX = 10_000_000
"""Of one prompt or answer."""
FILE_BYTES_MAX = 1 << 30


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request that an engine answered in full, token by token."""

    sent_s: float
    prompt_tokens: int
    """As the engine counts them; none of them taken from a prefix cache."""
    token_s: tuple[float, ...]
    """When each generated token reached the client; never running back."""

    def __post_init__(self) -> None:
        times = np.array((self.sent_s, *self.token_s))
        if not np.all(np.isfinite(times)):
            raise ValueError("times must be finite")
        if not 1 <= self.prompt_tokens <= TOKENS_MAX:
            raise ValueError(f"prompt_tokens must be from 1 to {TOKENS_MAX}")
        if not 1 <= len(self.token_s) <= TOKENS_MAX:
            raise ValueError("token_s must have a time for each generated token, at least one")
        if np.any(np.diff(times) < 0):
            raise ValueError("token_s must not run back, nor begin before sent_s")

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        return self.token_s[-1] - self.sent_s


def read_telemetry(path: str | Path) -> tuple[Stream, ...]:
    """The streams of a telemetry file, in order of sending.

    Raises TraceError (file, line and the mend) for a file that cannot be read, is too long or is no telemetry.
    """
    path = Path(path)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise TraceError(f"{path}: longer than 1 GiB; give a part of it")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); give a telemetry file of JSON lines") from None
    decoder = msgspec.json.Decoder(Stream)
    streams = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            streams.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise TraceError(
                f"{path}, line {number}: {error}; a line is "
                '{"sent_s": seconds, "prompt_tokens": count, "token_s": [seconds, …]}'
            ) from None
    if not streams:
        raise TraceError(f"{path}: no request; write one JSON object a line")
    return tuple(sorted(streams, key=lambda stream: stream.sent_s))


def write_telemetry(path: str | Path, streams: Iterable[Stream]) -> None:
    """Write a telemetry file; times in microseconds. Raises TraceError if it cannot be written."""
    lines = [
        msgspec.json.encode(
            Stream(
                sent_s=round(stream.sent_s, 6),
                prompt_tokens=stream.prompt_tokens,
                token_s=tuple(round(time, 6) for time in stream.token_s),
            )
        )
        for stream in streams
    ]
    try:
        Path(path).write_bytes(b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise TraceError(f"{path}: cannot be written ({error.strerror}); give another place") from None
