"""Calls of routers: inputs in the form that each kind takes, and whether two kinds answer alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray
from router_texts import values

from autopoiesis.policy import ReplicaView, Request
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.route import interpret_priority, interpret_route


def views_of(rows: Sequence[Sequence[float]]) -> list[ReplicaView]:
    return [ReplicaView(index, *map(float, row)) for index, row in enumerate(rows)]


def array_of(request: Request) -> NDArray[np.float64]:
    return np.array([getattr(request, name) for name in REQUEST_FIELDS], dtype=np.float64)


def matrix_of(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(REPLICA_FIELDS))


def generated_inputs(random: Random, replicas: int) -> tuple[Request, list[list[float]]]:
    rows = [values(random, len(REPLICA_FIELDS)) for _ in range(replicas)]
    return Request(*values(random, len(REQUEST_FIELDS))), rows


def check_route_means(
    text: str, compiled: Callable[[NDArray[np.float64], NDArray[np.float64]], int] | None, random: Random
) -> None:
    """Raises AssertionError where the compiled `route` of the text answers otherwise than the interpreted one."""
    interpreted = interpret_route(text)
    assert compiled is not None
    assert interpreted is not None
    for _ in range(40):
        request, rows = generated_inputs(random, random.randrange(6))
        assert compiled(array_of(request), matrix_of(rows)) == interpreted(request, views_of(rows)), text


def check_priority_means(text: str, compiled: Callable[[NDArray[np.float64]], float] | None, random: Random) -> None:
    """Raises AssertionError where the compiled `priority` of the text differs from the interpreted one in any bit."""
    interpreted = interpret_priority(text)
    assert compiled is not None
    assert interpreted is not None
    for _ in range(60):
        request = Request(*values(random, len(REQUEST_FIELDS)))
        np.testing.assert_equal(compiled(array_of(request)), interpreted(request), err_msg=text)
