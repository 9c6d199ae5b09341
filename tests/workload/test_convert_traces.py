"""Writing traces down: what is written is read again as the same requests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import MOONCAKE, SAMPLES

from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.workload import Requests, Trace, read_trace, single_requests
from autopoiesis.workload.normalised_csv import write_normalised
from autopoiesis.workload.requests import PREFIX_BLOCK_TOKENS
from autopoiesis.workload.spread import spread


def assert_same(one: Trace, other: Trace) -> None:
    for name in (*Requests.COLUMNS, "block_ids"):
        assert np.array_equal(getattr(one.requests, name), getattr(other.requests, name)), name
    assert [one.models[model] if model >= 0 else "" for model in one.model] == [
        other.models[model] if model >= 0 else "" for model in other.model
    ]


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_a_trace_of_any_format_is_read_again_as_it_was(tmp_path: Path, sample: str, name: str) -> None:
    (tmp_path / "trace").write_text(SAMPLES[sample])
    trace = read_trace(str(tmp_path / "trace"))
    out = tmp_path / name
    write_normalised(trace, str(out))
    assert_same(read_trace(str(out)), trace)
    assert out.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Requests of sessions and blocks as a reader gives them, with labels of any characters."""
    n = draw(st.integers(1, 12))
    arrivals = draw(st.lists(st.floats(0, 1e7), min_size=n, max_size=n))
    arrival_s = np.sort(np.array(arrivals)) - min(arrivals)
    session = draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))
    last: dict[int, int] = {}
    previous = np.full(n, -1, dtype=np.int64)
    for row, number in enumerate(session):
        if number >= 0:
            previous[row] = last.get(number, -1)
            last[number] = row
    later = previous >= 0
    think_s = np.where(later, draw(st.lists(st.floats(0, 1e6), min_size=n, max_size=n)), 0.0)
    chains = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    counts = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.int64)
    ids = np.array([4 * chain + i for chain, count in zip(chains, counts, strict=True) for i in range(count)], int)
    _, ids = np.unique(ids, return_inverse=True)
    tokens = counts * PREFIX_BLOCK_TOKENS + draw(st.integers(1, 400))
    labels = draw(st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1)))
    models = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    requests = dataclasses.replace(
        single_requests(arrival_s, tokens, np.array(draw(st.lists(st.integers(0, 10**9), min_size=n, max_size=n)))),
        prefix_tokens=np.where(later, np.minimum(tokens, 77), 0),
        previous=previous,
        think_s=think_s,
        block_start=np.where(counts > 0, np.cumsum(counts) - counts, 0),
        block_count=counts,
        block_ids=ids.astype(np.int64),
    )
    model = np.array([draw(st.integers(-1, len(models) - 1)) for _ in range(n)], dtype=np.int64)
    return Trace("normalised", requests, models, model, 0.0, 0, "")


@settings(max_examples=150, deadline=None)
@given(trace=traces())
def test_whatever_requests_there_are_they_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, trace: Trace
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "converted.csv")
    write_normalised(trace, path)
    assert_same(read_trace(path), trace)


def test_equal_traces_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(MOONCAKE)
    for name in ("one.csv.gz", "two.csv.gz"):
        write_normalised(read_trace(str(tmp_path / "trace")), str(tmp_path / name))
    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "two.csv.gz").read_bytes()


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(MOONCAKE)
    trace = read_trace(str(tmp_path / "trace"))
    with pytest.raises(TraceError, match="cannot be written"):
        write_normalised(trace, str(tmp_path / "absent" / "out.csv"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace"]


ARRIVALS = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(sorted)


@given(ARRIVALS, st.sampled_from([1, 3]), st.integers(0, 5))
def test_spread_arrivals_stay_in_their_step_and_in_their_order(steps: list[int], size: int, seed: int) -> None:
    recorded = single_requests(
        np.array(steps, dtype=np.float64) * size - steps[0] * size,
        np.arange(1, len(steps) + 1),
        np.zeros(len(steps), dtype=np.int64),
    )
    moved = spread(recorded, float(size), np.random.default_rng(seed))
    assert moved.arrival_s[0] == 0
    assert np.all(np.diff(moved.arrival_s) >= 0)
    assert moved.input_tokens.tolist() == recorded.input_tokens.tolist()
    # Taking the first arrival off moves all by less than a step.
    assert np.all(np.abs(moved.arrival_s - recorded.arrival_s) < size + 1e-9)
    again = spread(recorded, float(size), np.random.default_rng(seed))
    assert np.array_equal(moved.arrival_s, again.arrival_s)


def test_a_clock_in_steps_becomes_one_without() -> None:
    rng = np.random.default_rng(0)
    exact = np.sort(rng.uniform(0, 9_000, 20_000))
    recorded = single_requests(np.floor(exact / 3) * 3, np.ones(20_000, int), np.ones(20_000, int))
    gaps_s = np.diff(spread(recorded, 3.0, rng).arrival_s)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1.0, abs=0.03)


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="positive"):
        spread(single_requests(np.zeros(1), np.ones(1, int), np.ones(1, int)), 0.0, np.random.default_rng(0))
