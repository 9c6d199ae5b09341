"""The emulated engine's batch, in virtual time and against the event simulator: the same rules, to the picosecond."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from emulated_scenes import COST, SMALL, Ask, batch, emulated_ends, ends, finish, play, sequence, simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Replica
from autopoiesis.serve.emulated.batch import Batch
from autopoiesis.serve.emulated.kv_blocks import blocks_of
from autopoiesis.serve.emulated.step_duration import StepDuration
from autopoiesis.simulate.layout import SECOND

MICROSECOND = SECOND // 1_000_000
TIMES = COST.steps("llama-3.1-8b", "h100", 1, 1, 2)
REPLICAS = (
    SMALL,
    replace(SMALL, batched_tokens=256),
    replace(SMALL, max_sequences=3),
    Replica("llama-3.1-70b", "a100", 4),
    Replica("llama-3.1-70b", "h100", 2, 2, batched_tokens=512),
)
KV_BLOCKS = 80

gaps = st.integers(0, 50_000).map(lambda microseconds: microseconds * MICROSECOND)
single = st.tuples(gaps, st.integers(1, 600), st.integers(1, 60))
beginnings = st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4))
named = st.tuples(gaps, st.integers(1, 2600), st.integers(1, 40), beginnings)


def in_order(rows: list[Any]) -> list[Ask]:
    """Gaps become instants. A beginning is a tree's trunk up to some block and a branch from there on, as many blocks
    as the prompt has room for."""
    asks, at = [], 0
    for gap, prompt, answer, *beginning in rows:
        at += gap
        names: list[int] = []
        for tree, trunk, branch in beginning:
            names = [100 * tree + i for i in range(trunk)]
            names += [100 * tree + 10 * (trunk + 1) + i for i in range(branch)]
        asks.append(Ask(at, prompt, answer, tuple(names[: prompt // 512])))
    return asks


@settings(max_examples=60, deadline=None)
@given(st.lists(single, min_size=1, max_size=25), st.sampled_from(REPLICAS))
def test_every_first_and_last_token_comes_when_the_simulator_says(rows: list[Any], replica: Replica) -> None:
    asks = in_order(rows)
    assert emulated_ends(play(batch(replica, caching=False), asks)) == ends(simulated(asks, replica))


@settings(max_examples=60, deadline=None)
@given(st.lists(single, min_size=5, max_size=25), st.sampled_from(REPLICAS))
def test_where_kv_blocks_run_out_the_same_sequences_are_preempted_at_the_same_time(
    rows: list[Any], replica: Replica
) -> None:
    asks = in_order(rows)
    engine = batch(replica, KV_BLOCKS, caching=False)
    assert emulated_ends(play(engine, asks)) == ends(simulated(asks, replica, KV_BLOCKS))
    assert engine.blocks.used == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(named, min_size=2, max_size=15), st.sampled_from(REPLICAS[:3]))
def test_prompts_that_begin_alike_find_what_they_find_in_the_simulator(rows: list[Any], replica: Replica) -> None:
    asks = in_order(rows)
    simulation = simulated(asks, replica)
    sequences = play(batch(replica), asks)
    assert [sequence.cached_tokens for sequence in sequences] == simulation.state.requests["cached"].tolist()
    assert emulated_ends(sequences) == ends(simulation)


@settings(max_examples=60, deadline=None)
@given(st.lists(named, min_size=2, max_size=15), st.randoms(use_true_random=False))
def test_whoever_leaves_takes_only_what_was_its_own(rows: list[Any], rng: random.Random) -> None:
    """Sequences are aborted at any point of their lives; blocks in use and idle never exceed what there is."""
    engine = batch(SMALL, 200)
    asks = [ask for ask in in_order(rows) if blocks_of(ask.prompt + ask.answer) <= 200]
    alive = [sequence(ask) for ask in asks]
    for mine in alive:
        engine.add(mine, 0)
    now: int | None = 0
    while (now := engine.begin(now or 0)) is not None:
        if rng.random() < 0.2 and alive:
            engine.abort(alive.pop(rng.randrange(len(alive))))
        for mine in engine.end(now):
            if mine.ended:
                alive.remove(mine)
        assert 0 <= engine.blocks.used <= engine.blocks.used + engine.blocks.idle <= 200
    assert not alive
    assert engine.blocks.used == engine.running == engine.waiting == 0


def test_preemption_really_happens_in_these_loads() -> None:
    asks = [Ask(0, 600, 60) for _ in range(4)]
    sequences = play(batch(SMALL, KV_BLOCKS, caching=False), asks)
    assert sum(sequence.preemptions for sequence in sequences) > 0


def test_a_lone_sequence_takes_what_the_cost_model_says() -> None:
    (alone,) = play(batch(), [Ask(0, 1000, 100)])
    assert alone.last / SECOND == pytest.approx(TIMES.unloaded_s(1000, 100, 8192), rel=1e-6)


def test_the_smaller_priority_goes_first_and_age_breaks_ties() -> None:
    engine = batch(replace(SMALL, max_sequences=1))
    order = [sequence(Ask(0, 10, 2)) for _ in range(4)]
    for mine, priority in zip(order, (0, 5, -1, 5), strict=True):
        mine.priority = priority
        engine.add(mine, 0)
    finish(engine, engine.begin(0))
    assert sorted(range(4), key=lambda i: order[i].last) == [2, 0, 1, 3]


def test_those_that_gave_up_waiting_leave_nothing_behind() -> None:
    engine = batch(replace(SMALL, max_sequences=1))
    first, *others = [sequence(Ask(0, 10, 3)) for _ in range(500)]
    for mine in (first, *others):
        engine.add(mine, 0)
    began = engine.begin(0)
    for mine in others[:-1]:
        engine.abort(mine)
    assert engine.waiting == 1
    finish(engine, began)
    assert [mine.ended for mine in (first, others[0], others[-1])] == [True, False, True]


def test_what_the_cache_could_never_hold_is_refused() -> None:
    with pytest.raises(ScenarioError, match="do not fit into 10 KV blocks"):
        batch(kv_blocks=10).add(sequence(Ask(0, 150, 11)), 0)


def test_step_noise_is_drawn_from_the_seed() -> None:
    def last(seed: int) -> int:
        engine = Batch(StepDuration.of(TIMES), 1000, noise=0.1, rng=random.Random(seed))
        return play(engine, [Ask(0, 100, 10)])[0].last

    assert last(1) == last(1) != last(2)
