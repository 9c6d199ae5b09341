"""A row for every replica of a run, and one for every window in which it served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.lives import finisher
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.tables.columns import Count, Index, Measure, Seconds, Table, Text
from autopoiesis.simulate.views import good_rows
from autopoiesis.workload.status import Status

BUSY, PROMPT, GENERATED, PREEMPTIONS = range(4)
"""Columns of `Snapshot.counts`."""


@dataclass(frozen=True)
class ReplicaTable(Table):
    """One row for each replica that was ever launched, by id."""

    replica: Index
    model: Text
    gpu: Text
    tensor_parallel: Count
    pipeline_parallel: Count
    role: Text
    nodes: Text
    """Joined by `+`."""
    launched_s: Seconds
    serving_from_s: Seconds
    draining_from_s: Seconds
    """Of the drain that was not undone."""
    ended_s: Seconds
    end: Text
    """A value of `lives.End`."""
    completed: Count
    """Requests that it finished."""
    good: Count
    continued: Count
    """Requests that it left unfinished at its end and that were continued elsewhere."""
    prompt_tokens: Count
    """Computed, recomputation included; what was cached is not."""
    generated_tokens: Count
    preemptions: Count
    busy_s: Seconds
    """In steps."""
    utilisation: Measure
    """`busy_s` ÷ the time from `serving_from_s` to `ended_s`."""
    kv_use_mean: Measure
    """Fraction of the KV cache in use, over the telemetry samples that arrived."""
    kv_use_peak: Measure


@dataclass(frozen=True)
class ReplicaWindowTable(Table):
    """Ordered by window, then replica. A replica has a row for every window in which it served or drained."""

    window: Count
    start_s: Seconds
    end_s: Seconds
    replica: Index
    model: Text
    served_s: Seconds
    """Part of the window in which it served or drained."""
    completed: Count
    prompt_tokens: Count
    generated_tokens: Count
    preemptions: Count
    busy_s: Seconds
    """In steps that ended in the window."""
    utilisation: Measure
    """`busy_s` ÷ `served_s`; a step across the edge of a window may make it a little more than 1."""
    kv_use_mean: Measure
    kv_use_peak: Measure


def replica_table(run: Run) -> ReplicaTable:
    """The replicas of a finished run."""
    lives = [run.world.fleet.lives.of[id] for id in sorted(run.world.fleet.lives.of)]
    replicas = [life.placed.replica for life in lives]
    place = {life.placed.id: position for position, life in enumerate(lives)}
    rows, finished_by = _completed(run)
    at = np.array([place[id] for id in finished_by.tolist()], dtype=np.int64)
    good = good_rows(run.world.simulation, rows)
    samples, kv_sum, kv_peak = np.zeros(len(lives)), np.zeros(len(lives)), np.zeros(len(lives))
    for mark in run.marks:
        positions = [place[id] for id in mark.replicas.ids.tolist()]
        samples[positions] += mark.replicas.samples
        kv_sum[positions] += mark.replicas.kv_use[:, 0]
        kv_peak[positions] = np.maximum(kv_peak[positions], mark.replicas.kv_use[:, 1])
    serving_from_s = _seconds([life.serving_from for life in lives])
    ended_s = _seconds([life.ended for life in lives])
    busy_s = np.array([life.counts.busy for life in lives], dtype=np.int64) / SECOND
    return ReplicaTable(
        replica=np.array([life.placed.id for life in lives], dtype=np.int64),
        model=_texts([replica.model for replica in replicas]),
        gpu=_texts([replica.gpu for replica in replicas]),
        tensor_parallel=np.array([replica.tensor_parallel for replica in replicas], dtype=np.int64),
        pipeline_parallel=np.array([replica.pipeline_parallel for replica in replicas], dtype=np.int64),
        role=_texts([replica.role.value for replica in replicas]),
        nodes=_texts(["+".join(sorted({node for node, _ in life.placed.gpus})) for life in lives]),
        launched_s=_seconds([life.launched for life in lives]),
        serving_from_s=serving_from_s,
        draining_from_s=_seconds([life.draining_from for life in lives]),
        ended_s=ended_s,
        end=_texts(["" if life.end is None else life.end.value for life in lives]),
        completed=np.bincount(at, minlength=len(lives)),
        good=np.bincount(at[good], minlength=len(lives)),
        continued=np.array([life.continued for life in lives], dtype=np.int64),
        prompt_tokens=np.array([life.counts.prompt_tokens for life in lives], dtype=np.int64),
        generated_tokens=np.array([life.counts.generated_tokens for life in lives], dtype=np.int64),
        preemptions=np.array([life.counts.preemptions for life in lives], dtype=np.int64),
        busy_s=busy_s,
        utilisation=_ratio(busy_s, ended_s - serving_from_s),
        kv_use_mean=_ratio(kv_sum, samples),
        kv_use_peak=np.where(samples > 0, kv_peak, np.nan),
    )


def replica_window_table(run: Run) -> ReplicaWindowTable:
    """What each replica of a finished run did in each window."""
    lives = run.world.fleet.lives.of
    edges = np.array([0, *(mark.at for mark in run.marks)], dtype=np.int64)
    marks = [mark.replicas for mark in run.marks]
    window = np.repeat(np.arange(len(marks)), [len(mark.ids) for mark in marks])
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *(mark.ids for mark in marks)])
    counts = np.concatenate([np.zeros((0, 4), dtype=np.int64), *(mark.counts for mark in marks)])
    samples = np.concatenate([np.zeros(0), *(mark.samples for mark in marks)])
    kv_use = np.concatenate([np.zeros((0, 2)), *(mark.kv_use for mark in marks)])
    order = np.lexsort((window, ids))
    before = np.zeros_like(counts)
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    before[order[again + 1]] = counts[order[again]]
    order = np.lexsort((ids, window))
    window, ids, counts = window[order], ids[order], (counts - before)[order]
    samples, kv_use = samples[order], kv_use[order]
    from_ = np.array([lives[id].serving_from for id in ids.tolist()], dtype=np.int64)
    to = np.array([lives[id].ended for id in ids.tolist()], dtype=np.int64)
    served_s = (np.minimum(to, edges[window + 1]) - np.maximum(from_, edges[window])) / SECOND
    rows, finished_by = _completed(run)
    position = np.full(len(run.scenario.requests), -1, dtype=np.int64)
    last = run.marks[-1].finished if run.marks else 0
    position[run.world.simulation.state.finished[:last]] = np.repeat(
        np.arange(len(marks)), np.diff([0, *(mark.finished for mark in run.marks)])
    )
    width = max(lives, default=0) + 1
    finished = np.bincount(position[rows] * width + finished_by, minlength=len(marks) * width)
    busy_s = counts[:, BUSY] / SECOND
    return ReplicaWindowTable(
        window=window,
        start_s=edges[window] / SECOND,
        end_s=edges[window + 1] / SECOND,
        replica=ids,
        model=_texts([lives[id].placed.replica.model for id in ids.tolist()]),
        served_s=served_s,
        completed=finished[window * width + ids],
        prompt_tokens=counts[:, PROMPT],
        generated_tokens=counts[:, GENERATED],
        preemptions=counts[:, PREEMPTIONS],
        busy_s=busy_s,
        utilisation=_ratio(busy_s, served_s),
        kv_use_mean=_ratio(kv_use[:, 0], samples),
        kv_use_peak=np.where(samples > 0, kv_use[:, 1], np.nan),
    )


def _completed(run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the requests that were completed, and the id of the replica that finished each."""
    requests = run.world.simulation.state.requests
    rows = np.flatnonzero(requests["status"] == Status.COMPLETED)
    return rows, finisher(run.world.fleet.lives.of, requests["slot"][rows], requests["done"][rows])


def _seconds(times: list[int | None]) -> NDArray[np.float64]:
    return np.array([np.nan if time is None else time / SECOND for time in times], dtype=np.float64)


def _texts(values: list[str]) -> NDArray[np.str_]:
    return np.array(values, dtype=np.str_)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is nothing to divide by."""
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
