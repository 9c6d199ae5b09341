"""A suite carried out: jobs handed to worker processes, every measurement kept, the results written.

Workers share one store in the output folder; each keeps what it has measured at once. Whoever is killed, or stopped
with Ctrl-C, goes on from there when the same is asked for again.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Protocol

import msgspec

from autopoiesis import __version__
from autopoiesis.bench.process import machine
from autopoiesis.bench.suite.cells import Cell, Suite
from autopoiesis.bench.suite.collect import collected, planned_papers, planned_rows, planned_sweeps
from autopoiesis.bench.suite.jobs import Job, jobs_of
from autopoiesis.bench.suite.kept import Bench
from autopoiesis.bench.suite.results import Meta, Results, write
from autopoiesis.bench.suite.steps import carry_out, is_done
from autopoiesis.errors import AutopoiesisError, ScenarioError
from autopoiesis.evolve.store import Store
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.simulate.hosted import ESTIMATOR

STORE = "bench.db"
POLL_S = 0.25
BUSY_S = 60.0
"""How long a worker waits for another one that writes."""
PATIENCE_S = 10.0
"""For a worker to end once there is nothing left to do."""


class Watch(Protocol):
    """Who is told how a suite goes. May raise KeyboardInterrupt, which stops it."""

    def progress(self, done: float, total: float, at_work: Sequence[str]) -> None:
        """Told several times a second: weights of jobs (about seconds of work) and what the workers are doing."""
        ...

    def ended(self, job: str, seconds: float) -> None:
        """A job is done."""
        ...


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    suite: Suite
    out: Path
    folder: str | None
    """With recorded traces that stand in for presets."""
    workers: int
    command: str


class _Spent(msgspec.Struct):
    """Over all that it took, interruptions included."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    share: float = 0.0
    doing: str = ""
    began_s: float = 0.0


def carry_out_suite(order: Order, watch: Watch) -> Results:
    """All jobs of a suite, then its results, which are written to the output folder, complete or not.

    Raises ScenarioError for cells that cannot be served once the others are measured, and an AutopoiesisError where a
    worker dies.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    began_s, began_cpu_s = time.monotonic(), _cpu_s()
    jobs = jobs_of(order.suite)
    with Store(order.out / STORE, busy_timeout_s=BUSY_S) as store:
        bench = Bench(order.suite, store, order.folder)
        left = [job for job in jobs if not is_done(job, bench)]
    try:
        _Office(order, left, watch).work()
    finally:
        with Store(order.out / STORE, busy_timeout_s=BUSY_S) as store:
            spent = _spent(store, order, time.monotonic() - began_s, _cpu_s() - began_cpu_s)
            results = _collected(order, jobs, store, spent)
            write(order.out, results)
    return results


class _Office:
    """Hands out jobs and listens to the workers."""

    def __init__(self, order: Order, jobs: Sequence[Job], watch: Watch) -> None:
        self._order = order
        self._waiting = list(jobs)
        self._total = sum(job.weight for job in jobs)
        self._done = 0.0
        self._untuned = {job.base.name for job in jobs if job.kind == "tune"}
        self._watch = watch
        self._workers: list[_Worker] = []
        self._failed: list[str] = []
        """Jobs that could not be done, with the reason: said at the end, when all other cells are measured."""

    def work(self) -> None:
        try:
            context = multiprocessing.get_context("spawn")
            for _ in range(min(self._order.workers, len(self._waiting))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(self._order, theirs), daemon=False)
                process.start()
                theirs.close()
                self._workers.append(_Worker(process, ours))
            while self._waiting or any(worker.job for worker in self._workers):
                self._hand_out()
                self._listen()
                at_work = [f"{worker.job.title}: {worker.doing}" for worker in self._workers if worker.job]
                under_way = sum(worker.job.weight * worker.share for worker in self._workers if worker.job)
                self._watch.progress(self._done + under_way, self._total, at_work)
            self._dismiss()
            if self._failed:
                raise ScenarioError("; ".join(self._failed))
        finally:
            for worker in self._workers:
                worker.process.terminate()
                worker.process.join()

    def _dismiss(self) -> None:
        """Let the workers end by themselves, so that what they and their policies took is counted."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(timeout=PATIENCE_S)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.job is None:
                ready = next((job for job in self._waiting if self._ready(job)), None)
                if ready is None:
                    return
                self._waiting.remove(ready)
                worker.job, worker.share, worker.doing, worker.began_s = ready, 0.0, "", time.monotonic()
                # one that has died is heard of when it is listened to
                with suppress(BrokenPipeError):
                    worker.pipe.send(ready)

    def _ready(self, job: Job) -> bool:
        return job.kind == "tune" or job.base.name not in self._untuned

    def _listen(self) -> None:
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), timeout=POLL_S):
            worker = pipes[pipe]  # type: ignore[index]
            title = worker.job.title if worker.job is not None else "starting"
            try:
                kind, text, share = worker.pipe.recv()
            except EOFError:
                worker.process.join()
                raise AutopoiesisError(
                    f"{title}: its process ended with exit code {worker.process.exitcode}; what is measured is kept, "
                    "run the same again (with fewer --jobs if memory was short)"
                ) from None
            if kind == "doing":
                worker.doing, worker.share = text, share
                continue
            assert worker.job is not None
            if kind == "failed":
                self._failed.append(f"{title}: {text}")
                self._forget(worker.job.base)
            else:
                self._done += worker.job.weight
                if worker.job.kind == "tune":
                    self._untuned.discard(worker.job.base.name)
                self._watch.ended(worker.job.title, time.monotonic() - worker.began_s)
            worker.job = None

    def _forget(self, cell: Cell) -> None:
        """Nothing more is asked of a cell that cannot be served."""
        dropped = [job for job in self._waiting if job.base == cell]
        self._waiting = [job for job in self._waiting if job.base != cell]
        self._total -= sum(job.weight for job in dropped)


