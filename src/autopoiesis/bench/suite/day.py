"""A day of a cell: what comes in 24 hours, how it is scaled, the plan to start from, and the slice that is served.

Load and first plan are found as `control.prepare` finds them for a run, on a sample of the day: pieces of five minutes
from all over it, one after the other. A slice is then drawn at full rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from autopoiesis.bench.suite.cells import Cell, Load, Swing, cluster_of
from autopoiesis.cluster import Hardware, catalog
from autopoiesis.control.plans import by_headroom, load_window
from autopoiesis.control.prepare import (
    TRAINING_SEED,
    TRAINING_SHARE,
    Prepared,
    equal_shares,
    full_load,
    scaled,
    settled_plan,
    starting_capacity,
)
from autopoiesis.cost import CostModel, start_times
from autopoiesis.cost.fitted import shipped
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import ServingPlan
from autopoiesis.simulate.scenario import Scenario, draw_hidden
from autopoiesis.workload import Requests, merge
from autopoiesis.workload.classes import default_slo
from autopoiesis.workload.load import first_calls, resample
from autopoiesis.workload.presets.generate import cut_to_context, generate
from autopoiesis.workload.readers import read_requests

HOURS = 24.0
PIECE_S = 300.0
"""Of a sample: long enough for the calls of a conversation to follow one another."""
LOAD_PIECES, TRAINING_PIECES = 6, 4
RECORDED = {
    "conversation": "azure2023_conv.csv.gz",
    "code": "azure2023_code.csv.gz",
    "longcontext": "mooncake_conversation.csv.gz",
    "agentic": "agentic_coding_sample.csv.gz",
}
"""Preset → the file of a folder of traces that stands in for it: public recordings by their usual names."""


@dataclass(frozen=True)
class Day:
    """Everything that could come, by model, as drawn or recorded: not yet scaled."""

    cell: Cell
    seed: int
    scenario: Scenario
    """Cluster, promises and hidden world; its requests are the day's as they are."""
    traces: tuple[Requests, ...]
    span_s: float


class Settled(msgspec.Struct, frozen=True):
    """What was found out about a day before anything runs."""

    factors: list[float]
    """By model: by what its trace is multiplied for ρ = 1."""
    plan: ServingPlan
    """What everybody starts from."""


def day_of(cell: Cell, seed: int, folder: str | None = None) -> Day:
    """The day of a seed; presets for which `folder` has a recording are replaced by it.

    A recording may be shorter than a day; then it is all the day there is. Raises ScenarioError and TraceError.
    """
    cluster = cluster_of(cell)
    models = tuple(load.model for load in cell.loads)
    hardware = Hardware(cluster.gpus, {name: catalog.model(name) for name in models})
    fitted = shipped()
    cost = CostModel(hardware, measured=fitted.measured, efficiencies=fitted.efficiencies, start=start_times(cluster))
    slos = {name: cell.slos.get(name, default_slo(hardware.models[name].active_parameters)) for name in models}
    parts = [
        _drawn(load, hardware.models[load.model].context, position, seed, folder)
        for position, load in enumerate(cell.loads)
    ]
    scenario = Scenario(
        cluster=cluster,
        models=models,
        requests=merge([first for first, _ in parts]),
        slos=slos,
        cost=cost,
        hidden=draw_hidden(cluster, seed),
        objective=cell.objective,
        window_s=cell.window_s,
        seed=seed,
        planner_cost=cell.planner_cost,
    )
    traces = tuple(
        first if second is None else _in_turns(scenario, load, first, second, cell.shift_s or cell.window_s, seed)
        for load, (first, second) in zip(cell.loads, parts, strict=True)
    )
    span_s = min(HOURS * 3600.0, *(float(trace.arrival_s[-1]) for trace in traces))
    return Day(cell, seed, scenario.with_requests(merge(list(traces))), traces, span_s)


