"""A scenario: everything that a run is about, and that no policy can change."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import Cluster
from autopoiesis.cost import CostModel, feasible_shapes
from autopoiesis.plan import Envelope, Replica
from autopoiesis.simulate.supply import CapacityEvent
from autopoiesis.workload import SLO, Requests

OBJECTIVES = ("cost_per_good", "goodput", "delay", "total_time")


class Mode(str, Enum):
    """How time and load are laid out."""

    OPERATOR = "operator"
    """Open arrivals, closed-loop sessions, backlog carries over."""
    OVERLAPPED = "overlapped"
    """Batches; the old plan serves while the planner runs and while replicas come up."""
    ADDITIVE = "additive"
    """Batches; nothing serves while the planner runs or the cluster moves."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """How the world differs from the data sheet. Drawn once from the scenario's seed; policies never see it."""

    slow: dict[str, float] = field(default_factory=dict)
    """By GPU kind: factor on step times."""
    start_slow: float = 1.0
    start_deviation: float = 0.25
    """Of the logarithm of a start time."""
    step_noise: float = 0.03
    """Standard deviation of a batch's step times, relative."""
    straggler_share: float = 0.04
    """Share of GPUs that are slow …"""
    straggler_slow: float = 0.3
    """… by up to this fraction."""
    telemetry_missing: float = 0.02
    """Share of samples that never arrive."""
    losses: tuple[CapacityEvent, ...] | None = None
    """What befalls the nodes: spot losses and returns, failures; None: drawn from the seed as time goes."""
    seed: int = 0
    """Of everything above that is drawn while a world runs."""


NOTHING_HIDDEN = Hidden(
    start_deviation=0.0,
    step_noise=0.0,
    straggler_share=0.0,
    telemetry_missing=0.0,
    losses=(),
    # no world's seed: what is still drawn (how long a requested node takes) must not repeat what the world will draw
    seed=0xBE11EF << 64,
)
"""The world as a belief imagines it: what a replay runs in."""

GPU_BIAS = 0.2


def draw_hidden(cluster: Cluster, seed: int) -> Hidden:
    """A world for a seed: every GPU kind biased by up to ±20 %, starts by up to ±30 %."""
    rng = np.random.default_rng([seed, 0x51DE])
    kinds = sorted({pool.gpu for pool in cluster.pools})
    slow = {gpu: float(rng.uniform(1 - GPU_BIAS, 1 + GPU_BIAS)) for gpu in kinds}
    return Hidden(slow=slow, start_slow=float(rng.uniform(0.7, 1.3)), seed=seed)


@dataclass(frozen=True)
class Scenario:
    """A load on a cluster, what is promised, what is wanted and what is hidden."""

    cluster: Cluster
    models: tuple[str, ...]
    requests: Requests
    slos: dict[str, SLO]
    cost: CostModel
    """What is believed before anything is measured: the data sheet's or, in a replay, the belief. The world's is
    `truth`."""
    hidden: Hidden
    envelope: Envelope = field(default_factory=Envelope)
    objective: str = "cost_per_good"
    window_s: float = 60.0
    planner_deadline_s: float = 30.0
    seed: int = 0
    planner_cost: float = 1.0
    """Factor on the metered seconds of trigger and planner; 0 makes planning free."""
    router: str = "balanced"
    """The built-in router, one of `routers.ROUTERS`, for policies without a `route` of their own."""

    @cached_property
    def truth(self) -> CostModel:
        """The world's cost model: what is hidden comes on top of what is believed."""
        cost, hidden = self.cost, self.hidden
        slow = {gpu: cost.slow.get(gpu, 1.0) * hidden.slow.get(gpu, 1.0) for gpu in sorted({*cost.slow, *hidden.slow})}
        return cost.with_slow(slow, cost.start_slow * hidden.start_slow)

    @cached_property
    def shapes(self) -> tuple[Replica, ...]:
        """Every replica shape that fits, with default engine options."""
        return tuple(
            Replica(s.model, s.gpu, s.tensor_parallel, s.pipeline_parallel)
            for s in feasible_shapes(self.cost, self.cluster, self.models)
        )

    @cached_property
    def unloaded_s(self) -> NDArray[np.float64]:
        """(n,) end-to-end seconds of each request alone on the fastest replica that the data sheet allows."""
        requests = self.requests
        best = np.full(len(requests), np.inf)
        for shape in self.shapes:
            rows = np.flatnonzero(requests.model == self.models.index(shape.model))
            times = self.cost.steps(shape.model, shape.gpu, shape.tensor_parallel, shape.pipeline_parallel, 2)
            inputs = requests.input_tokens[rows].astype(np.float64)
            outputs = requests.output_tokens[rows].astype(np.float64)
            unloaded_s = times.unloaded_s(inputs, outputs, shape.batched_tokens)
            best[rows] = np.minimum(best[rows], unloaded_s)
        return best

    @property
    def duration_s(self) -> float:
        """Up to the last recorded arrival, in whole windows."""
        last = float(self.requests.arrival_s[-1]) if len(self.requests) else 0.0
        return (math.floor(last / self.window_s) + 1) * self.window_s

    def with_requests(self, requests: Requests) -> Scenario:
        return replace(self, requests=requests)

    def digest(self) -> str:
        """Identifies the scenario's content, so that results computed for it can be found again."""
        digest = hashlib.sha256()
        settings: tuple[object, ...] = (
            (self.cluster, self.models, self.slos, self.cost.slow, self.cost.start, self.cost.start_slow),
            (self.cost.measured, sorted(self.cost.efficiencies.items()), self.cost.engine),
            (
                self.hidden,
                self.envelope,
                self.objective,
                self.window_s,
                self.planner_deadline_s,
                self.planner_cost,
                self.seed,
                self.router,
            ),
        )
        digest.update(repr(settings).encode())
        for model in self.models:
            digest.update(repr(self.cost.hardware.models[model]).encode())
        for name in (*Requests.COLUMNS, "block_ids"):
            digest.update(np.ascontiguousarray(getattr(self.requests, name)).tobytes())
        return digest.hexdigest()
