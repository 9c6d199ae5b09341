"""Spot pools: what a provider takes back and when it offers it again, in three forms.

`SpotLosses` says how often how many nodes go. `SpotHistory` is a recorded step function of how many nodes could be had.
`SpotRegime` makes such step functions up: endless ones, with the statistics of a recorded market. The last two are
*followed*: they say at every instant what share of the pool's nodes is offered.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autopoiesis.errors import ScenarioError, unknown_name

Level = tuple[float, float]
"""From which second on, and the share of the pool's nodes that is offered from then on (0 to 1)."""

LONGEST_NOTICE_S = 86_400.0
SHORTEST_HISTORY_S = 60.0
"""A shorter history, repeated for hours, would be noise."""


def check_notice(notice_s: float) -> None:
    """Raises ScenarioError for what is no notice."""
    if not 0 <= notice_s <= LONGEST_NOTICE_S:
        raise ScenarioError(f"field 'spot.notice_s' must be seconds, from 0 to {LONGEST_NOTICE_S:g}")


class Spot:
    """How a provider takes and gives the nodes of a pool."""

    __slots__ = ()
    notice_s: float
    """Between the announcement of a loss and the loss."""


class FollowedSpot(Spot, ABC):
    """Offers a share of the pool's nodes that changes in steps."""

    __slots__ = ()

    @abstractmethod
    def levels(self, rng: np.random.Generator) -> Iterator[Level]:
        """The share offered from second 0 on, in order of time and without end."""


MOST = {"losses_per_hour": 3600.0, "nodes_per_loss": 1e6, "notice_s": 86_400.0, "recovery_s": 1e8}
"""A loss a second, and so on: beyond these a number is a slip of units."""


@dataclass(frozen=True, slots=True)
class SpotLosses(Spot):
    """Batches of losses at random instants, each announced; after each a while in which nothing is offered."""

    losses_per_hour: float
    nodes_per_loss: float
    """Mean size of one loss, in nodes (geometric, at least one)."""
    notice_s: float
    recovery_s: float
    """Mean time until the provider offers a lost node again (exponential)."""

    def __post_init__(self) -> None:
        for name in ("losses_per_hour", "nodes_per_loss", "notice_s", "recovery_s"):
            if not 0 <= getattr(self, name) <= MOST[name]:
                raise ScenarioError(f"field 'spot.{name}' must be at least 0 and at most {MOST[name]:g}")


@dataclass(frozen=True, slots=True)
class SpotStatistics:
    """What a spot history looks like from afar. None where there is nothing to take it of."""

    availability: float
    """Mean over time of the nodes there, as a share of the largest number."""
    losses_per_hour: float
    nodes_per_loss: float | None
    node_losses_per_node_hour: float | None
    loss_gap_s_p50: float | None
    """Between one loss and the next."""
    recovery_s_p50: float | None
    recovery_s_p90: float | None
    """From a loss until as many nodes are there as before it."""


@dataclass(frozen=True, slots=True)
class SpotHistory(FollowedSpot):
    """Nodes that could be had, as a step function of time; a world enters it anywhere and goes round and round.

    A pool of another size is offered the same share of its own maximum as the history had of its own. The end joins the
    beginning, so the seam counts as a change like any other. Raises ScenarioError for steps that make no history.
    """

    t_s: tuple[float, ...]
    """From 0 up; the last one is the end, and a change at the very end is a row of its own before it."""
    nodes: tuple[int, ...]
    """From the second of the same position until the next."""
    notice_s: float = 120.0

    def __post_init__(self) -> None:
        if len(self.t_s) < 2 or len(self.t_s) != len(self.nodes):
            raise ScenarioError("a spot history needs at least two rows, the last of which says when it ends")
        if self.t_s[0] != 0 or not all(a <= b < math.inf for a, b in pairwise(self.t_s)):
            raise ScenarioError("the times of a spot history must go up from 0")
        if self.span_s < SHORTEST_HISTORY_S:
            raise ScenarioError(f"a spot history must span at least {SHORTEST_HISTORY_S:g} s, not {self.span_s:g} s")
        if min(self.nodes) < 0 or max(self.nodes[:-1]) < 1:
            raise ScenarioError("a spot history must have a node at some time, and never less than none")
        check_notice(self.notice_s)

    @property
    def span_s(self) -> float:
        return self.t_s[-1]

    @property
    def peak(self) -> int:
        """The largest number of nodes: what was asked for."""
        return max(self.nodes[:-1])

    def levels(self, rng: np.random.Generator) -> Iterator[Level]:
        """From a second of the history that `rng` draws."""
        offset_s = float(rng.uniform(0.0, self.span_s))
        shares = [count / self.peak for count in self.nodes]
        steps = len(shares) - 1
        position = int(np.searchsorted(self.t_s, offset_s, side="right")) - 1
        yield 0.0, shares[position]
        rounds = 0
        while True:
            position += 1
            if position == steps:
                position, rounds = 0, rounds + 1
            yield self.t_s[position] + rounds * self.span_s - offset_s, shares[position]

    def statistics(self) -> SpotStatistics:
        """From the first row to the last, without the seam."""
        t, nodes = np.array(self.t_s), np.array(self.nodes)
        node_hours = float((nodes[:-1] * np.diff(t)).sum()) / 3600.0
        hours = self.span_s / 3600.0
        losses = np.flatnonzero(np.diff(nodes) < 0) + 1
        lost = nodes[losses - 1] - nodes[losses]
        recoveries = []
        for loss in losses:
            back = np.flatnonzero(nodes[loss:] >= nodes[loss - 1])
            if len(back):
                recoveries.append(float(t[loss + back[0]] - t[loss]))
        return SpotStatistics(
            availability=node_hours / hours / self.peak,
            losses_per_hour=len(losses) / hours,
            nodes_per_loss=float(lost.mean()) if len(lost) else None,
            node_losses_per_node_hour=float(lost.sum()) / node_hours,
            loss_gap_s_p50=float(np.median(np.diff(t[losses]))) if len(losses) > 1 else None,
            recovery_s_p50=float(np.percentile(recoveries, 50)) if recoveries else None,
            recovery_s_p90=float(np.percentile(recoveries, 90)) if recoveries else None,
        )


