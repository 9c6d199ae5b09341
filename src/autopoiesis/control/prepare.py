"""From a configuration to a scenario: traces read, load scaled, the world hidden, the first plan chosen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.control.config import ScenarioConfig
from autopoiesis.control.phases import first_of_each
from autopoiesis.control.plans import by_headroom, calibrated, load_window, paid_gpus, serve_fixed
from autopoiesis.control.static_plan import best_fixed_plan
from autopoiesis.cost import CostModel, start_times
from autopoiesis.cost.fitted import shipped
from autopoiesis.errors import ScenarioError, TraceError, unknown_name
from autopoiesis.evolve.store import Store
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.plan import Capacity, ServingPlan, check_envelope
from autopoiesis.simulate.scenario import Scenario, draw_hidden
from autopoiesis.workload import Requests, merge
from autopoiesis.workload.classes import default_slo
from autopoiesis.workload.generate import generate_chat
from autopoiesis.workload.load import head, resample
from autopoiesis.workload.readers import read_requests

GOOD_AT_FULL_LOAD = 0.99
LOAD_PRECISION = 0.02
"""Relative precision of ρ = 1."""
PROBED_PLANS, PROBED_APART = 8, 3
"""Plans, the fluid model's best first, whose largest load the event model measures; and how many more that run prefill
and decode apart."""
FEWEST_PROBED = 50
"""Requests below which a load says nothing."""
TRAINING_SHARE = 0.25
"""Part of the workload, resampled with another seed, on which the static plan is chosen."""
DEMO_RATE_RPS = {"llama-3.1-8b": 4.0, "llama-3.1-70b": 1.0}
DEMO_HOURS = 0.25
PROBE_SEED, TRAINING_SEED = 104_729, 7_919
"""Added to the seed: load is measured, and the static plan chosen, on other samples than the one that is served."""
LARGEST_RUN = 8_000_000
"""Requests; more would not fit in memory."""


@dataclass(frozen=True)
class Prepared:
    """A scenario with the plan and the capacity that every policy starts from."""

    scenario: Scenario
    plan: ServingPlan
    capacity: Capacity
    factors: dict[str, float]
    """By model: by what its trace was multiplied."""
    full_load: float
    """The common multiple that is ρ = 1."""


@dataclass(frozen=True)
class Traces:
    """A configuration whose files have been read: the load as recorded, not yet scaled."""

    config: ScenarioConfig
    scenario: Scenario
    traces: tuple[Requests, ...]
    """By model."""


def read(config: ScenarioConfig, stage: Callable[[str], None]) -> Traces:
    """Read everything a configuration names, before anything is written anywhere.

    Raises ScenarioError and TraceError for what cannot be.
    """
    cluster = catalog.cluster(config.cluster)
    models = tuple(workload.model for workload in config.workloads)
    if not models:
        raise ScenarioError("a run needs a workload: give --workload MODEL=FILE")
    hardware = Hardware(cluster.gpus, {name: catalog.model(name) for name in models})
    slos = {name: config.slos.get(name, default_slo(hardware.models[name].active_parameters)) for name in models}
    traces = tuple(_read(config, position, stage) for position in range(len(models)))
    for workload, trace in zip(config.workloads, traces, strict=True):
        if not len(trace):
            raise TraceError(
                f"{workload.path}: no request is left for {workload.model}; give a longer trace or more --hours"
            )
    fitted = config.coefficients.over(shipped())
    engines = sorted({shape.engine for shape in fitted.measured})
    if config.engine not in engines:
        raise ScenarioError(
            f"--engine: {unknown_name('engine', config.engine, engines)}; measure it with autopoiesis calibrate, and "
            "give what that writes as --coefficients"
        )
    scenario = Scenario(
        cluster=cluster,
        models=models,
        requests=merge(list(traces)),
        slos=slos,
        cost=CostModel(
            hardware,
            measured=fitted.measured,
            efficiencies=fitted.efficiencies,
            start=start_times(cluster),
            engine=config.engine,
        ),
        hidden=draw_hidden(cluster, config.seed),
        envelope=config.envelope,
        objective=config.objective,
        window_s=config.window_s,
        seed=config.seed,
    )
    for name in models:
        if not any(shape.model == name for shape in scenario.shapes):
            raise ScenarioError(f"{name} fits on no GPU of cluster {cluster.name!r}; choose another cluster or model")
    check_envelope(config.envelope, cluster, models, scenario.shapes)
    return Traces(config, scenario, traces)


def prepare(given: Traces, store: Store, stage: Callable[[str], None]) -> Prepared:
    """Scale the load and choose the static plan; what takes long is kept in the store.

    Raises ScenarioError where no load can be served.
    """
    config, scenario, traces = given.config, given.scenario, list(given.traces)
    models = scenario.models
    key = hashlib.sha256(
        repr((scenario.digest(), config.load, sorted(config.shares.items()), fingerprint())).encode()
    ).hexdigest()
    known = store.recall(f"prepared:{key}")
    if known is not None:
        kept = msgspec.msgpack.decode(known, type=_Kept)
    else:
        base = equal_shares(scenario, traces, config.shares, stage)
        full = full_load(scenario, traces, base, stage)
        kept = _Kept([factor * full * config.load for factor in base], full, None)
    scenario = scenario.with_requests(scaled(scenario, traces, kept.factors, config.seed))
    if kept.plan is None:
        stage("choosing the static plan on the first quarter of the workload")
        training = [head(trace, TRAINING_SHARE * scenario.duration_s) for trace in traces]
        kept.plan = settled_plan(
            scenario.with_requests(scaled(scenario, training, kept.factors, config.seed + TRAINING_SEED)), stage
        )
        store.remember(f"prepared:{key}", msgspec.msgpack.encode(kept))
    scenario = replace(scenario, router=config.router)
    capacity = starting_capacity(scenario, kept.plan)
    return Prepared(scenario, kept.plan, capacity, dict(zip(models, kept.factors, strict=True)), kept.full_load)


def settled_plan(training: Scenario, stage: Callable[[str], None]) -> ServingPlan:
    """The static plan for a load like the training scenario's: chosen by the data sheet, then again by what serving it
    under that choice has calibrated, as a careful operator measures their own hardware before settling."""
    first = best_fixed_plan(training, training.cost, stage)
    measured = calibrated(training, first, starting_capacity(training, first))
    return best_fixed_plan(training, measured, stage)


def starting_capacity(scenario: Scenario, plan: ServingPlan) -> Capacity:
    """All of fixed pools, and of elastic ones the nodes that the plan needs."""
    capacity = Capacity.at_minimum(scenario.cluster)
    for pool, gpus in paid_gpus(scenario, plan).items():
        capacity = capacity.with_pool(pool, gpus)
    return capacity


class _Kept(msgspec.Struct):
    factors: list[float]
    full_load: float
    plan: ServingPlan | None


def _read(config: ScenarioConfig, position: int, stage: Callable[[str], None]) -> Requests:
    workload = config.workloads[position]
    if workload.path is None:
        rng = np.random.default_rng([config.seed, 0xDE30, position])
        hours = config.hours or DEMO_HOURS
        generated = generate_chat(rng, hours, DEMO_RATE_RPS.get(workload.model, 2.0))
        return replace(generated, model=np.full(len(generated), position, dtype=np.int64))
    stage(f"reading {workload.path}")
    return read_requests(workload.path, position, config.hours)


def scaled(
    scenario: Scenario, traces: list[Requests], factors: list[float], seed: int, shift_s: float | None = None
) -> Requests:
    """All models' requests at these multiples of their traces; copies are moved by up to half of `shift_s`, by default
    of the window, either way. Raises ScenarioError for more than memory holds, and
    where none is left."""
    expected = sum(len(trace) * factor for trace, factor in zip(traces, factors, strict=True))
    if expected > LARGEST_RUN:
        raise ScenarioError(
            f"the cluster would serve {expected:.3g} requests of this workload, more than {LARGEST_RUN:.0e}; "
            "shorten it with --hours"
        )
    parts = [
        resample(
            trace,
            factor,
            scenario.window_s if shift_s is None else shift_s,
            np.random.default_rng([seed, 0x10AD, position]),
        )
        for position, (trace, factor) in enumerate(zip(traces, factors, strict=True))
    ]
    merged = merge(parts)
    if not len(merged):
        raise ScenarioError("at this load no request is left; raise --load or give a longer trace")
    return merged


def equal_shares(
    scenario: Scenario, traces: list[Requests], shares: dict[str, float], stage: Callable[[str], None]
) -> list[float]:
    """Factors under which the models take their shares of the cluster: `shares` where given, else equal parts of the
    rest. A model's whole cluster is the load that the cluster would serve if it had nothing else to do."""
    free = [name for name in scenario.models if name not in shares]
    rest = 1.0 - sum(shares.values())
    if rest < -1e-9 or (free and rest <= 0):
        raise ScenarioError("the shares given by --share leave nothing for the other models; lower them")
    factors = []
    for name, trace in zip(scenario.models, traces, strict=True):
        if len(scenario.models) == 1:
            return [1.0]
        stage(f"measuring what the cluster serves of {name} alone")
        alone = replace(
            scenario,
            models=(name,),
            requests=replace(trace, model=np.zeros(len(trace), dtype=np.int64)),
            slos={name: scenario.slos[name]},
        )
        window = load_window(alone, alone.requests, 0.0, alone.duration_s)
        headroom = by_headroom(alone, scenario.truth, window)[0][0]
        if headroom <= 0:
            raise ScenarioError(f"cluster {scenario.cluster.name!r} cannot serve {name} within its SLO at any load")
        share = shares.get(name, rest / max(len(free), 1))
        factors.append(headroom * share)
    return factors


