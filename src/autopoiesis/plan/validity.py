"""Which plans may be carried out. The operator's envelope is enforced here, so no policy gets past it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from autopoiesis.errors import PlanError, ScenarioError, unknown_name
from autopoiesis.plan.capacity import Capacity
from autopoiesis.plan.envelope import Envelope
from autopoiesis.plan.placement import packable
from autopoiesis.plan.serving_plan import Replica, Role, ServingPlan
from autopoiesis.workload.classes import BUCKETS, class_label

BATCHED_TOKENS = (256, 65_536)
"""Least and greatest token budget of an engine step."""
MAX_SEQUENCES = (1, 1024)
KV_DTYPE_BYTES = (1, 2)


def serving_count(replicas: Iterable[Replica]) -> int:
    """How many times replicas of one model can serve a request: a prefill and a decode replica count as one."""
    roles = Counter(replica.role for replica in replicas)
    return roles[Role.MIXED] + min(roles[Role.PREFILL], roles[Role.DECODE])


def cost_per_hour(replicas: Iterable[Replica], capacity: Capacity) -> float:
    """US dollars an hour for the GPUs of the replicas; where pools of one kind differ in price, the dearest first.

    A plan does not say which pool its replicas will sit in, and a bound on money must hold wherever they do.
    """
    needed = gpus_by_kind(replicas)
    cost = 0.0
    for had in sorted(capacity.pools, key=lambda had: -had.pool.price_per_hour):
        used = min(needed[had.pool.gpu], had.gpus)
        needed[had.pool.gpu] -= used
        cost += used * had.pool.price_per_hour
    return cost


def check_plan(
    plan: ServingPlan,
    capacity: Capacity,
    envelope: Envelope,
    models: Sequence[str],
    shapes: Iterable[Replica],
    recent_starts: int = 0,
    running: ServingPlan | None = None,
) -> None:
    """Raises PlanError, in one sentence, if the plan cannot be carried out or breaks the envelope.

    `shapes` are the replica shapes that fit in memory; only model, GPU kind and parallelism are compared.
    `recent_starts` counts the replica starts of the last hour; with `running`, what the plan would start is added.
    """
    _check_replicas(plan, capacity, models, shapes)
    class_models = {class_label(model, bucket): model for model in models for bucket in range(len(BUCKETS))}
    _check_shares(plan, class_models)
    for model in models:
        _check_roles(model, {replica.role for replica in plan.replicas_of(model)})
    for gpu, needed in gpus_by_kind(plan.replicas).items():
        if needed > (available := capacity.gpus_of(gpu)):
            raise PlanError(f"the plan needs {needed} {gpu} GPUs and {available} are available; leave out replicas")
    if not packable(plan.replicas, capacity.nodes()):
        raise PlanError(
            f"the plan ({plan}) does not pack: a tensor-parallel group must lie within one node; "
            "use smaller groups or fewer replicas"
        )
    _check_envelope(plan, capacity, envelope, models, class_models)
    if envelope.moves_per_hour is not None and running is not None:
        starts = (Counter(plan.replicas) - Counter(running.replicas)).total()
        if starts and starts + recent_starts > envelope.moves_per_hour:
            raise PlanError(
                f"envelope: moves_per_hour is {envelope.moves_per_hour}, {recent_starts} replicas were started within "
                f"the last hour and the plan would start {starts} more; keep more of the running replicas"
            )


def gpus_by_kind(replicas: Iterable[Replica]) -> Counter[str]:
    needed = Counter[str]()
    for replica in replicas:
        needed[replica.gpu] += replica.gpus
    return needed


def _check_replicas(plan: ServingPlan, capacity: Capacity, models: Sequence[str], shapes: Iterable[Replica]) -> None:
    gpus = {had.pool.gpu for had in capacity.pools}
    fitting = {(s.model, s.gpu, s.tensor_parallel, s.pipeline_parallel) for s in shapes}
    for position, replica in enumerate(plan.replicas):

        def bad(why: str, position: int = position, replica: Replica = replica) -> PlanError:
            return PlanError(f"replica {position} ({replica}): {why}")

        if replica.model not in models:
            raise bad(f"field 'model': {unknown_name('model', replica.model, models)}")
        if replica.gpu not in gpus:
            raise bad(f"field 'gpu': {unknown_name('GPU kind', replica.gpu, gpus)}")
        shape = (replica.model, replica.gpu, replica.tensor_parallel, replica.pipeline_parallel)
        if shape not in fitting:
            others = sorted(key[2:] for key in fitting if key[:2] == shape[:2])
            known = ", ".join(f"tp{tp} pp{pp}" for tp, pp in others) or f"none on {replica.gpu}"
            raise bad(f"this shape does not fit in memory; shapes that do: {known}")
        for name, (least, greatest) in (("batched_tokens", BATCHED_TOKENS), ("max_sequences", MAX_SEQUENCES)):
            value = getattr(replica, name)
            if type(value) is not int or not least <= value <= greatest:
                raise bad(f"field {name!r} must be a whole number from {least} to {greatest}, got {value!r}")
        if replica.kv_dtype_bytes not in KV_DTYPE_BYTES:
            raise bad(f"field 'kv_dtype_bytes' must be 1 or 2, got {replica.kv_dtype_bytes!r}")


def _check_shares(plan: ServingPlan, class_models: Mapping[str, str]) -> None:
    seen = set()
    for shares in plan.shares:
        label = shares.request_class
        if label not in class_models:
            raise PlanError(f"shares: {unknown_name('request class', label, class_models)}")
        if label in seen:
            raise PlanError(f"shares of {label}: given twice; give one fraction per replica, once")
        seen.add(label)
        if len(shares.fractions) != len(plan.replicas):
            raise PlanError(
                f"shares of {label}: {len(shares.fractions)} fractions for {len(plan.replicas)} replicas; "
                "give one for each replica of the plan, 0 for those of other models"
            )
        for position, (fraction, replica) in enumerate(zip(shares.fractions, plan.replicas, strict=True)):
            if not 0 <= fraction < math.inf:
                raise PlanError(f"shares of {label}: fraction {position} must be finite and at least 0, got {fraction}")
            if fraction > 0 and replica.model != class_models[label]:
                raise PlanError(f"shares of {label}: replica {position} ({replica}) serves another model; give it 0")
        if not abs(math.fsum(shares.fractions) - 1) <= 1e-6:
            raise PlanError(f"shares of {label}: the fractions sum to {math.fsum(shares.fractions):.6g}; make them 1")


def _check_roles(model: str, roles: Collection[Role]) -> None:
    if len(roles) == 1 and Role.MIXED not in roles:
        (role,) = roles
        other = Role.DECODE if role is Role.PREFILL else Role.PREFILL
        raise PlanError(
            f"model {model!r} has {role.value} replicas only; add a {other.value} or mixed replica, or make them mixed"
        )


def _check_envelope(
    plan: ServingPlan, capacity: Capacity, envelope: Envelope, models: Sequence[str], class_models: Mapping[str, str]
) -> None:
    for model in models:
        count, minimum = serving_count(plan.replicas_of(model)), envelope.minimum_for(model)
        if count < minimum:
            raise PlanError(
                f"envelope: model {model!r} must keep at least {minimum} replicas and the plan has {count} "
                "(a prefill and a decode replica count as one); add replicas of it"
            )
    if envelope.maximum_gpus is not None and plan.gpus() > envelope.maximum_gpus:
        raise PlanError(
            f"envelope: maximum_gpus is {envelope.maximum_gpus} and the plan uses {plan.gpus()}; leave out replicas"
        )
    if envelope.maximum_cost_per_hour is not None:
        cost = cost_per_hour(plan.replicas, capacity)
        if cost > envelope.maximum_cost_per_hour:
            raise PlanError(
                f"envelope: maximum_cost_per_hour is {envelope.maximum_cost_per_hour:g} dollars and the plan can cost "
                f"{cost:g}; leave out replicas or use cheaper GPUs"
            )
    for label, floor in envelope.class_floor.items():
        if label not in class_models:
            raise ScenarioError(f"envelope: class_floor: {unknown_name('request class', label, class_models)}")
        count = sharing_count(class_models[label], plan.replicas, plan.shares_of(label))
        if count < floor:
            raise PlanError(
                f"envelope: class {label} must be shared among at least {floor} replicas (decode replicas not "
                f"counted) and the plan shares it among {count}; give more replicas of the model a fraction above 0"
            )


def sharing_count(model: str, replicas: Sequence[Replica], fractions: Sequence[float] | None) -> int:
    """Replicas of a model that admit requests of a class; decode replicas get theirs from those that prefill."""
    return sum(
        replica.model == model and replica.role is not Role.DECODE and (fractions is None or fractions[position] > 0)
        for position, replica in enumerate(replicas)
    )
