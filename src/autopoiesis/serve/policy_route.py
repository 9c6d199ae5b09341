"""A policy's compiled `route` and `priority` as the gateway calls them: with its own requests and replicas.

What compiled code reads lies in two arrays of floats that stay where they are from call to call. Of the replicas, only
the fields that the text reads are written, a column at a time: most routers read two or three of the eleven.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from operator import attrgetter
from struct import Struct

from autopoiesis.policy.fields import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.native import CompiledPriority, CompiledRoute
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.replica import Replica

WIDTH = len(REPLICA_FIELDS)
_AGE = REPLICA_FIELDS.index("telemetry_age_s")
_CACHED = REPLICA_FIELDS.index("cached_tokens")
_REQUEST = Struct(f"{len(REQUEST_FIELDS)}d")


class PolicyRoute:
    """A `route`. For one thread at a time."""

    def __init__(self, route: CompiledRoute, reads: frozenset[str]) -> None:
        """`reads` are the fields of a replica that its text reads (`policy.reads`); the others are 0 for it."""
        self.needs_prefixes = "cached_tokens" in reads
        """Whether it reads `cached` of what it is offered."""
        self._needs_age = "telemetry_age_s" in reads
        computed = ("cached_tokens", "telemetry_age_s")
        self._columns = tuple(
            (column, attrgetter(name))
            for column, name in enumerate(REPLICA_FIELDS)
            if name in reads and name not in computed
        )
        # Held, because its code goes with it.
        self._route = route
        self._at = route.at
        self._request = array("d", bytes(_REQUEST.size))
        self._request_address = self._request.buffer_info()[0]
        self._make_room(16)

    def choose(self, offer: Offer, replicas: Sequence[Replica], now: float, uniform1: float, uniform2: float) -> int:
        """Index of a replica, HOLD, SHED or FAULT, at `now` by the clock of the telemetry and of arrivals.

        The draws are uniform in [0, 1) and fresh. Never raises for what the policy does.
        """
        count = len(replicas)
        if count > self._room:
            self._make_room(2 * count)
        _write_request(self._request, offer, now, uniform1, uniform2)
        rows = self._rows
        end = count * WIDTH
        for column, field in self._columns:
            rows[column:end:WIDTH] = array("d", map(field, replicas))
        if self._needs_age:
            rows[_AGE:end:WIDTH] = array("d", [now - replica.scraped_at for replica in replicas])
        if self.needs_prefixes:
            rows[_CACHED:end:WIDTH] = array("d", offer.cached or bytes(8 * count))
        return self._at(self._request_address, self._rows_address, count)

    def _make_room(self, replicas: int) -> None:
        self._room = replicas
        self._rows = array("d", bytes(8 * WIDTH * replicas))
        self._rows_address = self._rows.buffer_info()[0]


class PolicyPriority:
    """A `priority`. For one thread at a time."""

    def __init__(self, priority: CompiledPriority) -> None:
        # Held, because its code goes with it.
        self._priority = priority
        self._at = priority.at
        self._request = array("d", bytes(_REQUEST.size))
        self._request_address = self._request.buffer_info()[0]

    def priority(self, offer: Offer, now: float, uniform1: float, uniform2: float) -> float:
        """The request's priority, NaN where it has none; arguments as in `PolicyRoute.choose`."""
        _write_request(self._request, offer, now, uniform1, uniform2)
        return self._at(self._request_address)


def _write_request(fields: array[float], offer: Offer, now: float, uniform1: float, uniform2: float) -> None:
    """In the order of REQUEST_FIELDS."""
    _REQUEST.pack_into(
        fields,
        0,
        offer.model,
        offer.class_index,
        offer.prompt_tokens,
        offer.phase,
        offer.prefix_key,
        offer.ttft_slo_s,
        offer.tpot_slo_s,
        now - offer.arrived,
        offer.sequence,
        uniform1,
        uniform2,
    )
