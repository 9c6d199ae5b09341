"""The policy interface, version 1: what a policy sees, and what it answers.

An `Observation` is plain data and travels to the policy host as bytes; a `ServingState` is the same observation
with an estimator attached, and is what a policy's functions receive. `docs/policy.md` is the interface in words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from autopoiesis.plan import Envelope, Replica, ServingPlan
from autopoiesis.policy.fields import HOLD as HOLD
from autopoiesis.policy.fields import REPLICA_FIELDS as REPLICA_FIELDS
from autopoiesis.policy.fields import REQUEST_FIELDS as REQUEST_FIELDS
from autopoiesis.policy.fields import SHED as SHED
from autopoiesis.workload import SLO, Window

RECENT_WINDOWS = 12
"""Windows shown beside the current one."""
MEMORY_BYTES = 64 * 1024
"""Largest memory, as JSON."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as the policy sees it. Counts are GPUs."""

    name: str
    gpu: str
    gpus_per_node: int
    available: int
    requested: int
    """GPUs asked for and not yet withdrawn, the available ones included."""
    minimum: int
    maximum: int
    price_per_hour: float
    spot: bool
    start_s_p50: float
    start_s_p90: float


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """An announced change: at `at_s` the pool will have `gpus` GPUs available."""

    at_s: float
    pool: str
    gpus: int


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica as last known. `in_flight` counts are our own and exact; the rest is telemetry of the given age."""

    replica: Replica
    phase: str
    """`loading`, `serving` or `draining`."""
    in_flight: int
    in_flight_tokens: int
    """Prompt tokens of the requests in flight."""
    running: int
    waiting: int
    kv_use: float
    """Fraction of the KV cache in use."""
    telemetry_age_s: float


@dataclass(frozen=True, slots=True)
class TransitionStatus:
    """A transition under way."""

    plan: ServingPlan
    """Where it leads: the pending plan."""
    started_s: float
    started: int
    """Replicas started so far, of `to_start`."""
    to_start: int


@dataclass(frozen=True, slots=True)
class PastTransition:
    """What a finished reconfiguration really cost."""

    ended_s: float
    seconds: float
    started: int
    stopped: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan would give under the current window's mix, by the belief."""

    feasible: bool
    headroom: float
    """The largest multiple of the window's load that the plan serves within SLO; 0 if some class has no replica."""
    goodput: float
    """Expected fraction of requests answered within their SLO, 0 to 1."""
    cost_per_good_usd: float
    """Money per good request; infinite when none is good."""
    delay_s: float
    """Mean time of a request beyond its unloaded time."""
    ttft_p90_s: float
    tpot_p90_s: float


@dataclass(frozen=True, slots=True)
class Transition:
    """What it would take to move from what runs now to a plan, by the belief."""

    seconds: float
    money_usd: float
    """Price of the GPUs that change hands, for as long as they serve nothing."""
    capacity_kept: float
    """Least fraction of today's serving capacity (in GPUs) that serves throughout."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at a monitoring point, and nothing later. Everything in it is immutable by convention."""

    now_s: float
    window_s: float
    objective: str
    """`cost_per_good`, `goodput`, `delay` or `total_time`."""
    window: Window | None
    """The window that has just ended; None at the very first point."""
    recent: tuple[Window, ...]
    """Up to 12 windows before it, oldest first."""
    models: tuple[str, ...]
    slos: dict[str, SLO]
    """By model."""
    pools: tuple[PoolView, ...]
    announced: tuple[CapacityChange, ...]
    shapes: tuple[Replica, ...]
    """Every replica shape that fits in memory on some GPU kind of the cluster, with default engine options."""
    plan: ServingPlan
    """The plan in force."""
    replicas: tuple[ReplicaStatus, ...]
    moving: TransitionStatus | None
    """The transition under way, if any: a plan returned now replaces its pending plan."""
    past_transitions: tuple[PastTransition, ...]
    envelope: Envelope
    memory: dict[str, Any]


class Estimator(Protocol):
    """What a plan would give, answered from the belief. Every answer is deterministic and charged as an evaluation.

    A plan that cannot be placed or lacks a model gets an infeasible `Estimate` rather than an error.
    """

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate: ...

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition: ...

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        """Requests/s of each class of its model that one such replica serves within SLO.

        The replica gets the window's mix of its model, so the rates stand to each other as in that mix. A replica of
        one phase answers for this phase alone, as if the other had no limit. Empty if the shape does not fit, or if the
        window has no request of the model.
        """
        ...


@dataclass(frozen=True, slots=True)
class ServingState(Observation):
    """An observation that can be asked what a plan would give."""

    estimator: Estimator = field(repr=False)

    def estimate(self, plan: ServingPlan) -> Estimate:
        return self.estimator.estimate(self, plan)

    def transition(self, plan: ServingPlan) -> Transition:
        return self.estimator.transition(self, plan)

    def throughput(self, replica: Replica) -> dict[str, float]:
        return self.estimator.throughput(self, replica)


def serving_state(observation: Observation, estimator: Estimator) -> ServingState:
    """Attach an estimator to an observation."""
    values = {f.name: getattr(observation, f.name) for f in fields(Observation)}
    return ServingState(**values, estimator=estimator)


@dataclass(frozen=True, slots=True)
class Move:
    """How to carry a transition out."""

    drain_cap_s: float = 30.0
    """Longest wait for a leaving replica's requests; what is unfinished then is continued elsewhere."""
    migrate: bool = False
    """Continue unfinished requests by moving their KV cache instead of recomputing it."""
    capacity_kept: float = 0.5
    """Fraction of each model's serving GPUs that a rolling transition keeps serving, where GPUs are short."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a planner answers."""

    plan: ServingPlan
    capacity: dict[str, int] = field(default_factory=dict)
    """GPUs wanted of each elastic pool, by name; a pool left out keeps what was requested."""
    move: Move = Move()
    memory: dict[str, Any] | None = None
    """The new memory; None keeps the old one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `route` and `priority` know of a request. Never its output length."""

    model: float
    class_index: float
    prompt_tokens: float
    phase: float
    """0 = prefill (or both phases), 1 = decode on a disaggregated deployment."""
    prefix_key: float
    """Equal for calls of one session; -1 for a single request."""
    ttft_slo_s: float
    tpot_slo_s: float
    waited_s: float
    sequence: float
    """Counts the requests of the gateway from 0."""
    uniform1: float
    """Two draws, uniform in [0, 1), fresh for every call."""
    uniform2: float


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """What `route` knows of a replica; only replicas that serve the request's model and phase are shown."""

    index: int
    in_flight: float
    in_flight_tokens: float
    running: float
    waiting: float
    kv_use: float
    telemetry_age_s: float
    cached_tokens: float
    """Prompt tokens of this request that the replica is believed to have cached."""
    share: float
    """Fraction of the request's class that the plan gives to this replica."""
    max_sequences: float
    gpu_kind: float
    speed: float
    """Decode speed relative to the fastest replica of the model, 0 to 1."""
