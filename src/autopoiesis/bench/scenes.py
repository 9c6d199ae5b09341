"""What the benchmarks serve: chat requests on eight replicas, plain or with everything that makes serving hard."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.plan import Replica, Role
from autopoiesis.simulate import layout
from autopoiesis.simulate.outcome import Spread, spread
from autopoiesis.simulate.scenario import Hidden
from autopoiesis.simulate.simulation import Routing, Simulation
from autopoiesis.simulate.views import latencies
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, SLO, Requests, single_requests
from autopoiesis.workload.readers import read_requests
from autopoiesis.workload.requests import in_order_of_arrival
from autopoiesis.workload.status import Status

MODEL = "llama-3.1-8b"
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))
REPLICAS = 8
LOAD = 0.8
"""Of what the fleet completes when it never waits for requests."""
LONGEST = 8_192
"""Most tokens of a prompt or an answer; both together fit every simulator's context."""
CHAT = ((6.63, 0.99), (5.02, 0.86))
"""Mean and deviation of the log length of prompts and answers in the Azure conversation trace of 2023 (CC-BY 4.0,
Azure/AzurePublicDataset)."""
SAMPLE = 20_000
"""Requests by which the load of a fleet is found."""
TURNS = 4.0
"""Mean calls of a session."""
THINK_S = 20.0
SYSTEMS, SYSTEM_SHARE = 8, 2
"""System prompts, and that one conversation in so many begins with one of them."""

FLEET = (Replica(MODEL, "h100"),) * REPLICAS
"""One H100 each, prefill and decode together."""
SPLIT_FLEET = (replace(FLEET[0], role=Role.PREFILL),) * 4 + (replace(FLEET[0], role=Role.DECODE),) * 4
KV_PART = 0.1
"""Part of its KV cache that the split fleet decodes with: so little that it runs out."""


