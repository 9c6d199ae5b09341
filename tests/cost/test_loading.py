"""Loads that share links: max–min fair, exact, and the same whatever they are called."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cost.loading import Flow, Link, Loads, Route, fair_rates

A, B, C = ("drive", "a"), ("drive", "b"), ("object-store", "")
BANDWIDTH = {A: 3.0, B: 7.0, C: 1.0}


def route(*links: Link) -> Route:
    return frozenset(links)


def ends(loads: Loads) -> list[tuple[float, list[Flow]]]:
    """Every instant at which flows end, and which."""
    found = []
    while loads.due_s < math.inf:
        due_s = loads.due_s
        found.append((due_s, loads.end()))
    return found


# --- by hand -------------------------------------------------------------------------------------------------------


def test_a_lone_load_takes_its_bytes_over_the_narrowest_of_its_links() -> None:
    loads = Loads(BANDWIDTH.__getitem__)
    loads.begin((1, 0), 12.0, route(A, B), 5.0)
    assert ends(loads) == [(9.0, [(1, 0)])]


def test_who_is_held_up_elsewhere_leaves_the_rest_to_the_others() -> None:
    """Two on drive b, of which one also comes through the narrower drive a with a third."""
    rates = fair_rates({route(A): 1, route(A, B): 1, route(B): 1}, BANDWIDTH.__getitem__)
    assert rates == {route(A): 1.5, route(A, B): 1.5, route(B): 5.5}


def test_a_load_that_begins_or_ends_divides_the_rest_anew() -> None:
    loads = Loads(BANDWIDTH.__getitem__)
    loads.begin((1, 0), 12.0, route(A), 0.0)
    loads.begin((2, 0), 3.0, route(A), 2.0)
    # 6 bytes alone; then half each, until the second has its 3 after 2 s; the 3 that remain take 1 s
    assert ends(loads) == [(4.0, [(2, 0)]), (5.0, [(1, 0)])]


def test_a_load_that_is_given_up_frees_its_share() -> None:
    loads = Loads(BANDWIDTH.__getitem__)
    loads.begin((1, 0), 12.0, route(A), 0.0)
    loads.begin((2, 0), 12.0, route(A), 0.0)
    assert loads.cancel((2, 0), 4.0) == 6.0
    assert ends(loads) == [(6.0, [(1, 0)])]


def test_loads_that_share_nothing_do_not_know_of_each_other() -> None:
    loads = Loads(BANDWIDTH.__getitem__)
    loads.begin((1, 0), 3.0, route(A), 0.0)
    loads.begin((2, 0), 7.0, route(B), 0.0)
    assert ends(loads) == [(1.0, [(1, 0), (2, 0)])]


# --- laws ----------------------------------------------------------------------------------------------------------

links = st.tuples(st.sampled_from(["drive", "host", "nic"]), st.sampled_from(["a", "b", "c"]))
routes = st.frozensets(links, min_size=1, max_size=3)
bandwidths = st.fixed_dictionaries(
    {(kind, node): st.floats(0.1, 100.0) for kind in ("drive", "host", "nic") for node in "abc"}
)
crowds = st.dictionaries(routes, st.integers(1, 6), min_size=1, max_size=8)


@given(crowds, bandwidths)
def test_no_link_carries_more_than_it_can_and_nobody_could_have_more_at_no_poorer_ones_cost(
    flows: dict[Route, int], bandwidth: dict[Link, float]
) -> None:
    rates = fair_rates(flows, bandwidth.__getitem__)
    used = dict.fromkeys(bandwidth, 0.0)
    richest = dict.fromkeys(bandwidth, 0.0)
    for path, count in flows.items():
        assert rates[path] > 0
        for link in path:
            used[link] += rates[path] * count
            richest[link] = max(richest[link], rates[path])
    for link, rate in used.items():
        assert rate <= bandwidth[link] * (1 + 1e-9)
    for path, rate in rates.items():
        # max–min: each has a link that is full and on which nobody has more; so some link is always worked to the full
        assert any(used[link] >= bandwidth[link] * (1 - 1e-9) and rate >= richest[link] * (1 - 1e-9) for link in path)


@given(crowds, bandwidths, st.randoms(use_true_random=False))
def test_the_order_in_which_routes_are_named_does_not_matter(
    flows: dict[Route, int], bandwidth: dict[Link, float], random: object
) -> None:
    names = list(flows)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert fair_rates({name: flows[name] for name in names}, bandwidth.__getitem__) == fair_rates(
        flows, bandwidth.__getitem__
    )


arrivals = st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 1000), routes), min_size=1, max_size=12)


def story(
    begins: list[tuple[float, float, Route]], names: list[int], bandwidth: dict[Link, float]
) -> list[tuple[float, int]]:
    """Loads that begin at their times under these names; when each ended, by its place in `begins`."""
    loads = Loads(bandwidth.__getitem__)
    place = {name: position for position, name in enumerate(names)}
    told: list[tuple[float, int]] = []

    def until(now_s: float) -> None:
        while loads.due_s <= now_s and loads.due_s < math.inf:
            due_s = loads.due_s
            told.extend((due_s, place[flow[0]]) for flow in loads.end())

    for position in sorted(range(len(begins)), key=lambda i: begins[i][0]):
        at_s, size, path = begins[position]
        until(at_s)
        loads.begin((names[position], 0), size, path, at_s)
    until(math.inf)
    return told


@given(arrivals, bandwidths, st.data())
def test_what_loads_are_called_does_not_matter(
    begins: list[tuple[float, float, Route]], bandwidth: dict[Link, float], data: st.DataObject
) -> None:
    count = len(begins)
    shuffled = data.draw(st.permutations(range(count)))
    assert sorted(story(begins, list(range(count)), bandwidth)) == sorted(story(begins, list(shuffled), bandwidth))


@given(arrivals, bandwidths)
def test_every_load_ends_once_in_time_and_no_sooner_than_alone(
    begins: list[tuple[float, float, Route]], bandwidth: dict[Link, float]
) -> None:
    told = story(begins, list(range(len(begins))), bandwidth)
    assert [at_s for at_s, _ in told] == sorted(at_s for at_s, _ in told)
    assert sorted(name for _, name in told) == list(range(len(begins)))
    for at_s, name in told:
        began_s, size, path = begins[name]
        alone_s = size / min(bandwidth[link] for link in path)
        assert at_s >= (began_s + alone_s) * (1 - 1e-9)


@given(arrivals, bandwidths, st.floats(0, 60))
def test_bytes_are_conserved(
    begins: list[tuple[float, float, Route]], bandwidth: dict[Link, float], stop_s: float
) -> None:
    """What was asked for is what the rates have carried, plus what is left."""
    loads = Loads(bandwidth.__getitem__)
    asked = carried = now_s = 0.0
    flows: list[Flow] = []

    def go(until_s: float) -> None:
        nonlocal carried, now_s
        while True:
            step_s = min(loads.due_s, until_s) - now_s
            carried += sum(loads.rate(flow) for flow in flows) * step_s
            now_s += step_s
            if loads.due_s > until_s or not flows:
                return
            for flow in loads.end():
                flows.remove(flow)

    for name, (at_s, size, path) in enumerate(sorted(begins, key=lambda begin: begin[0])):
        if at_s > stop_s:
            break
        go(at_s)
        loads.begin((name, 0), size, path, at_s)
        flows.append((name, 0))
        asked += size
    go(stop_s)
    rest = sum(loads.cancel(flow, stop_s) for flow in flows)
    assert carried + rest == pytest.approx(asked, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=10), st.floats(0.1, 100))
def test_one_link_is_worked_to_the_full_until_the_last_load_ends(sizes: list[float], bandwidth: float) -> None:
    loads = Loads(lambda link: bandwidth)
    for name, size in enumerate(sizes):
        loads.begin((name, 0), size, route(A), 0.0)
    told = ends(loads)
    total = float(sum(map(Fraction, sizes)) / Fraction(bandwidth))
    assert told[-1][0] == pytest.approx(total, rel=1e-9)
    # the smaller ends no later than the larger
    order = [flow[0] for _, flows in told for flow in flows]
    assert [sizes[name] for name in order] == sorted(sizes)
