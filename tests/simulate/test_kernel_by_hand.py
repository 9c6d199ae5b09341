"""The engine of the event kernel, against times and counts worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from kernel_scenes import (
    COST,
    DECODE,
    FOREVER,
    LARGE,
    MIXED,
    PREFILL,
    SHORT_FIRST,
    SMALL,
    calls,
    check_books,
    idle_segments,
    routing,
    seconds,
    simulate,
    start,
)

from autopoiesis.cost import MIGRATION_PAUSE_S, kv_transfer_s
from autopoiesis.errors import PlanError, TraceError
from autopoiesis.plan import Replica
from autopoiesis.simulate import layout
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.workload import Requests, Status

TIMES = COST.steps(SMALL, "h100", 1, 1, 2)
EXACT = 1e-6
"""Coefficients are rounded to whole picoseconds."""


def prefill_s(tokens: int, cached: int = 0, decoding: int = 0, context: int = 0) -> float:
    return TIMES.step_s(tokens, (cached + tokens) ** 2 - cached**2, decoding, context)


def decode_s(*spans: tuple[int, int]) -> float:
    """Decode steps of a batch: for each sequence the tokens before its first of these steps, and how many steps."""
    (count,) = {steps for _, steps in spans}
    return sum(TIMES.step_s(0, 0, len(spans), sum(tokens + i for tokens, _ in spans)) for i in range(count))


def served(requests: Requests, *fleet: Replica, kv: int | None = None, text: str = "") -> Simulation:
    simulation = simulate(requests, *fleet, kv=kv, text=text)
    simulation.advance(FOREVER)
    check_books(simulation)
    return simulation


def statuses(simulation: Simulation) -> list[Status]:
    return [Status(status) for status in simulation.state.requests["status"].tolist()]


def prompt_tokens(simulation: Simulation) -> list[int]:
    """Computed by each slot's replica, what was cached left out."""
    return [int(simulation.state.replicas[slot]["prompt_tokens"]) for slot in sorted(simulation.slots)]


# --- steps ----------------------------------------------------------------------------------------------------------


def test_a_lone_request_takes_its_prefill_and_one_step_for_every_further_token() -> None:
    simulation = served(calls((3.0, 700, 50)), MIXED)
    assert seconds(simulation, "first")[0] == pytest.approx(prefill_s(700), rel=EXACT)
    assert seconds(simulation, "done")[0] == pytest.approx(prefill_s(700) + decode_s((701, 49)), rel=EXACT)


@pytest.mark.parametrize("output", [0, 1])
def test_a_request_for_one_token_or_none_ends_with_its_prefill(output: int) -> None:
    simulation = served(calls((0.0, 1, output)), MIXED)
    assert seconds(simulation, "first")[0] == seconds(simulation, "done")[0] == pytest.approx(prefill_s(1), rel=EXACT)


def test_two_requests_share_their_steps() -> None:
    simulation = served(calls((0.0, 300, 10), (0.001, 500, 10)), MIXED)
    # the second comes within the first's prefill, and is prefilled while the first decodes its second token
    began_s = prefill_s(300)
    both_s = began_s + prefill_s(500, decoding=1, context=301)
    first_done_s = both_s + decode_s((302, 8), (501, 8))
    assert seconds(simulation, "first") == pytest.approx([began_s, both_s - 0.001], rel=EXACT)
    assert seconds(simulation, "done") == pytest.approx(
        [first_done_s, first_done_s + decode_s((509, 1)) - 0.001], rel=EXACT
    )


def test_a_newcomer_begins_with_the_step_after_the_one_under_way() -> None:
    at_s = prefill_s(300) + decode_s((301, 5)) + 1e-5
    simulation = served(calls((0.0, 300, 50), (at_s, 100, 1)), MIXED)
    begins_s = prefill_s(300) + decode_s((301, 6))
    expected_s = begins_s + prefill_s(100, decoding=1, context=307) - at_s
    assert seconds(simulation, "first")[1] == pytest.approx(expected_s, rel=EXACT)


def test_a_long_prompt_is_prefilled_in_chunks_of_the_token_budget() -> None:
    simulation = served(calls((0.0, 20_000, 1)), replace(MIXED, batched_tokens=8192))
    chunks = [(8192, 0), (8192, 8192), (3616, 16384)]
    assert seconds(simulation, "first")[0] == pytest.approx(sum(prefill_s(*chunk) for chunk in chunks), rel=EXACT)