@dataclass(frozen=True)
class Lengths:
    """(k,) tokens of prompts and answers to draw from, or the lognormals of `CHAT`."""

    input_tokens: NDArray[np.int64] | None = None
    output_tokens: NDArray[np.int64] | None = None

    def draw(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(count,) prompts and answers; those of a trace are drawn in pairs."""
        if self.input_tokens is not None and self.output_tokens is not None:
            rows = rng.integers(len(self.input_tokens), size=count)
            drawn = [self.input_tokens[rows], self.output_tokens[rows]]
        else:
            drawn = [np.rint(rng.lognormal(mean, deviation, count)).astype(np.int64) for mean, deviation in CHAT]
        return np.clip(drawn[0], 1, LONGEST), np.clip(drawn[1], 1, LONGEST)


def lengths_of(path: str | None) -> Lengths:
    """The lengths of a trace. Raises TraceError for one that cannot be read."""
    if path is None:
        return Lengths()
    requests = read_requests(path)
    return Lengths(requests.input_tokens, requests.output_tokens)


BUILT_IN = Routing()


@dataclass(frozen=True)
class Scene:
    """Requests, who serves them and who places them."""

    requests: Requests
    replicas: tuple[Replica, ...]
    routing: Routing = BUILT_IN
    kv_part: float = 1.0
    """Part of their KV cache that decode replicas may use."""


@dataclass(frozen=True)
class Served:
    """A scene that was played to its end, and its books."""

    simulation: Simulation
    ttft_s: Spread
    tpot_s: Spread
    e2e_s: Spread


def start(scene: Scene, seed: int = 0) -> Simulation:
    """The scene before anything has happened; steps vary as they do in a simulated world."""
    simulation = Simulation(scene.requests, (MODEL,), {MODEL: SLO()}, COST, seed=seed)
    for position, replica in enumerate(scene.replicas):
        simulation.start(replica, 1.0, Hidden().step_noise, seed + position)
    fleet = simulation.state.replicas
    decoders = fleet["role"] == layout.DECODE
    fleet["kv_blocks"][decoders] = np.rint(fleet["kv_blocks"][decoders] * scene.kv_part)
    simulation.set_routing(scene.routing)
    return simulation


def play(scene: Scene) -> Served:
    """From the columns of the requests to the percentiles of their latencies."""
    simulation = start(scene)
    simulation.advance(float("inf"))
    requests = simulation.state.requests
    completed = np.flatnonzero(requests["status"] == Status.COMPLETED)
    ttft_s, tpot_s = latencies(simulation, completed)
    e2e_s = (requests["done"][completed] - requests["arrival"][completed]) * 1e-12
    return Served(simulation, spread(ttft_s), spread(tpot_s), spread(e2e_s))


def saturation_rps(scene: Scene) -> float:
    """Requests per second that the fleet completes while a backlog of the scene's never lets it wait."""
    requests = scene.requests
    count = len(requests)
    at_once = replace(requests, arrival_s=np.zeros(count), think_s=np.zeros(count))
    done = np.sort(play(replace(scene, requests=at_once)).simulation.state.requests["done"]) * 1e-12
    low, high = count // 5, count * 3 // 5
    return float((high - low) / (done[high] - done[low]))


def chat_requests(count: int, rate_rps: float, lengths: Lengths, seed: int = 0) -> Requests:
    """Single requests with Poisson arrivals."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate_rps, count))
    return single_requests(arrival_s, *lengths.draw(count, rng))


def block_requests(count: int, rate_rps: float, lengths: Lengths, seed: int = 0) -> Requests:
    """Sessions whose prompts carry everything said before, named block by block as in Mooncake's traces; `rate_rps`
    calls a second on average.

    Each call's prompt begins with the whole of the call before it, as long as it stays below `LONGEST`; new text and
    answers have the lengths of single requests. One session in `SYSTEM_SHARE` begins with one of `SYSTEMS` system
    prompts of one block. Turns are geometric with mean `TURNS`, think times exponential.
    """
    rng = np.random.default_rng(seed)
    turns = rng.geometric(1.0 / TURNS, count)
    sessions = int(np.searchsorted(np.cumsum(turns), count)) + 1
    turns = turns[:sessions]
    turns[-1] -= int(turns.sum()) - count
    first = np.repeat(np.cumsum(turns) - turns, turns)
    previous = np.where(np.arange(count) > first, np.arange(count) - 1, -1)
    starts_s = np.cumsum(rng.exponential(TURNS / rate_rps, sessions))
    think_s = np.where(previous >= 0, rng.exponential(THINK_S, count), 0.0)
    new, output = lengths.draw(count, rng)
    total = np.cumsum(new + output)
    said = (total - new - output) - (total - new - output)[first]
    prefix = np.where(said + new <= LONGEST, said, 0)
    prompt = prefix + new
    # a conversation that has begun anew shares no block with what it was
    text = np.cumsum(prefix == 0) - 1
    blocks = prompt // PREFIX_BLOCK_TOKENS
    begins = np.cumsum(blocks) - blocks
    within = np.arange(int(blocks.sum())) - np.repeat(begins, blocks)
    ids = SYSTEMS + np.repeat(text, blocks) * (LONGEST // PREFIX_BLOCK_TOKENS + 1) + within
    spoken = rng.integers(0, SYSTEMS * SYSTEM_SHARE, count)[text]
    common = (within == 0) & (np.repeat(spoken, blocks) < SYSTEMS)
    ids[common] = np.repeat(spoken, blocks)[common]
    # the recorded arrivals of later calls only order the rows: they arrive when their session comes to them
    recorded_s = np.repeat(starts_s, turns) + (np.arange(count) - first) * THINK_S
    return in_order_of_arrival(
        {
            "arrival_s": recorded_s,
            "model": np.zeros(count, dtype=np.int64),
            "input_tokens": prompt,
            "output_tokens": output,
            "prefix_tokens": prefix,
            "previous": previous,
            "think_s": think_s,
            "block_start": np.where(blocks > 0, begins, 0),
            "block_count": blocks,
            "block_ids": ids,
        }
    )
