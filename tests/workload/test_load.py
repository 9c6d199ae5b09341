"""Resampling changes how much there is, and nothing of what it is like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests, generate_chat, head, resample, single_requests

Conversation = list[tuple[int, int, float]]


def chat(seed: int, hours: float = 0.2, rate_rps: float = 1.0) -> Requests:
    """A small load whose `output_tokens` are made the row's own number, so that copies can be told apart."""
    requests = generate_chat(np.random.default_rng(seed), hours, rate_rps, session_share=0.5)
    return replace(requests, output_tokens=np.arange(len(requests)))


def conversations(requests: Requests) -> list[list[int]]:
    """Rows of each session, in order of their calls."""
    sessions: dict[int, list[int]] = {}
    for row, before in enumerate(requests.previous.tolist()):
        session = [*sessions.pop(before), row] if before >= 0 else [row]
        sessions[row] = session
    return list(sessions.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), factor=st.floats(0, 4), window_s=st.floats(0, 2000))
def test_a_session_is_copied_whole_and_in_order(seed: int, factor: float, window_s: float) -> None:
    recorded = chat(seed % 7)
    copy = resample(recorded, factor, window_s, np.random.default_rng(seed))
    originals = {session[0]: session for session in conversations(recorded)}
    for rows in conversations(copy):
        source = copy.output_tokens[rows]
        assert source.tolist() == originals[int(source[0])]
        assert rows == sorted(rows)
        assert np.allclose(np.diff(copy.arrival_s[rows]), np.diff(recorded.arrival_s[source]))
        for name in ("model", "input_tokens", "prefix_tokens", "think_s"):
            assert np.array_equal(getattr(copy, name)[rows], getattr(recorded, name)[source])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), window_s=st.floats(0, 5000))
def test_a_copy_starts_inside_the_trace(seed: int, window_s: float) -> None:
    recorded = chat(seed % 7)
    end_s = recorded.arrival_s[-1]
    copy = resample(recorded, 2.0, window_s, np.random.default_rng(seed))
    starts_s = copy.arrival_s[copy.previous < 0]
    assert np.all((starts_s >= 0) & (starts_s <= end_s))
    assert np.all(copy.arrival_s <= end_s + window_s / 2 + 1e-6)


def test_a_start_moves_by_half_a_window_at_most() -> None:
    recorded = single_requests(np.linspace(0.0, 1000.0, 1001), np.full(1001, 9), np.arange(1001))
    copy = resample(recorded, 3.0, 60.0, np.random.default_rng(1))
    moved_s = copy.arrival_s - recorded.arrival_s[copy.output_tokens]
    assert np.all(np.abs(moved_s) <= 30.0 + 1e-9)
    assert moved_s.min() < -28
    assert moved_s.max() > 28


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_mean_number_of_calls_is_the_factor_times_the_recorded_one(factor: float) -> None:
    recorded = chat(3)
    rng = np.random.default_rng(11)
    rounds = 60
    calls = sum(len(resample(recorded, factor, 60.0, rng)) for _ in range(rounds))
    sizes = np.array([len(rows) for rows in conversations(recorded)])
    spread = np.sqrt(rounds * factor * np.sum(sizes**2))
    assert abs(calls - rounds * factor * len(recorded)) < 5 * spread


def test_nothing_piles_up_at_the_edges() -> None:
    recorded = single_requests(np.linspace(0.0, 1000.0, 20_001), np.full(20_001, 9), np.full(20_001, 9))
    copy = resample(recorded, 5.0, 60.0, np.random.default_rng(5))
    per_slice, _ = np.histogram(copy.arrival_s, bins=100, range=(0.0, 1000.0))
    assert np.all(np.abs(per_slice - 1000) < 6 * np.sqrt(1000))


def test_the_same_seed_gives_the_same_load_and_another_seed_another() -> None:
    recorded = chat(1)
    first, again, other = (resample(recorded, 1.0, 60.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in Requests.COLUMNS)
    assert not np.array_equal(first.arrival_s, other.arrival_s)


def test_nothing_times_anything_and_anything_times_nothing_are_empty() -> None:
    rng = np.random.default_rng(0)
    empty = single_requests(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert len(resample(empty, 2.0, 60.0, rng)) == 0
    assert len(resample(chat(1), 0.0, 60.0, rng)) == 0


@pytest.mark.parametrize(("factor", "window_s"), [(-1.0, 60.0), (float("nan"), 60.0), (1.0, float("inf"))])
def test_a_load_that_is_no_number_is_refused(factor: float, window_s: float) -> None:
    with pytest.raises(ScenarioError, match="must be a number of 0 or more"):
        resample(chat(1), factor, window_s, np.random.default_rng(0))


def test_the_head_holds_the_calls_before_a_moment_and_cuts_sessions() -> None:
    recorded = chat(2)
    cut = head(recorded, 300.0)
    n = int(np.sum(recorded.arrival_s < 300.0))
    assert 0 < len(cut) == n < len(recorded)
    assert np.array_equal(cut.previous, recorded.previous[:n])
    assert np.array_equal(cut.prefix_tokens, recorded.prefix_tokens[:n])
    assert len(head(recorded, 0.0)) == 0
