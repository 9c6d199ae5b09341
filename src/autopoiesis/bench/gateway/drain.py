"""Replicas are drained under load, one after the other, and the drains cancelled: nothing is lost, nothing is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from autopoiesis.bench.gateway.claims import Claim, nothing
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.load_plan import Report
from autopoiesis.bench.gateway.processes import HOST
from autopoiesis.bench.gateway.scene import Gateway, Scene
from autopoiesis.bench.gateway.targets import OURS
from autopoiesis.errors import AutopoiesisError

PLAIN = {"connections": 32, "seconds": 12.0, "first_ms": 20}
STREAMS = {"connections": 32, "seconds": 12.0, "stream": True, "tokens": 64, "first_ms": 20, "each_ms": 10}
BUSY = 48
"""Requests in progress that show that both loads are under way."""
DRAINS = 6
BEFORE_S = 1.0
EMPTY_S = 0.5
"""How long a replica is watched once it has nothing left."""
PATIENCE_S = 10.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Drains:
    """What came of drains under load."""

    plain: Report
    streams: Report
    drained_s: tuple[float, ...]
    """From the order until the replica had nothing left."""
    sent: int
    """Requests that drained replicas got all the same."""
    back_s: tuple[float, ...]
    """From the end of a drain to the first request that the replica has answered after it."""

    def claims(self) -> list[Claim]:
        lost = [self.plain.failed, self.streams.failed]
        whole = f"{len(self.drained_s)} drains, {self.plain.whole} plain requests and {self.streams.whole} streams"
        return [
            nothing("drains: requests lost", lost, whole),
            nothing("drains: requests sent to a drained replica", [self.sent]),
        ]


def drain(scene: Scene) -> Drains:
    """Raises Unavailable, or AutopoiesisError if a replica does not get empty or does not come back."""
    with Engines(scene.cores, scene.folder) as engines, scene.gateway(OURS, engines) as gateway:
        drained_s, back_s, sent = [], [], 0
        with scene.sending(gateway, **PLAIN) as plain, scene.sending(gateway, **STREAMS) as streams:
            engines.wait_busy(BUSY)
            time.sleep(BEFORE_S)
            for number in range(DRAINS):
                port = engines.ports[number % len(engines.ports)]
                drained, got, back = _drained(gateway, engines, port)
                drained_s.append(drained)
                back_s.append(back)
                sent += got
            reports = plain.report(), streams.report()
    return Drains(*reports, tuple(drained_s), sent, tuple(back_s))


def _drained(gateway: Gateway, engines: Engines, port: int) -> tuple[float, int, float]:
    """Drain a replica and cancel: seconds until it was empty, requests it got then, seconds until it answered again."""
    path = f"replicas/{HOST}:{port}"
    began = time.monotonic()
    gateway.operate("POST", f"{path}/drain")
    _until(lambda: gateway.operate("GET", path)["in_flight"] == 0, f"{path} does not get empty")
    drained = time.monotonic()
    answered = engines.state(port)["answered"]
    time.sleep(EMPTY_S)
    state = engines.state(port)
    cancelled = time.monotonic()
    gateway.operate("DELETE", f"{path}/drain")
    _until(lambda: engines.state(port)["answered"] > state["answered"], f"{path} gets nothing any more")
    return drained - began, state["answered"] + state["running"] - answered, time.monotonic() - cancelled


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise AutopoiesisError(f"{otherwise} within {PATIENCE_S:g} s")
        time.sleep(POLL_S)