def digest_of(folder: str) -> str:
    """Of the recordings in a folder that stand in for presets."""
    digest = hashlib.sha256()
    for name in sorted(RECORDED.values()):
        path = Path(folder) / name
        if path.is_file():
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def settle(day: Day) -> Settled:
    """Find ρ = 1 on pieces from the whole day, and the static plan on pieces of its first quarter, drawn anew."""
    cell = day.cell
    pieces = _pieces(day, day.span_s, LOAD_PIECES)
    whole = day.scenario.with_requests(merge(pieces))
    shares = {load.model: load.share for load in cell.loads if load.share is not None}
    base = equal_shares(whole, pieces, shares, _silent)
    full = full_load(whole, pieces, base, _silent)
    factors = [factor * full for factor in base]
    early = _pieces(day, TRAINING_SHARE * day.span_s, TRAINING_PIECES)
    training = at_load(day, early, factors, day.seed + TRAINING_SEED)
    return Settled(factors, settled_plan(day.scenario.with_requests(training), _silent))


def _silent(text: str) -> None:
    """Stages of a preparation, which takes seconds here."""


def slice_of(day: Day, settled: Settled, share: float = 1.0) -> Prepared:
    """The slice of the day that policies serve, or the first `share` of it."""
    cell = day.cell
    length_s = min(cell.slice_hours * 3600.0, day.span_s)
    start_s = liveliest(day.traces, length_s, day.span_s) if cell.lively else _named_start_s(day, length_s)
    length_s *= share
    cut = [between(trace, start_s, start_s + length_s) for trace in day.traces]
    scenario = day.scenario.with_requests(at_load(day, cut, settled.factors, day.seed))
    factors = dict(zip(scenario.models, settled.factors, strict=True))
    return Prepared(scenario, settled.plan, starting_capacity(scenario, settled.plan), factors, 1.0)


def _named_start_s(day: Day, length_s: float) -> float:
    start_s = day.cell.slice_starts_h[day.seed % len(day.cell.slice_starts_h)] * 3600.0
    if start_s + length_s > day.span_s:
        # a recording of an hour has no eleventh one: as far into it as the slice stands in the day
        start_s *= (day.span_s - length_s) / (HOURS * 3600.0)
    return start_s


