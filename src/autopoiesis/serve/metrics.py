"""What the gateway counts, as columns of the board, and the Prometheus page that is made of them.

Which columns there are follows from the configuration alone, so that every worker process finds the same number in the
same place, and any of them can write the page for all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product

from autopoiesis.serve.board import Board
from autopoiesis.serve.health import Failure
from autopoiesis.serve.replica import Replica

STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 422, 429, 431, 499, 500, 502, 503, 504)
"""Counted one by one; 499 is a client that left before its answer was whole. Others count as `other`."""
FAILURES = tuple(Failure)

PREFIX = "autopoiesis_"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)


class Counter:
    """A family of counters or gauges: one column for each combination of its labels' values, the whole of it for each
    of the places that replicas can have if it has `slots`."""

    def __init__(
        self, name: str, text: str, kind: str, first: int, labels: Mapping[str, Sequence[str]], slots: int
    ) -> None:
        self.name, self.text, self.kind, self.first = name, text, kind, first
        self._names = tuple(labels)
        self._values = tuple(product(*labels.values()))
        self._slots = slots
        self._sparse = len(labels) > 1
        """Whether combinations that never were are left out."""

    @property
    def columns(self) -> int:
        return len(self._values) * max(1, self._slots)

    def lines(self, board: Board, replicas: Mapping[int, str]) -> Iterable[str]:
        if not self._slots:
            for column, values in enumerate(self._values, self.first):
                if (value := board.total(column)) or not self._sparse:
                    yield f"{self.name}{labelled(self._names, values)} {number(value)}"
            return
        names = ("replica", *self._names)
        for slot, id in replicas.items():
            for column, values in enumerate(self._values, self.first + slot * len(self._values)):
                yield f"{self.name}{labelled(names, (id, *values))} {number(board.total(column))}"


class Histogram:
    """A histogram for each model: its buckets, then the sum."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], first: int, models: Sequence[str]) -> None:
        self.name, self.text, self.kind, self.first = name, text, "histogram", first
        self._bounds = bounds
        self._stride = len(bounds) + 2
        self._models = models

    @property
    def columns(self) -> int:
        return self._stride * len(self._models)

    def observe(self, row: memoryview[float], model: int, value: float) -> None:
        first = self.first + model * self._stride
        row[first + bisect_left(self._bounds, value)] += 1.0
        row[first + self._stride - 1] += value

    def lines(self, board: Board, replicas: Mapping[int, str]) -> Iterable[str]:
        for index, model in enumerate(self._models):
            first = self.first + index * self._stride
            label = f'model="{escaped(model)}"'
            count = 0.0
            for column, bound in enumerate((*map(str, self._bounds), "+Inf"), first):
                count += board.total(column)
                yield f'{self.name}_bucket{{{label},le="{bound}"}} {number(count)}'
            yield f"{self.name}_sum{{{label}}} {number(board.total(first + self._stride - 1))}"
            yield f"{self.name}_count{{{label}}} {number(count)}"


