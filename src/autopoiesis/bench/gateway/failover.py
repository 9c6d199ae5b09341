"""A replica is killed under load and comes back: what becomes of plain requests, and of streams that had begun."""

from __future__ import annotations

import time
from dataclasses import dataclass

from autopoiesis.bench.gateway.answer import Ending
from autopoiesis.bench.gateway.claims import Claim, nothing
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.load_plan import Report
from autopoiesis.bench.gateway.scene import Scene
from autopoiesis.bench.gateway.targets import OURS, Target

PLAIN = {"connections": 32, "seconds": 14.0, "first_ms": 20}
STREAMS = {"connections": 32, "seconds": 14.0, "stream": True, "tokens": 64, "first_ms": 20, "each_ms": 10}
KILL_S, RESTART_S = 2.0, 3.0
"""From when both loads are under way, and from the kill."""
BUSY = 48
"""Requests in progress that show that both loads are."""


@dataclass(frozen=True, slots=True)
class Failover:
    """What clients of one gateway saw."""

    target: str
    title: str
    plain: Report
    streams: Report
    returned: int
    """Requests that the replica answered after it had come back."""

    def claims(self) -> list[Claim]:
        if self.target != OURS.name:
            return []
        endings = self.streams.endings
        bad = self.streams.failed - endings.get(Ending.ERROR_EVENT, 0)
        begun = f"{endings.get(Ending.ERROR_EVENT, 0)} ended in one, of {sum(endings.values())}"
        return [
            nothing("replica killed: plain requests failed", [self.plain.failed], f"of {self.plain.whole}"),
            nothing("replica killed: streams that ended otherwise than whole or in an error event", [bad], begun),
            nothing("replica killed: streams that hang", [endings.get(Ending.HUNG, 0)]),
            Claim("replica back: requests that it answered", "", 1.0, (float(self.returned),), at_least=True),
        ]


def failover(scene: Scene, target: Target) -> Failover:
    """Raises Unavailable or AutopoiesisError."""
    with Engines(scene.cores, scene.folder, apart=True) as engines, scene.gateway(target, engines) as gateway:
        port = engines.ports[-1]
        with scene.sending(gateway, **PLAIN) as plain, scene.sending(gateway, **STREAMS) as streams:
            engines.wait_busy(BUSY)
            time.sleep(KILL_S)
            engines.kill(port)
            time.sleep(RESTART_S)
            engines.restart(port)
            reports = plain.report(), streams.report()
        return Failover(target.name, gateway.title, *reports, engines.state(port)["answered"])
