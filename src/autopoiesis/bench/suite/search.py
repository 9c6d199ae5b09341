"""The best sequence of plans in the fluid model: a shortest path through windows and plans.

Cost per good request is a ratio of sums, which a shortest path cannot minimise; Dinkelbach's method ("On nonlinear
fractional programming", Management Science 13(7), 1967) minimises dollars − λ · good instead and sets λ to the ratio
that comes out, until it no longer falls. Other objectives are sums and take one pass.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from autopoiesis.bench.suite.switching import Indices, Losses, Switches, losses_of
from autopoiesis.bench.suite.values import Values

ROUNDS = 12
"""Most steps of Dinkelbach's method, which converges faster than linearly."""
SETTLED_AT_ONCE = 40
"""Passes after which a path may use only switches that are known; each pass makes known those of its path."""


class PathSearch:
    """Shortest paths over one table.

    All seconds of switches are multiplied by `slowness`, and each switch costs `reluctance` windows' worth more than
    the fluid model says: it knows neither how a rollout disturbs what runs nor that one small gain may be an error.
    """

    def __init__(self, values: Values, switches: Switches, slowness: float = 1.0, reluctance: float = 0.0) -> None:
        self.values = values
        self._switches = switches
        self._slowness = slowness
        self._dearer_good = reluctance * values.count
        best = int(np.argmin(values.delay_s.sum(axis=0)))
        self._dearer_s = reluctance * np.maximum(values.delay_s[:, best], values.count)
        size = len(values.plans)
        before, after = (part.ravel() for part in np.indices((size, size)))
        losses = losses_of(values, switches, before, after, slowness)
        shape = (len(values.count), size, size)
        self._good, self._delay_s, self._dollars = (
            part.reshape(shape) for part in (losses.good, losses.delay_s, losses.dollars)
        )
        self._good -= self._dearer_good[:, None, None]
        self._delay_s += self._dearer_s[:, None, None]
        self._took = switches.windows(slowness)
        self._known = switches.settled.copy()

    def best(self) -> tuple[Indices, float]:
        """(W,) the plan of each window, and the objective in the fluid model, switching included."""
        values = self.values
        first = int(np.argmin(values.fixed()))
        path = np.full(len(values.count), first, dtype=np.int64)
        worth = self.of(path)
        for _ in range(ROUNDS):
            found = self._exact(values.price_of_good(worth))
            found_worth = self.of(found)
            if not found_worth < worth:
                break
            path, worth = found, found_worth
        return path, worth

    def of(self, path: Indices) -> float:
        """The objective of a path, whose switches are made known; infinite if it leaves a plan before it is reached."""
        values = self.values
        w = np.flatnonzero(np.diff(path)) + 1
        before, after = path[w - 1], path[w]
        for a, b in zip(before, after, strict=True):
            self._know(int(a), int(b))
        took = self._took[before, after]
        if (took == 0).any() or (w[1:] < (w + took)[:-1]).any():
            return math.inf
        rows = np.arange(len(path))
        sums = [part[rows, path].sum() for part in (values.good, values.delay_s, values.dollars)]
        for position, part in enumerate((self._good, self._delay_s, self._dollars)):
            sums[position] += part[w, before, after].sum()
        return values.objective(*(float(total) for total in sums))

    def _exact(self, price_of_good: float) -> Indices:
        """The shortest path; guesses on it are replaced by what is known until none is left."""
        for tries in range(SETTLED_AT_ONCE + 1):
            path = self._shortest(price_of_good, only_known=tries == SETTLED_AT_ONCE)
            fresh = [self._know(int(a), int(b)) for a, b in pairwise(path)]
            if not any(fresh):
                break
        return path

    def _shortest(self, price_of_good: float, only_known: bool) -> Indices:
        """Bellman's recursion over (window, plan reached); a switch leads as many windows ahead as it takes. Of equal
        ways the first plan's, and staying comes first."""
        values = self.values
        cost = values.linear(values.good, values.delay_s, values.dollars, price_of_good)
        arcs = values.linear(self._good, self._delay_s, self._dollars, price_of_good)
        windows, size = cost.shape
        until = np.concatenate([np.zeros((1, size)), np.cumsum(cost, axis=0)])
        """(W + 1, N) cost of the windows before, for one who was always there."""
        usable = (self._took > 0) & ~np.eye(size, dtype=np.bool_)
        if only_known:
            usable &= self._known
        steps = [(int(took), usable & (self._took == took)) for took in np.unique(self._took[usable])]
        least = np.full((windows + 1, size), np.inf)
        least[0] = 0.0
        came = np.full((windows + 1, size, 2), -1, dtype=np.int64)
        """From which window and plan; -1 for the beginning."""
        for w in range(windows):
            stay = least[w] + cost[w]
            better = stay < least[w + 1]
            least[w + 1][better] = stay[better]
            came[w + 1][better] = np.stack([np.full(size, w), np.arange(size)], axis=1)[better]
            # the first plan needs no switch
            for took, these in steps if w else ():
                end = min(w + took, windows)
                ways = np.where(these, least[w][:, None] + arcs[w], np.inf)
                origin = np.argmin(ways, axis=0)
                way = ways[origin, np.arange(size)] + until[end] - until[w]
                better = way < least[end]
                least[end][better] = way[better]
                came[end][better] = np.stack([np.full(size, w), origin], axis=1)[better]
        path = np.zeros(windows, dtype=np.int64)
        w, plan = windows, int(np.argmin(least[windows]))
        while w > 0:
            since, origin = (int(part) for part in came[w, plan])
            path[since:w] = plan
            w, plan = since, origin
        return path

    def _know(self, before: int, after: int) -> bool:
        """Replace a guess by what a rollout says; whether there was one to replace."""
        if self._known[before, after]:
            return False
        if not self._switches.settled[before, after]:
            self._switches.settle(before, after)
        losses: Losses = losses_of(self.values, self._switches, np.array([before]), np.array([after]), self._slowness)
        self._good[:, before, after] = losses.good[:, 0] - self._dearer_good
        self._delay_s[:, before, after] = losses.delay_s[:, 0] + self._dearer_s
        self._dollars[:, before, after] = losses.dollars[:, 0]
        self._took[before, after] = self._switches.windows(self._slowness)[before, after]
        self._known[before, after] = True
        return True
