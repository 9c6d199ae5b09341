"""What is kept of a served row beside its books, so that it can be told later: how it went, and who was at work.

A row that is answered from the store has no run behind it any more. Its account is small, and of bounded size whatever
the run: a few hundred stretches of time, the replicas there were, the events that deserved a line, and the policies
that took over with their ancestors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import Cluster
from autopoiesis.control.config import EvolutionConfig, Row, ScenarioConfig, SwapEntry
from autopoiesis.control.prepare import Prepared
from autopoiesis.evolve.store import GateRecord, Store
from autopoiesis.plan import ServingPlan
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.outcome import Books, PaperTimes
from autopoiesis.simulate.run import Notice, Run
from autopoiesis.simulate.scenario import Mode
from autopoiesis.simulate.tables import ALL, window_table
from autopoiesis.workload import SLO

if TYPE_CHECKING:
    from autopoiesis.simulate.lives import Life

MOST_STRETCHES = 240
"""Stretches of time that a course has at most; beyond, several windows make one."""
MOST_REPLICAS = 1000
"""Replicas whose lives are kept, those launched first."""
MOST_EVENTS = 200
"""Events that are kept, the first ones; the others are counted."""
TOLD = ("capacity", "repair", "refusal", "failure")
"""Kinds of notices that are kept as events; reschedules, transitions and swaps are kept as what they are."""
DECIMALS = 6
"""Of seconds, dollars and GPUs."""


class Happening(msgspec.Struct, frozen=True):
    """Something that deserved a line while the row was served."""

    at_s: float
    kind: str
    """One of `TOLD`."""
    text: str


class Load(msgspec.Struct, frozen=True):
    """What came for one model, by stretch."""

    arrivals: list[int]
    input_tokens: list[int]
    """Of the requests that arrived."""
    completed: list[int]
    output_tokens: list[int]
    """Of the requests that completed."""


class ReplicaLife(msgspec.Struct, frozen=True):
    """One replica that there was; None where it never came to that."""

    model: str
    gpu: str
    tensor_parallel: int
    pipeline_parallel: int
    role: str
    gpus: list[tuple[str, int]]
    """Node and position on it, of each GPU that it held."""
    launched_s: float
    serving_from_s: float | None
    draining_from_s: float | None
    ended_s: float
    end: str
    """A value of `lives.End`."""


class Course(msgspec.Struct, frozen=True):
    """A row over time: n stretches of one or more windows, the last one ending with the run.

    All lists but the last three have n entries; None stands where there is no such thing.
    """

    together: int
    """Windows in a stretch."""
    end_s: list[float]
    """A stretch begins where the one before it ended, the first at 0."""
    arrivals: list[int]
    completed: list[int]
    good: list[int]
    lost: list[int]
    shed: list[int]
    rejected: list[int]
    backlog: list[int]
    """At the end of the stretch."""
    ttft_p50_s: list[float | None]
    ttft_p90_s: list[float | None]
    ttft_p99_s: list[float | None]
    tpot_p90_s: list[float | None]
    gpus: list[float | None]
    """Held, mean over the stretch."""
    cost_usd: list[float | None]
    scheduling_s: list[float | None]
    reconfiguration_s: list[float | None]
    reschedules: list[int]
    policy: list[str]
    """Identity of the one at work at the end of the stretch."""
    loads: dict[str, Load]
    """By model."""
    replicas: list[ReplicaLife]
    replicas_left_out: int


class Ancestor(msgspec.Struct, frozen=True):
    """A policy that took over, or one that it was made from."""

    identity: str
    name: str
    provider: str
    """Who made it: a provider's name, or `human`."""
    parents: list[str]
    """Identities."""
    summary: str
    source: str


class Gate(msgspec.Struct, frozen=True):
    """A gate's verdict on a policy."""

    t: float
    policy: str
    gate: str
    passed: bool
    evidence: dict[str, Any]


class Lineage(msgspec.Struct, frozen=True):
    """The policies at work in an evolving row, and how many others there were."""

    first: str
    """Identity of the one that the row began with."""
    policies: dict[str, Ancestor]
    """By identity: all that were at work, and their ancestors."""
    gates: list[Gate]
    """Verdicts on those that took over, in order of time."""
    tally: dict[str, tuple[int, int]]
    """By gate: how often a policy passed it, and how often one was refused."""


class Leg(msgspec.Struct):
    """One row in one mode, as it is kept."""

    books: Books | None
    paper: PaperTimes | None
    reschedules: int
    swaps: list[SwapEntry]
    events: list[Happening] = []
    events_left_out: int = 0
    course: Course | None = None
    """None only while the leg is made."""
    lineage: Lineage | None = None
    """Of the evolving row, and of a policy simulated by itself."""


@dataclass(frozen=True)
class Setting:
    """What was served, on what, how hard and to what end."""

    scenario: ScenarioConfig
    evolution: EvolutionConfig | None
    """None where nothing evolved."""
    cluster: Cluster
    slos: dict[str, SLO]
    factors: dict[str, float]
    """By model: by what its trace was multiplied."""
    plan: ServingPlan
    """That every policy began with."""
    requests: int
    duration_s: float
    """Up to the last recorded arrival."""


