"""Evaluators that do to their worker what can happen to one."""

from __future__ import annotations

import os
import signal
import time

from autopoiesis.bench.evolution.trivial import TrivialEvaluator
from autopoiesis.errors import PolicyError
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.limits import Limits


class Orders:
    """Does as the job says."""

    def evaluate(self, job: bytes, context: bytes | None) -> bytes:
        order, _, rest = job.partition(b" ")
        match order:
            case b"refuse":
                raise PolicyError(rest.decode())
            case b"sleep":
                time.sleep(float(rest))
            case b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"die-once":
                # The file is there when the job is tried again.
                if not os.path.exists(rest):
                    open(rest, "x").close()
                    os.kill(os.getpid(), signal.SIGKILL)
            case b"pid":
                return str(os.getpid()).encode()
            case b"nice":
                return f"{os.nice(0)} {os.sched_getscheduler(0)}".encode()
            case b"context":
                return str(context and len(context)).encode()
        return job

    def close(self) -> None:
        pass


class Broken:
    def __init__(self) -> None:
        raise ValueError("no such luck")


class Unchecked(TrivialEvaluator):
    """Lets candidates run that the checker would refuse, so that only the wall is in their way."""

    def __init__(self) -> None:
        super().__init__(Limits(memory_bytes=2**28))

    def admit(self, host: PolicyHost) -> None:
        pass
