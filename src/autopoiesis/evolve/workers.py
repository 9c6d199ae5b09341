"""Evaluation beside serving: processes of low priority that take jobs and give back results.

A worker is the package's own code; what nobody trusts runs one floor further down, in locked processes that the
worker's policy hosts fork. Whatever happens to a worker is the result of its job and of no other: one that is silent
past the deadline is killed with its process group, one that dies is replaced and its job tried once more. Nothing
here polls: the pool sleeps until a worker speaks, ends or is due.

    with Workers("package.module:Factory", count=2, deadline_s=60) as workers:
        ticket = workers.submit(job, Context("stretch 7", data))
        result = workers.result(ticket)
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

import autopoiesis
from autopoiesis.errors import EvaluationError
from autopoiesis.evolve.worker_messages import KEPT_CONTEXTS, Done, FromWorker, Given, Job, Priority, Started
from autopoiesis.policy.environment import DETERMINISTIC
from autopoiesis.policy.frames import framed, receive_frame

START_DEADLINE_S = 60.0
"""For a worker to import everything; the first time numba may have to compile."""
FRAME_DEADLINE_S = 10.0
"""For the rest of an answer that has begun."""
PATIENCE_S = 5.0
"""For an idle worker to end by itself."""
ATTEMPTS = 2
"""Times that a job is tried when its worker dies, which need not be the job's fault."""


@dataclass(frozen=True, slots=True)
class Context:
    """What many jobs have in common; a worker is sent it once and keeps the last few."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What a job came to: the evaluator's answer, or the reason why there is none."""

    value: bytes | None
    failure: str | None


@dataclass(slots=True)
class _Task:
    ticket: int
    job: bytes
    context: Context | None
    attempts: int = 0
    """Workers that died of it."""


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: socket.socket
    due: float
    """By `time.monotonic`: when it must have spoken."""
    tasks: deque[_Task] = field(default_factory=deque)
    """The one it is at, then those that it has been sent ahead."""
    started: bool = False
    outgoing: bytearray = field(default_factory=bytearray)
    """Of its jobs, what it has not taken yet."""
    known: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_CONTEXTS))
    """Contexts that it still has, in the order in which they were sent."""


