"""Laws of the event kernel, over random loads, fleets, policies and changes of the fleet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_scenes import (
    DECODE,
    FOREVER,
    MIXED,
    PREFILL,
    PRIORITIES,
    TEXTS,
    Deed,
    Story,
    calls,
    check_books,
    idle_segments,
    results,
    seconds,
    simulate,
    tell,
)

from autopoiesis.plan import Replica
from autopoiesis.simulate import layout
from autopoiesis.simulate.routers import ROUTERS
from autopoiesis.workload import Requests, Status

# Few distinct gaps, so that many things happen at one instant.
GAPS_S = st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.02, 0.3])
LENGTHS = [1, 16, 256, 1200, 1200, 2100, 8192, 9000, 200_000]
TOKENS = st.one_of(st.integers(1, 200), st.integers(1, 200), st.sampled_from(LENGTHS))
OUTPUTS = st.one_of(st.integers(20, 300), st.sampled_from([0, 1, 2, 100]))


# Prompts that begin alike: blocks of a small tree, named by their path from the root.
PATHS = st.lists(st.integers(0, 1), max_size=4).map(
    lambda path: tuple(2 ** (depth + 1) + int("".join(map(str, path[: depth + 1])), 2) for depth in range(len(path)))
)


@st.composite
def loads(draw: st.DrawFn, most: int = 30) -> Requests:
    """Single requests and conversations in any mixture."""
    n = draw(st.one_of(st.integers(1, most), st.just(most)))
    rows = []
    previous: list[int] = []
    prefix: list[int] = []
    think: list[float] = []
    ends: list[int] = []
    blocks: list[tuple[int, ...]] = []
    named = draw(st.booleans())
    at_s = 0.0
    for i in range(n):
        at_s += draw(GAPS_S)
        rows.append((at_s, draw(TOKENS), draw(OUTPUTS)))
        before = draw(st.sampled_from([-1, -1, *ends]))
        previous.append(before)
        think.append(draw(st.sampled_from([0.0, 0.0, 0.5])) if before >= 0 else 0.0)
        prefix.append(min(draw(st.integers(0, 2000)), rows[i][1]) if before >= 0 else 0)
        if before >= 0:
            ends.remove(before)
        ends.append(i)
        blocks.append(draw(PATHS)[: rows[i][1] // 512] if named else ())
    return calls(*rows, previous=previous, prefix=prefix, think=think, blocks=blocks)


ENGINES = st.builds(
    Replica,
    model=st.just(MIXED.model),
    gpu=st.sampled_from(["h100", "a100"]),
    role=st.just(MIXED.role),
    batched_tokens=st.sampled_from([256, 2048, 8192]),
    max_sequences=st.sampled_from([1, 2, 8, 256]),
    pipeline_parallel=st.sampled_from([1, 1, 2]),
)
FLEETS = st.one_of(
    st.lists(st.just(MIXED), min_size=1, max_size=3),
    st.lists(ENGINES, min_size=2, max_size=4),
    st.sampled_from([[PREFILL, DECODE], [PREFILL, PREFILL, DECODE], [PREFILL, DECODE, DECODE, MIXED], [PREFILL]]),
)
DEEDS = st.builds(
    Deed,
    at_s=st.one_of(st.floats(0.0, 3.0, allow_nan=False), st.sampled_from([0.0, 0.02, 0.1, 1.0])),
    what=st.sampled_from(["drain", "undrain", "stop", "migrate", "start", "start", "start"]),
    which=st.integers(0, 5),
)
STORIES = st.builds(
    Story,
    requests=loads(),
    fleet=FLEETS.map(tuple),
    kv=st.sampled_from([None, None, 300, 450, 700, 2000, 3000, 9500]),
    noise=st.sampled_from([0.0, 0.05]),
    deeds=st.lists(DEEDS, max_size=5).map(tuple),
    text=st.builds(str.__add__, st.sampled_from(TEXTS), st.sampled_from(PRIORITIES)),
    router=st.sampled_from(sorted(ROUTERS)),
)


@settings(max_examples=250, deadline=None)
@given(STORIES)
def test_steps_taken_together_end_when_steps_taken_one_by_one_do(story: Story) -> None:
    together, one_by_one = tell(story), tell(story, exact=True)
    assert np.array_equal(results(together), results(one_by_one))
    for rows in ("arrived", "finished"):
        assert np.array_equal(getattr(together.state, rows), getattr(one_by_one.state, rows))
    for count in layout.REPLICA.names or ():
        # how the last run was cut into steps, and which nodes of the pool are in use, may differ
        if count not in ("began", "steps", "a", "b", "oldest", "newest"):
            assert np.array_equal(together.state.replicas[count], one_by_one.state.replicas[count])
    for slot in range(len(together.state.replicas)):
        assert idle_segments(together, slot) == idle_segments(one_by_one, slot)


@settings(max_examples=150, deadline=None)
@given(STORIES, st.integers(2, 40))
def test_time_that_passes_in_slices_passes_as_in_one_go(story: Story, slices: int) -> None:
    assert np.array_equal(results(tell(story)), results(tell(story, slices=slices)))


@settings(max_examples=150, deadline=None)
@given(STORIES)
def test_every_request_is_in_one_place_and_ends_once(story: Story) -> None:
    simulation = tell(story, slices=15, check=True)
    requests = simulation.state.requests
    n = len(requests)
    assert simulation.unfinished == 0
    assert sorted(simulation.state.arrived) == sorted(simulation.state.finished) == list(range(n))
    ends = np.bincount(requests["status"], minlength=5)
    assert ends[Status.PENDING] == 0
    assert ends[1:].sum() == n
    assert not simulation.state.replicas["kv_used"].any()
    assert not simulation.state.replicas["in_flight"].any()
    assert not simulation.state.replicas["in_flight_tokens"].any()


@settings(max_examples=150, deadline=None)
@given(STORIES)
def test_time_never_runs_back(story: Story) -> None:
    simulation = tell(story)
    requests = simulation.state.requests
    completed = requests["status"] == Status.COMPLETED
    began = requests["first"] >= 0
    assert np.all(began[completed])
    assert np.all(requests["first"][began] > requests["arrival"][began])
    assert np.all(requests["first"][began] <= requests["done"][began])
    alone = completed & (requests["output"] > 1)
    assert np.all(requests["first"][alone] < requests["done"][alone])
    for order, column in ((simulation.state.arrived, "arrival"), (simulation.state.finished, "done")):
        assert np.all(np.diff(requests[column][order]) >= 0)
    later = np.flatnonzero(requests["previous"] >= 0)
    before = requests[requests["previous"][later]]
    assert np.array_equal(requests["arrival"][later], before["done"] + requests["think"][later])


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_the_same_seed_gives_the_same_bytes(story: Story) -> None:
    assert tell(story).state.requests.tobytes() == tell(story).state.requests.tobytes()


@settings(max_examples=100, deadline=None)
@given(loads(), st.sampled_from([None, 700, 2000]), st.sampled_from(["", *TEXTS[4:5]]), st.sampled_from([1, 2, 256]))
def test_a_replica_answers_equal_priorities_in_order_of_arrival(
    load: Requests, kv: int | None, text: str, most: int
) -> None:
    replica = Replica(MIXED.model, "h100", max_sequences=most, batched_tokens=512)
    simulation = simulate(load, replica, kv=kv, text=text, noise=0.05)
    simulation.advance(FOREVER)
    requests = simulation.state.requests[simulation.state.arrived]
    first = requests["first"][(requests["first"] >= 0) & (requests["held_since"] < 0)]
    assert np.all(np.diff(first) >= 0)


@settings(max_examples=60, deadline=None)
@given(loads(most=40), st.integers(65, 140), st.data())
def test_slots_are_made_and_used_again_as_needed(load: Requests, replicas: int, data: st.DataObject) -> None:
    simulation = simulate(load, *[MIXED] * replicas, slots=2)
    simulation.advance(0.01)
    for slot in data.draw(st.lists(st.sampled_from(range(replicas)), unique=True, max_size=20)):
        simulation.stop(slot)
        check_books(simulation)
    free = sorted(set(range(replicas)) - set(simulation.slots))
    if free:
        assert simulation.start(MIXED, 1.0, 0.0, 9) == free[0]
    simulation.advance(FOREVER)
    check_books(simulation)
    assert np.all(simulation.state.requests["status"] != Status.LOST)


@pytest.mark.parametrize("text", TEXTS)
def test_a_call_always_ends_without_any_replica(text: str) -> None:
    simulation = simulate(calls((0.0, 10, 10), (1.0, 10, 10)), text=text)
    simulation.advance(FOREVER)
    assert simulation.unfinished == 0
    assert np.all(simulation.state.requests["status"] == Status.LOST)
    assert np.all(simulation.state.requests["reason"] == layout.LOST_UNSERVED)
    assert np.allclose(seconds(simulation, "done"), layout.UNSERVED_LIMIT / layout.SECOND)
    assert simulation.now_s < 700
