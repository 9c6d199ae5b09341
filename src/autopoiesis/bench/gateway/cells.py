"""Cells: a load, and what it cost each gateway. Gateways take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.load_plan import Report
from autopoiesis.bench.gateway.scene import Gateway, Scene
from autopoiesis.bench.gateway.usage import cpu_s, machine_cpu_s, memory_mib, tree


@dataclass(frozen=True)
class Cell:
    """A load by name."""

    name: str
    title: str
    plan: dict[str, Any] = field(default_factory=dict)
    """Fields of `LoadPlan`."""
    loads: int = 1
    """In a round. Several short ones are more pairs to compare: the tail of a long one is its neighbours' doing."""


PLAIN_256 = Cell("plain-256", "256 connections, plain requests", {"connections": 256, "seconds": 4.0})
PLAIN_1 = Cell("plain-1", "one connection, plain requests", {"connections": 1, "seconds": 1.0}, loads=3)
STREAM_200 = Cell(
    "stream-200",
    "128 connections, streams of 200 tokens at 50 tokens/s",
    {
        "connections": 128, "seconds": 5.0, "requests": 256, "stream": True, "tokens": 200, "first_ms": 50,
        "each_ms": 20,
    },
)  # fmt: skip
CELLS = (PLAIN_256, PLAIN_1, STREAM_200)
WARM_UP = {"connections": 64, "seconds": 1.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one gateway."""

    cell: str
    target: str
    round: int
    report: Report
    cpu_us: float | None
    """CPU time of the gateway's processes for each request, user and system; None where there is no gateway."""
    foreign: float
    """Cores that were busy with something else: neither gateways, engines nor load."""

    @property
    def rate(self) -> float:
        """Whole requests per second."""
        return self.report.whole / self.report.seconds


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a gateway's processes after its loads, MiB."""

    pss: float
    rss: float


def rounds(scene: Scene, engines: Engines, gateways: Sequence[Gateway], cell: Cell, count: int) -> Iterator[Sample]:
    """Samples of every gateway in turn, in an order that turns, too; so many rounds of the cell's loads."""
    for number in range(count * cell.loads):
        turn = number % len(gateways)
        for gateway in (*gateways[turn:], *gateways[:turn]):
            yield sample(scene, engines, gateways, gateway, cell, number)


def sample(
    scene: Scene, engines: Engines, gateways: Sequence[Gateway], gateway: Gateway, cell: Cell, number: int
) -> Sample:
    """One load. `gateways`: all that run meanwhile; what they use is not foreign."""
    pids = [] if gateway.pid is None else tree(gateway.pid)
    others = [pid for other in gateways if other.pid is not None for pid in tree(other.pid)]
    known = sorted({os.getpid(), *engines.pids, *others})
    before = cpu_s(pids), cpu_s(known), machine_cpu_s(), monotonic()
    report = scene.load(gateway, **cell.plan)
    after = cpu_s(pids), cpu_s(known), machine_cpu_s(), monotonic()
    used_s, known_s, machine_s, seconds = (now - was for now, was in zip(after, before, strict=True))
    cpu_us = 1e6 * used_s / report.whole if pids and report.whole else None
    return Sample(cell.name, gateway.target.name, number, report, cpu_us, max(0.0, machine_s - known_s) / seconds)


def memory(gateway: Gateway) -> Memory | None:
    """What a gateway has resident; None where there is none."""
    if gateway.pid is None:
        return None
    pids = tree(gateway.pid)
    return Memory(memory_mib(pids, "Pss"), memory_mib(pids, "Rss"))
