"""Whole runs for the benchmarks: a hosted policy, windows, telemetry, books; and candidates replayed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from autopoiesis.bench.scenes import COST, FLEET, MODEL
from autopoiesis.cluster import Cluster, Pool, catalog
from autopoiesis.evolve.replay import Fitness, Stretch
from autopoiesis.evolve.replayer import Replayer
from autopoiesis.evolve.store import Store
from autopoiesis.plan import Capacity, ServingPlan
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.library import library
from autopoiesis.simulate.hosted import ESTIMATOR, HostedPolicy
from autopoiesis.simulate.run import Outcome, Run
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Mode, Scenario, draw_hidden
from autopoiesis.workload import SLO, Requests

EIGHT = Cluster(
    "eight", (Pool("h100", "h100", gpus_per_node=8, minimum=8, maximum=8, price_per_hour=2.5),), COST.hardware.gpus
)
LARGE = "homogeneous-32"
LARGE_FLEET = FLEET[:1] * 32
DEADLINE_S = 30.0


class Runs:
    """Runs policies in their locked host. Close it, or use it in a `with` block."""

    def __init__(self) -> None:
        self._replays = 0

    def __enter__(self) -> Runs:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="autopoiesis-bench-")))
            self._template = stack.enter_context(HostTemplate(ESTIMATOR))
            self._store = stack.enter_context(Store(str(folder / "bench.db")))
            self._replayer = Replayer(self._template, self._store, "bench", DEADLINE_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def serve(self, requests: Requests, seed: int = 0) -> Outcome:
        """From a scenario to its books, under `static` on eight replicas."""
        return self._run(scenario_of(EIGHT, requests, seed), ServingPlan(FLEET)).finish()

    def replay(self, name: str, requests: Requests, window_s: float) -> Fitness:
        """A policy of the library over these requests on 32 GPUs, in the world of the belief.

        Each call has a seed of its own, so that nothing is answered from the store.
        """
        self._replays += 1
        scenario = scenario_of(catalog.cluster(LARGE), requests, self._replays, window_s, believed=True)
        windows = round(scenario.duration_s / window_s)
        capacity = Capacity.at_minimum(scenario.cluster)
        stretch = Stretch(scenario, ServingPlan(LARGE_FLEET), capacity, Mode.OPERATOR, 0, windows)
        return self._replayer.measure(library()[name], stretch)

    def _run(self, scenario: Scenario, plan: ServingPlan) -> Run:
        policy = HostedPolicy(self._template, library()["static"], scenario.planner_deadline_s)
        self._stack.callback(policy.close)
        capacity = Capacity.at_minimum(scenario.cluster)
        return Run(scenario, policy, plan, capacity, Mode.OPERATOR)


def scenario_of(
    cluster: Cluster, requests: Requests, seed: int, window_s: float = 60.0, believed: bool = False
) -> Scenario:
    """These requests in the world of a seed, or in one without secrets."""
    hidden = NOTHING_HIDDEN if believed else draw_hidden(cluster, seed)
    return Scenario(
        cluster, (MODEL,), requests, {MODEL: SLO()}, COST, hidden, window_s=window_s, planner_deadline_s=DEADLINE_S,
        seed=seed,
    )  # fmt: skip
