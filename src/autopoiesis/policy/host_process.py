"""The other side of the policy host: a template process that forks one locked child per policy.

Importing numpy, numba and the estimator takes most of a second, so the *template* (`python -m
autopoiesis.policy.host_process FD`) does it once, runs no policy code, and stays single-threaded so that it may fork.
A *child* is forked for one policy source, closes every descriptor but its connection, locks itself down (`limits`)
before it compiles the source, and then answers calls until it is killed. No child ever serves a second source.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, cast

import msgspec

from autopoiesis.errors import PolicyError
from autopoiesis.policy import limits
from autopoiesis.policy.frames import ANSWER_BYTES, FRAME, framed
from autopoiesis.policy.host_messages import (
    Adopt,
    Call,
    CallAnswer,
    Check,
    Failed,
    Kill,
    Killed,
    Load,
    Loaded,
    OpenChild,
    Opened,
    Ready,
    Refused,
)
from autopoiesis.policy.host_runner import PRELOADED, PolicyRunner, describe
from autopoiesis.policy.interface import Estimator

REHEARSALS = 12
"""The interpreter (3.11) rewrites a function at its eighth call."""
REHEARSED = """interface = 1
from autopoiesis.policy import Decision, ServingState, tools


def should_reschedule(state: ServingState) -> bool:
    return state.now_s > 60.0


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan, memory={"now": state.now_s})


def adopt(memory: dict) -> dict:
    return {name: value for name, value in memory.items() if value}
"""
ORPHAN_CHECK_MS = 1000
"""How often a template looks whether its host is there, where the kernel cannot tell it."""


# --- the child ------------------------------------------------------------------------------------------------------


def read_frame(connection: int) -> bytes | None:
    """One frame's body, or None at the end of the stream."""
    header = _read_exactly(connection, FRAME.size)
    return None if header is None else _read_exactly(connection, FRAME.unpack(header)[0])


def _read_exactly(connection: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(connection, size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def write_frame(connection: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(connection, view) :]


def serve_policy(connection: int, factory: Callable[[bytes], Estimator], template: int) -> NoReturn:
    """The whole life of a child, from the fork to its end. `connection` becomes its only descriptor."""
    limits.become_nobody()
    limits.die_with_parent()
    if os.getppid() != template:
        os._exit(0)
    os.setsid()
    if connection != 3:
        os.dup2(connection, 3)
    os.set_inheritable(3, False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    load_body = read_frame(3)
    if load_body is None:
        os._exit(0)
    load = _load_decoder.decode(load_body)
    wall = limits.lock_down(load.limits)
    write_frame(3, framed(Loaded(wall)))
    runner = PolicyRunner(load.source, load.line_budget, factory)
    while (body := read_frame(3)) is not None:
        call = _call_decoder.decode(body)
        answer = runner.answer(call)
        write_frame(3, encoded(answer))
        # What a call left in cycles goes now, or its finalizers would run at some later call's expense.
        del call, answer
        gc.collect()
    os._exit(0)


def encoded(answer: CallAnswer) -> bytes:
    """An answer's frame; one that is too large or not plain data becomes a failure."""
    try:
        frame = framed(answer)
        if len(frame) <= ANSWER_BYTES:
            return frame
        reason = f"the answer is {len(frame)} bytes, more than {ANSWER_BYTES}"
    except BaseException as error:
        reason = describe(error)
    return framed(Failed(answer.ticket, reason, answer.charge))


# --- the template ---------------------------------------------------------------------------------------------------


def import_all(estimator: str) -> Callable[[bytes], Estimator]:
    """Import what a locked child cannot import any more; gives the estimator's factory, named `package.module:Name`."""
    for name in (*PRELOADED, "autopoiesis.policy.tools"):
        importlib.import_module(name)
    if not estimator:
        return _no_estimator
    module_name, _, factory_name = estimator.partition(":")
    module = importlib.import_module(module_name)
    factory = cast("Callable[[bytes], Estimator]", getattr(module, factory_name))
    warm = getattr(module, "warm", None)
    if warm is not None:
        warm()
    return factory


def rehearse(factory: Callable[[bytes], Estimator]) -> None:
    """Do as children do, with a policy of our own: what the interpreter has seen often it keeps in a quicker form.

    Every page that a child writes to is copied first, and most of what it writes at the start is that form.
    """
    limits.rehearse()
    for ticket in range(REHEARSALS):
        load = _load_decoder.decode(framed(Load(REHEARSED, limits.Limits(), 1000))[FRAME.size :])
        runner = PolicyRunner(load.source, load.line_budget, factory)
        for call in (Check(ticket), Adopt(ticket, {"seen": ticket})):
            encoded(runner.answer(_call_decoder.decode(framed(call)[FRAME.size :])))


def _no_estimator(belief: bytes) -> NoReturn:
    raise PolicyError("this template has no estimator: its processes only check policies")


def serve_host(control: socket.socket, estimator: str, host: int) -> None:
    """The whole life of a template: fork and reap children as told, until the process `host` is gone."""
    if os.getppid() != host:
        return
    try:
        factory = import_all(estimator)
    except Exception as error:
        control.sendall(framed(Refused(f"{type(error).__name__}: {error}")))
        return
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
    if threads > 1:
        control.sendall(framed(Refused(f"importing {estimator} started {threads - 1} threads; a template needs none")))
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    limits.leave_network()
    rehearse(factory)
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    control.sendall(framed(Ready()))
    poll = select.poll()
    poll.register(control, select.POLLIN)
    # The connection alone does not tell: whatever the host forked may hold its end of it open.
    ending = _ending_of(host)
    if ending is not None:
        poll.register(ending, select.POLLIN)
    try:
        # Asked after the descriptor was had: a host that had ended by then may have lent its number to another.
        while os.getppid() == host:
            ready = [descriptor for descriptor, _ in poll.poll(None if ending is not None else ORPHAN_CHECK_MS)]
            if ending in ready:
                return
            if not ready:
                continue
            body, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
            if not body:
                return
            request = _request_decoder.decode(body[FRAME.size :])
            if isinstance(request, OpenChild):
                control.sendall(framed(_fork(descriptors[0], factory, children)))
            else:
                # A number of an earlier template's child is nothing to us, and may be anybody's by now.
                ours = request.pid in children
                children.discard(request.pid)
                control.sendall(framed(Killed(_kill(request.pid) if ours else -signal.SIGKILL)))
    finally:
        for pid in children:
            _kill(pid)


def _ending_of(host: int) -> int | None:
    """A descriptor that can be read once the host has ended; None where there is none (before Linux 5.3)."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(host)
    except OSError:
        return None


def _fork(connection: int, factory: Callable[[bytes], Estimator], children: set[int]) -> Opened | Refused:
    template = os.getpid()
    try:
        pid = limits.fork()
    except OSError as error:
        os.close(connection)
        return Refused(f"cannot fork: {error}")
    if pid == 0:
        try:
            serve_policy(connection, factory, template)
        finally:
            os._exit(1)
    os.close(connection)
    children.add(pid)
    return Opened(pid)


def _kill(pid: int) -> int:
    """End and reap a child; one that had ended keeps its own exit code, however late it is asked for."""
    # Its group first; a child that has not yet made its own is still known by its number.
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


_load_decoder = msgspec.msgpack.Decoder(Load)
_call_decoder: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_request_decoder: msgspec.msgpack.Decoder[OpenChild | Kill] = msgspec.msgpack.Decoder(OpenChild | Kill)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    serve_host(control, sys.argv[2], int(sys.argv[3]))


if __name__ == "__main__":
    main()
