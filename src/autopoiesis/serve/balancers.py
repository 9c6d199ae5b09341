"""The built-in balancers: where a request goes if no policy says.

Their meaning is that of `simulate.routers`, so that what was simulated is what serves. *Balanced*, the
default, takes the fewest requests in flight relative to the plan's share, or to speed where the plan gives none.
*Round robin*, *least outstanding* and *power of two* are what proxies do. *Weighted* scores the cached prefix, load and
KV use 2 : 1 : 1. *Shares* deals the plan's shares out evenly. *Prefix affinity*, which the simulator lacks, follows
cached prefixes as far as the load stays even. Ties go to the lower slot.

A balancer is for one thread, and its replicas have positive speeds.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import inf
from typing import ClassVar, Protocol

from autopoiesis.errors import ScenarioError, unknown_name
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.replica import Replica

PREFIX_WEIGHT = 2.0
"""Of a wholly cached prompt, beside 1 for an idle replica and 1 for an empty KV cache."""
LOAD_BOUND = 1.25
"""Affinity gives a replica no more than this multiple of the mean in flight, and one request."""

# The hash of a block is random already; these (of SplitMix64) make of it a draw for every slot.
_SPREAD, _MIX, _WORD = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 2**64 - 1


class Balancer(Protocol):
    """Chooses among replicas by their load."""

    needs_prefixes: ClassVar[bool]
    """Whether it reads `blocks` and `cached` of what it is offered."""

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        """Index of one of the replicas that could take the request: at least one, by ascending slot."""
        ...


class Balanced:
    """Fewest in flight relative to the plan's share, or to speed where the plan gives none."""

    needs_prefixes: ClassVar[bool] = False

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        return _balanced(replicas)


class RoundRobin:
    """Each in turn. The turn is a slot, so that it goes on where it was when replicas come and go."""

    needs_prefixes: ClassVar[bool] = False

    def __init__(self) -> None:
        self._turn: dict[float, int] = {}
        """The slot whose turn it was last, by model and phase."""

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        group = 2 * request.model + request.phase
        last = self._turn.get(group, -1)
        best = 0
        for i, replica in enumerate(replicas):
            if replica.slot > last:
                best = i
                break
        self._turn[group] = replicas[best].slot
        return best


class LeastOutstanding:
    """Fewest in flight, whatever the replicas can do."""

    needs_prefixes: ClassVar[bool] = False

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        loads = [replica.in_flight for replica in replicas]
        return loads.index(min(loads))


class PowerOfTwo:
    """The less busy of two drawn at random."""

    needs_prefixes: ClassVar[bool] = False

    def __init__(self, rng: random.Random) -> None:
        self._uniform = rng.random

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        count = len(replicas)
        a = int(self._uniform() * count)
        b = int(self._uniform() * max(count - 1, 1))
        if b >= a and count > 1:
            b += 1
        if b < a:
            a, b = b, a
        return b if replicas[b].in_flight < replicas[a].in_flight else a


class Weighted:
    """The highest score of cached prefix, load and KV use: the weights of llm-d's scorers."""

    needs_prefixes: ClassVar[bool] = True

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        most = 1.0
        for replica in replicas:
            if replica.in_flight > most:
                most = replica.in_flight
        cached = request.cached
        tokens = max(request.prompt_tokens, 1)
        best = 0
        highest = -inf
        for i, replica in enumerate(replicas):
            score = PREFIX_WEIGHT * cached[i] / tokens if cached else 0.0
            score += (1.0 - replica.in_flight / most) + (1.0 - replica.kv_use)
            if score > highest:
                highest = score
                best = i
        return best


class Shares:
    """The plan's shares, dealt out evenly (smooth weighted round robin); balanced where there are none."""

    needs_prefixes: ClassVar[bool] = False

    def __init__(self) -> None:
        self._credits: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        """What each slot is owed of each class, in requests."""

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        total = 0.0
        for replica in replicas:
            if replica.share > 0.0:
                total += replica.share
        if total <= 0.0:
            return _balanced(replicas)
        credits = self._credits[request.class_index]
        best = 0
        most = -inf
        for i, replica in enumerate(replicas):
            if replica.share > 0.0:
                credit = credits[replica.slot] + replica.share / total
                credits[replica.slot] = credit
                if credit > most:
                    most = credit
                    best = i
        credits[replicas[best].slot] -= 1.0
        return best


class PrefixAffinity:
    """The longest cached prefix among the replicas that are not busier than the others.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): whoever has more in flight than the
    bound is passed over, so that one hot prefix spreads as far as its load demands. A prefix that nobody has goes where
    the hash of its first block says: processes that do not know of each other's choices choose alike, provided that
    they hash blocks with one seed. Without blocks it is balanced.
    """

    needs_prefixes: ClassVar[bool] = True

    def choose(self, request: Offer, replicas: Sequence[Replica]) -> int:
        if not request.blocks:
            return _balanced(replicas)
        loads = [replica.in_flight for replica in replicas]
        bound = LOAD_BOUND * (sum(loads) + 1) / len(loads) + 1.0
        best = -1
        longest = least = 0
        for i, cached in enumerate(request.cached):
            load = loads[i]
            if load <= bound and (cached > longest or (cached == longest > 0 and load < least)):
                best, longest, least = i, cached, load
        if best >= 0:
            return best
        first = request.blocks[0]
        highest = -1
        for i, load in enumerate(loads):
            if load <= bound:
                weight = ((first ^ (replicas[i].slot * _SPREAD & _WORD)) * _MIX) & _WORD
                if weight > highest:
                    best, highest = i, weight
        return best


def _balanced(replicas: Sequence[Replica]) -> int:
    best = 0
    best_shared = -1
    least = least_shared = inf
    for i, replica in enumerate(replicas):
        load = replica.in_flight + 1.0
        share = replica.share
        if share > 0.0 and load / share < least_shared:
            least_shared = load / share
            best_shared = i
        load /= replica.speed
        if load < least:
            least = load
            best = i
    return best_shared if best_shared >= 0 else best


BALANCERS: dict[str, Callable[[random.Random], Balancer]] = {
    "balanced": lambda rng: Balanced(),
    "round-robin": lambda rng: RoundRobin(),
    "least-outstanding": lambda rng: LeastOutstanding(),
    "power-of-two": PowerOfTwo,
    "weighted": lambda rng: Weighted(),
    "shares": lambda rng: Shares(),
    "prefix-affinity": lambda rng: PrefixAffinity(),
}
"""By the names that configurations use."""


def balancer(name: str, rng: random.Random) -> Balancer:
    """A fresh balancer, which draws from `rng` if it draws at all. Raises ScenarioError for a name nobody knows."""
    make = BALANCERS.get(name)
    if make is None:
        raise ScenarioError(unknown_name("router", name, BALANCERS))
    return make(rng)
