"""What is known of replicas from outside: samples of their metrics, scraped with an interval and a lag, some missing.

Gauges go to the gateway and into observations; counters go to calibration. Both are read at a scrape and known a lag
later, so nobody sees a replica as it is now. What a replica did after its last scrape is never known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost import StepTimes, Up
from autopoiesis.cost.calibration import DecodeWork
from autopoiesis.plan import Replica
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.scenario import Scenario
from autopoiesis.simulate.simulation import Simulation

SCRAPE_INTERVAL_S = 5.0
SCRAPE_LAG_S = 0.5
COUNTERS = ["pure_steps", "pure_sequences", "pure_contexts", "pure_busy"]


@dataclass(slots=True)
class _Scraped:
    """A replica that is scraped."""

    gpu: str
    times: StepTimes
    """As first believed."""
    slot: int
    gauges: tuple[float, float, float, float]
    """Running, waiting, KV use and the second of the sample, as visible now."""
    counters: tuple[int, int, int, int]
    """At the last scrape that was not missing."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape brought, to be made visible when it arrives."""

    gauges: dict[int, NDArray[np.float64]]
    """By replica id."""
    works: list[DecodeWork]


class Telemetry:
    """Scrapes a simulation's replicas, which are named by their ids. The caller keeps time."""

    def __init__(self, scenario: Scenario, simulation: Simulation) -> None:
        self._cost = scenario.cost
        self._simulation = simulation
        self._missing = scenario.hidden.telemetry_missing
        self._rng = np.random.default_rng([scenario.hidden.seed, 0x7E1E])
        self._replicas: dict[int, _Scraped] = {}
        self._works: list[DecodeWork] = []
        self._starts: list[tuple[float, float]] = []

    def begin(self, id: int, replica: Replica, slot: int) -> None:
        """The replica serves from now on; that it is idle now is known."""
        r = replica
        times = self._cost.steps(r.model, r.gpu, r.tensor_parallel, r.pipeline_parallel, r.kv_dtype_bytes)
        self._replicas[id] = _Scraped(r.gpu, times, slot, (0.0, 0.0, 0.0, self._simulation.now_s), (0, 0, 0, 0))

    def end(self, id: int) -> None:
        """The replica is gone."""
        self._replicas.pop(id, None)

    def scrape(self) -> Scrape:
        """Read gauges and counters of every replica whose sample does not go missing."""
        if self._missing:
            arrives = self._rng.random(len(self._replicas)) >= self._missing
            read = [id for id, there in zip(self._replicas, arrives.tolist(), strict=True) if there]
        else:
            read = list(self._replicas)
        sampled = self._simulation.sample()
        counters = self._simulation.state.replicas[COUNTERS].tolist()
        works = []
        for id in read:
            known = self._replicas[id]
            now = counters[known.slot]
            steps, sequences, contexts, busy = (new - old for new, old in zip(now, known.counters, strict=True))
            if steps:
                known.counters = now
                works.append(DecodeWork(known.gpu, known.times, steps, sequences, contexts, busy / SECOND))
        return Scrape({id: sampled[self._replicas[id].slot] for id in read}, works)

    def publish(self, scrape: Scrape) -> None:
        """The scrape has arrived: show its gauges to the gateway, and keep its work for calibration."""
        for id, gauges in scrape.gauges.items():
            known = self._replicas.get(id)
            if known is not None:
                running, waiting, kv_use, sampled_s = gauges.tolist()
                known.gauges = (running, waiting, kv_use, sampled_s)
                self._simulation.state.telemetry[known.slot] = gauges
        self._works += scrape.works

    def started(self, up: Up) -> None:
        """A replica has come up. What was to be expected of it is known from our own books on which loads were under
        way beside its own and from where, so ten starts that shared one drive do not look like ten slow ones."""
        self._starts.append((up.seconds, self._cost.start_slow * up.expected_s))

    def take_measurements(self) -> tuple[list[DecodeWork], list[tuple[float, float]]]:
        """Decode work and replica starts known since the last call, for calibration."""
        works, self._works = self._works, []
        starts, self._starts = self._starts, []
        return works, starts

    def gauges(self, id: int) -> tuple[float, float, float, float]:
        """Running, waiting, KV use and the second of the sample."""
        return self._replicas[id].gauges
