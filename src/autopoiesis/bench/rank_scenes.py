"""Made-up scenarios in which models of serving are compared: what is served, on what, under which load.

Loads are generated, so that the comparison runs anywhere; `recorded` makes a scenario of traces instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autopoiesis.cluster import Cluster, Hardware, Pool, catalog
from autopoiesis.control.plans import by_headroom, load_window
from autopoiesis.cost import CostModel
from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.simulate.scenario import NOTHING_HIDDEN, Scenario
from autopoiesis.workload import Requests, generate_chat, merge, read_requests, resample, single_requests
from autopoiesis.workload.classes import default_slo

SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
SEED = 0xBE7C


@dataclass(frozen=True, slots=True)
class Scene:
    """A scenario by name; it is made when it is wanted, for a length and a seed."""

    name: str
    make: Callable[[float, int], Scenario]
    """Seconds of load and a seed."""


def scenario_of(cluster: Cluster, loads: Mapping[str, Requests], window_s: float = 60.0) -> Scenario:
    """A scenario in which nothing is hidden: `loads` by model, each with its model as index 0."""
    hardware = Hardware(cluster.gpus, {name: catalog.model(name) for name in loads})
    parts = [
        replace(requests, model=np.full(len(requests), position, dtype=np.int64))
        for position, requests in enumerate(loads.values())
    ]
    return Scenario(
        cluster=cluster,
        models=tuple(loads),
        requests=merge(parts),
        slos={name: default_slo(hardware.models[name].active_parameters) for name in loads},
        cost=CostModel(hardware),
        hidden=NOTHING_HIDDEN,
        window_s=window_s,
    )


def chat(seconds: float, seed: int, rate_rps: float, position: int = 0, **lengths: float) -> Requests:
    """A generated chat load."""
    rng = np.random.default_rng([seed, SEED, position])
    return generate_chat(rng, seconds / 3600, rate_rps, **lengths)


def code(seconds: float, seed: int, rate_rps: float) -> Requests:
    """Completions of code: long prompts, answers of a line, and half of them in bursts of ten seconds.

    After the public code trace whose minutes vary fourfold and whose ten seconds tenfold.
    """
    rng = np.random.default_rng([seed, SEED, 0xC0DE])
    even = rng.uniform(0.0, seconds, rng.poisson(0.5 * rate_rps * seconds))
    bursts = rng.uniform(0.0, seconds - 10.0, max(1, round(seconds / 60)))
    within = rng.choice(bursts, rng.poisson(0.5 * rate_rps * seconds))
    at = within + rng.uniform(0.0, 10.0, len(within))
    arrival_s = np.sort(np.concatenate([even, at]))
    n = len(arrival_s)
    inputs = np.clip(np.rint(1500 * np.exp(0.9 * rng.standard_normal(n))), 16, 16_000).astype(np.int64)
    outputs = np.clip(np.rint(14 * np.exp(0.9 * rng.standard_normal(n))), 1, 500).astype(np.int64)
    return single_requests(arrival_s, inputs, outputs)


def _one_kind(gpu: str, gpus: int, minimum: int | None = None, gpus_per_node: int = 8) -> Cluster:
    least = gpus if minimum is None else minimum
    starts = (0.0, 0.0) if least == gpus else (60.0, 150.0)
    price = catalog.gpus()[gpu].price_per_hour
    pool = Pool(gpu, gpu, gpus_per_node, least, gpus, price, *starts)
    return Cluster(f"{gpu}-{gpus}", (pool,), {gpu: catalog.gpus()[gpu]})


def alone(gpus: int, rate_rps: float) -> Callable[[float, int], Scenario]:
    """One small model on GPUs of one kind; the load is the point."""
    per_node = min(gpus, 8)
    return lambda seconds, seed: scenario_of(
        _one_kind("h100", gpus, gpus_per_node=per_node), {SMALL: chat(seconds, seed, rate_rps)}
    )


def unlike(per_kind: int, rate_rps: float) -> Callable[[float, int], Scenario]:
    """One large model on four kinds of GPU."""

    def make(seconds: float, seed: int) -> Scenario:
        cluster = catalog.cluster("heterogeneous-64")
        pools = tuple(replace(pool, minimum=per_kind, maximum=per_kind) for pool in cluster.pools)
        return scenario_of(replace(cluster, pools=pools), {LARGE: chat(seconds, seed, rate_rps)})

    return make


def together(gpus: int, small_rps: float, large_rps: float) -> Callable[[float, int], Scenario]:
    """Two models that share GPUs, the one read to and the other written by."""

    def make(seconds: float, seed: int) -> Scenario:
        small = chat(seconds, seed, small_rps, 0, input_median=2000.0, output_median=60.0)
        large = chat(seconds, seed, large_rps, 1, input_median=500.0, output_median=250.0)
        return scenario_of(_one_kind("h100", gpus), {SMALL: small, LARGE: large})

    return make


def long_prompts(gpus: int, rate_rps: float) -> Callable[[float, int], Scenario]:
    """Prompts so long that prefill and decode pools are worth trying."""

    def make(seconds: float, seed: int) -> Scenario:
        load = chat(seconds, seed, rate_rps, 0, input_median=5000.0, output_median=200.0)
        return scenario_of(_one_kind("h100", gpus), {SMALL: load})

    return make


def bought(gpus: int, rate_rps: float) -> Callable[[float, int], Scenario]:
    """Capacity that costs money only where a plan uses it."""
    return lambda seconds, seed: scenario_of(
        _one_kind("a100", gpus, minimum=4, gpus_per_node=4), {SMALL: chat(seconds, seed, rate_rps)}
    )


def bursty(gpus: int, rate_rps: float) -> Callable[[float, int], Scenario]:
    return lambda seconds, seed: scenario_of(_one_kind("h100", gpus), {SMALL: code(seconds, seed, rate_rps)})


SCENES = (
    Scene("8B alone, moderate", alone(16, 150.0)),
    Scene("8B alone, overloaded", alone(16, 200.0)),
    Scene("70B on four GPU kinds", unlike(8, 5.0)),
    Scene("8B and 70B together", together(32, 60.0, 6.0)),
    Scene("8B, long prompts", long_prompts(16, 28.0)),
    Scene("8B, bought capacity", bought(16, 80.0)),
    Scene("8B, bursty code", bursty(16, 60.0)),
)


def recorded(cluster: Cluster, files: Mapping[str, str], load: float, seed: int, hours: float) -> Scenario:
    """A scenario of traces by model, each scaled to its equal part of `load`; 1 is what the fluid model's best plan
    serves. Raises ScenarioError or TraceError for what cannot be read or served."""
    scaled = {}
    for position, (name, path) in enumerate(files.items()):
        trace = read_requests(path, 0, hours)
        if not len(trace):
            raise TraceError(f"{path}: no request is left for {name}; give a longer trace or more --hours")
        one = scenario_of(cluster, {name: trace})
        best = by_headroom(one, one.cost, load_window(one, one.requests, 0.0, one.duration_s))[0][0]
        if best <= 0:
            raise ScenarioError(f"cluster {cluster.name!r} cannot serve {name} within its SLO at any load")
        rng = np.random.default_rng([seed, SEED, position])
        scaled[name] = resample(trace, load * best / len(files), 60.0, rng)
    return scenario_of(cluster, scaled)