def test_decoding_sequences_leave_less_of_the_budget_to_prefill() -> None:
    simulation = served(calls((0.0, 100, 50), (0.001, 512, 1)), replace(MIXED, batched_tokens=256))
    # 255 tokens beside the sequence that decodes, twice, and the last two
    steps = [(255, 0, 1, 101), (255, 255, 1, 102), (2, 510, 1, 103)]
    expected_s = prefill_s(100) + sum(prefill_s(*step) for step in steps) - 0.001
    assert seconds(simulation, "first")[1] == pytest.approx(expected_s, rel=EXACT)


def test_no_more_sequences_run_than_the_cap_allows() -> None:
    simulation = served(calls(*[(0.0, 50, 20)] * 5), replace(MIXED, max_sequences=1))
    alone_s = prefill_s(50) + decode_s((51, 19))
    assert seconds(simulation, "done") == pytest.approx([alone_s * (i + 1) for i in range(5)], rel=EXACT)


# --- KV cache -------------------------------------------------------------------------------------------------------


def test_the_newest_sequence_is_preempted_and_recomputed_when_the_cache_is_full() -> None:
    simulation = served(calls((0.0, 100, 100), (0.001, 100, 100)), MIXED, kv=300)
    # of 18 blocks each takes 7 at first, another at 112 tokens and at 128; the oldest needs one more at 144, and has
    # 101 when they begin to decode together
    steps = 144 - 101
    # the newest has one token from its prefill and one of each step; the oldest has one more
    oldest, newest = 100 + 2 + steps, 100 + 1 + steps
    full_s = prefill_s(100) + prefill_s(100, decoding=1, context=101) + decode_s((102, steps), (101, steps))
    done_s = full_s + decode_s((oldest, 200 - oldest))
    again_s = done_s + prefill_s(newest) + decode_s((newest + 1, 200 - newest - 1))
    assert simulation.state.replicas["preemptions"][0] == 1
    assert seconds(simulation, "done") == pytest.approx([done_s, again_s - 0.001], rel=EXACT)
    assert seconds(simulation, "first")[1] < full_s
    assert prompt_tokens(simulation) == [100 + 100 + newest]
    assert simulation.state.replicas["generated_tokens"][0] == 200


def test_a_sequence_that_outgrows_the_whole_cache_is_lost() -> None:
    simulation = served(calls((0.0, 100, 100), (5.0, 50, 10)), MIXED, kv=176)
    assert statuses(simulation) == [Status.LOST, Status.COMPLETED]
    assert simulation.state.requests["reason"][0] == layout.LOST_KV
    # 76 further entries fit, and every step but the prefill needs one
    assert seconds(simulation, "done")[0] == pytest.approx(prefill_s(100) + decode_s((101, 76)), rel=EXACT)


def test_a_preempted_request_makes_room_for_a_smaller_one_that_goes_first() -> None:
    requests = calls((0.0, 100, 100), (0.0, 100, 100), (0.1, 30, 2))
    simulation = served(requests, MIXED, kv=300, text=SHORT_FIRST)
    assert statuses(simulation) == [Status.COMPLETED] * 3
    assert simulation.state.requests["done"][2] == simulation.state.requests["done"].min()


# --- prefix cache ---------------------------------------------------------------------------------------------------


def conversation(between: int, answer: int = 1) -> Requests:
    """A call of 1000 tokens that is answered by 41, and its follow-up; in between one of other tokens."""
    return calls(
        (0.0, 1000, 41),
        (5.0, between, answer),
        (6.0, 1200, 2),
        previous=[-1, -1, 0],
        prefix=[0, 0, 1041],
        think=[0.0, 0.0, 10.0],
    )


def test_a_follow_up_computes_only_what_is_not_cached() -> None:
    simulation = served(conversation(between=100), MIXED)
    # of the 1040 tokens that had KV entries, all are whole blocks
    assert prompt_tokens(simulation) == [1000 + 100 + 160]
    assert seconds(simulation, "first")[2] == pytest.approx(prefill_s(160, cached=1040), rel=EXACT)


