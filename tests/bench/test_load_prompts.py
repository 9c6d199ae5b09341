"""Prompts: how long they are, and where two of them begin alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.bench.load.prompts import POOL_UNITS, Measure, Prompts, Span, Text, Units, shared_tokens
from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests
from autopoiesis.workload.requests import single_requests

IDS = Units.token_ids(98, 1234)


def requests(
    lengths: list[int],
    previous: list[int] | None = None,
    prefix: list[int] | None = None,
    blocks: list[list[int]] | None = None,
) -> Requests:
    n = len(lengths)
    named = blocks or [[] for _ in lengths]
    count = np.array([len(ids) for ids in named])
    return Requests(
        arrival_s=np.arange(n, dtype=np.float64),
        model=np.zeros(n, dtype=np.int64),
        input_tokens=np.array(lengths),
        output_tokens=np.full(n, 10),
        prefix_tokens=np.array(prefix or [0] * n),
        previous=np.array(previous or [-1] * n),
        think_s=np.zeros(n),
        block_start=np.where(count > 0, np.cumsum(count) - count, 0),
        block_count=count,
        block_ids=np.array([block for ids in named for block in ids], dtype=np.int64),
    )


def ids(of: Requests, seed: int = 1) -> list[list[int]]:
    prompts = Prompts(of, Text(IDS, seed), Measure())
    return [json.loads(prompts.json(row)) for row in range(len(of))]


def in_common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_prompts_of_token_ids_have_the_length_asked_for_and_come_from_the_range() -> None:
    lengths = [1, 2, 9, 700, POOL_UNITS + 5000]
    prompts = ids(requests(lengths))
    assert [len(prompt) for prompt in prompts] == lengths
    assert all(98 <= token <= 1234 for prompt in prompts for token in prompt)


def test_the_same_seed_gives_the_same_prompts_and_another_one_others() -> None:
    assert ids(requests([50, 60]), seed=4) == ids(requests([50, 60]), seed=4)
    assert in_common(ids(requests([50]), seed=4)[0], ids(requests([50]), seed=5)[0]) < 3


def test_single_requests_do_not_begin_alike() -> None:
    prompts = ids(requests([40] * 200))
    assert len({tuple(prompt[:4]) for prompt in prompts}) == 200


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 400)), min_size=2, max_size=6), st.integers(0, 9))
def test_a_call_begins_with_exactly_what_it_shares_with_the_call_before(
    calls: list[tuple[int, int]], seed: int
) -> None:
    of = requests(
        [length for length, _ in calls],
        previous=[*range(-1, len(calls) - 1)],
        prefix=[0] + [min(prefix, length) for length, prefix in calls[1:]],
    )
    shared = shared_tokens(of)
    prompts = ids(of, seed)
    for row in range(1, len(calls)):
        assert prompts[row][: shared[row]] == prompts[row - 1][: shared[row]]
        # new text may begin with the same token by chance, never go on with the same ones
        assert in_common(prompts[row], prompts[row - 1]) <= shared[row] + 2 or len(prompts[row]) == shared[row]


def test_what_a_call_shares_with_an_answer_is_not_in_its_prompt() -> None:
    # 100 tokens of prompt and 10 of answer came before
    assert shared_tokens(requests([100, 150], previous=[-1, 0], prefix=[0, 110])).tolist() == [0, 100]


def test_prompts_are_alike_up_to_where_their_named_blocks_are() -> None:
    prompts = ids(requests([1100, 1200, 1500], blocks=[[7, 8], [7, 9], [7, 8]]))
    assert in_common(prompts[0], prompts[2]) >= 1024
    assert 512 <= in_common(prompts[0], prompts[1]) < 520
    assert [len(prompt) for prompt in prompts] == [1100, 1200, 1500]


def test_the_order_in_which_prompts_are_made_changes_nothing() -> None:
    of = requests([30, 60, 90], previous=[-1, 0, 1], prefix=[0, 30, 60])
    backwards = Prompts(of, Text(IDS, 1), Measure())
    assert [json.loads(backwards.json(row)) for row in (2, 1, 0)] == ids(of)[::-1]


def test_words_are_as_many_as_make_the_tokens() -> None:
    # a word is two tokens, and the template takes ten
    prompts = Prompts(requests([110, 11, 3]), Text(Units.words(), 0), Measure(0.5, 10.0))
    assert [len(json.loads(prompts.json(row)).split()) for row in range(3)] == [50, 1, 1]


def test_named_blocks_are_equal_in_words_too_whatever_the_length_of_the_prompt() -> None:
    of = requests([1100, 1777], blocks=[[7, 8], [7, 8]])
    prompts = Prompts(of, Text(Units.words(), 0), Measure(0.77, 5.0))
    one, other = (json.loads(prompts.json(row)).split() for row in range(2))
    assert one[: round(1024 * 0.77) - 2] == other[: round(1024 * 0.77) - 2]


def test_a_longer_span_of_a_name_goes_on_from_a_shorter_one() -> None:
    text = Text(IDS, 3)
    assert text.beginning(Span("a", 500)).startswith(text.beginning(Span("a", 77)))


@pytest.mark.parametrize(("first", "last"), [(5, 5), (-1, 9), (9, 5)])
def test_a_range_of_token_ids_needs_a_choice(first: int, last: int) -> None:
    with pytest.raises(ScenarioError, match="must run from 0 or more up"):
        Units.token_ids(first, last)


def test_a_prompt_needs_no_more_than_its_columns() -> None:
    assert len(ids(single_requests(np.zeros(1), np.array([5]), np.array([1])))[0]) == 5