def _work(order: Order, pipe: Connection) -> None:
    """The life of a worker: jobs in, words about them out, until nobody listens."""
    # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        suppress(EOFError, BrokenPipeError),
        Store(order.out / STORE, busy_timeout_s=BUSY_S) as store,
        HostTemplate(ESTIMATOR) as template,
    ):
        bench = Bench(order.suite, store, order.folder, template)

        def say(text: str, share: float) -> None:
            pipe.send(("doing", text, share))

        while True:
            job: Job = pipe.recv()
            try:
                carry_out(job, bench, say)
            except AutopoiesisError as error:
                pipe.send(("failed", str(error), 0.0))
            else:
                pipe.send(("done", "", 1.0))


def _collected(order: Order, jobs: Sequence[Job], store: Store, spent: _Spent) -> Results:
    suite = order.suite
    meta = Meta(
        suite=suite.name,
        version=__version__,
        seeds=list(range(suite.seeds)),
        jobs=order.workers,
        cores=os.cpu_count() or 1,
        wall_s=spent.wall_s,
        cpu_s=spent.cpu_s,
        machine=machine()["cpu"] or platform.machine(),
        commands=order.command,
        planned_rows=planned_rows(jobs, suite),
        planned_sweeps=planned_sweeps(jobs, suite),
        planned_papers=planned_papers(jobs, suite),
    )
    return collected(jobs, Bench(suite, store, order.folder), meta)


def _spent(store: Store, order: Order, wall_s: float, cpu_s: float) -> _Spent:
    """Add what this process and its workers took to what earlier ones did."""
    suite = order.suite
    asked = Bench(suite, store, order.folder).digest([cell.digest() for cell in suite.cells], suite.seeds, suite.trials)
    key = f"bench-spent:{asked}"
    known = store.recall(key)
    before = _Spent() if known is None else msgspec.msgpack.decode(known, type=_Spent)
    spent = _Spent(before.wall_s + wall_s, before.cpu_s + cpu_s)
    store.remember(key, msgspec.msgpack.encode(spent))
    return spent


def _cpu_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