class Workers:
    """A pool of evaluating processes, for one thread at a time. They start with the first jobs."""

    def __init__(
        self,
        evaluator: str,
        count: int,
        *,
        deadline_s: float,
        priority: Priority = Priority.LOW,
        depth: int = 1,
        python_path: tuple[Path, ...] = (),
    ) -> None:
        """`evaluator` is `package.module:Factory`; `Factory()` gives an `Evaluator`, in each worker.

        `deadline_s` bounds each job by the clock. It is the last resort, behind the deadlines of whatever the
        evaluator asks, and includes no waiting for a worker. `depth` is how many jobs a worker is given at a time: more
        than one where they take milliseconds, so that it has the next while its last result is looked at.
        """
        if count < 1:
            raise ValueError("a pool needs at least one worker")
        self.count = count
        self._evaluator = evaluator
        self._deadline_s = deadline_s
        self._priority = priority
        self._depth = depth
        self._python_path = (*python_path, Path(autopoiesis.__file__).parent.parent)
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._queue: deque[_Task] = deque()
        self._results: dict[int, Result] = {}
        self._dropped: set[int] = set()
        self._tickets = 0
        self._closed = False

    def submit(self, job: bytes, context: Context | None = None) -> int:
        """Queue a job; gives its ticket. Raises EvaluationError where no worker can be started."""
        if self._closed:
            raise EvaluationError("evaluation: the pool is closed")
        self._tickets += 1
        self._queue.append(_Task(self._tickets, job, context))
        self._hand_out()
        return self._tickets

    def result(self, ticket: int) -> Result:
        """Wait for this job, whose result is handed over once."""
        while ticket not in self._results:
            if not self._under_way(ticket):
                raise KeyError(f"no job with ticket {ticket} is under way")
            self._listen()
        return self._results.pop(ticket)

    def finished(self) -> Iterator[tuple[int, Result]]:
        """Results as they come, until no job is left; jobs may be submitted meanwhile."""
        while True:
            if self._results:
                ticket = next(iter(self._results))
                yield ticket, self._results.pop(ticket)
            elif self._queue or any(worker.tasks for worker in self._workers):
                self._listen()
            else:
                return

    @property
    def idle(self) -> int:
        """How many more jobs would be begun at once."""
        return max(0, self.count - len(self._queue) - sum(bool(worker.tasks) for worker in self._workers))

    def warm(self) -> None:
        """Start every worker and wait until each stands ready. Raises EvaluationError where one cannot."""
        while len(self._workers) < self.count:
            self._start()
        while not all(worker.started for worker in self._workers):
            self._listen()

    def drop(self, ticket: int) -> None:
        """Nobody wants this result any more: a job that waits is not begun, and what one under way gives is ignored."""
        self._results.pop(ticket, None)
        self._queue = deque(task for task in self._queue if task.ticket != ticket)
        if self._under_way(ticket):
            self._dropped.add(ticket)

    def close(self) -> None:
        """End every worker with all it has started: at once where it is at work, by its own hand where it is idle."""
        self._closed = True
        idle = [worker for worker in self._workers if worker.started and not worker.tasks]
        for worker in idle:
            with suppress(OSError):
                worker.connection.shutdown(socket.SHUT_WR)
        for worker in idle:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=PATIENCE_S)
        for worker in self._workers:
            _end(worker)
        self._workers.clear()
        self._queue.clear()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def _under_way(self, ticket: int) -> bool:
        return any(task.ticket == ticket for task in self._queue) or any(
            task.ticket == ticket for worker in self._workers for task in worker.tasks
        )

    # --- workers ------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give what waits to whoever is free; start workers while there are fewer than asked for."""
        while self._queue:
            worker = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
            if (worker is None or worker.tasks) and len(self._workers) < self.count:
                worker = self._start()
            if worker is None or len(worker.tasks) >= self._depth:
                return
            task = self._queue.popleft()
            if not worker.tasks:
                worker.due = time.monotonic() + (self._deadline_s if worker.started else START_DEADLINE_S)
            worker.tasks.append(task)
            if worker.started:
                self._send(worker, task)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, **DETERMINISTIC, "PYTHONPATH": os.pathsep.join(map(str, self._python_path))}
        module = "autopoiesis.evolve.worker_process"
        arguments = [str(theirs.fileno()), self._evaluator, self._priority.value]
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C is for whoever asked; it ends its workers.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise EvaluationError(f"evaluation: no worker can be started ({error})") from error
        worker = _Worker(process, ours, time.monotonic() + START_DEADLINE_S)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _send(self, worker: _Worker, task: _Task) -> None:
        given = None
        if task.context is not None:
            new = task.context.key not in worker.known
            given = Given(task.context.key, task.context.data if new else None)
            if new:
                worker.known.append(task.context.key)
        worker.outgoing += framed(Job(task.ticket, task.job, given))
        self._write(worker)

    def _write(self, worker: _Worker) -> None:
        """Send what a worker takes now; a large job goes on when it takes more, and nobody waits for that."""
        worker.connection.setblocking(False)
        try:
            del worker.outgoing[: worker.connection.send(worker.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            # It has died, which is heard of where it should answer.
            worker.outgoing.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        if self._selector.get_key(worker.connection).events != wanted:
            self._selector.modify(worker.connection, wanted, worker)

    def _listen(self) -> None:
        """Sleep until a worker speaks, ends or is due, and deal with it."""
        awaited = [worker for worker in self._workers if worker.tasks or not worker.started]
        due = min((worker.due for worker in awaited), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        heard = self._hear_all(timeout)
        late = [worker for worker in awaited if worker not in heard and worker.due <= time.monotonic()]
        if late:
            # Whoever has spoken while others were heard is in time.
            heard = self._hear_all(0.0)
        for worker in late:
            if worker not in heard:
                waited_s = self._deadline_s if worker.started else START_DEADLINE_S
                self._lose(worker, f"no answer within {waited_s:g} s", again=False)
        self._hand_out()

    def _hear_all(self, timeout: float | None) -> list[_Worker]:
        """Wait for workers that speak or take more of a job; those who have spoken."""
        ready = [(key.data, events) for key, events in self._selector.select(timeout)]
        spoke = [worker for worker, events in ready if events & selectors.EVENT_READ]
        for worker, events in ready:
            if events & selectors.EVENT_WRITE:
                self._write(worker)
        for worker in spoke:
            self._hear(worker)
        return spoke

    def _hear(self, worker: _Worker) -> None:
        try:
            said = _said.decode(receive_frame(worker.connection, time.monotonic() + FRAME_DEADLINE_S))
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
            self._lose(worker, f"the worker died ({_ending(worker, error)})", again=True)
            return
        match said:
            case Started():
                if said.refusal is not None:
                    raise EvaluationError(f"evaluation: {self._evaluator} cannot be used: {said.refusal}")
                worker.started = True
                for task in worker.tasks:
                    self._send(worker, task)
            case Done():
                self._keep(worker.tasks.popleft().ticket, Result(said.value, said.failure))
        worker.due = time.monotonic() + self._deadline_s

    def _lose(self, worker: _Worker, reason: str, *, again: bool) -> None:
        """A worker is no more; the job that it was at is tried again or has failed, and others go to somebody else."""
        self._selector.unregister(worker.connection)
        self._workers.remove(worker)
        _end(worker)
        if not worker.started:
            raise EvaluationError(f"evaluation: no worker gets ready: {reason}")
        if not worker.tasks:
            return
        task = worker.tasks.popleft()
        self._queue.extendleft(task for task in reversed(worker.tasks) if task.ticket not in self._dropped)
        self._dropped.difference_update(task.ticket for task in worker.tasks)
        task.attempts += 1
        if again and task.attempts < ATTEMPTS and task.ticket not in self._dropped:
            self._queue.appendleft(task)
        else:
            self._keep(task.ticket, Result(None, reason))

    def _keep(self, ticket: int, result: Result) -> None:
        if ticket in self._dropped:
            self._dropped.remove(ticket)
        else:
            self._results[ticket] = result


def _end(worker: _Worker) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    worker.connection.close()


def _ending(worker: _Worker, error: Exception) -> str:
    """How a worker ended, for people. Its connection closes a moment before it can be waited for."""
    try:
        status = worker.process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return f"its answer cannot be read: {error}"
    return f"signal {-status}" if status < 0 else f"exit code {status}"


_said: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
