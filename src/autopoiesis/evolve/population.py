"""The population: every policy known to a run, what was measured of it lately, and whom to breed from.

A score ages: what counts is a policy's fitness relative to the incumbent's on the same windows, and older
comparisons weigh less. Elites are measured again as windows change, because each measurement says only what was good
for the windows it was made on.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from autopoiesis.policy.source import PolicySource

DECAY = 0.7
"""Weight of a comparison relative to that of the one after it."""
HUMAN = "human"
"""Who made a policy that came with the system or from its operator."""
ELITES = 8
"""Policies kept for breeding and for measuring again."""
LIVING = 200
"""Evolved members that are kept, so that a round costs the same however long a run is; the store has them all."""


@dataclass(slots=True)
class Member:
    """One policy and how it fared."""

    source: PolicySource
    provider: str
    parents: tuple[str, ...]
    ratio: float | None = None
    """Decayed mean of score ÷ incumbent's score, below 1 is better; None before the first measurement."""
    weight: float = 0.0
    last_point: int = -1
    """Monitoring point of the last measurement."""
    failure: str | None = None

    def compared(self, ratio: float, point: int) -> None:
        """Take in one comparison with the incumbent."""
        ratio = min(ratio, 10.0)
        carried = self.weight * DECAY if self.ratio is not None else 0.0
        self.ratio = ((self.ratio or 0.0) * carried + ratio) / (carried + 1.0)
        self.weight = carried + 1.0
        self.last_point = point


@dataclass(slots=True)
class Population:
    """Members by identity, in order of arrival."""

    members: dict[str, Member] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    """Identities of those that were members once."""

    def add(self, source: PolicySource, provider: str, parents: tuple[str, ...] = ()) -> Member | None:
        """The new member, or None if the program is known already."""
        if source.identity in self.members or source.identity in self.forgotten:
            return None
        member = Member(source, provider, parents)
        self.members[source.identity] = member
        return member

    def cull(self, kept: Collection[str]) -> None:
        """Forget evolved members beyond `LIVING`: those that failed, then the worst. Identities in `kept` stay."""
        evolved = [m for m in self.members.values() if m.provider != HUMAN and m.source.identity not in kept]
        # a quarter more may wait, so that sorting is seldom
        if len(evolved) <= LIVING + LIVING // 4:
            return
        judged = [m for m in evolved if m.failure is not None or m.ratio is not None]
        judged.sort(key=lambda m: (m.failure is None, -(m.ratio or 0.0), m.last_point, m.source.identity))
        for member in judged[: len(evolved) - LIVING]:
            del self.members[member.source.identity]
            self.forgotten.add(member.source.identity)

    def elites(self) -> list[Member]:
        """The best measured members that have not failed, best first."""
        measured = [(m.ratio, id, m) for id, m in self.members.items() if m.ratio is not None and m.failure is None]
        return [member for _, _, member in heapq.nsmallest(ELITES, measured)]

    def next_to_measure(self, point: int, incumbent: str) -> Member | None:
        """Whom to measure now: first those never measured, then the elite whose measurement is oldest."""
        waiting = [m for m in self.members.values() if m.failure is None and m.source.identity != incumbent]
        new = [m for m in waiting if m.ratio is None]
        if new:
            return new[0]
        elites = {m.source.identity for m in self.elites()}
        old = [m for m in waiting if m.source.identity in elites and m.last_point < point]
        return min(old, key=lambda m: (m.last_point, m.ratio or 0.0, m.source.identity), default=None)

    def measured_after(self, member: Member, incumbent: str) -> list[Member]:
        """Who is measured after this member, as far as that is known before its own measurement."""
        return [
            m
            for m in self.members.values()
            if m is not member and m.ratio is None and m.failure is None and m.source.identity != incumbent
        ]

    def parents(self, incumbent: PolicySource, rng: random.Random, count: int = 3) -> tuple[PolicySource, ...]:
        """The incumbent and others to breed with: mostly elites, sometimes anyone."""
        elites = [m.source for m in self.elites() if m.source.identity != incumbent.identity]
        everyone = [m.source for id, m in self.members.items() if m.failure is None and id != incumbent.identity]
        chosen: list[PolicySource] = [incumbent]
        while len(chosen) < count and everyone:
            pool = elites if elites and rng.random() < 0.7 else everyone
            pick = pool[min(int(rng.expovariate(0.5)), len(pool) - 1)] if pool is elites else rng.choice(pool)
            if pick.identity not in {source.identity for source in chosen}:
                chosen.append(pick)
            elif len({s.identity for s in everyone}) < count:
                break
        if rng.random() < 0.5:
            rng.shuffle(chosen)
        return tuple(chosen)