@pytest.mark.parametrize(
    ("between", "answer", "cached"),
    [(1000, 1, 1040), (2016, 1, 1040), (2017, 1, 1024), (2009, 9, 1024), (2576, 1, 480), (2977, 1, 64), (2992, 1, 64)],
)
def test_the_cache_loses_what_was_freed_longest_ago_and_each_prompt_from_its_tail_on(
    between: int, answer: int, cached: int
) -> None:
    # of 191 blocks, 126 were never used; then the conversation's 65 go
    simulation = served(conversation(between, answer), MIXED, kv=191 * 16)
    assert prompt_tokens(simulation) == [1000 + between + 1200 - cached]


def test_a_successor_in_the_same_slot_has_nothing_cached() -> None:
    simulation = simulate(conversation(between=100), MIXED)
    simulation.advance(8.0)
    simulation.stop(0)
    assert start(simulation, MIXED) == 0
    simulation.advance(FOREVER)
    assert prompt_tokens(simulation) == [1200]


def test_a_prefill_replica_keeps_the_prompts_that_it_handed_over() -> None:
    simulation = served(conversation(between=100), PREFILL, DECODE)
    # the answer's tokens were computed elsewhere
    assert prompt_tokens(simulation) == [1000 + 100 + 1200 - 1000 // 16 * 16, 0]


def test_prompts_that_begin_alike_hold_their_blocks_in_common() -> None:
    # each begins with the same 1024 tokens; the second comes when the first has been computed
    together = calls((0.0, 1100, 300), (0.5, 1200, 300), blocks=[(1, 2), (1, 2)])
    simulation = simulate(together, MIXED)
    simulation.advance(0.7)
    check_books(simulation)
    assert prompt_tokens(simulation) == [1100 + 1200 - 1024]
    tokens = [1100, 1200] + simulation.state.requests["input"] * 0
    assert simulation.state.replicas["decoding"][0] == 2
    requests = simulation.state.requests
    generated = requests["output"] - (requests["finish"] - simulation.state.replicas["decode_step"][0])
    blocks = [-(-(held + made - 1) // 16) for held, made in zip(tokens, generated.tolist(), strict=True)]
    assert simulation.state.replicas["kv_used"][0] == sum(blocks) - 1024 // 16
    assert simulation.state.requests["cached"].tolist() == [0, 1024]
    simulation.advance(FOREVER)
    check_books(simulation)


def test_what_two_compute_at_once_is_kept_once() -> None:
    requests = calls((0.0, 10, 2), (0.001, 1100, 2), (0.001, 1200, 2), (9.0, 1030, 2), blocks=[(), *[(1, 2)] * 3])
    simulation = served(requests, MIXED)
    assert prompt_tokens(simulation) == [10 + 1100 + 1200 + 1030 - 1024]
    assert sorted(segment for segment, _ in idle_segments(simulation, 0) if segment >= 0) == [0, 1]


def test_a_block_is_found_only_behind_those_before_it() -> None:
    # the second prompt ends like the first and begins otherwise
    simulation = served(calls((0.0, 1100, 2), (5.0, 1600, 2), blocks=[(1, 2), (1, 3, 2)]), MIXED)
    assert prompt_tokens(simulation) == [1100 + 1600 - 512]


def test_a_prompt_that_is_cached_as_a_whole_computes_its_last_block() -> None:
    simulation = served(calls((0.0, 1024, 2), (5.0, 1024, 2), blocks=[(1, 2), (1, 2)]), MIXED)
    assert prompt_tokens(simulation) == [1024 + 16]


def test_what_was_used_last_is_kept_longest() -> None:
    # of 72 blocks each takes 34; the first is asked for again, and the third drives out the second
    texts = [(1,), (2,), (1,), (3,), (1,), (2,)]
    requests = calls(*[(5.0 * i, 530, 1) for i in range(6)], blocks=texts)
    simulation = served(requests, MIXED, kv=72 * 16)
    assert (simulation.state.requests["cached"] == 512).tolist() == [False, False, True, False, True, False]


def test_a_conversation_that_takes_back_its_last_words_goes_on_from_there() -> None:
    rows = calls(
        (0.0, 1000, 41),
        (1.0, 1100, 17),
        (2.0, 700, 2),
        previous=[-1, 0, 1],
        prefix=[0, 1040, 600],
        think=[0.0, 1.0, 1.0],
    )
    simulation = served(rows, MIXED)
    assert simulation.state.requests["cached"].tolist() == [0, 1040, 592]


# --- prefill and decode apart ---------------------------------------------------------------------------------------


def test_a_disaggregated_pair_moves_the_cache_from_prefill_to_decode() -> None:
    simulation = served(calls((0.0, 800, 30)), PREFILL, DECODE)
    first_s = prefill_s(800)
    moved_s = first_s + kv_transfer_s(800 * TIMES.kv_bytes_per_token)
    assert seconds(simulation, "first")[0] == pytest.approx(first_s, rel=EXACT)
    assert seconds(simulation, "done")[0] == pytest.approx(moved_s + decode_s((801, 29)), rel=EXACT)
    assert prompt_tokens(simulation) == [800, 0]
    assert simulation.state.requests["slot"][0] == 1


@pytest.mark.parametrize(("links", "apart"), [((0, 0), False), ((0, 1), True)])
def test_caches_that_leave_over_the_same_link_follow_one_another(links: tuple[int, int], apart: bool) -> None:
    simulation = simulate(calls((0.0, 8000, 2), (0.0, 8000, 2)))
    for link in links:
        start(simulation, PREFILL, link=link)
    start(simulation, DECODE)
    simulation.advance(FOREVER)
    check_books(simulation)
    base_s = kv_transfer_s(0)
    moved_s = kv_transfer_s(8000 * TIMES.kv_bytes_per_token) - base_s
    first_s = prefill_s(8000) + base_s + moved_s
    done = seconds(simulation, "done")
    if apart:
        # the second comes at the same instant, when the first's step has begun
        assert done == pytest.approx([first_s + decode_s((8001, 1)), first_s + 2 * decode_s((8001, 1))], rel=EXACT)
    else:
        assert moved_s > decode_s((8001, 1))
        expected_s = [first_s + decode_s((8001, 1)), first_s + moved_s + decode_s((8001, 1))]
        assert done == pytest.approx(expected_s, rel=EXACT)


# --- pipelines ------------------------------------------------------------------------------------------------------


def test_a_lone_prompt_passes_through_the_stages_of_a_pipeline_one_after_the_other() -> None:
    piped = replace(MIXED, pipeline_parallel=2)
    times = COST.steps(SMALL, "h100", 1, 2, 2)
    assert times.stages == 2
    alone = served(calls((0.0, 4000, 1)), piped)
    assert seconds(alone, "first")[0] == pytest.approx(times.step_s(8000, 2 * 4000**2, 0, 0), rel=EXACT)
    # two prompts of the same length keep both stages at work
    both = served(calls((0.0, 10, 1), (0.001, 4000, 1), (0.001, 4000, 1)), piped)
    began_s = seconds(both, "first")[0] - 0.001
    assert began_s + 0.001 == pytest.approx(times.step_s(20, 2 * 10**2, 0, 0), rel=EXACT)
    assert seconds(both, "first")[1:] == pytest.approx(began_s + times.step_s(8000, 2 * 4000**2, 0, 0), rel=EXACT)


def test_a_lone_sequence_decodes_in_a_pipeline_as_slowly_as_two() -> None:
    piped = replace(MIXED, pipeline_parallel=2)
    times = COST.steps(SMALL, "h100", 1, 2, 2)
    alone = served(calls((0.0, 4000, 3)), piped)
    assert (seconds(alone, "done") - seconds(alone, "first"))[0] == pytest.approx(
        sum(times.step_s(0, 0, 2, 2 * context) for context in (4001, 4002)), rel=EXACT
    )
    assert seconds(alone, "done")[0] == pytest.approx(times.unloaded_s(4000, 3, 8192), rel=EXACT)


# --- prefill and decode on several replicas -------------------------------------------------------------------------


def test_decoding_goes_to_mixed_replicas_only_where_there_are_no_others() -> None:
    many = calls(*[(i * 0.01, 200, 20) for i in range(20)])
    simulation = simulate(many, PREFILL, MIXED, DECODE)
    simulation.state.replicas["in_flight"][1] = 1000
    simulation.advance(FOREVER)
    assert set(simulation.state.requests["slot"].tolist()) == {2}
    simulation = simulate(many, PREFILL, MIXED)
    simulation.state.replicas["in_flight"][1] = 1000
    simulation.advance(FOREVER)
    assert set(simulation.state.requests["slot"].tolist()) == {1}


@pytest.mark.parametrize("how", ["drain", "stop", "migrate"])
def test_a_cache_that_waits_at_a_decode_replica_is_lost_only_if_the_replica_dies(how: str) -> None:
    one = replace(DECODE, max_sequences=1)
    simulation = simulate(calls((0.0, 300, 3000), (0.1, 300, 10)), PREFILL, one)
    simulation.advance(1.0)
    assert simulation.state.replicas["waiting"][1] == 1
    assert prompt_tokens(simulation)[0] == 600
    start(simulation, one)
    if how == "drain":
        simulation.drain(1)
    else:
        assert simulation.stop(1, transfer=how == "migrate") == 2
    recomputed = 600 + int(simulation.state.requests["generated"].sum()) if how == "stop" else 0
    simulation.advance(FOREVER)
    assert statuses(simulation)[1] == Status.COMPLETED
    assert prompt_tokens(simulation)[0] == 600 + recomputed


# --- replicas that leave --------------------------------------------------------------------------------------------


def test_what_a_killed_replica_had_begun_continues_elsewhere_with_its_tokens() -> None:
    simulation = simulate(calls((0.0, 400, 200)), MIXED)
    simulation.advance(prefill_s(400) + decode_s((401, 50)) + 1e-4)
    first = int(simulation.state.requests["first"][0])
    at_s = simulation.now_s
    assert simulation.stop(0) == 1
    start(simulation, MIXED)
    simulation.advance(FOREVER)
    check_books(simulation)
    # 51 tokens exist, their KV entries do not
    assert prompt_tokens(simulation) == [451]
    assert simulation.state.requests["first"][0] == first
    assert seconds(simulation, "done")[0] == pytest.approx(at_s + prefill_s(451) + decode_s((452, 148)), rel=EXACT)


def test_a_migrated_sequence_keeps_its_cache() -> None:
    simulation = simulate(calls((0.0, 400, 200)), MIXED, MIXED)
    simulation.advance(prefill_s(400) + decode_s((401, 50)) + 1e-4)
    at_s = simulation.now_s
    assert simulation.stop(0, transfer=True) == 1
    simulation.advance(FOREVER)
    moved_s = at_s + MIGRATION_PAUSE_S + kv_transfer_s(450 * TIMES.kv_bytes_per_token)
    assert seconds(simulation, "done")[0] == pytest.approx(moved_s + decode_s((451, 149)), rel=EXACT)
    assert prompt_tokens(simulation) == [0]


def test_a_draining_replica_finishes_what_it_has_begun_and_gets_no_new_request() -> None:
    simulation = simulate(
        calls((0.0, 100, 100), (0.0, 100, 100), (1.2, 100, 1)), replace(MIXED, max_sequences=1), MIXED
    )
    # both go to slot 0 as long as slot 1 drains
    simulation.drain(1)
    simulation.advance(0.1)
    simulation.undrain(1)
    assert not simulation.drain(0)
    assert simulation.advance(FOREVER) == layout.DRAINED
    assert simulation.drained_slot == 0
    assert simulation.now_s == pytest.approx(prefill_s(100) + decode_s((101, 99)), rel=EXACT)
    simulation.stop(0)
    simulation.advance(FOREVER)
    assert simulation.state.requests["slot"].tolist() == [0, 1, 1]


def test_what_ends_at_the_instant_of_an_eviction_has_ended() -> None:
    # two equal replicas end at the same instant; the caller learns of the first and stops the second
    simulation = simulate(calls((0.0, 100, 30), (0.0, 100, 30)), MIXED, MIXED)
    simulation.advance(0.01)
    simulation.drain(0)
    assert simulation.advance(FOREVER) == layout.DRAINED
    assert simulation.stop(1) == 0
    assert statuses(simulation) == [Status.COMPLETED] * 2
    assert len(set(simulation.state.requests["done"].tolist())) == 1


def test_the_end_of_the_last_request_is_told_though_it_drains_a_replica_too() -> None:
    simulation = simulate(calls((0.0, 100, 30)), MIXED)
    simulation.state.scalars[layout.STOP_EMPTY] = 1
    simulation.advance(0.01)
    simulation.drain(0)
    assert simulation.advance(50.0) == layout.DRAINED
    ended_s = simulation.now_s
    assert simulation.advance(50.0) == layout.EMPTY
    assert simulation.now_s == ended_s < 1.0
    assert simulation.advance(50.0) == layout.REACHED
    assert simulation.now_s == 50.0


# --- what cannot be served ------------------------------------------------------------------------------------------


def test_a_request_beyond_the_models_context_is_rejected_and_its_session_goes_on() -> None:
    simulation = served(calls((0.0, 131_072, 1), (0.0, 100, 5), previous=[-1, 0], think=[0.0, 2.0]), MIXED)
    assert statuses(simulation) == [Status.REJECTED, Status.COMPLETED]
    assert simulation.state.requests["arrival"].tolist() == [0, 2 * layout.SECOND]


def test_models_are_served_apart() -> None:
    large = Replica(LARGE, "h100", tensor_parallel=4)
    requests = calls(*[(0.0, 100, 10)] * 4, model=[0, 1, 0, 1])
    simulation = simulate(requests, MIXED, large, models=(SMALL, LARGE))
    simulation.advance(FOREVER)
    assert simulation.state.requests["slot"].tolist() == [0, 1, 0, 1]


def test_weights_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(PlanError, match="do not fit"):
        simulate(calls(), Replica(LARGE, "h100"), models=(SMALL, LARGE))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"previous": [-1, 0, 0]}, "followed by more than one row"),
        ({"think": [0.0, -1.0, 0.0]}, "'think_s' must be finite and at least 0"),
        ({"think": [0.0, float("nan"), 0.0]}, "'think_s' must be finite"),
        ({"previous": [-1, 0, 1], "think": [0.0, 4e6, 4e6]}, "more than 60 days"),
    ],
)
def test_times_and_sessions_that_cannot_be_simulated_are_errors(columns: dict[str, list[float]], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        simulate(calls((0.0, 1, 1), (1.0, 1, 1), (2.0, 1, 1), **columns))


def test_an_open_loop_keeps_recorded_arrivals() -> None:
    requests = calls((0.0, 100, 500), (0.5, 100, 5), previous=[-1, 0], think=[0.0, 3.0], prefix=[0, 90])
    simulation = simulate(requests, MIXED, closed_loop=False)
    simulation.advance(FOREVER)
    assert np.all(simulation.state.requests["arrival"] == [0, layout.SECOND // 2])
    assert statuses(simulation) == [Status.COMPLETED] * 2


# --- what is counted ------------------------------------------------------------------------------------------------


def test_counters_say_what_decode_steps_did() -> None:
    simulation = served(calls((0.0, 100, 21)), MIXED)
    replica = simulation.state.replicas[0]
    assert replica["pure_steps"] == replica["pure_sequences"] == 20
    assert replica["pure_contexts"] == sum(101 + i for i in range(20))
    assert replica["pure_busy"] / layout.SECOND == pytest.approx(decode_s((101, 20)), rel=EXACT)
    assert replica["busy"] / layout.SECOND == pytest.approx(prefill_s(100) + decode_s((101, 20)), rel=EXACT)


def test_a_sample_sees_the_middle_of_a_run() -> None:
    simulation = simulate(calls((0.0, 1000, 500), (0.5, 100, 1)), replace(MIXED, max_sequences=1))
    simulation.advance(prefill_s(1000) + decode_s((1001, 200)) + 1e-4)
    running, waiting, kv_use, at_s = simulation.sample()[0]
    assert (running, waiting, at_s) == (1, 1, simulation.now_s)
    assert kv_use == pytest.approx(75 / (TIMES.kv_tokens // 16))


def test_noise_changes_the_batches_times_around_their_mean() -> None:
    many = calls(*[(float(i), 100, 50) for i in range(400)])
    simulation = simulate(many, MIXED, noise=0.1)
    simulation.advance(FOREVER)
    factors = seconds(simulation, "first") / prefill_s(100)
    assert factors.mean() == pytest.approx(1.0, abs=0.02)
    assert factors.std() == pytest.approx(0.1, rel=0.15)


def test_priorities_order_the_queue_of_a_replica_and_age_breaks_ties() -> None:
    requests = calls((0.0, 50, 20), (0.01, 300, 2), (0.02, 80, 2), (0.03, 300, 2), (0.04, 80, 2))
    simulation = simulate(requests, replace(MIXED, max_sequences=1))
    simulation.set_routing(routing(SHORT_FIRST))
    simulation.advance(FOREVER)
    order = [0, 2, 4, 1, 3]
    done = simulation.state.requests["done"][order].tolist()
    assert all(a < b for a, b in pairwise(done))
