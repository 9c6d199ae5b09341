"""The policy host: trigger, planner and `adopt` of a policy, run in a locked process under a deadline.

Whatever a policy does (raise, loop, crash, flood, forge) comes back as an `Answer` with a failure; a process that
crashed or missed its deadline is killed, and the next call finds a fresh one. `route` and `priority` do not run here.

    with HostTemplate("package.module:Factory") as template, PolicyHost(template, source) as host:
        answer = host.plan(observation, belief)
"""

from __future__ import annotations

import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from autopoiesis.errors import PolicyError, WallError
from autopoiesis.policy.ending import ending
from autopoiesis.policy.frames import framed, receive_frame, send_frame
from autopoiesis.policy.host_messages import (
    Adopt,
    Adopted,
    Call,
    Check,
    Checked,
    Failed,
    Load,
    Loaded,
    Plan,
    Planned,
    Trigger,
    Triggered,
    plain_decision,
    plain_memory,
)
from autopoiesis.policy.host_template import FORK_DEADLINE_S, HostTemplate
from autopoiesis.policy.interface import Decision, Observation
from autopoiesis.policy.limits import Wall
from autopoiesis.policy.meter import Charge
from autopoiesis.policy.refusal import Refusal

T = TypeVar("T")

UNBILLED_CPU_S = 2.0
CPU_S_PER_BILLED_S = 25.0
"""CPU seconds that a call may use: so many whatever it bills, and so many for every second that it bills.

A bill is counted by the process and can be forged, its CPU time is measured from outside and cannot. The margin is so
wide because no honest call may fail by a slow or busy machine: for 64 GPUs of four kinds, planners of the library used
1 to 6 times their bill, and at most 1.5 s (2-core x86-64, the machine shared).
"""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a call came to: a value, or the reason why there is none."""

    value: T | None
    failure: str | None
    """None if the call succeeded."""
    charge: Charge
    """Counted by the process. Zero if it died with its counters, missed its deadline, or cannot be believed."""
    wall_s: float
    cpu_s: float
    """CPU time of the process since its last answer, measured from outside, so that no policy can forge it (0 off
    Linux)."""


@dataclass(slots=True)
class _Child:
    """A running process and our end of its connection."""

    pid: int
    connection: socket.socket
    counted_cpu_s: float = 0.0
    """Of its CPU time, what `newly_used_cpu_s` has told."""

    def newly_used_cpu_s(self) -> float:
        """CPU time since this was last asked, so that nothing done between calls goes uncounted."""
        used = max(0.0, self.cpu_s() - self.counted_cpu_s)
        self.counted_cpu_s += used
        return used

    def cpu_s(self) -> float:
        """CPU time it has used. Linux names the clock of process p by the bits of ~p; see clock_getcpuclockid(3)."""
        if sys.platform != "linux":
            return 0.0
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            # The template reaps only what it is told to kill, so this means that the template itself is gone.
            return 0.0


class PolicyHost:
    """One policy's trigger, planner and `adopt`, each under a wall-clock deadline. For one thread at a time.

    Its process starts at the first call and is kept from call to call; the module's globals are not. A call raises
    PolicyError only where no process can be had at all.
    """

    def __init__(self, template: HostTemplate, source: str, deadline_s: float = 30.0) -> None:
        self.deadline_s = deadline_s
        self._template = template
        self.source = source
        self._child: _Child | None = None
        self._wall: Wall | None = None

    def check(self) -> Answer[tuple[Refusal, ...]]:
        """What is refused in the source, as `check_policy` says; here it may break the parser, and nothing else."""
        return self._call(Check, _checked, tuple)

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]:
        """`should_reschedule`: whether to plan anew. `belief` is what the estimator's factory takes."""
        return self._call(lambda ticket: Trigger(ticket, observation, belief), _triggered, bool)

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]:
        """`plan`: the decision, its types checked; whether the plan can stand is not judged here."""
        return self._call(lambda ticket: Plan(ticket, observation, belief), _planned, plain_decision)

    def adopt(self, memory: dict[str, Any]) -> Answer[dict[str, Any]]:
        """`adopt`: what to keep of a predecessor's memory; a policy without that function keeps nothing, `{}`."""
        return self._call(lambda ticket: Adopt(ticket, memory), _adopted, plain_memory)

    @property
    def wall(self) -> Wall:
        """The layers around this policy's process, which is started if there has been none."""
        if self._wall is None:
            self._running()
        assert self._wall is not None
        return self._wall

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._child is None else self._child.pid

    def restart(self, source: str) -> None:
        """Go on with other source, in another process."""
        self.close()
        self.source = source

    def close(self) -> int | None:
        """Kill and reap the process; gives how it had ended, as an exit code or minus a signal."""
        if self._child is None:
            return None
        child, self._child = self._child, None
        child.connection.close()
        return self._template.kill(child.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def _running(self) -> _Child:
        # Past half its CPU allowance a process is replaced between calls rather than lost in the middle of one.
        if self._child is not None and self._child.cpu_s() > self._template.limits.cpu_s / 2:
            self.close()
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._template.fork(theirs)
        except PolicyError:
            ours.close()
            raise
        load = Load(self.source, self._template.limits, self._template.line_budget)
        deadline = time.monotonic() + FORK_DEADLINE_S
        try:
            send_frame(ours, framed(load), deadline)
            self._wall = _loaded.decode(receive_frame(ours, deadline)).wall
            if not self._wall.holds and not self._template.allow_unlocked:
                raise WallError(
                    f"policy host: this system lacks {', '.join(self._wall.lacks)}, so policy code cannot be locked "
                    "in; run on Linux 5.13 or later (`autopoiesis doctor` says what each layer needs), or set "
                    "allow_unlocked for policies you trust"
                )
        except (OSError, EOFError, msgspec.MsgspecError, PolicyError) as error:
            ours.close()
            ended = ending(self._template.kill(pid))
            if isinstance(error, PolicyError):
                raise
            raise WallError(f"policy host: the process ended ({ended}) before it was locked") from error
        child = _Child(pid, ours)
        child.newly_used_cpu_s()
        return child

    def _call(
        self,
        question: Callable[[int], Call],
        answers: msgspec.msgpack.Decoder[Any],
        accept: Callable[[Any], T],
    ) -> Answer[T]:
        child = self._running()
        # Unforeseeable, so that an answer written ahead of its question is known for one.
        ticket = secrets.randbits(62)
        frame = framed(question(ticket))
        started = time.monotonic()
        deadline = started + self.deadline_s
        value, failure, charge = None, None, Charge()
        broken: str | None = None
        try:
            send_frame(child.connection, frame, deadline)
            answer = answers.decode(receive_frame(child.connection, deadline))
            if answer.ticket != ticket:
                broken = "it answered another call"
            elif isinstance(answer, Failed):
                failure, charge = answer.reason, answer.charge
            else:
                value, charge = accept(answer.value), answer.charge
        except TimeoutError:
            broken = f"no answer within {self.deadline_s:g} s"
        except (OSError, EOFError):
            broken = "the process died"
        except (msgspec.MsgspecError, ValueError, PolicyError) as error:
            broken = f"the answer is malformed: {error}"
        wall_s, cpu_s = time.monotonic() - started, child.newly_used_cpu_s()
        if broken is None and cpu_s > UNBILLED_CPU_S + CPU_S_PER_BILLED_S * charge.seconds:
            broken = (
                f"it used more CPU time than its bill of {charge.seconds:.3g} s explains; "
                "leave long work to the estimator and the tools, which are billed for it"
            )
            value, charge = None, Charge()
        if broken is not None:
            status = self.close()
            failure = f"{broken} ({ending(status)})" if broken == "the process died" else broken
        return Answer(value, failure, charge, wall_s, cpu_s)


_loaded = msgspec.msgpack.Decoder(Loaded)
# What may come back from each call; anything else is malformed.
_checked = msgspec.msgpack.Decoder(Checked | Failed)
_triggered = msgspec.msgpack.Decoder(Triggered | Failed)
_planned = msgspec.msgpack.Decoder(Planned | Failed)
_adopted = msgspec.msgpack.Decoder(Adopted | Failed)
