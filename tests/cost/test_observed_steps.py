"""From streams to steps: what is said to have been in a step was in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_scenes import Terms, serve

from autopoiesis.cost.observed_steps import ObservedSteps, observed_steps
from autopoiesis.cost.telemetry import Stream
from autopoiesis.errors import ScenarioError


def rows(steps: ObservedSteps) -> list[tuple[float, int, int, int, int, bool]]:
    """(seconds in ms, prefill tokens, attention, sequences, contexts, after idle) of each step."""
    return [
        (
            round(1e3 * float(steps.seconds[i]), 6),
            int(steps.prefill_tokens[i]),
            int(steps.attention[i]),
            int(steps.sequences[i]),
            int(steps.contexts[i]),
            bool(steps.after_idle[i]),
        )
        for i in range(len(steps))
    ]


def test_a_request_alone_is_one_prefill_and_decode_steps_of_growing_context() -> None:
    stream = Stream(1.0, 10, (1.050, 1.060, 1.071))
    assert rows(observed_steps([stream], 64, 8)) == [
        (50.0, 10, 100, 0, 0, True),
        (10.0, 0, 0, 1, 11, False),
        (11.0, 0, 0, 1, 12, False),
    ]


def test_a_prompt_that_joins_a_decoding_stream_makes_a_mixed_step() -> None:
    first = Stream(0.0, 10, (0.050, 0.060, 0.090, 0.100))
    joins = Stream(0.055, 20, (0.0901, 0.1001))
    assert rows(observed_steps([first, joins], 64, 8))[1:] == [
        (10.0, 0, 0, 1, 11, False),
        (30.0, 20, 400, 1, 12, False),
        (10.0, 0, 0, 2, 13 + 21, False),
    ]


def test_a_long_prompt_is_spread_over_the_steps_that_the_budget_makes_of_it() -> None:
    first = Stream(0.0, 10, (0.050, 0.060, 0.090, 0.120, 0.130))
    joins = Stream(0.055, 100, (0.1201,))
    # 63 tokens beside one decoding sequence, and the other 37 in the next step
    assert rows(observed_steps([first, joins], 64, 8))[2:4] == [
        (30.0, 63, 63 * 63, 1, 12, False),
        (30.0, 37, 37 * (2 * 63 + 37), 1, 13, False),
    ]


def test_the_earliest_token_marks_the_end_of_a_step() -> None:
    streams = [Stream(0.0, 10, (0.050, 0.060, 0.070)), Stream(0.0, 10, (0.050, 0.0649, 0.070))]
    assert rows(observed_steps(streams, 64, 8))[1:] == [(10.0, 0, 0, 2, 22, False), (10.0, 0, 0, 2, 24, False)]


def test_a_straggler_does_not_move_the_end_of_its_step() -> None:
    streams = [Stream(0.0, 10, (0.050, 0.060, 0.070, 0.080)), Stream(0.0, 10, (0.050, 0.075, 0.0751, 0.080))]
    assert [row[0] for row in rows(observed_steps(streams, 64, 8))] == [50.0, 10.0, 10.0, 10.0]


def test_a_first_token_between_a_straggler_and_the_next_step_could_be_of_either() -> None:
    streams = [
        Stream(0.0, 10, (0.050, 0.060, 0.070, 0.080)),
        Stream(0.0, 10, (0.050, 0.075, 0.0751, 0.080)),
        Stream(0.055, 10, (0.072,)),
    ]
    assert [row[4] for row in rows(observed_steps(streams, 64, 8))] == [0, 24, 26]


def test_a_prompt_whose_chunks_nobody_saw_is_left_out() -> None:
    assert rows(observed_steps([Stream(0.0, 100, (0.5, 0.51))], 64, 8)) == [(10.0, 0, 0, 1, 101, False)]


def test_a_budget_is_needed() -> None:
    with pytest.raises(ScenarioError, match="must be at least 1, not 0 and 8"):
        observed_steps([Stream(0.0, 1, (1.0,))], 0, 8)


REQUESTS = st.lists(
    st.tuples(st.integers(0, 1500).map(lambda ms: ms / 1000 + 1e-4), st.integers(1, 150), st.integers(1, 40)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.sampled_from((64, 100, 256)), st.sampled_from((4, 64)))
def test_every_step_that_is_told_was_taken(
    requests: list[tuple[float, int, int]], batched_tokens: int, max_sequences: int
) -> None:
    streams, taken = serve(requests, Terms(request_s=0.0), batched_tokens=batched_tokens, max_sequences=max_sequences)
    told = observed_steps(streams, batched_tokens, max_sequences)
    wrong = sum(
        abs(seconds / 1e3 - taken.get((prefill, attention, sequences, contexts), np.inf)) > 1e-6
        for seconds, prefill, attention, sequences, contexts, _ in rows(told)
    )
    assert wrong == 0
