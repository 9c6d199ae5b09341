"""The policy is swapped a thousand times under load: nothing is lost, and latency is what it is without.

Loads with swaps and without take turns; those without get as many requests to the admin API, which only ask for the
policy in force. Both policies have been in force before, so that what is measured is swapping, not compiling. How much
two neighbouring loads without swaps differ says how much is noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise, repeat
from statistics import fmean

from autopoiesis.bench.gateway.claims import Claim, nothing
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.load_plan import Report, Spread
from autopoiesis.bench.gateway.scene import Gateway, Scene
from autopoiesis.bench.gateway.targets import FEWEST_TOKENS, LEAST_LOADED, OURS

SWAPS = 1_000
TURNS, TURNS_MAX = 5, 15
"""Loads with swaps that should do, and the most: on a busy machine a load may end before its swaps are made."""
LOAD = {"connections": 32, "seconds": 8.0, "first_ms": 10}
Order = tuple[str, str, bytes | None]
"""Method, path and body of a request to the admin API."""
ASK: Order = ("GET", "policy", None)
BUSY = 8
"""Requests in progress that show that the load is under way."""
EVERY_S = 0.025
"""Between two swaps."""
NOISE_MAX = 2.0
"""Neighbouring loads that differ more than that by themselves show nothing about swaps."""
COMPILED_S = 11.0
"""Until the process that compiles has ended, for want of work."""


@dataclass(frozen=True, slots=True)
class Swaps:
    """Loads in the order in which they were: without, with, without … without."""

    without: tuple[Report, ...]
    during: tuple[Report, ...]
    swaps: int

    def claims(self) -> list[Claim]:
        lost = [report.failed for report in (*self.without, *self.during)]
        rows = [
            Claim("policy swaps under load", "", float(SWAPS), (float(self.swaps),), at_least=True),
            nothing("policy swaps: requests lost", lost, f"of {sum(report.whole for report in self.during)}"),
        ]
        for name, value in (("p50", lambda s: s.p50), ("p99", lambda s: s.p99)):
            ratios, noise = self._ratios(value)
            note = "the limit is the largest between neighbouring loads without swaps"
            if max(noise) > NOISE_MAX:
                ratios, note = (), f"{note}: too noisy to tell"
            rows.append(Claim(f"policy swaps: added latency, {name} ÷ that without", "", max(noise), ratios, note=note))
        return rows

    def _ratios(self, value: Callable[[Spread], float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each load with swaps to its neighbours, and of neighbours among those without."""
        without = [value(report.added) for report in self.without if report.added]
        during = [value(report.added) for report in self.during if report.added]
        beside = list(pairwise(without))
        ratios = tuple(mine / fmean(pair) for mine, pair in zip(during, beside, strict=True))
        return ratios, tuple(max(pair) / min(pair) for pair in beside)


def swaps(scene: Scene) -> Swaps:
    """Raises Unavailable, or AutopoiesisError if a policy is refused."""
    one, other = (path.read_bytes() for path in (LEAST_LOADED, FEWEST_TOKENS))
    back = ("POST", "policy/rollback", None)
    # Taken up where the load before has left off, so that each changes something.
    turns = cycle([_put(one), _put(other), back, _put(other), _put(one), back])
    asking = repeat(ASK)
    done = 0
    without, during = list[Report](), list[Report]()
    with Engines(scene.cores, scene.folder) as engines, scene.gateway(OURS, engines) as gateway:
        for text in (one, other):
            gateway.operate(*_put(text))
        time.sleep(COMPILED_S)
        without.append(_loaded(scene, engines, gateway, asking, SWAPS // TURNS)[0])
        while done < SWAPS and len(during) < TURNS_MAX:
            report, count = _loaded(scene, engines, gateway, turns, min(SWAPS // TURNS, SWAPS - done))
            during.append(report)
            done += count
            without.append(_loaded(scene, engines, gateway, asking, SWAPS // TURNS)[0])
    return Swaps(tuple(without), tuple(during), done)


def _put(text: bytes) -> Order:
    return ("PUT", "policy", text)


def _loaded(
    scene: Scene, engines: Engines, gateway: Gateway, orders: Iterator[Order], count: int
) -> tuple[Report, int]:
    """A load during which so many orders are given in turns, as far as it lasts; how often the policy changed."""
    with scene.sending(gateway, **LOAD) as sending:
        engines.wait_busy(BUSY)
        began, changes = time.monotonic(), 0
        identity = gateway.operate(*ASK)["identity"]
        for number in range(count):
            if not sending.under_way:
                break
            now_in_force = gateway.operate(*next(orders))["identity"]
            changes += now_in_force != identity
            identity = now_in_force
            time.sleep(max(0.0, began + (number + 1) * EVERY_S - time.monotonic()))
        return sending.report(), changes