def liveliest(traces: Sequence[Requests], length_s: float, span_s: float) -> float:
    """Where to begin so that the load moves most within `length_s`: from its least to its greatest five minutes, every
    model's requests relative to its mean. The first of equals; the quarter on which a first plan is chosen is left out.
    """
    count = int(span_s // PIECE_S)
    rates = np.zeros(count)
    for trace in traces:
        piece = (trace.arrival_s // PIECE_S).astype(np.int64)
        arrived = np.bincount(piece[piece < count], minlength=count)
        rates += arrived / arrived.mean()
    width = max(int(length_s // PIECE_S), 1)
    starts = range(min(int(TRAINING_SHARE * count), max(count - width, 0)), count - width + 1)
    moves = [float(rates[k : k + width].max() / max(rates[k : k + width].min(), 1e-9)) for k in starts]
    return starts[int(np.argmax(moves))] * PIECE_S if moves else 0.0


def at_load(day: Day, traces: Sequence[Requests], factors: Sequence[float], seed: int) -> Requests:
    """The traces at the cell's load."""
    swing = day.cell.swing
    level = day.cell.load if swing is None else swing.high
    requests = scaled(day.scenario, list(traces), [factor * level for factor in factors], seed, day.cell.shift_s)
    return requests if swing is None else swung(requests, swing, np.random.default_rng([seed, 0x5317]))


def swung(requests: Requests, swing: Swing, rng: np.random.Generator) -> Requests:
    """Of requests that come at the swing's upper load, those that come while it swings; sessions stay whole."""
    middle, half = (swing.high + swing.low) / 2, (swing.high - swing.low) / 2
    first = first_calls(requests.previous)
    phase = 2 * np.pi * requests.arrival_s[first] / swing.period_s
    kept = (middle - half * np.cos(phase)) / swing.high
    return requests.take(np.flatnonzero(rng.uniform(size=len(requests))[first] < kept[first]))


def _pieces(day: Day, until_s: float, count: int) -> list[Requests]:
    """By model: a sample of the day until then. Where presets take turns, pieces lie in one and the other by turns."""
    return [
        sample(trace, 0.0, until_s, count, load.every_s) for trace, load in zip(day.traces, day.cell.loads, strict=True)
    ]


def sample(trace: Requests, start_s: float, end_s: float, pieces: int, aside_s: float = 0.0) -> Requests:
    """Pieces of a trace, evenly spread over [start, end), every second one later by `aside_s`, one after the other; all
    of it where it is that short."""
    if end_s - start_s <= pieces * PIECE_S:
        return between(trace, start_s, end_s)
    starts = start_s + np.arange(pieces) * (end_s - start_s) / pieces + np.arange(pieces) % 2 * aside_s
    piece = np.searchsorted(starts, trace.arrival_s, side="right") - 1
    inside = (piece >= 0) & (trace.arrival_s < starts[np.maximum(piece, 0)] + PIECE_S)
    rows = np.flatnonzero(inside)
    taken = trace.take(rows)
    return replace(taken, arrival_s=taken.arrival_s - starts[piece[rows]] + piece[rows] * PIECE_S)


def between(trace: Requests, start_s: float, end_s: float) -> Requests:
    """The calls recorded in [start, end), counted from its start; sessions are cut at its edges."""
    first, last = np.searchsorted(trace.arrival_s, [start_s, end_s])
    taken = trace.take(np.arange(first, last, dtype=np.int64))
    if not len(taken):
        raise ScenarioError(f"no request between {start_s:.0f} and {end_s:.0f} s of the day; raise base_rps")
    return replace(taken, arrival_s=taken.arrival_s - start_s)


def _drawn(load: Load, context: int, position: int, seed: int, folder: str | None) -> tuple[Requests, Requests | None]:
    """The day of a model: of its preset, and of the second one where two take turns."""
    names = [load.preset] if load.then is None else [load.preset, load.then]
    days = []
    for turn, name in enumerate(names):
        path = None if folder is None else Path(folder) / RECORDED.get(name, "")
        if path is not None and path.is_file():
            day = read_requests(str(path), position, HOURS)
        else:
            amplitude = 1.0 if load.amplitude is None or turn else load.amplitude
            drawn_from = int(np.random.SeedSequence([seed, position, turn]).generate_state(1)[0])
            day = generate(name, HOURS, drawn_from, rate=load.base_rps, amplitude=amplitude)
            day = replace(day, model=np.full(len(day), position, dtype=np.int64))
        days.append(cut_to_context(day, context)[0])
    return days[0], days[1] if len(days) > 1 else None


def _in_turns(scenario: Scenario, load: Load, first: Requests, second: Requests, shift_s: float, seed: int) -> Requests:
    """The one, then the other, each for `every_s`; the second at the rate that fills the cluster as the first does."""
    span_s = min(float(first.arrival_s[-1]), float(second.arrival_s[-1]))
    only = replace(scenario, models=(load.model,), slos={load.model: scenario.slos[load.model]})
    rooms = []
    for trace in (first, second):
        alone = replace(trace, model=np.zeros(len(trace), dtype=np.int64))
        served = only.with_requests(alone)
        rooms.append(by_headroom(served, scenario.truth, load_window(served, alone, 0.0, span_s))[0][0])
    if min(rooms) <= 0:
        raise ScenarioError(f"cluster {scenario.cluster.name!r} cannot serve {load.model} within its SLO at any load")
    rng = np.random.default_rng([seed, 0x7012])
    second = resample(second, rooms[1] / rooms[0], shift_s, rng)
    parts = []
    for turn, trace in enumerate((first, second)):
        here = (trace.arrival_s < span_s) & ((trace.arrival_s // load.every_s).astype(np.int64) % 2 == turn)
        parts.append(trace.take(np.flatnonzero(here)))
    return merge(parts)
