"""What a load shall send, and what it says came of it: the messages between a benchmark and the process of the load."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

SECONDS_MAX = 60.0
REQUESTS_MAX = 200_000


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A closed loop: each connection sends its next request when the answer to the one before is whole."""

    port: int
    """On this machine."""
    key: str
    connections: int
    seconds: float
    """After which no more requests are begun."""
    requests: int = REQUESTS_MAX
    stream: bool = False
    tokens: int = 16
    first_ms: int = 0
    each_ms: int = 0
    prompt_bytes: int = 1024
    patience_s: float = 5.0
    """Without a byte; then a request hangs."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= SECONDS_MAX:
            raise ValueError(f"seconds must be above 0 and at most {SECONDS_MAX:g}")
        if not 0 < self.requests <= REQUESTS_MAX:
            raise ValueError(f"requests must be from 1 to {REQUESTS_MAX}")


class Spread(msgspec.Struct, frozen=True):
    """Of times in milliseconds, by nearest rank."""

    p50: float
    p90: float
    p99: float
    worst: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load."""

    seconds: float
    """From its first request to the end of its last."""
    endings: dict[str, int]
    """Requests by `Ending`."""
    reasons: dict[str, int]
    """What was said of those that were not whole."""
    tokens: int
    """Read, of requests that ended whole."""
    total: Spread | None
    """Of whole requests: from writing to the last byte."""
    added: Spread | None
    """To the first token, less what the engine took of it."""
    token: Spread | None
    """From when the engine wrote a token to when it was read."""

    @property
    def whole(self) -> int:
        return self.endings.get("whole", 0)

    @property
    def failed(self) -> int:
        return sum(self.endings.values()) - self.whole


def spread(times_ns: Sequence[int]) -> Spread | None:
    """None where there is nothing."""
    if not times_ns:
        return None
    ranked = sorted(times_ns)
    last = len(ranked) - 1
    return Spread(*(ranked[round(part * last)] / 1e6 for part in (0.5, 0.9, 0.99, 1.0)))
