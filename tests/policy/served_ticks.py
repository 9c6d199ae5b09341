"""An event loop that serves while a router compiles: a program of its own.

Prints as JSON what each tick answered and whether the new router was ready by then, and whether numba was imported.
"""

from __future__ import annotations

import asyncio
import json
import sys

from router_calls import array_of, matrix_of

from autopoiesis.policy import Request
from autopoiesis.policy.compiler import Compiler
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS

TEXT = "interface = 1\n\ndef route(request, replicas):\n    return {index}\n"
REQUEST = array_of(Request(*[0.0] * len(REQUEST_FIELDS)))
ROWS = matrix_of([[0.0] * len(REPLICA_FIELDS)] * 2)
LAST = 3
"""Ticks that the new router answers."""


async def ticks(compiler: Compiler) -> list[tuple[bool, int]]:
    """(whether the new router was ready, answer) of every tick."""
    router = (await asyncio.wrap_future(compiler.submit(TEXT.format(index=0)))).route
    successor = asyncio.wrap_future(compiler.submit(TEXT.format(index=1)))
    answers: list[tuple[bool, int]] = []
    while [ready for ready, _ in answers].count(True) < LAST:
        if ready := successor.done():
            router = successor.result().route
        assert router is not None
        answers.append((ready, router(REQUEST, ROWS)))
        await asyncio.sleep(0)
    return answers


if __name__ == "__main__":
    with Compiler() as compiler:
        json.dump({"ticks": asyncio.run(ticks(compiler)), "numba": "numba" in sys.modules}, sys.stdout)
