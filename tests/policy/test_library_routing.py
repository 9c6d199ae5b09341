"""The human policies that only route, on cases worked by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from autopoiesis.policy import HOLD, SHED, ReplicaView, Request
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.library import policy
from autopoiesis.policy.route import interpret_route

ROUTING = ("early-rejection", "least-loaded", "power-of-two", "round-robin", "weighted-scorers")


def router(name: str, **constants: float) -> Callable[[Request, list[ReplicaView]], int]:
    """The policy's `route`, with other values for its constants."""
    text = policy(name).text
    for constant, value in constants.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{constant} = "))
        text = text.replace(line, f"{constant} = {value}")
    route = interpret_route(text)
    assert route is not None
    return route


def request(**fields: float) -> Request:
    return Request(**{name: float(fields.get(name, 0.0)) for name in REQUEST_FIELDS})


def views(*replicas: dict[str, float]) -> list[ReplicaView]:
    return [
        ReplicaView(index, *(float(fields.get(name, 0.0)) for name in REPLICA_FIELDS))
        for index, fields in enumerate(replicas)
    ]


def loaded(in_flight: Sequence[float]) -> list[ReplicaView]:
    return views(*({"in_flight": load} for load in in_flight))


@pytest.mark.parametrize("name", ROUTING)
def test_a_request_that_nobody_can_take_is_held(name: str) -> None:
    assert router(name)(request(prompt_tokens=100), []) == HOLD


@pytest.mark.parametrize(
    ("in_flight", "kv_use", "waited_s", "answer"),
    [
        # A quarter of 256 sequences is 64: replica 1 has room, whatever a request has waited.
        ((64, 63), (0.5, 0.5), 9.0, 1),
        # Of those with room the fewest for its speed: 20 + 1 against 10 + 1.
        ((20, 10), (0.5, 0.5), 0.0, 1),
        # Replica 1 has no KV left, replica 0 no sequence: hold for half of the promised 2 s, then turn away.
        ((64, 10), (0.5, 0.95), 1.0, HOLD),
        ((64, 10), (0.5, 0.95), 1.1, SHED),
    ],
)
def test_early_rejection_turns_away_what_has_waited_too_long_for_room(
    in_flight: tuple[float, float], kv_use: tuple[float, float], waited_s: float, answer: int
) -> None:
    replicas = views(
        *(
            {"in_flight": load, "kv_use": kv, "max_sequences": 256.0, "speed": 1.0}
            for load, kv in zip(in_flight, kv_use, strict=True)
        )
    )
    assert router("early-rejection")(request(waited_s=waited_s, ttft_slo_s=2.0), replicas) == answer


def test_early_rejection_never_refuses_to_decode_what_has_been_prefilled() -> None:
    full = views({"in_flight": 300, "kv_use": 1.0, "max_sequences": 256.0, "speed": 1.0})
    assert router("early-rejection")(request(phase=1.0, waited_s=60.0, ttft_slo_s=2.0), full) == 0


def test_round_robin_takes_turns_whatever_the_load() -> None:
    route = router("round-robin")
    assert [route(request(sequence=n), loaded([9, 0, 0])) for n in range(5)] == [0, 1, 2, 0, 1]


def test_least_loaded_takes_the_fewest_outstanding_and_of_equals_the_first() -> None:
    assert router("least-loaded")(request(), loaded([4, 2, 2, 7])) == 1


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        # Of four, 0.6 · 4 = 2.4 draws replica 2 with five outstanding, 0.3 · 4 = 1.2 replica 1 with three.
        (0.6, 0.3, 1),
        (0.3, 0.6, 1),
        # Replica 3 idles and wins whenever it is drawn: 0.99 · 4 = 3.96.
        (0.6, 0.99, 3),
        # Drawing one twice is one choice; replicas 0 and 2 have as many, and the first draw counts.
        (0.6, 0.6, 2),
        (0.6, 0.1, 2),
        (0.1, 0.6, 0),
    ],
)
def test_power_of_two_takes_the_less_loaded_of_two_draws(first: float, second: float, answer: int) -> None:
    assert router("power-of-two")(request(uniform1=first, uniform2=second), loaded([5, 3, 5, 0])) == answer


def test_two_choices_leave_a_much_shorter_longest_queue_than_one() -> None:
    # 100 requests on 100 replicas: ln n ÷ ln ln n = 3.0 and more with one choice, ln ln n ÷ ln 2 = 2.2 with two.
    route, random = router("power-of-two"), Random(7)
    counts = [0] * 100
    for _ in range(100):
        counts[route(request(uniform1=random.random(), uniform2=random.random()), loaded(counts))] += 1
    alone = Counter(int(random.random() * 100) for _ in range(100))
    assert max(counts) <= 3
    assert max(alone.values()) > max(counts)


PROMPT = request(prompt_tokens=1000)
SCORED = (
    # Queues 8, 2 and 10: what is outstanding beyond what runs.
    {"cached_tokens": 500, "in_flight": 12, "running": 4, "kv_use": 0.5},
    {"cached_tokens": 0, "in_flight": 6, "running": 4, "kv_use": 0.3},
    {"cached_tokens": 800, "in_flight": 14, "running": 4, "kv_use": 0.9},
)


@pytest.mark.parametrize(
    ("weights", "answer"),
    [
        # prefix 0.5, 0, 0.8; queue (10 − 8) ÷ 8 = 0.25, 1, 0; KV 0.5, 0.7, 0.1: 1.75, 1.7 and 1.7.
        ({}, 0),
        # 2.0, 2.7, 1.7
        ({"QUEUE": 2.0}, 1),
        # 2.75, 1.7, 3.3
        ({"PREFIX": 4.0}, 2),
        # 2.25, 2.4, 1.8
        ({"KV": 2.0}, 1),
    ],
)
def test_weighted_scorers_add_up_prefix_queue_and_kv_use(weights: dict[str, float], answer: int) -> None:
    assert router("weighted-scorers", **weights)(PROMPT, views(*SCORED)) == answer


def test_what_was_sent_since_the_last_scrape_counts_as_queue() -> None:
    # Both ran four when last seen; the first has had six more since, so it does not get the seventh.
    route = router("weighted-scorers")
    before = {"running": 4, "kv_use": 0.4}
    assert route(PROMPT, views(before | {"in_flight": 4, "kv_use": 0.3}, before | {"in_flight": 4})) == 0
    assert route(PROMPT, views(before | {"in_flight": 10, "kv_use": 0.3}, before | {"in_flight": 4})) == 1
