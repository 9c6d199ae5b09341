"""The built-in balancers: the simulator's choices, and affinity that no hot prefix can turn against one replica."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idle_fleet import idle_fleet

from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.errors import ScenarioError
from autopoiesis.serve import config
from autopoiesis.serve.balancers import BALANCERS, LOAD_BOUND, Balancer, PrefixAffinity, balancer
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.prefixes import PrefixIndex, blocks
from autopoiesis.serve.replica import Replica
from autopoiesis.simulate import layout
from autopoiesis.simulate.draws import hash64, uniform
from autopoiesis.simulate.records import empty_state
from autopoiesis.simulate.routers import ROUTERS, pick
from autopoiesis.workload import SLO

MODEL = "llama-3.1-8b"
SEED = 11
PROMPT_TOKENS = 1_000


def offer(request_class: int = 0, blocks: tuple[int, ...] = ()) -> Offer:
    slos = {"ttft_slo_s": 1.0, "tpot_slo_s": 0.05}
    return Offer(0.0, request_class, PROMPT_TOKENS, **slos, arrived=0.0, sequence=0, blocks=blocks)


def fleet(size: int, in_flight: Sequence[int] = ()) -> list[Replica]:
    made = idle_fleet(size)
    for replica, load in zip(made, in_flight, strict=False):
        replica.in_flight = load
    return made


def named(name: str) -> Balancer:
    return balancer(name, random.Random(SEED))


# --- the simulator's choices ----------------------------------------------------------------------------------------


@cache
def simulator() -> tuple[Callable[[layout.State, int], int], Callable[[int, int], float]]:
    """The simulator's `pick` and its draws, for Python to call."""
    compiled = numba.njit(lambda state, row: pick(state, row))
    drawn = numba.njit(lambda seed, counter: uniform(hash64(seed), counter))
    return compiled, drawn


class SimulatorDraws(random.Random):
    """The draws that the simulator makes, one after the other."""

    count = 0

    def random(self) -> float:
        self.count += 1
        return float(simulator()[1](SEED, self.count - 1))


@dataclass
class Known:
    """A replica as both know it."""

    in_flight: int
    speed: float
    share: float
    kv_use: float


KNOWN = st.builds(
    Known,
    st.integers(0, 9),
    st.sampled_from([0.25, 0.7, 1.0]),
    st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    st.floats(0.0, 1.0),
)


def simulated(router: str, known: list[Known], cached_slot: int, cached_blocks: int) -> layout.State:
    """The simulator's memory with these replicas and one request, of which one replica has so many blocks cached."""
    rows = np.zeros(1, dtype=layout.REQUEST)
    rows["input"], rows["segments"], rows["segment_blocks"] = PROMPT_TOKENS, 1, cached_blocks
    chains = np.array([[0, cached_blocks]], dtype=np.int32)
    cost = CostModel(Hardware(catalog.gpus(), catalog.models()))
    state = empty_state(rows, chains, 1, (MODEL,), {MODEL: SLO()}, cost, len(known))
    state.scalars[layout.ROUTER] = ROUTERS[router]
    state.scalars[layout.SEED] = SEED
    state.segments[0]["slot"] = cached_slot
    state.replicas["kv_blocks"] = 1_000_000
    for slot, replica in enumerate(known):
        state.replicas[slot]["in_flight"] = replica.in_flight
        state.replicas[slot]["speed"] = replica.speed
        state.telemetry[slot, 2] = replica.kv_use
        state.shares[:, slot] = replica.share
    return state


@pytest.mark.parametrize("router", ROUTERS)
@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(KNOWN, min_size=1, max_size=7))
def test_a_fleet_that_comes_and_goes_is_chosen_from_as_in_the_simulator(
    router: str, data: st.DataObject, known: list[Known]
) -> None:
    slots = range(len(known))
    cached_slot, cached_blocks = data.draw(st.sampled_from(slots)), data.draw(st.integers(0, 62))
    state = simulated(router, known, cached_slot, cached_blocks)
    ours = balancer(router, SimulatorDraws())
    replicas = fleet(len(known))
    for replica, values in zip(replicas, known, strict=True):
        replica.in_flight, replica.speed = values.in_flight, values.speed
        replica.share, replica.kv_use = values.share, values.kv_use
    for _ in range(data.draw(st.integers(1, 12))):
        able = sorted(data.draw(st.sets(st.sampled_from(slots), min_size=1)))
        state.candidates[0, : len(able)] = able
        state.candidate_count[0] = len(able)
        request = offer(data.draw(st.integers(0, 2)))
        request.cached = [cached_blocks * layout.BLOCK_TOKENS if slot == cached_slot else 0 for slot in able]
        state.requests[0]["request_class"] = request.class_index
        expected = int(simulator()[0](state, 0))
        assert able[ours.choose(request, [replicas[slot] for slot in able])] == expected
        replicas[expected].in_flight += 1
        state.replicas[expected]["in_flight"] += 1


def test_configurations_name_every_balancer_and_no_other() -> None:
    assert set(config.ROUTERS) == set(BALANCERS)


def test_a_name_nobody_knows_is_answered_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match="did you mean round-robin"):
        named("round_robin")


