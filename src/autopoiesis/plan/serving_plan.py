"""Serving plans: which replicas there shall be, and how each request class is shared among them.

A plan names no GPUs; placement is a function of the plan and of what already runs (`plan.placement`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum


class Role(str, Enum):
    """What a replica does: both phases, or one of a disaggregated pair."""

    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, order=True)
class Replica:
    """One engine instance: a model sharded over GPUs of one kind."""

    model: str
    gpu: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    role: Role = Role.MIXED
    batched_tokens: int = 8192
    """Token budget of one engine step."""
    max_sequences: int = 256
    """Most sequences that run at once."""
    kv_dtype_bytes: int = 2

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    def with_options(
        self,
        *,
        batched_tokens: int | None = None,
        max_sequences: int | None = None,
        kv_dtype_bytes: int | None = None,
        role: Role | None = None,
    ) -> Replica:
        """The same shape with other engine options; what is left out stays."""
        return replace(
            self,
            batched_tokens=self.batched_tokens if batched_tokens is None else batched_tokens,
            max_sequences=self.max_sequences if max_sequences is None else max_sequences,
            kv_dtype_bytes=self.kv_dtype_bytes if kv_dtype_bytes is None else kv_dtype_bytes,
            role=self.role if role is None else role,
        )

    def __str__(self) -> str:
        shape = f"{self.model} on {self.gpu} tp{self.tensor_parallel}"
        if self.pipeline_parallel > 1:
            shape += f" pp{self.pipeline_parallel}"
        return shape if self.role is Role.MIXED else f"{shape} {self.role.value}"


@dataclass(frozen=True, slots=True)
class ClassShares:
    """How the requests of one class are divided: one non-negative fraction per replica of the plan, summing to 1."""

    request_class: str
    fractions: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """A deployment. Without shares for a class, its replicas divide it by their speed."""

    replicas: tuple[Replica, ...]
    shares: tuple[ClassShares, ...] = ()

    def gpus(self, gpu: str | None = None) -> int:
        """GPUs used, of one kind or of all."""
        return sum(replica.gpus for replica in self.replicas if gpu is None or replica.gpu == gpu)

    def replicas_of(self, model: str) -> tuple[Replica, ...]:
        return tuple(replica for replica in self.replicas if replica.model == model)

    def shares_of(self, request_class: str) -> tuple[float, ...] | None:
        return next((s.fractions for s in self.shares if s.request_class == request_class), None)

    def sorted(self) -> ServingPlan:
        """The same plan with replicas in canonical order, shares following."""
        order = sorted(range(len(self.replicas)), key=lambda i: (self.replicas[i], i))
        return ServingPlan(
            replicas=tuple(self.replicas[i] for i in order),
            shares=tuple(replace(s, fractions=tuple(s.fractions[i] for i in order)) for s in self.shares),
        )

    def same_replicas(self, other: ServingPlan) -> bool:
        """Equal as multisets of replicas: moving between the two starts and stops nothing."""
        return Counter(self.replicas) == Counter(other.replicas)

    def __str__(self) -> str:
        counts = Counter(self.replicas)
        return ", ".join(f"{count}× {replica}" for replica, count in sorted(counts.items())) or "no replicas"
