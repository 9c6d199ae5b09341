"""An emulated batch in virtual time, and the same load in the event simulator."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel, StepTimes
from autopoiesis.plan import Replica
from autopoiesis.serve.emulated.batch import Batch
from autopoiesis.serve.emulated.sequence import Sequence
from autopoiesis.serve.emulated.step_duration import StepDuration
from autopoiesis.simulate.layout import BLOCK_TOKENS, SECOND
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.workload import SLO, Requests
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS

COST = CostModel(Hardware(catalog.gpus(), catalog.models()))
SMALL = Replica("llama-3.1-8b", "h100")


@dataclass(frozen=True)
class Ask:
    """A request of a load; `blocks` name the first blocks of 512 prompt tokens."""

    at: int
    """Picoseconds."""
    prompt: int
    answer: int
    blocks: tuple[int, ...] = ()


def batch(replica: Replica = SMALL, kv_blocks: int | None = None, caching: bool = True) -> Batch:
    times = steps(replica)
    return Batch(
        StepDuration.of(times),
        times.kv_tokens // BLOCK_TOKENS if kv_blocks is None else kv_blocks,
        batched_tokens=replica.batched_tokens,
        max_sequences=replica.max_sequences,
        caching=caching,
    )


def steps(replica: Replica) -> StepTimes:
    return COST.steps(replica.model, replica.gpu, replica.tensor_parallel, replica.pipeline_parallel, 2)


def sequence(ask: Ask) -> Sequence:
    """A prompt whose named blocks can be found again, and nothing else of it."""
    count = PREFIX_BLOCK_TOKENS // BLOCK_TOKENS
    keys = []
    key = 0
    for name in ask.blocks:
        for part in range(count):
            key = hash((key, name, part)) & (1 << 62) - 1
            keys.append(key)
    return Sequence(ask.prompt, ask.answer, keys)


def play(engine: Batch, asks: Series[Ask]) -> list[Sequence]:
    """Live a load through to its end. As in the event kernel, a step that ends at the very instant of an arrival has
    ended before it, and an idle engine begins with the first that comes."""
    sequences = [sequence(ask) for ask in asks]
    ends: int | None = None

    def pass_until(now: int | None) -> None:
        nonlocal ends
        while ends is not None and (now is None or ends <= now):
            engine.end(ends)
            ends = engine.begin(ends)

    for ask, mine in zip(asks, sequences, strict=True):
        pass_until(ask.at)
        engine.add(mine, ask.at)
        if ends is None:
            ends = engine.begin(ask.at)
    pass_until(None)
    return sequences


def finish(engine: Batch, ends: int | None) -> None:
    """From the end of the step under way on, until there is nothing more to do."""
    while ends is not None:
        engine.end(ends)
        ends = engine.begin(ends)


def simulated(asks: Series[Ask], replica: Replica = SMALL, kv_blocks: int | None = None) -> Simulation:
    """The same load on one replica of the event simulator, which has served it."""
    count = np.array([len(ask.blocks) for ask in asks])
    requests = Requests(
        arrival_s=np.array([ask.at / SECOND for ask in asks], dtype=np.float64),
        model=np.zeros(len(asks), dtype=np.int64),
        input_tokens=np.array([ask.prompt for ask in asks], dtype=np.int64),
        output_tokens=np.array([ask.answer for ask in asks], dtype=np.int64),
        prefix_tokens=np.zeros(len(asks), dtype=np.int64),
        previous=np.full(len(asks), -1),
        think_s=np.zeros(len(asks)),
        block_start=np.where(count > 0, np.cumsum(count) - count, 0).astype(np.int64),
        block_count=count.astype(np.int64),
        block_ids=np.array([name for ask in asks for name in ask.blocks], dtype=np.int64),
    )
    simulation = Simulation(requests, (replica.model,), {replica.model: SLO()}, COST, seed=0)
    slot = simulation.start(replica, 1.0, 0.0, 0)
    if kv_blocks is not None:
        simulation.state.replicas[slot]["kv_blocks"] = kv_blocks
    simulation.advance(float("inf"))
    assert simulation.unfinished == 0
    return simulation


def ends(simulation: Simulation) -> list[tuple[int, int, int]]:
    """First token, last token and preemptions of every request."""
    rows = simulation.state.requests
    return [(int(row["first"]), int(row["done"]), int(row["preemptions"])) for row in rows]


def emulated_ends(sequences: Series[Sequence]) -> list[tuple[int, int, int]]:
    return [(sequence.first, sequence.last, sequence.preemptions) for sequence in sequences]
