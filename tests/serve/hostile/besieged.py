"""A gateway in a process of its own, under siege."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway_processes import gateway

from hostile.siege import Outcome, Siege


def besieged(folder: Path, clients: int, seed: int) -> Outcome:
    """The outcome of so many clients."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(_besieged(folder, clients, seed))


async def _besieged(folder: Path, clients: int, seed: int) -> Outcome:
    siege = Siege(seed)
    await siege.start()
    starting = gateway(folder, [], ready=False, **siege.config())
    running = await asyncio.to_thread(starting.__enter__)
    try:
        await siege.ready(running.port)
        outcome = await siege.run(
            running.port, running.admin, running.process.pid, clients, lambda: running.process.poll() is None
        )
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
    outcome.violations += [line for line in running.lines if "Traceback" in line or "Error" in line]
    return outcome


def _loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
