"""How a day becomes the slice that policies serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autopoiesis.bench.suite.cells import Cell, Load, Swing
from autopoiesis.bench.suite.day import (
    PIECE_S,
    Settled,
    between,
    day_of,
    liveliest,
    sample,
    settle,
    slice_of,
    swung,
)
from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests, single_requests
from autopoiesis.workload.normalised_csv import write_requests

CELL = Cell(
    "small",
    "controls",
    "demo-8",
    (Load("llama-3.1-8b", "conversation", base_rps=0.3),),
    load=0.05,
    slice_hours=0.1,
)


def steady(seconds: int, every_s: float = 1.0) -> Requests:
    arrivals = np.arange(0.0, seconds, every_s)
    lengths = np.full(len(arrivals), 10)
    return single_requests(arrivals, lengths, lengths)


def test_a_sample_is_pieces_from_all_over_one_after_the_other() -> None:
    day = steady(24 * 3600, 10.0)
    taken = sample(day, 0.0, 24 * 3600.0, 4)
    # 4 pieces of PIECE_S seconds, a request each 10 s, with no gap between them
    assert len(taken) == 4 * PIECE_S / 10
    assert np.allclose(np.diff(taken.arrival_s), 10.0)


def test_every_second_piece_lies_aside_so_that_both_turns_are_seen() -> None:
    # turns of 900 s; pieces every 14 400 s would all lie in the first turn
    day = steady(24 * 3600, 10.0)
    turn = (day.arrival_s // 900).astype(np.int64) % 2
    marked = replace(day, input_tokens=10 + turn)
    assert sample(marked, 0.0, 24 * 3600.0, 6).input_tokens.mean() == 10.0
    assert sample(marked, 0.0, 24 * 3600.0, 6, 900.0).input_tokens.mean() == 10.5


def test_the_liveliest_slice_begins_where_the_load_moves_most_after_the_first_quarter() -> None:
    # a request a second for ten hours; a crowd of four a second from 5 h to 5 h 10, and a greater one too early
    crowd = single_requests(
        np.sort(
            np.concatenate(
                [
                    np.arange(0.0, 36_000.0),
                    np.repeat(np.arange(18_000.0, 18_600.0), 3),
                    np.repeat(np.arange(3_600.0, 4_200.0), 9),
                ]
            )
        ),
        *(np.full(36_000 + 1_800 + 5_400, 10),) * 2,
    )
    start_s = liveliest([crowd], 1800.0, 36_000.0)
    assert start_s <= 18_000.0 < start_s + 1800.0
    assert start_s >= 9_000.0


def test_a_trace_shorter_than_its_pieces_is_its_own_sample() -> None:
    short = steady(600)
    assert np.array_equal(sample(short, 0.0, 600.0, 6).arrival_s, short.arrival_s)


def test_a_slice_counts_from_its_beginning_and_is_never_empty() -> None:
    cut = between(steady(100), 40.0, 50.0)
    assert cut.arrival_s.tolist() == [float(s) for s in range(10)]
    with pytest.raises(ScenarioError, match="no request between 200 and 300 s"):
        between(steady(100), 200.0, 300.0)


def test_a_swing_goes_from_its_lower_load_to_the_upper_one_and_back() -> None:
    requests = steady(4000, 0.02)
    kept = swung(requests, Swing(0.5, 1.0, 4000.0), np.random.default_rng(0))
    ends = len(between(kept, 0.0, 200.0)), len(between(kept, 1900.0, 2100.0))
    # 10 000 requests in 200 s at the upper load; half of them at the lower one
    assert ends[0] == pytest.approx(5000, rel=0.04)
    assert ends[1] == pytest.approx(10_000, rel=0.02)


def test_a_swing_keeps_sessions_whole() -> None:
    n = 4000
    calls = steady(n)
    second = np.arange(n) % 2
    paired = replace(calls, previous=np.where(second, np.arange(n) - 1, -1), think_s=second.astype(np.float64))
    kept = swung(paired, Swing(0.2, 1.0, 1000.0), np.random.default_rng(0))
    assert 0 < len(kept) < n
    assert (kept.previous[1::2] == np.arange(0, len(kept), 2)).all()


def test_turns_follow_one_another_and_each_fills_the_cluster_alike() -> None:
    turns = Load("llama-3.1-8b", "code", base_rps=2.0, then="conversation", every_s=900.0)
    day = day_of(replace(CELL, loads=(turns,)), 0)
    trace = day.traces[0]
    odd = (trace.arrival_s // 900).astype(int) % 2 == 1
    # code asks for few output tokens, conversation for many
    assert np.median(trace.output_tokens[odd]) > 3 * np.median(trace.output_tokens[~odd])


def test_the_same_seed_is_the_same_day_and_another_seed_another_day_and_world() -> None:
    one, again, other = day_of(CELL, 3), day_of(CELL, 3), day_of(CELL, 4)
    assert one.scenario.digest() == again.scenario.digest()
    assert one.scenario.hidden != other.scenario.hidden
    assert len(one.traces[0]) != len(other.traces[0])


def test_slices_of_seeds_begin_at_different_hours_and_hold_the_cells_load() -> None:
    settled = Settled([1.0], settle(day_of(CELL, 0)).plan)
    for seed, start_h in zip(range(3), CELL.slice_starts_h, strict=True):
        day = day_of(CELL, seed)
        prepared = slice_of(day, settled)
        expected = CELL.load * len(between(day.traces[0], start_h * 3600, (start_h + 0.1) * 3600))
        assert len(prepared.scenario.requests) == pytest.approx(expected, abs=4 * expected**0.5)
        assert prepared.scenario.duration_s <= 0.1 * 3600 + 60


def test_a_recording_stands_in_for_the_preset_like_it_and_is_all_the_day_there_is(tmp_path: Path) -> None:
    write_requests(steady(900), str(tmp_path / "azure2023_conv.csv.gz"))
    day = day_of(CELL, 0, str(tmp_path))
    assert len(day.traces[0]) == 900
    assert day.span_s == 899.0
    assert slice_of(day, Settled([10.0], settle(day_of(CELL, 0)).plan)).scenario.duration_s <= 420
