"""The lives of a run's replicas: when each was launched, served, drained and ended, and what it did meanwhile.

Kept for whoever looks back at a run; nothing here is shown to a policy. A slot of the kernel is used by one replica
after the other, so what a slot has counted is read before the next one comes into it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.plan.placement import Placed
from autopoiesis.simulate import layout
from autopoiesis.simulate.simulation import Simulation

RUN_UNDER_WAY = ["began", "steps", "a", "b", "contexts", "decoding"]
COUNTED = ["busy", "prompt_tokens", "generated_tokens", "preemptions"]


class End(str, Enum):
    """Why a replica is no longer there."""

    CANCELLED = "cancelled"
    """A plan stopped it while it still loaded."""
    DRAINED = "drained"
    """A plan stopped it, and it finished what it had."""
    CUT_OFF = "cut off"
    """A plan stopped it, and its drain took too long: what was left was continued elsewhere."""
    LOST = "lost"
    """Its node was taken."""
    RUN = "end of run"
    """It was still there when the run ended."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a replica has done since it began to serve, in whole steps."""

    busy: int = 0
    """Picoseconds in steps."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0


@dataclass(slots=True)
class Life:
    """One replica. Times are picoseconds of the run; None until it comes to that."""

    placed: Placed
    launched: int
    slot: int | None = None
    serving_from: int | None = None
    draining_from: int | None = None
    ended: int | None = None
    end: End | None = None
    continued: int = 0
    """Requests that it left unfinished and that were continued elsewhere."""
    counts: Counts = Counts()
    """As of its end."""
    samples: int = 0
    """Telemetry samples that arrived since the last `Lives.snapshot`."""
    kv_use: float = 0.0
    """Sum of their KV use."""
    kv_peak: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The k replicas that served at any time since the snapshot before."""

    ids: NDArray[np.int64]
    """(k,)"""
    counts: NDArray[np.int64]
    """(k, 4) since the replica began to serve: the fields of `Counts`."""
    samples: NDArray[np.int64]
    """(k,) telemetry samples since the snapshot before."""
    kv_use: NDArray[np.float64]
    """(k, 2) sum and peak of their KV use."""


class Lives:
    """Told by the fleet what becomes of its replicas; reads the counters of the simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.of: dict[int, Life] = {}
        """By replica id, in order of launch."""
        self._simulation = simulation
        self._recent: dict[int, Life] = {}
        """Those that served at any time since the last snapshot."""

    @property
    def _now(self) -> int:
        return int(self._simulation.state.scalars[layout.NOW])

    def launched(self, placed: Placed) -> None:
        self.of[placed.id] = Life(placed, self._now)

    def serving(self, placed: Placed, slot: int) -> None:
        """It serves from now on; one that nobody launched was there from the beginning."""
        life = self.of.setdefault(placed.id, Life(placed, self._now))
        life.slot, life.serving_from = slot, self._now
        self._recent[placed.id] = life

    def draining(self, id: int) -> None:
        self.of[id].draining_from = self._now

    def kept(self, id: int) -> None:
        """Its drain is undone."""
        self.of[id].draining_from = None

    def ended(self, id: int, end: End, continued: int) -> None:
        """It is gone; its slot has been stopped and not been taken by another yet."""
        life = self.of[id]
        life.ended, life.end, life.continued = self._now, end, continued
        if life.slot is not None:
            life.counts = Counts(*(int(n) for n in self._simulation.state.replicas[life.slot][COUNTED]))

    def sampled(self, gauges: Mapping[int, NDArray[np.float64]]) -> None:
        """A scrape of running, waiting, KV use and time by replica id."""
        for id, sample in gauges.items():
            life = self.of[id]
            kv_use = float(sample[2])
            life.samples += 1
            life.kv_use += kv_use
            life.kv_peak = max(life.kv_peak, kv_use)

    def counts(self, lives: Iterable[Life]) -> list[Counts]:
        """Of each, up to now or to its end: whole steps of the run under way included, so that how many steps the
        kernel takes at once makes no difference."""
        lives = list(lives)
        present = [life for life in lives if life.slot is not None and life.ended is None]
        records = self._simulation.state.replicas[[life.slot for life in present]][RUN_UNDER_WAY + COUNTED].tolist()
        now = {id(life): _counts_at(self._now, *record) for life, record in zip(present, records, strict=True)}
        return [now.get(id(life), life.counts) for life in lives]

    def snapshot(self) -> Snapshot:
        """What has been done by now; begins the next stretch of telemetry samples."""
        recent = self._recent
        counts = self.counts(recent.values())
        snapshot = Snapshot(
            ids=np.array(list(recent), dtype=np.int64),
            counts=np.array(
                [(c.busy, c.prompt_tokens, c.generated_tokens, c.preemptions) for c in counts], dtype=np.int64
            ).reshape(-1, 4),
            samples=np.array([life.samples for life in recent.values()], dtype=np.int64),
            kv_use=np.array([(life.kv_use, life.kv_peak) for life in recent.values()]).reshape(-1, 2),
        )
        for life in recent.values():
            life.samples, life.kv_use, life.kv_peak = 0, 0.0, 0.0
        self._recent = {id: life for id, life in recent.items() if life.ended is None}
        return snapshot

    def close(self) -> None:
        """The run is over, and everybody's life with it."""
        left = [life for life in self.of.values() if life.ended is None]
        for life, counts in zip(left, self.counts(left), strict=True):
            life.counts, life.ended, life.end = counts, self._now, End.RUN


def _counts_at(
    now: int,
    began: int,
    steps: int,
    a: int,
    b: int,
    contexts: int,
    decoding: int,
    busy: int,
    prompt_tokens: int,
    generated_tokens: int,
    preemptions: int,
) -> Counts:
    """What was counted before the run of steps under way, and of that run the steps that have ended."""

    def duration(count: int) -> int:
        return count * a + b * (contexts * count + decoding * (count * (count - 1) // 2))

    done = bisect_right(range(1, steps + 1), now - began, key=duration) if steps else 0
    return Counts(busy + duration(done), prompt_tokens, generated_tokens + done * decoding, preemptions)


def finisher(lives: Mapping[int, Life], slots: NDArray[Any], done: NDArray[Any]) -> NDArray[np.int64]:
    """(k,) id of the replica that held each of these slots when the request that ended there did; -1 for slot -1.

    `done` is in picoseconds. A replica that begins to serve at an instant ends nothing at that instant: that was its
    predecessor in the slot.
    """
    ids = np.full(len(slots), -1, dtype=np.int64)
    tenants: dict[int, list[tuple[int, int]]] = {}
    for id, life in lives.items():
        if life.slot is not None and life.serving_from is not None:
            tenants.setdefault(life.slot, []).append((life.serving_from, id))
    for slot, entries in tenants.items():
        rows = np.flatnonzero(slots == slot)
        entries.sort()
        since = np.array([entry[0] for entry in entries])
        position = np.maximum(np.searchsorted(since, done[rows], side="left") - 1, 0)
        ids[rows] = np.array([entry[1] for entry in entries])[position]
    return ids
