"""The compiler of `route` and `priority` for a process that serves: it compiles in another process.

Compiling takes some tenths of a second of Python, in which an event loop of the same process would stand still. Here
the serving process waits in a thread of its own for an object file, and loads it in a millisecond.

    with Compiler() as compiler:
        compiled = await asyncio.wrap_future(compiler.submit(text))
        router = compiled.route or router
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import msgspec

import autopoiesis
from autopoiesis.errors import PolicyError
from autopoiesis.policy.compile_messages import Compile, Objects, Uncompiled
from autopoiesis.policy.ending import ending
from autopoiesis.policy.environment import DETERMINISTIC, INHERITED_ENVIRONMENT
from autopoiesis.policy.frames import framed, receive_frame, send_frame
from autopoiesis.policy.native import CompiledPriority, CompiledRoute
from autopoiesis.policy.refusal import refused
from autopoiesis.policy.source import unfit

Some = TypeVar("Some")

DEADLINE_S = 60.0
"""For one module, the start of the process included: about a second, many where other work has the cores."""
NICENESS = 10
"""Added to that of the serving process, so that where cores are scarce, serving comes first."""
_FUNCTION = re.compile(r"^def[ \t]+(?:route|priority)\b", re.MULTILINE)
MODULES = 500
"""Compiled by one process; then another follows, since numba keeps some 0.3 MB for each as long as it lives."""


class Compiled(NamedTuple):
    """The compiled functions of a policy; None where it has none."""

    route: CompiledRoute | None
    priority: CompiledPriority | None


class _Process(NamedTuple):
    """A running process and our end of its connection."""

    popen: subprocess.Popen[bytes]
    connection: socket.socket


class Compiler:
    """Compiles modules one after the other, in a process that starts with the first one that has something to compile.

    That process ends with this one, however it ends. Threads may share a compiler; forked processes may not. Importing
    this module loads llvmlite, a tenth of a second: do it before you serve.
    """

    def __init__(self, *, deadline_s: float = DEADLINE_S, niceness: int = NICENESS, modules: int = MODULES) -> None:
        self._deadline_s = deadline_s
        self._niceness = niceness
        self._modules = modules
        # One thread for as long as the compiler stands: the process is killed with the thread that has started it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        self._process: _Process | None = None
        self._asked = 0
        """Modules that the process was given."""

    def submit(self, text: str) -> Future[Compiled]:
        """Compile the `route` and `priority` of a policy module that has been checked, after those submitted before.

        The future raises PolicyError where the grammar refuses a function, and where the process dies or misses the
        deadline; the next module then finds a fresh process. Raises PolicyError if the compiler is closed.
        """
        return self._submitted(self._compiled, text)

    def submit_objects(self, text: str) -> Future[Objects]:
        """As `submit`, but for the object files themselves, which `native` loads: in this process, or in others."""
        return self._submitted(self._objects, text)

    def _submitted(self, function: Callable[[str], Some], text: str) -> Future[Some]:
        try:
            return self._thread.submit(function, text)
        except RuntimeError as error:
            raise PolicyError("compiler: it is closed; make another") from error

    @property
    def pid(self) -> int | None:
        """Of the compiling process, while there is one."""
        return None if self._process is None else self._process.popen.pid

    def close(self) -> None:
        """End the process. The module being compiled fails, and those that wait are cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if (process := self._process) is not None:
            process.popen.kill()
        self._thread.shutdown()
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def _compiled(self, text: str) -> Compiled:
        objects = self._objects(text)
        return Compiled(
            None if objects.route is None else CompiledRoute(objects.route),
            None if objects.priority is None else CompiledPriority(objects.priority),
        )

    def _objects(self, text: str) -> Objects:
        if not _has_function(text):
            return Objects(None, None)
        try:
            question = framed(Compile(text))
        except UnicodeEncodeError as error:
            raise refused("the policy module", filter(None, [unfit(text)])) from error
        deadline = time.monotonic() + self._deadline_s
        try:
            connection = self._running().connection
            send_frame(connection, question, deadline)
            answer = _answer.decode(receive_frame(connection, deadline))
        except TimeoutError as error:
            self._stop()
            raise PolicyError(f"compiler: no machine code within {self._deadline_s:g} s") from error
        except (OSError, EOFError, ValueError) as error:
            raise PolicyError(f"compiler: its process ended ({ending(self._stop())})") from error
        if isinstance(answer, Uncompiled):
            raise PolicyError(answer.reason)
        return answer

    def _running(self) -> _Process:
        if self._process is not None and (self._asked == self._modules or self._process.popen.poll() is not None):
            self._stop()
        if self._process is None:
            self._process, self._asked = _started(self._niceness), 0
        self._asked += 1
        return self._process

    def _stop(self) -> int | None:
        """Kill and reap the process; gives how it had ended, as an exit code or minus a signal."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.connection.close()
        process.popen.kill()
        return process.popen.wait()


def _has_function(text: str) -> bool:
    """Whether there may be anything to compile: to start a process takes a while, and parsing would stop the others."""
    return _FUNCTION.search(text) is not None


def _started(niceness: int) -> _Process:
    environment = {name: os.environ[name] for name in INHERITED_ENVIRONMENT if name in os.environ}
    environment |= {
        **DETERMINISTIC,
        # Where Intel's library is installed, numba would call it, and only numba could find it.
        "NUMBA_DISABLE_INTEL_SVML": "1",
        "PYTHONPATH": str(Path(autopoiesis.__file__).parent.parent),
    }
    ours, theirs = socket.socketpair()
    with theirs:
        module = "autopoiesis.policy.compile_process"
        try:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", module, str(theirs.fileno()), str(niceness)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise PolicyError(f"compiler: no process can be started: {error}") from error
    return _Process(popen, ours)


_answer: msgspec.msgpack.Decoder[Objects | Uncompiled] = msgspec.msgpack.Decoder(Objects | Uncompiled)