@pytest.mark.parametrize("name", BALANCERS)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.data())
def test_every_choice_is_one_of_the_replicas_offered(name: str, loads: list[int], data: st.DataObject) -> None:
    request = offer(blocks=(data.draw(st.integers(0, 2**64 - 1)),))
    request.cached = data.draw(st.lists(st.integers(0, PROMPT_TOKENS), min_size=len(loads), max_size=len(loads)))
    assert 0 <= named(name).choose(request, fleet(len(loads), loads)) < len(loads)


def test_a_round_goes_on_where_it_was_when_replicas_come_and_go() -> None:
    robin, (a, b, c, d) = named("round-robin"), fleet(4)
    turns = [[a, b, c, d], [a, b, c, d], [a, c, d], [a, b, c, d], [a, b, c], [a, b, c, d]]
    assert [able[robin.choose(offer(), able)].slot for able in turns] == [0, 1, 2, 3, 0, 1]


def test_models_take_their_turns_apart() -> None:
    robin, replicas = named("round-robin"), fleet(2)
    first, second = offer(), offer()
    second.model = 1.0
    assert [robin.choose(request, replicas) for request in (first, second, first, second)] == [0, 0, 1, 1]


# --- prefix affinity ------------------------------------------------------------------------------------------------


class Gateway:
    """Requests routed by affinity, each ending when so many others have come."""

    def __init__(self, replicas: int, in_flight: int) -> None:
        self.replicas = fleet(replicas)
        self.index = PrefixIndex(10_000)
        self._affinity = PrefixAffinity()
        self._room = in_flight
        self._running: deque[Replica] = deque()

    def route(self, prompt: bytes) -> Replica:
        if len(self._running) == self._room:
            self._running.popleft().in_flight -= 1
        request = offer(blocks=blocks(prompt, seed=b"secret"))
        request.cached = self.index.believed(request.blocks, self.replicas, len(prompt) // 4, len(prompt))
        chosen = self.replicas[self._affinity.choose(request, self.replicas)]
        self.index.remember(request.blocks, chosen.slot, len(prompt) // 4, len(prompt))
        chosen.in_flight += 1
        self._running.append(chosen)
        return chosen


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 2**64 - 1))
def test_nobody_busier_than_the_bound_is_chosen(known: list[tuple[int, int]], block: int) -> None:
    loads = [load for load, _ in known]
    request = offer(blocks=(block,))
    request.cached = [cached for _, cached in known]
    chosen = PrefixAffinity().choose(request, fleet(len(known), loads))
    assert loads[chosen] <= LOAD_BOUND * (sum(loads) + 1) / len(loads) + 1


def test_of_those_within_the_bound_the_longest_cached_prefix_is_chosen() -> None:
    request = offer(blocks=(1, 2))
    request.cached = [900, 0, 600, 600]
    assert PrefixAffinity().choose(request, fleet(4, [9, 0, 3, 2])) == 3


def test_one_hot_prefix_is_spread_over_as_many_replicas_as_it_keeps_busy() -> None:
    gateway = Gateway(replicas=8, in_flight=64)
    prompt = b"The same question from everybody. " * 100
    counts = Counter(gateway.route(prompt).slot for _ in range(2_000))
    assert max(replica.in_flight for replica in gateway.replicas) <= LOAD_BOUND * 64 / 8 + 2
    assert max(counts.values()) < 1.5 * 2_000 / 8


def test_under_moderate_load_the_calls_of_a_session_stay_together() -> None:
    gateway = Gateway(replicas=8, in_flight=32)
    rng = random.Random(SEED)
    prompts = {session: rng.randbytes(2_000) for session in range(80)}
    last: dict[int, int] = {}
    stayed = calls = 0
    for _ in range(2_000):
        session = rng.randrange(len(prompts))
        prompts[session] = (prompts[session] + rng.randbytes(600))[:60_000]
        slot = gateway.route(prompts[session]).slot
        stayed += last.get(session) == slot
        calls += session in last
        last[session] = slot
    assert stayed > 0.9 * calls


@given(st.lists(st.binary(min_size=512, max_size=600), max_size=30))
def test_processes_that_know_nothing_of_each_other_send_a_new_prefix_the_same_way(prompts: list[bytes]) -> None:
    for prompt in prompts:
        one, other = Gateway(replicas=8, in_flight=1), Gateway(replicas=8, in_flight=1)
        assert one.route(prompt).slot == other.route(prompt).slot


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(0, 7))
def test_without_a_replica_only_its_own_prefixes_go_elsewhere(first_blocks: list[int], gone: int) -> None:
    everyone = fleet(8)
    left = [replica for replica in everyone if replica.slot != gone]
    for block in first_blocks:
        before = everyone[PrefixAffinity().choose(offer(blocks=(block,)), everyone)].slot
        after = left[PrefixAffinity().choose(offer(blocks=(block,)), left)].slot
        assert after == before or before == gone


def test_new_prefixes_are_dealt_out_evenly() -> None:
    rng, replicas = random.Random(SEED), fleet(8)
    affinity = PrefixAffinity()
    counts = Counter(affinity.choose(offer(blocks=(rng.getrandbits(64),)), replicas) for _ in range(8_000))
    assert all(850 < counts[slot] < 1_150 for slot in range(8))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9))
def test_a_prompt_without_blocks_is_balanced(loads: list[int]) -> None:
    replicas = fleet(len(loads), loads)
    assert PrefixAffinity().choose(offer(), replicas) == named("balanced").choose(offer(), replicas)
