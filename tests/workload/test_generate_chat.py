"""The made-up chat load has the properties its parameters promise."""

from __future__ import annotations

import numpy as np
import pytest

from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests, generate_chat


def load(seed: int = 0, hours: float = 1.0, rate_rps: float = 5.0, **options: float) -> Requests:
    return generate_chat(np.random.default_rng(seed), hours, rate_rps, **options)


def test_the_same_seed_gives_the_same_load() -> None:
    first, again = load(4), load(4)
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in Requests.COLUMNS)
    assert not np.array_equal(first.arrival_s[:9], load(5).arrival_s[:9])


def test_the_mean_rate_is_the_one_asked_for() -> None:
    assert np.mean([len(load(seed)) for seed in range(10)]) == pytest.approx(18_000, rel=0.03)


def test_the_rate_moves_more_than_chance_does() -> None:
    for seed in range(10):
        per_minute, _ = np.histogram(load(seed).arrival_s, bins=60, range=(0.0, 3600.0))
        # A Poisson process would have a dispersion of 1 and, at 300 a minute, a peak of about 1.15.
        assert per_minute.var() / per_minute.mean() > 4
        assert per_minute.max() / per_minute.mean() > 1.3


def test_prompts_grow_while_answers_shrink() -> None:
    requests = load(session_share=0.0, rate_rps=10.0, drift=0.5)
    early, late = requests.arrival_s < 360, requests.arrival_s > 3240
    assert np.median(requests.input_tokens[late]) / np.median(requests.input_tokens[early]) == pytest.approx(
        np.e, rel=0.2
    )
    assert np.median(requests.output_tokens[early]) / np.median(requests.output_tokens[late]) == pytest.approx(
        np.e, rel=0.2
    )
    assert np.median(requests.input_tokens) == pytest.approx(1000, rel=0.15)
    assert np.median(requests.output_tokens) == pytest.approx(130, rel=0.15)


def test_lengths_stay_in_their_limits() -> None:
    requests = load(input_median=60_000, output_median=8)
    for tokens in (requests.input_tokens, requests.output_tokens):
        assert tokens.min() >= 8
        assert tokens.max() <= 100_000


def test_the_share_of_calls_in_sessions_is_the_one_asked_for() -> None:
    requests = load(hours=2.0, session_share=0.3)
    in_session = requests.previous >= 0
    in_session[requests.previous[in_session]] = True
    assert np.mean(in_session) == pytest.approx(0.3, abs=0.04)
    assert not np.any(load(session_share=0.0).previous >= 0)


def test_a_later_prompt_holds_all_that_was_said_before() -> None:
    requests = load(session_share=1.0)
    later = np.flatnonzero(requests.previous >= 0)
    before = requests.previous[later]
    said = requests.input_tokens[before] + requests.output_tokens[before]
    assert np.array_equal(requests.prefix_tokens[later], np.minimum(said, requests.input_tokens[later]))
    assert np.all(requests.input_tokens[later] >= np.minimum(said, 100_000))
    assert np.mean(requests.think_s[later]) == pytest.approx(30.0, rel=0.1)
    assert not np.any(requests.think_s[requests.previous < 0])
    turns = np.zeros(len(requests), dtype=np.int64)
    for row, earlier in enumerate(requests.previous):
        turns[row] = 1 if earlier < 0 else turns[earlier] + 1
    assert turns.max() == 8


def test_nothing_arrives_after_the_end() -> None:
    assert load(hours=0.05, session_share=1.0).arrival_s.max() < 180.0
    assert len(load(rate_rps=0.0)) == 0


@pytest.mark.parametrize(
    "options", [{"hours": 0.0}, {"rate_rps": -1.0}, {"session_share": 1.5}, {"drift": float("nan")}]
)
def test_a_parameter_outside_its_range_is_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ScenarioError, match=next(iter(options))):
        generate_chat(np.random.default_rng(0), **{"hours": 1.0, "rate_rps": 1.0, **options})
