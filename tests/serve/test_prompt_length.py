"""How many tokens a prompt has, learnt from what engines report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.prompt_length import (
    HALF_LIFE,
    LEAST_BYTES_PER_TOKEN,
    MOST_BYTES_PER_TOKEN,
    PromptLength,
)

REPORTS = st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40)))


def taught(reports: list[tuple[int, int]], first_guess: float = 4.0) -> PromptLength:
    length = PromptLength(first_guess)
    for prompt_bytes, tokens in reports:
        length.learn(prompt_bytes, tokens)
    return length


@given(st.floats(LEAST_BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN), st.integers(0, 2**30))
def test_before_any_report_the_first_guess_holds(first_guess: float, prompt_bytes: int) -> None:
    assert PromptLength(first_guess).estimate(prompt_bytes) == pytest.approx(prompt_bytes / first_guess, abs=1.0)


@given(REPORTS, st.integers(0, 2**30))
def test_every_prompt_has_a_token(reports: list[tuple[int, int]], prompt_bytes: int) -> None:
    assert taught(reports).estimate(prompt_bytes) >= 1


@given(REPORTS, st.integers(0, 2**30), st.integers(0, 2**30))
def test_a_longer_prompt_has_no_fewer_tokens(reports: list[tuple[int, int]], one: int, other: int) -> None:
    length = taught(reports)
    assert length.estimate(min(one, other)) <= length.estimate(max(one, other))


@given(REPORTS, st.floats(0.0, 1e9))
def test_no_report_leads_beyond_what_a_token_can_be(reports: list[tuple[int, int]], first_guess: float) -> None:
    ratio = taught(reports, first_guess).bytes_per_token
    assert LEAST_BYTES_PER_TOKEN * 0.999 <= ratio <= MOST_BYTES_PER_TOKEN * 1.001


@given(st.floats(0.2, 15.0), st.integers(50, 5_000))
def test_engines_that_agree_are_believed(ratio: float, tokens: int) -> None:
    length = taught([(round(tokens * ratio), tokens)] * 10 * HALF_LIFE)
    assert length.bytes_per_token == pytest.approx(round(tokens * ratio) / tokens, rel=0.02)


def test_after_a_half_life_what_was_before_counts_half() -> None:
    length = taught([(2_000, 1_000)] * 20 * HALF_LIFE + [(6_000, 1_000)] * HALF_LIFE)
    assert length.bytes_per_token == pytest.approx(4.0, rel=0.01)


@given(st.integers(-(2**60), 2**60))
def test_one_absurd_report_among_many_changes_little(tokens: int) -> None:
    length = taught([(2_000, 500)] * HALF_LIFE + [(2_000, tokens)])
    assert length.bytes_per_token == pytest.approx(4.0, rel=0.4)


def test_a_report_of_an_empty_prompt_changes_nothing() -> None:
    assert taught([(0, 10), (-5, 10)]).bytes_per_token == 4.0
