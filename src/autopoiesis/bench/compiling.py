"""`python -m autopoiesis.bench.compiling`: what a new router costs whoever serves meanwhile.

An event loop that wants to run every millisecond stands by while a router is compiled: by the loop itself, by another
thread of its process, and by the compiler's own process. The longest time between two turns is what a request could
have waited. Ways that are compared take turns.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import numpy as np
from rich.console import Console

from autopoiesis.bench.figures import Figure, drawn
from autopoiesis.bench.process import timed
from autopoiesis.evolve.routers import ROUTERS
from autopoiesis.policy import ReplicaView, Request
from autopoiesis.policy.compiler import Compiler
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.native import CompiledRoute
from autopoiesis.policy.route import compile_route, interpret_route, object_code

ROUTER = "weighted"
REPEATS = 15
CALLS = 1_000
REPLICAS = 8
TURN_S = 1e-3
LEAD_S = 0.02
"""How long the loop runs before and after."""


def figures(repeats: int = REPEATS) -> list[Figure]:
    """Milliseconds to a compiled router, longest stalls of the loop, and nanoseconds per call."""
    text = ROUTERS[ROUTER]
    with Compiler() as compiler:
        (first,) = timed(1, lambda: compiler.submit(text).result())
        compile_route(text)
        code = object_code(text, "route")
        assert code is not None
        here, there, loading = timed(
            repeats,
            lambda: compile_route(text),
            lambda: compiler.submit(text).result(),
            lambda: CompiledRoute(code),
        )
        stalls = _stalls(text, compiler, repeats)
        calls = _calls(text, compiler, repeats)
    return [
        _ms("compiled in the serving process", here, "numba warm"),
        _ms("compiled in the other process", there, "from the text to a function that can be called"),
        _ms("the first one there", first, "start of the process included"),
        _ms("machine code loaded", loading, f"{len(code)} bytes"),
        *(_ms(f"longest stall, {way}", seconds, "of a loop that turns every ms") for way, seconds in stalls.items()),
        *(_ns(f"call, {way}", seconds) for way, seconds in calls.items()),
    ]


def _stalls(text: str, compiler: Compiler, repeats: int) -> dict[str, tuple[float, ...]]:
    """Seconds of the longest stall of every repeat, by the way of compiling."""

    async def in_the_loop() -> object:
        return compile_route(text)

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "nothing compiled": lambda: asyncio.sleep(LEAD_S),
        "compiled by the loop": in_the_loop,
        "compiled by a thread": lambda: asyncio.to_thread(compile_route, text),
        "compiled by the other process": lambda: asyncio.wrap_future(compiler.submit(text)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, act in ways.items():
            seconds[way].append(asyncio.run(longest_stall_s(act)))
    return {way: tuple(measured) for way, measured in seconds.items()}


async def longest_stall_s(act: Callable[[], Awaitable[object]]) -> float:
    """The longest time between two turns of the loop while `act` goes on."""
    turns: list[float] = []

    async def turn() -> None:
        while True:
            turns.append(time.perf_counter())
            await asyncio.sleep(TURN_S)

    turning = asyncio.create_task(turn())
    await asyncio.sleep(LEAD_S)
    await act()
    await asyncio.sleep(LEAD_S)
    turning.cancel()
    return float(np.diff(turns).max())


def _calls(text: str, compiler: Compiler, repeats: int) -> dict[str, tuple[float, ...]]:
    """Seconds of so many calls from Python, by the kind of function."""
    request, rows = np.ones(len(REQUEST_FIELDS)), np.ones((REPLICAS, len(REPLICA_FIELDS)))
    given, views = Request(*request.tolist()), [ReplicaView(i, *row) for i, row in enumerate(rows.tolist())]
    interpreted, compiled, loaded = interpret_route(text), compile_route(text), compiler.submit(text).result().route
    assert interpreted is not None
    assert compiled is not None
    assert loaded is not None
    measured = timed(
        repeats,
        lambda: [interpreted(given, views) for _ in range(CALLS)],
        lambda: [compiled(request, rows) for _ in range(CALLS)],
        lambda: [loaded(request, rows) for _ in range(CALLS)],
    )
    return dict(zip(("interpreted", "compiled here", "compiled in the other process"), measured, strict=True))


def _ms(name: str, seconds: tuple[float, ...], note: str) -> Figure:
    return Figure(name, "ms", tuple(1e3 * second for second in seconds), more=False, note=note)


def _ns(name: str, seconds: tuple[float, ...]) -> Figure:
    each = tuple(1e9 / CALLS * second for second in seconds)
    return Figure(name, "ns", each, more=False, note=f"from Python, {REPLICAS} replicas")


def main() -> int:
    """Print the table."""
    Console(width=None if sys.stdout.isatty() else 140).print(drawn(f"Compiling the router {ROUTER!r}", figures()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
