"""The warm process that policy hosts are forked from.

Importing numpy, numba and the estimator takes most of a second, and hundreds of candidate policies are tried in a
run. So one process imports everything once, runs no policy code, and forks a child per policy in milliseconds.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

import autopoiesis
from autopoiesis.errors import PolicyError, WallError
from autopoiesis.policy.environment import DETERMINISTIC, INHERITED_ENVIRONMENT
from autopoiesis.policy.frames import framed, receive_frame
from autopoiesis.policy.host_messages import Kill, Killed, OpenChild, Opened, Ready, Refused
from autopoiesis.policy.limits import POSIX, Limits

LINE_BUDGET = 20_000_000
"""Most Python lines of one call."""
START_DEADLINE_S = 60.0
"""For a template to import everything; the first time numba may have to compile."""
FORK_DEADLINE_S = 10.0


class HostTemplate:
    """A warm process that forks the processes of policy hosts. It runs no policy code itself.

    It ends with the process that made it, however that ends. Threads may share one; forked processes may not.
    """

    def __init__(
        self,
        estimator: str | None,
        *,
        python_path: tuple[Path, ...] = (),
        limits: Limits | None = None,
        line_budget: int = LINE_BUDGET,
        allow_unlocked: bool = False,
    ) -> None:
        """`estimator` is `package.module:Factory`; `Factory(belief: bytes)` gives an `Estimator`, in the locked child.
        None makes a light template, whose children can check policies and not ask them.

        If the module has a function `warm()`, it is called once before any lock: compile and read caches there.
        `python_path` is searched before the installed packages. `allow_unlocked` runs policies even where neither
        seccomp nor Landlock is to be had. Raises PolicyError if the template cannot start.
        """
        if not POSIX:
            raise WallError(
                "policy host: this system can neither fork a process nor limit one, so policies do not run on it; "
                "run on Linux 5.13 or later (on Windows, under WSL 2)"
            )
        self.estimator = estimator
        self.limits = limits or Limits()
        self.line_budget = line_budget
        self.allow_unlocked = allow_unlocked
        self._python_path = (*python_path, Path(autopoiesis.__file__).parent.parent)
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        with self._turn:
            self._start()

    def fork(self, connection: socket.socket) -> int:
        """A child serving `connection`; gives its process id. Raises PolicyError if there can be none."""
        with self._turn:
            if self._process is None:
                raise WallError("policy host: the template is closed")
            if self._process.poll() is not None:
                self._stop()
                self._start()
            opened = self._ask(OpenChild(), connection.fileno())
        if not isinstance(opened, Opened):
            raise WallError(f"policy host: {opened.reason if isinstance(opened, Refused) else 'no process'}")
        return opened.pid

    def kill(self, pid: int) -> int:
        """Kill and reap a child; gives its exit code, or minus the signal, if it had ended before."""
        with self._turn:
            try:
                killed = self._ask(Kill(pid))
            except PolicyError:
                # A template takes its children with it.
                return -9
        return killed.status if isinstance(killed, Killed) else -9

    def close(self) -> None:
        """End the template and every process it forked."""
        with self._turn:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in INHERITED_ENVIRONMENT if name in os.environ}
        environment |= {**DETERMINISTIC, "PYTHONPATH": os.pathsep.join(map(str, self._python_path))}
        module = "autopoiesis.policy.host_process"
        with theirs:
            arguments = [str(theirs.fileno()), self.estimator or "", str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._control = ours
        try:
            ready = self._receive(START_DEADLINE_S)
            reason = ready.reason if isinstance(ready, Refused) else None
        except PolicyError as error:
            reason = f"{error} {self._last_words()}".strip()
        if reason is not None:
            self._stop()
            what = "the template" if self.estimator is None else f"estimator {self.estimator!r}"
            raise WallError(f"policy host: {what} cannot be loaded: {reason}")

    def _last_words(self) -> str:
        assert self._process is not None
        self._process.kill()
        return self._process.communicate()[1].decode(errors="replace").strip()[-500:]

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None

    def _ask(self, request: OpenChild | Kill, descriptor: int | None = None) -> _FromTemplate:
        if self._control is None:
            raise WallError("policy host: the template is closed")
        try:
            socket.send_fds(self._control, [framed(request)], [] if descriptor is None else [descriptor])
        except OSError as error:
            raise WallError(f"policy host: the template is gone ({error})") from error
        try:
            return self._receive(FORK_DEADLINE_S)
        except PolicyError:
            # An answer that came later would be taken for the next one's.
            if self._process is not None:
                self._process.kill()
            raise

    def _receive(self, deadline_s: float) -> _FromTemplate:
        assert self._control is not None
        try:
            return _template_decoder.decode(receive_frame(self._control, time.monotonic() + deadline_s))
        except (OSError, EOFError) as error:
            raise WallError(f"policy host: the template does not answer ({error})") from error


_FromTemplate = Ready | Opened | Killed | Refused
_template_decoder: msgspec.msgpack.Decoder[_FromTemplate] = msgspec.msgpack.Decoder(_FromTemplate)
