"""The other side of the pool: one process that evaluates job after job (`python -m … FD EVALUATOR PRIORITY`).

It ends when the pool closes its connection or is gone, and takes with it what its evaluator has started.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import msgspec

from autopoiesis.errors import AutopoiesisError
from autopoiesis.evolve.worker_messages import KEPT_CONTEXTS, Done, Evaluator, Given, Job, Priority, Started
from autopoiesis.policy.frames import ANSWER_BYTES, framed
from autopoiesis.policy.host_process import read_frame, write_frame

LARGEST_VALUE = ANSWER_BYTES - 1024
"""So that its frame is one that is read."""
NICENESS = {Priority.NORMAL: 0, Priority.LOW: 10, Priority.IDLE: 19}


def stand_back(priority: Priority) -> None:
    """Give way to other processes, as far as the system allows."""
    if NICENESS[priority]:
        os.nice(NICENESS[priority])
    if priority is Priority.IDLE and sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_with_pool(connection: int) -> None:
    """End this process once the pool is gone, whatever it is doing; templates and their children see that it ended."""
    poll = select.poll()
    # Nothing but the end of the other side, which needs no asking.
    poll.register(connection, 0)
    poll.poll()
    os._exit(1)


def serve_jobs(connection: int, name: str) -> None:
    """The whole life of a worker."""
    try:
        module_name, _, factory_name = name.partition(":")
        factory = cast("Callable[[], Evaluator]", getattr(importlib.import_module(module_name), factory_name))
        evaluator = factory()
    except Exception as error:
        write_frame(connection, framed(Started(f"{type(error).__name__}: {error}")))
        return
    try:
        write_frame(connection, framed(Started(None)))
        contexts: OrderedDict[str, bytes] = OrderedDict()
        while (body := read_frame(connection)) is not None:
            job = _job.decode(body)
            write_frame(connection, framed(_done(evaluator, job, _context(contexts, job.context))))
    finally:
        evaluator.close()


def _context(contexts: OrderedDict[str, bytes], given: Given | None) -> bytes | None:
    if given is None:
        return None
    if given.data is not None:
        contexts[given.key] = given.data
        while len(contexts) > KEPT_CONTEXTS:
            contexts.popitem(last=False)
    return contexts[given.key]


def _done(evaluator: Evaluator, job: Job, context: bytes | None) -> Done:
    try:
        value = evaluator.evaluate(job.job, context)
    except AutopoiesisError as error:
        return Done(job.ticket, None, str(error))
    if len(value) > LARGEST_VALUE:
        return Done(job.ticket, None, f"the result has {len(value)} bytes, more than {LARGEST_VALUE}")
    return Done(job.ticket, value, None)


_job = msgspec.msgpack.Decoder(Job)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stand_back(Priority(sys.argv[3]))
    connection = int(sys.argv[1])
    threading.Thread(target=end_with_pool, args=(connection,), daemon=True).start()
    with suppress(BrokenPipeError, ConnectionResetError):
        serve_jobs(connection, sys.argv[2])


if __name__ == "__main__":
    main()
