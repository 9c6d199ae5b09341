"""Two gateway processes on one port: what each believes to be in flight, what the engines have, and what two cost.

While streams are held open, nothing begins or ends: the admin API, the metrics page of whichever process answers and
the engines must tell the same number for each replica, and once all is over, none.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from autopoiesis.bench.gateway.cells import PLAIN_256, Sample, rounds
from autopoiesis.bench.gateway.claims import Claim, nothing, ratios
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.processes import ASK_S, HOST
from autopoiesis.bench.gateway.scene import Gateway, Scene
from autopoiesis.bench.gateway.targets import OURS, OURS_2

STREAMS = 96
HELD = {
    "connections": STREAMS, "requests": STREAMS, "seconds": 5.0, "stream": True, "tokens": 150, "first_ms": 50,
    "each_ms": 40,
}  # fmt: skip
"""Each takes six seconds."""
SETTLE_S = 0.5
LOOKS = 20
EVERY_S = 0.1
CPU_RATIO = 1.25
_IN_FLIGHT = re.compile(r'^autopoiesis_replica_in_flight\{replica="([^"]+)"\} (\d+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Look:
    """What was told of requests in flight within a few milliseconds, in order of the replicas."""

    engines: tuple[int, ...]
    admin: tuple[int, ...]
    metrics: tuple[int, ...]
    by_worker: tuple[tuple[int, ...], ...]

    @property
    def agree(self) -> bool:
        return self.engines == self.admin == self.metrics == tuple(map(sum, self.by_worker))


@dataclass(frozen=True, slots=True)
class Agreement:
    looks: tuple[Look, ...]
    """While streams are held."""
    after: Look
    """When all is over."""
    samples: tuple[Sample, ...]
    """Of one process and of two, in turns."""
    titles: dict[str, str]
    """Of the two, by name."""

    def claims(self) -> list[Claim]:
        seen = [sum(counts) for counts in zip(*(look.by_worker[0] for look in self.looks), strict=True)]
        both = sum(count > 0 for count in seen)
        wrong = [int(not (look.agree and sum(look.engines) == STREAMS)) for look in self.looks]
        return [
            nothing("two processes: in-flight counts that disagree", wrong, f"{LOOKS} looks, {both} processes at work"),
            nothing("two processes: in flight when all is over", [sum(self.after.admin) + sum(self.after.metrics)]),
            Claim(
                "two processes: CPU for each request ÷ that of one", "", CPU_RATIO,
                ratios(self.samples, PLAIN_256.name, OURS_2.name, OURS.name, lambda sample: sample.cpu_us),
            ),
        ]  # fmt: skip


def agreement(scene: Scene, count: int) -> Agreement:
    """Raises Unavailable or AutopoiesisError."""
    with (
        Engines(scene.cores, scene.folder) as engines,
        scene.gateway(OURS, engines) as one,
        scene.gateway(OURS_2, engines) as two,
    ):
        with scene.sending(two, **HELD) as sending:
            engines.wait_busy(STREAMS)
            time.sleep(SETTLE_S)
            looks = tuple(_looks(engines, two))
            sending.report()
        after = _look(engines, two)
        samples = tuple(rounds(scene, engines, (one, two), PLAIN_256, count))
        return Agreement(looks, after, samples, {g.target.name: g.title for g in (one, two)})


def _looks(engines: Engines, gateway: Gateway) -> Iterator[Look]:
    for _ in range(LOOKS):
        yield _look(engines, gateway)
        time.sleep(EVERY_S)


def _look(engines: Engines, gateway: Gateway) -> Look:
    told = gateway.operate("GET", "replicas")["replicas"]
    page = dict(_IN_FLIGHT.findall(_metrics(gateway.port)))
    return Look(
        engines=tuple(engines.state(port)["running"] for port in engines.ports),
        admin=tuple(replica["in_flight"] for replica in told),
        metrics=tuple(int(page[replica["id"]]) for replica in told),
        by_worker=tuple(tuple(replica["in_flight_by_worker"]) for replica in told),
    )


def _metrics(port: int) -> str:
    """The page of whichever process takes the connection."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ASK_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
