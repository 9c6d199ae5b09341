"""Loads from presets: what every load keeps to, and how near each comes to the recording behind it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ScenarioError
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, Requests, read_requests, shape
from autopoiesis.workload.normalised_csv import write_requests
from autopoiesis.workload.presets import cut_to_context, generate, names, preset
from autopoiesis.workload.presets.acceptance import deviation, medians, target_of, targets
from autopoiesis.workload.readers import nominal_duration_s

TOLERANCE = 0.25
MICROSECOND = 1e-6
DRIFTING = ("diurnal", "flash-crowd", "mix-shift")

seeds = st.integers(0, 2**40)
presets = st.sampled_from(names())
hours = st.floats(0.02, 1.5)


def identical(one: Requests, other: Requests) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in (*Requests.COLUMNS, "block_ids"))


def outside(name: str, seeds: int) -> dict[str, str]:
    """The measures whose median over so many seeds is off by more than the tolerance."""
    return {
        measure: f"{median:.4g} instead of {target_of(name, measure):.4g}"
        for measure, median in medians(name, range(seeds)).items()
        if abs(deviation(target_of(name, measure), median)) > TOLERANCE
    }


def test_every_preset_has_a_recording_to_compare_with() -> None:
    assert names() == tuple(sorted(targets()))
    assert set(names()) == {
        "agentic",
        "code",
        "conversation",
        "diurnal",
        "flash-crowd",
        "longcontext",
        "mix-shift",
    }


@pytest.mark.parametrize("name", names())
def test_the_median_of_five_loads_is_within_a_quarter_of_the_recording(name: str) -> None:
    assert outside(name, 5) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_median_of_twenty_loads_is_within_a_quarter_of_the_recording(name: str) -> None:
    assert outside(name, 20) == {}


@settings(max_examples=40, deadline=None)
@given(presets, hours, seeds)
def test_every_load_is_well_formed(name: str, hours: float, seed: int) -> None:
    load = generate(name, hours, seed)
    assume(len(load))  # the first minutes of a load in bursts may be silent
    assert load.arrival_s[0] == 0.0
    assert np.all(np.diff(load.arrival_s) >= 0)
    assert load.arrival_s[-1] < hours * 3600.0
    assert load.input_tokens.min() >= 1
    assert load.output_tokens.min() >= 1
    assert np.all(load.prefix_tokens >= 0)
    assert np.all(load.prefix_tokens <= load.input_tokens)
    first = load.previous < 0
    assert not np.any(load.prefix_tokens[first])
    assert not np.any(load.think_s[first])
    assert not np.any(load.model)
    assert np.array_equal(np.unique(load.block_ids), np.arange(load.block_ids.max(initial=-1) + 1))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(("agentic", "longcontext")), hours, seeds)
def test_a_later_call_follows_the_end_of_the_one_before(name: str, hours: float, seed: int) -> None:
    load = generate(name, hours, seed)
    later = np.flatnonzero(load.previous >= 0)
    before = load.previous[later]
    assert len(np.unique(before)) == len(before), "a call has one successor"
    ends_s = load.arrival_s[before] + nominal_duration_s(load.output_tokens[before])
    assert np.all(load.think_s[later] >= 0)
    assert np.allclose(load.arrival_s[later], ends_s + load.think_s[later], rtol=0, atol=3 * MICROSECOND)
    assert np.all(load.prefix_tokens[later] <= load.input_tokens[before]), "only what was there can be shared"


@settings(max_examples=25, deadline=None)
@given(presets, hours, seeds)
def test_the_same_seed_gives_the_same_load_and_another_seed_another(name: str, hours: float, seed: int) -> None:
    load = generate(name, hours, seed)
    assert identical(load, generate(name, hours, seed))
    assume(len(load))
    assert not identical(load, generate(name, hours, seed + 1))


@settings(max_examples=20, deadline=None)
@given(presets, hours, seeds, st.sampled_from((".csv", ".csv.gz")))
def test_a_written_load_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str, hours: float, seed: int, suffix: str
) -> None:
    load = generate(name, hours, seed)
    assume(len(load))
    folder = tmp_path_factory.mktemp("trace")
    path, again = folder / f"load{suffix}", folder / f"again{suffix}"
    write_requests(load, str(path))
    write_requests(generate(name, hours, seed), str(again))
    assert identical(read_requests(str(path)), load)
    assert path.read_bytes() == again.read_bytes()
    assert sorted(entry.name for entry in folder.iterdir()) == sorted((path.name, again.name))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 1.0), seeds)
def test_a_prefix_block_always_follows_the_same_block(hours: float, seed: int) -> None:
    load = generate("longcontext", hours, seed)
    follows: dict[int, int] = {}
    for start, count in zip(load.block_start.tolist(), load.block_count.tolist(), strict=True):
        ids = [-1, *load.block_ids[start : start + count].tolist()]
        for before, block in pairwise(ids):
            assert follows.setdefault(block, before) == before
    assert np.array_equal(load.block_count, load.input_tokens // PREFIX_BLOCK_TOKENS)


@settings(max_examples=20, deadline=None)
@given(presets, seeds, st.integers(16, 200_000))
def test_a_context_cuts_what_does_not_fit_and_nothing_else(name: str, seed: int, context: int) -> None:
    load = generate(name, 0.2, seed)
    assume(len(load))
    cut, count = cut_to_context(load, context)
    whole = load.input_tokens + load.output_tokens
    assert np.all(cut.input_tokens + cut.output_tokens <= context)
    assert cut.input_tokens.min() >= 1
    assert np.all(cut.prefix_tokens <= cut.input_tokens)
    fitted = whole <= context
    assert count == np.sum(~fitted)
    assert np.array_equal(cut.input_tokens[fitted], load.input_tokens[fitted])
    assert np.array_equal(cut.output_tokens[fitted], load.output_tokens[fitted])
    assert identical(cut, generate(name, 0.2, seed, context=context))


@pytest.mark.parametrize("name", ["conversation", "code", "longcontext"])
def test_a_longer_load_is_more_of_the_same(name: str) -> None:
    """Each hour of long loads has the statistics of loads of an hour, the first and the last like the others."""

    def numbers(load: Requests) -> list[float]:
        lengths = [np.percentile(tokens, q) for tokens in (load.input_tokens, load.output_tokens) for q in (50, 90)]
        return [len(load), *map(float, lengths)]

    short = [numbers(generate(name, 1.0, seed)) for seed in range(30)]
    long = [generate(name, 6.0, seed) for seed in range(100, 110)]
    for hour in range(6):
        parts = [
            numbers(load.take(np.flatnonzero((load.arrival_s // 3600.0).astype(np.int64) == hour))) for load in long
        ]
        assert np.mean(parts, axis=0) == pytest.approx(np.mean(short, axis=0), rel=0.2)


@pytest.mark.parametrize("name", names())
def test_the_rate_asked_for_changes_the_number_of_requests_and_not_their_lengths(name: str) -> None:
    usual = [generate(name, targets()[name].hours / 4, seed) for seed in range(4)]
    twice = [generate(name, targets()[name].hours / 4, seed, rate=2 * preset(name).rate_rps) for seed in range(4)]
    assert sum(map(len, twice)) == pytest.approx(2 * sum(map(len, usual)), rel=0.15)

    def median(loads: list[Requests]) -> float:
        return float(np.median(np.concatenate([load.input_tokens for load in loads])))

    assert median(twice) == pytest.approx(median(usual), rel=0.15)


@pytest.mark.parametrize("name", DRIFTING)
def test_the_amplitude_stretches_the_drift_of_the_means(name: str) -> None:
    def drift(amplitude: float) -> tuple[float, float]:
        load = generate(name, 336.0, 5, rate=0.5, amplitude=amplitude)
        columns = (load.input_tokens, load.output_tokens)
        one, other = (shape.wandering(load.arrival_s, tokens).log_sd for tokens in columns)
        return one, other

    recorded = np.array(drift(1.0))
    assert np.array(drift(2.0)) == pytest.approx(2 * recorded, rel=0.15)
    assert np.all(np.array(drift(0.0)) < 0.1)


def test_surges_over_twice_the_rate_are_what_a_flash_crowd_adds_to_the_day() -> None:
    def over_twice(name: str) -> float:
        counts = [shape.windows(generate(name, 336.0, seed).arrival_s, shape.WINDOW_S) for seed in range(2)]
        return float(np.mean([shape.surges(each, 2.0).per_day for each in counts]))

    assert over_twice("flash-crowd") > over_twice("diurnal") + 0.15


def test_calls_of_an_agent_see_a_context_that_grows_and_is_reset_at_times() -> None:
    load = generate("agentic", 24.0, 1)
    later = load.previous >= 0
    growth = load.input_tokens[later] / load.input_tokens[load.previous[later]]
    assert np.mean(growth >= 1.0) > 0.95
    assert 0.001 < np.mean(growth < 0.7) < 0.03


def test_conversations_share_the_system_prompt_and_nothing_else() -> None:
    load = generate("longcontext", 0.5, 2)
    opened = (load.previous < 0) & (load.block_count > 0)
    reused = shape.reusable_tokens(load)
    # Those that were under way at the start come first with a history of their own, which nobody has seen either.
    assert np.mean(reused[opened] == PREFIX_BLOCK_TOKENS) > 0.99


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "convrsation"}, "did you mean conversation"),
        ({"hours": 0.0}, "hours"),
        ({"hours": float("nan")}, "hours"),
        ({"seed": -1}, "seed"),
        ({"rate": float("inf")}, "rate"),
        ({"amplitude": -1.0}, "amplitude"),
        ({"amplitude": 2.0}, "do not drift"),
        ({"context": 3}, "context"),
        ({"hours": 9000.0, "rate": 9000.0}, "lower rate or hours"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(options: dict[str, object], named: str) -> None:
    settings: dict[str, object] = {"name": "conversation", "hours": 1.0, "seed": 0, **options}
    with pytest.raises(ScenarioError, match=named):
        generate(**settings)  # type: ignore[arg-type]


def test_a_load_without_requests_is_empty() -> None:
    for name in names():
        assert len(generate(name, 0.1, 0, rate=0.0)) == 0