@dataclass(frozen=True)
class Account:
    """All that can be told of a finished run."""

    setting: Setting
    rows: tuple[Row, ...]
    swaps: tuple[SwapEntry, ...]
    legs: dict[tuple[str, Mode], Leg]
    """By name of the row and mode."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Those that were served."""
        return tuple(mode for mode in Mode if any(served is mode for _, served in self.legs))

    def course(self, name: str, mode: Mode = Mode.OPERATOR) -> Course:
        """How a row went."""
        course = self.legs[name, mode].course
        if course is None:
            raise ValueError(f"the course of {name} in mode {mode.value} has not been taken")
        return course


def setting_of(scenario: ScenarioConfig, evolution: EvolutionConfig | None, prepared: Prepared) -> Setting:
    """What an account says of the scenario, from the configuration and what was prepared for it."""
    return Setting(
        scenario,
        evolution,
        prepared.scenario.cluster,
        prepared.scenario.slos,
        prepared.factors,
        prepared.plan,
        len(prepared.scenario.requests),
        prepared.scenario.duration_s,
    )


def happenings(notices: Iterable[Notice]) -> tuple[list[Happening], int]:
    """The events that are kept, and how many are not."""
    told = [Happening(round(n.at_s, DECIMALS), n.kind, n.text) for n in notices if n.kind in TOLD]
    return told[:MOST_EVENTS], max(0, len(told) - MOST_EVENTS)


def course_of(run: Run) -> Course:
    """How a finished run went."""
    together = max(1, ceil(len(run.marks) / MOST_STRETCHES))
    table = window_table(run, together)
    whole = table.model == ALL

    def counts(name: str, rows: NDArray[np.bool_] = whole) -> list[int]:
        return [int(value) for value in getattr(table, name)[rows]]

    def measures(name: str) -> list[float | None]:
        values = getattr(table, name)[whole].tolist()
        return [None if value != value else round(value, DECIMALS) for value in values]

    loads = {}
    for model in run.world.simulation.models:
        rows = (table.model == model) & (table.request_class == ALL)
        loads[model] = Load(
            counts("arrivals", rows),
            counts("input_tokens", rows),
            counts("completed", rows),
            counts("output_tokens", rows),
        )
    lives = [run.world.fleet.lives.of[id] for id in sorted(run.world.fleet.lives.of)]
    return Course(
        together=together,
        end_s=[round(end_s, DECIMALS) for end_s in table.end_s[whole].tolist()],
        arrivals=counts("arrivals"),
        completed=counts("completed"),
        good=counts("good"),
        lost=counts("lost"),
        shed=counts("shed"),
        rejected=counts("rejected"),
        backlog=counts("backlog"),
        ttft_p50_s=measures("ttft_p50_s"),
        ttft_p90_s=measures("ttft_p90_s"),
        ttft_p99_s=measures("ttft_p99_s"),
        tpot_p90_s=measures("tpot_p90_s"),
        gpus=measures("gpus"),
        cost_usd=measures("cost_usd"),
        scheduling_s=measures("scheduling_s"),
        reconfiguration_s=measures("reconfiguration_s"),
        reschedules=counts("reschedules"),
        policy=table.policy[whole].tolist(),
        loads=loads,
        replicas=[_life(life) for life in lives[:MOST_REPLICAS]],
        replicas_left_out=max(0, len(lives) - MOST_REPLICAS),
    )


def _life(life: Life) -> ReplicaLife:
    replica = life.placed.replica

    def seconds(at: int | None) -> float | None:
        return None if at is None else round(at / SECOND, DECIMALS)

    return ReplicaLife(
        replica.model,
        replica.gpu,
        replica.tensor_parallel,
        replica.pipeline_parallel,
        replica.role.value,
        [(node, position) for node, position in life.placed.gpus],
        round(life.launched / SECOND, DECIMALS),
        seconds(life.serving_from),
        seconds(life.draining_from),
        round((life.ended or 0) / SECOND, DECIMALS),
        "" if life.end is None else life.end.value,
    )


def lineage_of(store: Store, run_key: str, mode: Mode, first: PolicySource, swaps: Iterable[SwapEntry]) -> Lineage:
    """Who was at work in an evolving row, from what its evolution left in the store."""
    at_work = {first.identity, *(swap.policy for swap in swaps)}
    records = store.gates(run_key, mode.value)
    tally: dict[str, tuple[int, int]] = {}
    for record in records:
        passed, refused = tally.get(record.gate, (0, 0))
        tally[record.gate] = (passed + record.passed, refused + (not record.passed))
    return Lineage(
        first.identity,
        _ancestors(store, at_work, first),
        [_gate(record) for record in records if record.policy in at_work],
        dict(sorted(tally.items())),
    )


def alone(policy: PolicySource) -> Lineage:
    """Of a policy that was served by itself."""
    return Lineage(policy.identity, {policy.identity: _human(policy)}, [], {})


def _ancestors(store: Store, identities: Iterable[str], first: PolicySource) -> dict[str, Ancestor]:
    found: dict[str, Ancestor] = {first.identity: _human(first)}
    wanted = set(identities) - set(found)
    while wanted:
        records = [record for record in map(store.get_policy, sorted(wanted)) if record is not None]
        for r in records:
            found[r.id] = Ancestor(r.id, r.name, r.provider, list(r.parents), r.summary, r.source)
        wanted = {parent for record in records for parent in record.parents} - set(found)
    return dict(sorted(found.items()))


def _human(policy: PolicySource) -> Ancestor:
    return Ancestor(policy.identity, policy.name, "human", [], policy.summary, policy.text)


def _gate(record: GateRecord) -> Gate:
    return Gate(record.t, record.policy, record.gate, record.passed, record.evidence)