@dataclass(frozen=True, slots=True)
class Market:
    """A chain of losses and recoveries over a pool of `nodes` nodes; a process, not a recording.

    All nodes are there until a loss comes: after a short gap with probability `clustered`, else after a calm. While
    some are missing, the next event is another loss with probability `again`, else a recovery; a recovery brings all
    nodes back with probability `complete`, else some of them. A loss takes a geometric number of nodes or, with
    probability `drought`, all of them for long. Gaps are a minute and a half and something exponential.
    """

    nodes: int
    gap_s: float
    calm_s: float
    clustered: float
    again: float
    complete: float
    nodes_per_loss: float
    recovery_s_p50: float
    recovery_s_p90: float
    """Of a log-normal."""
    drought: float
    drought_s: float
    """Mean of an exponential."""


ENTRY_S = 14 * 86_400.0
"""A made-up market is entered within this time of its beginning: many times as long as a drought."""
LEAST_GAP_S = 90.0
"""The 5th percentile of gaps between losses in recorded markets is 90 to 105 s."""

REGIMES = {
    "plentiful": Market(16, 341.0, 7524.0, 0.412, 0.467, 0.95, 1.61, 359.0, 720.0, 0.00088, 23_400.0),
    "contended": Market(12, 190.0, 7540.0, 0.54, 0.591, 0.843, 2.545, 748.0, 940.0, 0.0205, 23_400.0),
    "scarce": Market(12, 170.0, 698.0, 0.415, 0.487, 0.484, 2.75, 403.0, 1098.0, 0.0673, 26_000.0),
}
"""By name. The numbers were searched for, so that endless runs have the availability, losses per hour, nodes per loss,
median gap between losses and recovery times of Bamboo's histories (Thorpe et al., NSDI 2023): p2 for plentiful, g4dn in
zone 1c for contended, in 1d for scarce. The long waits at the beginning of the latter two are the droughts."""


@dataclass(frozen=True, slots=True)
class SpotRegime(FollowedSpot):
    """A made-up market with the statistics of a recorded one; raises ScenarioError for a regime that nobody knows."""

    regime: str
    """One of `REGIMES`."""
    notice_s: float = 120.0

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise ScenarioError(f"field 'spot.regime': {unknown_name('regime', self.regime, REGIMES)}")
        check_notice(self.notice_s)

    def levels(self, rng: np.random.Generator) -> Iterator[Level]:
        """From a time on that `rng` draws, so that the beginning is like any other time."""
        market = REGIMES[self.regime]
        begin_s = float(rng.uniform(0.0, ENTRY_S))
        share, begun = 1.0, False
        for at_s, count in steps_of(market, rng):
            if at_s > begin_s:
                if not begun:
                    yield 0.0, share
                    begun = True
                yield at_s - begin_s, count / market.nodes
            share = count / market.nodes

    def history(self, rng: np.random.Generator, hours: float) -> SpotHistory:
        """The first `hours`, as a history."""
        t_s, nodes = [], []
        for at_s, count in steps_of(REGIMES[self.regime], rng):
            if at_s >= hours * 3600.0:
                break
            t_s.append(at_s)
            nodes.append(count)
        return SpotHistory((*t_s, hours * 3600.0), (*nodes, nodes[-1]), self.notice_s)


def steps_of(market: Market, rng: np.random.Generator) -> Iterator[tuple[float, int]]:
    """When, and how many nodes are there from then on; without end."""
    everything = market.nodes
    sigma = math.log(market.recovery_s_p90 / market.recovery_s_p50) / 1.2816  # the 90th percentile of a normal
    at_s, nodes = 0.0, everything
    yield at_s, nodes
    while True:
        dry = False
        if nodes == everything:
            close = rng.random() < market.clustered
            at_s += LEAST_GAP_S + rng.exponential(market.gap_s) if close else rng.exponential(market.calm_s)
            losing = True
        else:
            losing = nodes > 0 and rng.random() < market.again
            if losing:
                at_s += LEAST_GAP_S + rng.exponential(market.gap_s)
        if losing:
            dry = rng.random() < market.drought
            nodes = 0 if dry else max(nodes - int(rng.geometric(1.0 / market.nodes_per_loss)), 0)
            yield at_s, nodes
        if dry or not losing:
            wait_s = market.recovery_s_p50 * math.exp(sigma * rng.standard_normal())
            at_s += rng.exponential(market.drought_s) if dry else wait_s
            complete = rng.random() < market.complete or nodes + 1 >= everything
            nodes = everything if complete else int(rng.integers(nodes + 1, everything))
            yield at_s, nodes
