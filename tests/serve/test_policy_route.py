"""A policy's compiled functions at the gateway: they mean what they mean to the simulator and the interpreter."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idle_fleet import idle_fleet

from autopoiesis.errors import PolicyError
from autopoiesis.policy import ReplicaView, Request
from autopoiesis.policy.fields import FAULT, HOLD, REPLICA_FIELDS, REQUEST_FIELDS, SHED
from autopoiesis.policy.reads import replica_fields_read
from autopoiesis.policy.route import compile_priority, compile_route, interpret_priority, interpret_route
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.policy_route import PolicyPriority, PolicyRoute
from autopoiesis.serve.replica import Replica

HEADER = "from autopoiesis.policy import HOLD, SHED\n\ninterface = 1\n\n"
NOW = 100.0


def route_text(body: str) -> str:
    return HEADER + "def route(request, replicas):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def sum_of(fields: tuple[str, ...], view: str) -> str:
    """An expression in which no two fields can stand for each other."""
    return " + ".join(f"{2 * i + 1} * {view}.{name}" for i, name in enumerate(fields))


EVERY_REPLICA_FIELD = route_text(f"return max(replicas, key=lambda r: {sum_of(REPLICA_FIELDS, 'r')}).index")
EVERY_REQUEST_FIELD = route_text(f"return floor(({sum_of(REQUEST_FIELDS, 'request')}) % len(replicas))")
SOME_FIELDS = route_text("return min(replicas, key=lambda r: (r.in_flight + 1.0) / r.speed - r.cached_tokens).index")
AGE = route_text("return max(replicas, key=lambda r: r.telemetry_age_s).index")
PRIORITY = HEADER + f"def priority(request):\n    return {sum_of(REQUEST_FIELDS, 'request')}\n"


@cache
def routed(text: str) -> PolicyRoute:
    compiled = compile_route(text)
    assert compiled is not None
    return PolicyRoute(compiled, replica_fields_read(text))


NUMBERS = st.floats(-1e6, 1e6)
COUNTS = st.integers(0, 10_000)
LARGEST = 40
"""Fleet, for which a route must make more room than it begins with."""
UNIFORM = st.floats(0.0, 1.0, exclude_max=True)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    return Offer(
        draw(st.sampled_from([0.0, 1.0])),
        draw(COUNTS),
        draw(COUNTS),
        ttft_slo_s=draw(NUMBERS),
        tpot_slo_s=draw(NUMBERS),
        arrived=draw(NUMBERS),
        sequence=draw(COUNTS),
        phase=draw(st.sampled_from([0.0, 1.0])),
        prefix_key=draw(NUMBERS),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[Replica]:
    fleet = idle_fleet(draw(st.integers(1, LARGEST)))
    for replica in fleet:
        replica.in_flight, replica.in_flight_tokens = draw(COUNTS), draw(COUNTS)
        replica.running, replica.waiting, replica.kv_use = draw(NUMBERS), draw(NUMBERS), draw(NUMBERS)
        replica.share, replica.max_sequences = draw(NUMBERS), draw(NUMBERS)
        replica.gpu_kind, replica.speed = draw(NUMBERS), draw(NUMBERS)
        replica.scraped_at = draw(NUMBERS | st.just(-math.inf))
    return fleet


def request_of(offer: Offer, uniform1: float, uniform2: float) -> Request:
    known = {name: getattr(offer, name) for name in REQUEST_FIELDS if hasattr(offer, name)}
    values = known | {"waited_s": NOW - offer.arrived, "uniform1": uniform1, "uniform2": uniform2}
    return Request(**{name: float(value) for name, value in values.items()})


def views_of(offer: Offer, fleet: list[Replica]) -> list[ReplicaView]:
    cached = offer.cached or [0] * len(fleet)
    views = []
    for index, replica in enumerate(fleet):
        known = {name: getattr(replica, name) for name in REPLICA_FIELDS if hasattr(replica, name)}
        values = known | {"telemetry_age_s": NOW - replica.scraped_at, "cached_tokens": cached[index]}
        views.append(ReplicaView(index, **{name: float(value) for name, value in values.items()}))
    return views


@pytest.mark.parametrize(
    "text",
    [EVERY_REPLICA_FIELD, EVERY_REQUEST_FIELD, SOME_FIELDS, AGE],
    ids=["every field of a replica", "every field of the request", "some fields", "age"],
)
@settings(deadline=None)
@given(offers(), fleets(), UNIFORM, UNIFORM, st.just([]) | st.lists(COUNTS, min_size=LARGEST, max_size=LARGEST))
def test_a_route_is_shown_every_field_that_it_reads(
    text: str, offer: Offer, fleet: list[Replica], uniform1: float, uniform2: float, cached: list[int]
) -> None:
    offer.cached = cached[: len(fleet)]
    interpreted = interpret_route(text)
    assert interpreted is not None
    expected = interpreted(request_of(offer, uniform1, uniform2), views_of(offer, fleet))
    assert routed(text).choose(offer, fleet, NOW, uniform1, uniform2) == expected


@settings(deadline=None)
@given(offers(), UNIFORM, UNIFORM)
def test_a_priority_is_shown_every_field(offer: Offer, uniform1: float, uniform2: float) -> None:
    compiled, interpreted = compiled_priority(), interpret_priority(PRIORITY)
    assert interpreted is not None
    expected = interpreted(request_of(offer, uniform1, uniform2))
    assert compiled.priority(offer, NOW, uniform1, uniform2) == expected


@cache
def compiled_priority() -> PolicyPriority:
    compiled = compile_priority(PRIORITY)
    assert compiled is not None
    return PolicyPriority(compiled)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("return HOLD", HOLD),
        ("return SHED", SHED),
        ("return len(replicas)", FAULT),
        ("return floor(request.model / request.model)", FAULT),
    ],
)
def test_what_is_no_replica_is_told_apart(body: str, answer: int) -> None:
    offer = Offer(0.0, 0, 1, ttft_slo_s=1.0, tpot_slo_s=1.0, arrived=NOW, sequence=0)
    assert routed(route_text(body)).choose(offer, idle_fleet(1), NOW, 0.5, 0.5) == answer


def test_what_one_request_had_cached_is_not_shown_for_the_next() -> None:
    route = routed(route_text("return max(replicas, key=lambda r: r.cached_tokens).index"))
    offer = Offer(0.0, 0, 1, ttft_slo_s=1.0, tpot_slo_s=1.0, arrived=NOW, sequence=0)
    fleet = idle_fleet(2)
    offer.cached = [0, 500]
    assert route.choose(offer, fleet, NOW, 0.5, 0.5) == 1
    offer.cached = []
    assert route.choose(offer, fleet, NOW, 0.5, 0.5) == 0


# --- what it needs --------------------------------------------------------------------------------------------------


def test_a_route_needs_prefixes_only_if_it_reads_cached_tokens() -> None:
    assert routed(SOME_FIELDS).needs_prefixes
    assert not routed(AGE).needs_prefixes


def test_the_fields_that_a_route_reads_are_found_in_its_text() -> None:
    assert replica_fields_read(SOME_FIELDS) == {"in_flight", "speed", "cached_tokens"}
    assert replica_fields_read(EVERY_REPLICA_FIELD) == set(REPLICA_FIELDS)
    assert replica_fields_read(EVERY_REQUEST_FIELD) == set()


def test_a_module_without_a_route_reads_nothing() -> None:
    assert replica_fields_read(PRIORITY) == set()


def test_a_text_that_does_not_parse_is_refused() -> None:
    with pytest.raises(PolicyError, match="syntax"):
        replica_fields_read("def route(")


@pytest.mark.parametrize(
    "module",
    [
        "autopoiesis.policy.compiler",
        "autopoiesis.policy.native",
        "autopoiesis.policy.reads",
        "autopoiesis.serve.balancers",
        "autopoiesis.serve.policy_route",
        "autopoiesis.serve.prefixes",
        "autopoiesis.serve.prompt_length",
    ],
)
def test_who_serves_imports_neither_numpy_nor_numba(module: str) -> None:
    program = f"import sys, {module}; print([name for name in ('numpy', 'numba', 'rich') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
