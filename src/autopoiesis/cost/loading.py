"""Weights on their way over links that they share: max–min fair, as a fluid whose rates change at exact instants.

A flow takes a *route*, the set of links that all of its bytes pass (a drive, a node's path from host memory to its
GPUs, a NIC, an object store). No flow can get more without taking from one that has no more than it: the rates of
progressive filling (Bertsekas & Gallager, Data Networks, §6.5.2). They change only when a flow begins, ends or takes
another route, and in between every flow is a straight line, so the instants of all ends are known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Link = tuple[str, str]
"""What it is, and whose: `("drive", "h100/0")`."""
Route = frozenset[Link]
Flow = tuple[int, int]
"""A load and which of its parts."""


def fair_rates(flows: Mapping[Route, int], bandwidth: Callable[[Link], float]) -> dict[Route, float]:
    """Bytes/s of each of the `flows[route]` flows of a route, given every link's `bandwidth` in bytes/s.

    Flows of one route get the same rate, so they need no names and no order of names can matter. Routes must not be
    empty, nor bandwidths zero.
    """
    left = {link: bandwidth(link) for route in flows for link in route}
    open_flows = {link: sum(count for route, count in flows.items() if link in route) for link in left}
    rates: dict[Route, float] = {}
    while len(rates) < len(flows):
        share, narrowest = min((left[link] / count, link) for link, count in open_flows.items() if count)
        filled = [route for route in flows if narrowest in route and route not in rates]
        taken: Counter[Link] = Counter()
        for route in filled:
            rates[route] = share
            for link in route:
                taken[link] += flows[route]
        for link, count in taken.items():
            # what rounding takes below zero is nothing
            left[link] = max(left[link] - share * count, 0.0)
            open_flows[link] -= count
    return rates


@dataclass(slots=True)
class _Flow:
    route: Route
    left: float
    """Bytes, when the rates last changed."""


class Loads:
    """Flows under way. Time is an argument that never runs back nor beyond `due_s`: the caller comes then to `end`."""

    def __init__(self, bandwidth: Callable[[Link], float]) -> None:
        self._bandwidth = bandwidth
        self._flows: dict[Flow, _Flow] = {}
        self._now_s = 0.0
        """When the rates last changed."""
        self._rates: dict[Route, float] | None = {}
        """None: to be divided anew."""

    def begin(self, flow: Flow, size: float, route: Route, now_s: float) -> None:
        """`size` bytes set out."""
        self._settle(now_s)
        self._flows[flow] = _Flow(route, size)

    def cancel(self, flow: Flow, now_s: float) -> float:
        """The rest shall not come; how many bytes that is."""
        self._settle(now_s)
        return self._flows.pop(flow).left

    def rate(self, flow: Flow) -> float:
        """Bytes/s."""
        return self._divided()[self._flows[flow].route]

    @property
    def due_s(self) -> float:
        """When the next flow ends, if nothing happens before; infinite if there is none."""
        return min((self._end_s(entry) for entry in self._flows.values()), default=math.inf)

    def end(self) -> list[Flow]:
        """Go on to `due_s` and end what ends then, in the order of the flows' names."""
        due_s = self.due_s
        ended = sorted(flow for flow, entry in self._flows.items() if self._end_s(entry) == due_s)
        self._settle(due_s)
        for flow in ended:
            del self._flows[flow]
        return ended

    def _end_s(self, entry: _Flow) -> float:
        return self._now_s + entry.left / self._divided()[entry.route]

    def _divided(self) -> dict[Route, float]:
        if self._rates is None:
            self._rates = fair_rates(Counter(entry.route for entry in self._flows.values()), self._bandwidth)
        return self._rates

    def _settle(self, now_s: float) -> None:
        """Bring what is left up to date; the rates are no longer valid."""
        passed_s = now_s - self._now_s
        if passed_s > 0:
            rates = self._divided()
            for entry in self._flows.values():
                entry.left = max(entry.left - rates[entry.route] * passed_s, 0.0)
            self._now_s = now_s
        self._rates = None