class Metrics:
    """All that is counted. A worker adds to its row of the board at the columns that this names."""

    def __init__(self, models: Sequence[str], keys: Sequence[str], slots: int) -> None:
        self.columns = 0
        """Of the board."""
        self._models = len(models) + 1
        self._families: list[Counter | Histogram] = []
        # What is in flight comes first, because it is forgotten when a worker dies.
        self.in_flight = self._add(
            "replica_in_flight", "Requests sent to the replica and not ended.", "gauge", {}, slots
        )
        self.in_flight_tokens = self._add(
            "replica_in_flight_prompt_tokens", "Their prompt tokens, estimated.", "gauge", {}, slots
        )
        self.key_in_flight = self._add("key_in_flight", "Requests of the key under way.", "gauge", {"key": keys})
        self.queued = self._add("queued_requests", "Requests that wait at the gateway.", "gauge", {"model": models})
        self.connections = self._add("client_connections", "Open connections of clients.", "gauge", {})
        self.buffered = self._add("buffered_bytes", "Of requests and answers that are kept.", "gauge", {})
        self.gauges = range(self.columns)
        self.requests = self._add(
            "requests_total", "Requests answered, by status.", "counter",
            {"model": (*models, ""), "status": (*map(str, STATUSES), "other")},
        )  # fmt: skip
        self.prompt_tokens = self._add("prompt_tokens_total", "By the engines' usage.", "counter", {"model": models})
        self.completion_tokens = self._add(
            "completion_tokens_total", "By the engines' usage.", "counter", {"model": models}
        )
        self.sent = self._add("replica_requests_total", "Requests sent to the replica.", "counter", {}, slots)
        self.answered = self._add("replica_answers_total", "Requests that the replica answered.", "counter", {}, slots)
        self.failures = self._add(
            "replica_failures_total", "Requests that the replica failed.", "counter", {"kind": FAILURES}, slots
        )
        self.retries = self._add("retries_total", "Requests sent once more.", "counter", {"model": models})
        self.broken = self._add(
            "broken_streams_total", "Streams ended by an error event.", "counter", {"model": models}
        )
        self.held = self._add("held_requests_total", "Requests that had to wait.", "counter", {"model": models})
        self.shed = self._add("shed_requests_total", "Requests that the policy refused.", "counter", {"model": models})
        self.faults = self._add(
            "policy_faults_total", "Answers of the policy that a built-in balancer replaced.", "counter",
            {"function": ("route", "priority")},
        )  # fmt: skip
        self.swaps = self._add("policy_swaps_total", "Policies put in force since the start.", "counter", {})
        self.key_requests = self._add("key_requests_total", "Requests admitted.", "counter", {"key": keys})
        self.key_tokens = self._add(
            "key_tokens_total", "Tokens: of prompts when admitted, corrected by usage.", "counter", {"key": keys}
        )
        self.seconds = self._histogram("request_seconds", "From arrival to the last byte.", SECONDS, models)
        self.first_byte = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first event of a stream.", SECONDS, models
        )
        self.token_seconds = self._histogram(
            "time_per_output_token_seconds", "Mean of each stream, after its first event.", TOKEN_SECONDS, models
        )
        self.queue_seconds = self._histogram("queue_seconds", "Of requests that had to wait.", SECONDS, models)
        self._status = {status: index for index, status in enumerate(STATUSES)}
        self._other = len(STATUSES)

    def request(self, model: int, status: int) -> int:
        """The column of requests of a model (-1: of none) that were answered with a status."""
        return self.requests + (model % self._models) * (self._other + 1) + self._status.get(status, self._other)

    def page(self, board: Board, replicas: Mapping[int, str], gauges: Iterable[str]) -> bytes:
        """The Prometheus text. `replicas` are the names of those there are now by their slots; `gauges` are lines from
        elsewhere."""
        lines: list[str] = []
        for family in self._families:
            found = list(family.lines(board, replicas))
            if found:
                lines += (f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}", *found)
        lines += gauges
        return "\n".join(lines).encode() + b"\n"

    def _add(self, name: str, text: str, kind: str, labels: Mapping[str, Sequence[str]], slots: int = 0) -> int:
        family = Counter(PREFIX + name, text, kind, self.columns, labels, slots)
        self._families.append(family)
        self.columns += family.columns
        return family.first

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], models: Sequence[str]) -> Histogram:
        family = Histogram(PREFIX + name, text, bounds, self.columns, models)
        self._families.append(family)
        self.columns += family.columns
        return family


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """`{name="value",…}`; nothing without labels."""
    parts = [f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return f"{{{','.join(parts)}}}" if parts else ""


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


def metrics_page(metrics: Metrics, board: Board, replicas: Collection[Replica], now: float) -> bytes:
    """The page of a gateway that has these replicas."""
    return metrics.page(board, {replica.slot: replica.id for replica in replicas}, known(replicas, now))


def known(rows: Collection[Replica], now: float) -> list[str]:
    """Lines of what is known of the replicas, by us or from their telemetry."""
    lines: list[str] = []
    for name, text, value in (
        ("replica_admitted", "Whether it gets requests.", lambda r: float(r.health.admits and not r.draining)),
        ("replica_draining", "Whether it gets no new requests because it is to leave.", lambda r: float(r.draining)),
        ("replica_running", "Requests that its engine computes, by telemetry.", lambda r: r.running),
        ("replica_waiting", "Requests that wait in its engine, by telemetry.", lambda r: r.waiting),
        ("replica_kv_use", "Part of its KV cache in use, by telemetry.", lambda r: r.kv_use),
        ("replica_telemetry_age_seconds", "Since its telemetry was true.", lambda r: now - r.scraped_at),
    ):
        lines += (f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} gauge")
        lines += [f'{PREFIX}{name}{{replica="{escaped(r.id)}"}} {number(value(r))}' for r in rows]
    return lines
