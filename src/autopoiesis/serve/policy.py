"""The policy in force at the gateway: who chooses a replica, and in which order requests wait.

A swap replaces the whole object. Whatever a policy's own functions answer, a request gets a replica that could take
it: where the answer is none, a built-in balancer chooses, and it is counted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from autopoiesis.policy.fields import HOLD, SHED
from autopoiesis.serve.balancers import Balancer
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.policy_route import PolicyPriority, PolicyRoute
from autopoiesis.serve.replica import Replica


class ActivePolicy:
    """A built-in balancer, and a policy's own functions where it has some."""

    def __init__(
        self,
        name: str,
        identity: str,
        balancer: Balancer,
        route: PolicyRoute | None,
        priority: PolicyPriority | None,
        rng: random.Random,
        fault: Callable[[str], None],
    ) -> None:
        self.name = name
        self.identity = identity
        """Of the policy module; empty if there is none."""
        self._balancer = balancer
        self._route = route
        self._priority = priority
        self._random = rng.random
        self._fault = fault
        self.needs_prefixes = balancer.needs_prefixes or (route is not None and route.needs_prefixes)
        """Whether it looks at what replicas are believed to have cached."""

    def choose(self, offer: Offer, replicas: Sequence[Replica], now: float, *, patient: bool = True) -> int:
        """The index of one of the replicas (there is at least one), HOLD or SHED; an index if it is not `patient`."""
        if self._route is not None and patient:
            choice = self._route.choose(offer, replicas, now, self._random(), self._random())
            if 0 <= choice < len(replicas) or choice in (HOLD, SHED):
                return choice
            self._fault("route")
        return self._balancer.choose(offer, replicas)

    def priority(self, offer: Offer, now: float) -> float:
        """Larger ones go first; 0 where the policy has no opinion or a bad one."""
        if self._priority is None:
            return 0.0
        priority = self._priority.priority(offer, now, self._random(), self._random())
        if math.isfinite(priority):
            return priority
        self._fault("priority")
        return 0.0
