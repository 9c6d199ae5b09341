"""A policy at work: its trigger and planner in the locked host, its `route` and `priority` compiled."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from autopoiesis.policy.compiler import Compiler
from autopoiesis.policy.host import Answer, PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.interface import Decision, Observation
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.simulation import Routing

ESTIMATOR = "autopoiesis.simulate.fluid:FluidEstimator"


@lru_cache(maxsize=256)
def routing_of(text: str) -> Routing:
    """The compiled functions of a policy's text; raises PolicyError where the grammar refuses them.

    Compiled in the compiling process, for which this waits; other threads go on meanwhile.
    """
    return Routing(*_compiler(os.getpid()).submit(text).result())


@lru_cache(maxsize=1)
def _compiler(process: int) -> Compiler:
    """The compiler of this process; a forked one needs its own. It is waited for, so it is as urgent as its caller."""
    return Compiler(niceness=0)


class HostedPolicy:
    """One policy, ready to be asked. Close it when it is no longer needed."""

    def __init__(self, template: HostTemplate, source: PolicySource, deadline_s: float) -> None:
        self.source = source
        self.routing = routing_of(source.text)
        self._host = PolicyHost(template, source.text, deadline_s)
        self.failures = 0
        self.last_failure: str | None = None

    def trigger(self, observation: Observation, belief: bytes) -> Answer[bool]:
        return self._noted(self._host.trigger(observation, belief))

    def plan(self, observation: Observation, belief: bytes) -> Answer[Decision]:
        return self._noted(self._host.plan(observation, belief))

    def adopt(self, memory: dict[str, Any]) -> dict[str, Any]:
        """What the policy keeps of its predecessor's memory; nothing if it fails."""
        if not self.source.has("adopt"):
            return {}
        return self._noted(self._host.adopt(memory)).value or {}

    def close(self) -> None:
        self._host.close()

    def _noted(self, answer: Answer[Any]) -> Answer[Any]:
        if answer.failure is not None:
            self.failures += 1
            self.last_failure = answer.failure
        return answer
