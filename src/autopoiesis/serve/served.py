"""A model that the gateway serves: its replicas, who of them can take a request, and who waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopoiesis.serve.prompt_length import PromptLength
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.waiting import Waiting

if TYPE_CHECKING:
    from autopoiesis.serve.config import ModelConfig
    from autopoiesis.serve.exchange import Exchange

BUCKET_LIMITS = (512, 2048, 8192)
"""Prompt tokens; as `workload.classes`, which this process does not import."""


class Served:
    """One model. `able` changes only when a replica comes, goes, or changes its health; it is replaced, not changed."""

    def __init__(self, index: int, config: ModelConfig, waiting: Waiting[Exchange]) -> None:
        self.index = index
        self.name = config.name
        self.served_as = config.served_as or config.name
        self.slo = config.slo
        self.prompt_length = PromptLength(config.bytes_per_token)
        self.waiting = waiting
        self.replicas: tuple[Replica, ...] = ()
        self.able: tuple[Replica, ...] = ()
        """Replicas that are healthy and stay, in order of their slots."""
        self.capped = False
        """Whether one of them has a limit to what it is sent at once."""

    def request_class(self, prompt_tokens: int) -> int:
        """The index of the request's class among those of all models."""
        first = self.index * (len(BUCKET_LIMITS) + 1)
        return first + sum(prompt_tokens >= limit for limit in BUCKET_LIMITS)

    def set_replicas(self, replicas: tuple[Replica, ...]) -> None:
        self.replicas = tuple(sorted(replicas, key=lambda replica: replica.slot))
        self.refresh()

    def refresh(self) -> None:
        """Look again who is able."""
        self.able = tuple(r for r in self.replicas if r.health.admits and not r.draining)
        self.capped = any(replica.max_in_flight for replica in self.able)