def full_load(scenario: Scenario, traces: list[Requests], base: list[float], stage: Callable[[str], None]) -> float:
    """ρ = 1: the largest common multiple that the best fixed plan serves with 99 % good, every pool at its maximum."""
    stage("finding the largest load that a fixed plan serves")
    offered = (
        scenario.with_requests(scaled(scenario, traces, [max(f, 1e-9) for f in base], scenario.seed + PROBE_SEED))
        if len(base) > 1
        else scenario
    )
    window = load_window(offered, offered.requests, 0.0, offered.duration_s)
    ranked = by_headroom(offered, scenario.truth, window, apart=True)
    guess = ranked[0][0] or max(headroom for headroom, _ in ranked)
    nobody = ScenarioError(
        f"no fixed plan on cluster {scenario.cluster.name!r} answers 99 % of this workload within its SLO at any "
        "load; loosen the SLO (--slo) or use another cluster"
    )
    if guess <= 0:
        raise nobody
    total = sum(len(trace) * factor for trace, factor in zip(traces, base, strict=True))

    def serves(multiple: float, plan: ServingPlan) -> bool:
        factors = [factor * multiple for factor in base]
        probe = scenario.with_requests(scaled(scenario, traces, factors, scenario.seed + PROBE_SEED))
        allowed = (1 - GOOD_AT_FULL_LOAD) * len(probe.requests)
        books = serve_fixed(probe, plan, scenario.truth, lambda bad: bad > allowed)
        return books is not None and books.goodput >= GOOD_AT_FULL_LOAD

    best = 0.0
    for rank, plan in enumerate(first_of_each([plan for _, plan in ranked], PROBED_PLANS, PROBED_APART)):
        stage(f"finding the largest load that a fixed plan serves: candidate {rank + 1}")
        if best and not serves(best * (1 + LOAD_PRECISION), plan):
            continue
        low, high = best * (1 + LOAD_PRECISION), math.inf
        probe = max(guess * 0.9, low * 1.1)
        while high / max(low, 1e-12) > 1 + LOAD_PRECISION and probe * total >= FEWEST_PROBED:
            if serves(probe, plan):
                low = probe
            else:
                high = probe
            probe = probe * 1.25 if math.isinf(high) else (probe / 1.5 if low == 0.0 else math.sqrt(low * high))
        best = max(best, low)
    if best <= 0:
        raise nobody
    return best
