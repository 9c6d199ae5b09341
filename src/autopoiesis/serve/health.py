"""Whether a replica may be sent requests: what its answers and its probes have shown.

A replica gets requests only after a probe has succeeded; one that fails is left out (ejected) for a time, and comes
back only through another probe. This is a state machine without a clock: whoever has seen something says when.

| state \\ event | `succeeded` | `failed` | `may_probe` | `probed` ok | `probed` not ok |
|---|---|---|---|---|---|
| `unknown` | – | – | yes | `healthy` | – |
| `healthy` | counted | counted; `ejected` if too many | yes | counted | counted; `ejected` if too many |
| `ejected` | – | – | yes and `probing`, once its time has passed | – | – |
| `probing` | – | – | yes | `healthy` | – |

Several processes may know the same replica, of which one probes for all; they tell each other.

| state \\ event | `reported` | `adopt` healthy | `adopt` not healthy |
|---|---|---|---|
| `unknown` | – | `healthy` | – |
| `healthy` | `ejected` | – | `unknown` |
| `ejected` | – | `healthy` | `unknown` |
| `probing` | – | `healthy` | `unknown` |

A dash: nothing happens. Each ejection lasts twice as long as the one before; a failed trial is no further one, so that
a replica that is started again is back as soon as it can serve. What was sent or probed before an ejection may well be
answered after it, and tells nothing about what has become of the replica since.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from enum import StrEnum

from autopoiesis.serve.config import HealthConfig


class State(StrEnum):
    UNKNOWN = "unknown"
    """No probe has succeeded yet."""
    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Left out until its time has passed."""
    PROBING = "probing"
    """Left out, and on trial."""


class Failure(StrEnum):
    """How a request failed that the replica is to blame for."""

    CONNECT = "connect"
    """No connection: nobody listens there."""
    RESET = "reset"
    """The connection ended before the answer did."""
    TIMEOUT = "timeout"
    SERVER_ERROR = "5xx"
    PROTOCOL = "protocol"
    """What came was no HTTP."""


def _always() -> bool:
    return True


def _nobody() -> None:
    pass


class Health:
    """The health of one replica. Times are seconds of one clock that never goes back.

    Too many failures are `failures` of them in a row, or `error_ratio` among the last `error_window` results.
    Successful probes do not end a row of failed requests, for an engine may well answer its probes and nothing else;
    successful requests end both rows, for one that works may be too busy to answer probes in time.

    `may_eject` is asked before a replica is ejected for answers that only it may think are its own fault; a replica
    that refuses connections or fails its probes is dead, and nobody is asked.
    """

    __slots__ = (
        "_config", "_eject_s", "_errors", "_failed_probes", "_failed_requests", "_healthy_since", "_may_eject",
        "_results", "admits", "changed", "ejected_until", "ejections", "state",
    )  # fmt: skip

    def __init__(
        self,
        config: HealthConfig,
        *,
        may_eject: Callable[[], bool] = _always,
        changed: Callable[[], None] = _nobody,
    ) -> None:
        self.state = State.UNKNOWN
        self.admits = False
        """Whether the replica may be sent requests."""
        self.changed = changed
        """Called after `admits` has changed."""
        self.ejected_until = -math.inf
        """When the latest ejection ends or ended."""
        self.ejections = 0
        """How often it was ejected."""
        self._config = config
        self._may_eject = may_eject
        self._failed_requests = 0
        """In a row; as the next."""
        self._failed_probes = 0
        self._results: deque[bool] = deque(maxlen=config.error_window)
        """Of requests, the latest last; true: failed."""
        self._errors = 0
        self._eject_s = min(config.eject_s, config.eject_max_s)
        """Length of the next ejection, but for what a healthy while takes off it."""
        self._healthy_since = -math.inf

    def succeeded(self, now: float) -> None:
        """A request was answered."""
        if self.state is State.HEALTHY:
            self._failed_requests = self._failed_probes = 0
            self._count(failed=False)

    def failed(self, now: float, kind: Failure) -> None:
        """A request failed by the replica's fault."""
        if self.state is not State.HEALTHY:
            return
        self._failed_requests += 1
        self._count(failed=True)
        in_a_row = self._failed_requests >= self._config.failures
        if (in_a_row and kind is Failure.CONNECT) or ((in_a_row or self._is_outlier()) and self._may_eject()):
            self._eject(now)

    def reported(self, now: float) -> None:
        """Another process, which does not probe, has ejected the replica."""
        if self.state is State.HEALTHY:
            self._eject(now)

    def adopt(self, now: float, healthy: bool) -> None:
        """Another process, which probes for this one, has found the replica healthy or not."""
        if not healthy:
            self.state = State.UNKNOWN
            self._admit(False)
        elif self.state is not State.HEALTHY:
            self.state = State.UNKNOWN
            self.probed(now, True)

    def may_probe(self, now: float) -> bool:
        """Whether the replica may be probed now. For one that does not admit requests the probe is its trial, and
        should be as much like a request as can be."""
        if self.state is State.EJECTED:
            if now < self.ejected_until:
                return False
            self.state = State.PROBING
        return True

    def probed(self, now: float, ok: bool) -> None:
        """A probe that was allowed has ended."""
        if self.state is State.EJECTED:
            return
        if self.state is State.HEALTHY:
            self._failed_probes = 0 if ok else self._failed_probes + 1
            if self._failed_probes >= self._config.failures:
                self._eject(now)
        elif ok:
            self._failed_requests = self._failed_probes = self._errors = 0
            self._results.clear()
            self._healthy_since = now
            self.state = State.HEALTHY
            self._admit(True)

    def _count(self, failed: bool) -> None:
        if len(self._results) == self._config.error_window:
            self._errors -= self._results[0]
        self._results.append(failed)
        self._errors += failed

    def _is_outlier(self) -> bool:
        window = self._config.error_window
        return len(self._results) == window and self._errors >= self._config.error_ratio * window

    def _eject(self, now: float) -> None:
        if self.state is State.HEALTHY:
            self._forgive(now - self._healthy_since)
        self.ejected_until = now + self._eject_s
        self._eject_s = min(2 * self._eject_s, self._config.eject_max_s)
        self.ejections += 1
        self.state = State.EJECTED
        self._admit(False)

    def _forgive(self, healthy_s: float) -> None:
        """Halve the next ejection for each time that the replica was healthy for as long as that would be."""
        least = min(self._config.eject_s, self._config.eject_max_s)
        while self._eject_s > least and healthy_s >= self._eject_s:
            healthy_s -= self._eject_s
            self._eject_s = max(least, self._eject_s / 2)

    def _admit(self, admits: bool) -> None:
        if admits != self.admits:
            self.admits = admits
            self.changed()


def may_eject(replicas: Collection[Health], share: float) -> bool:
    """Whether one more of a model's replicas may be left out if at most `share` of them may be."""
    out = sum(not health.admits for health in replicas)
    return out + 1 <= share * len(replicas)
