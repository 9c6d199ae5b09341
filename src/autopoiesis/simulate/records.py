"""From a workload and a replica to the kernel's records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost import CostModel, StepTimes
from autopoiesis.cost.model import KV_TRANSFER_BANDWIDTH
from autopoiesis.errors import TraceError
from autopoiesis.plan import Replica, Role
from autopoiesis.simulate import layout
from autopoiesis.simulate.layout import NEVER, SECOND, State
from autopoiesis.simulate.prefix_cache import rebuild_table
from autopoiesis.workload import SLO, Requests, class_labels
from autopoiesis.workload.classes import BUCKETS, bucket_of
from autopoiesis.workload.load import first_calls

ROLES = {Role.MIXED: layout.MIXED, Role.PREFILL: layout.PREFILL, Role.DECODE: layout.DECODE}
HEAP_ROOM = 1024
"""Most sequences of one replica."""
PER_SLOT = (
    "replicas", "ends", "heap_key", "heap_row", "prefills", "growth", "telemetry", "replica_view", "view_slot",
    "believed",
)  # fmt: skip
LONGEST_S = 60 * 86400.0
"""A workload with its think times may last this long; what is left of the kernel's 106 days is for serving it."""


def to_ps(seconds: float) -> int:
    return round(seconds * SECOND)


def empty_state(
    rows: NDArray[Any],
    chains: NDArray[np.int32],
    segments: int,
    models: tuple[str, ...],
    slos: dict[str, SLO],
    cost: CostModel,
    slots: int,
) -> State:
    """The kernel's memory before anything has happened: these requests and their chains of segments, no replica."""
    n, m = len(rows), len(models)
    order = np.flatnonzero(rows["arrival"] != NEVER).astype(np.int64)
    scalars = np.zeros(layout.SCALARS, dtype=np.int64)
    scalars[layout.UNFINISHED] = n
    scalars[layout.NEXT_OFFER] = NEVER
    scalars[layout.ORDER_END] = len(order)
    scalars[layout.FREE_NODE] = -1
    replicas = np.zeros(slots, dtype=layout.REPLICA)
    for name in ("queue", "oldest", "newest"):
        replicas[name] = -1
    believed = np.zeros(segments, dtype=layout.SEGMENT)
    believed["slot"] = -1
    return State(
        requests=rows,
        links=np.full((3 * n, 2), -1, dtype=np.int32),
        replicas=replicas,
        ends=np.full(slots, NEVER, dtype=np.int64),
        heap_key=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
        heap_row=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
        prefills=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
        growth=np.zeros((slots, layout.BLOCK_TOKENS), dtype=np.int64),
        link_free=np.zeros(slots, dtype=np.int64),
        segments=believed,
        chains=chains,
        nodes=np.zeros(0, dtype=layout.NODE),
        table=np.full(1, -1, dtype=np.int32),
        candidates=np.zeros((2 * m, slots), dtype=np.int64),
        candidate_count=np.zeros(2 * m, dtype=np.int64),
        shares=np.full((len(class_labels(models)), slots), -1.0),
        credit=np.zeros((len(class_labels(models)), slots)),
        turn=np.full(2 * m, -1, dtype=np.int64),
        telemetry=np.zeros((slots, 4)),
        slos=np.array([[s.ttft_s, s.ttft_s_per_input_token, s.tpot_s] for s in (slos[x] for x in models)]),
        context=np.array([cost.hardware.models[x].context for x in models], dtype=np.int64),
        order=order,
        pending_time=np.zeros(2 * n, dtype=np.int64),
        pending_row=np.zeros(2 * n, dtype=np.int64),
        held=np.full(2 * m, -1, dtype=np.int64),
        unfit=np.full(2 * m, -1, dtype=np.int64),
        changed=np.zeros(m, dtype=np.int64),
        arrived=np.zeros(n, dtype=np.int32),
        finished=np.zeros(n, dtype=np.int32),
        scalars=scalars,
        request_view=np.zeros(11),
        replica_view=np.zeros((slots, 11)),
        view_slot=np.zeros(slots, dtype=np.int64),
        believed=np.zeros(slots, dtype=np.int64),
    )


def with_more_slots(state: State) -> State:
    """Twice as many slots."""
    slots = len(state.replicas)
    longer = {}
    for name in PER_SLOT:
        array = getattr(state, name)
        longer[name] = np.concatenate([array, np.zeros_like(array)])
    for name in ("candidates", "shares", "credit"):
        array = getattr(state, name)
        longer[name] = np.concatenate([array, np.zeros_like(array)], axis=1)
    for name in ("queue", "oldest", "newest"):
        longer["replicas"][name][slots:] = -1
    longer["ends"][slots:] = NEVER
    # a class has shares on all slots or on none
    longer["shares"][:, slots:] = np.minimum(state.shares[:, :1], 0.0)
    return state._replace(**longer)


def with_links(state: State, links: int) -> State:
    """At least so many links."""
    more = np.zeros(max(links - len(state.link_free), 0), dtype=np.int64)
    return state._replace(link_free=np.concatenate([state.link_free, more]))


def with_nodes(state: State, nodes: int) -> State:
    """At least so many nodes for prefix caches, and a hash table half as full as there are nodes."""
    had = len(state.nodes)
    if nodes <= had:
        return state
    nodes = max(nodes, had + had // 2)
    more = np.zeros(nodes - had, dtype=layout.NODE)
    more["chained"] = np.arange(had + 1, nodes + 1)
    more["chained"][-1] = state.scalars[layout.FREE_NODE]
    state.scalars[layout.FREE_NODE] = had
    table = np.full(1 << (2 * nodes - 1).bit_length(), -1, dtype=np.int32)
    state = state._replace(nodes=np.concatenate([state.nodes, more]), table=table)
    rebuild_table(state)
    return state


def request_records(requests: Requests, closed_loop: bool) -> NDArray[Any]:
    """(n,) REQUEST. In a closed loop the later calls of a session have not arrived yet.

    Raises TraceError for times that run back or beyond what the kernel can count, and for a session that branches.
    """
    previous = requests.previous
    roots = session_roots(previous)
    _check_times(requests, roots)
    rows = np.zeros(len(requests), dtype=layout.REQUEST)
    rows["arrival"] = np.round(requests.arrival_s * SECOND).astype(np.int64)
    rows["think"] = np.round(requests.think_s * SECOND).astype(np.int64)
    for name in ("first", "done", "held_since", "slot", "next"):
        rows[name] = -1
    rows["model"] = requests.model
    rows["request_class"] = requests.model * len(BUCKETS) + bucket_of(requests.input_tokens)
    rows["input"] = requests.input_tokens
    rows["output"] = requests.output_tokens
    rows["prefix"] = requests.prefix_tokens
    rows["previous"] = previous
    rows["session"] = roots
    if closed_loop:
        following = np.flatnonzero(previous >= 0)
        befores, counts = np.unique(previous[following], return_counts=True)
        if np.any(counts > 1):
            raise TraceError(
                f"column 'previous': row {befores[np.argmax(counts > 1)]} is followed by more than one row; "
                "a session is a chain of calls, so point each call at the one before it"
            )
        rows["next"][previous[following]] = following
        rows["arrival"][following] = NEVER
    return rows


def _check_times(requests: Requests, roots: NDArray[np.int64]) -> None:
    for name in ("arrival_s", "think_s"):
        column = getattr(requests, name)
        if len(column) and not (np.all(np.isfinite(column)) and column.min() >= 0):
            raise TraceError(f"column {name!r} must be finite and at least 0")
    thinking = np.bincount(np.maximum(roots, 0), weights=requests.think_s, minlength=1)
    last = requests.arrival_s.max(initial=0.0)
    if last + thinking.max() > LONGEST_S:
        raise TraceError(
            f"columns 'arrival_s' and 'think_s': the workload lasts more than {LONGEST_S / 86400:.0f} days; "
            "take a part of it, or give times in seconds"
        )


def session_roots(previous: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each row's session, -1 for a single request."""
    single = np.ones(len(previous), dtype=bool)
    single[previous >= 0] = False
    single[previous[previous >= 0]] = False
    return np.where(single, -1, first_calls(previous))


def replica_record(
    replica: Replica,
    steps: StepTimes,
    *,
    slow: float,
    noise: float,
    seed: int,
    model: int,
    gpu_kind: int,
    link: int,
    generation: int,
) -> tuple[Any, ...]:
    """A REPLICA that has just begun to serve; `slow` multiplies its step times, which become whole picoseconds."""
    values: dict[str, Any] = dict.fromkeys(layout.REPLICA.names or (), 0)
    values |= {
        "fixed": to_ps(slow * steps.fixed_s),
        "prefill_fixed": to_ps(slow * steps.prefill_fixed_s),
        "weights": to_ps(slow * steps.weights_s),
        "token": to_ps(slow * steps.token_s),
        "communication": to_ps(slow * steps.communication_s),
        "attention": to_ps(slow * steps.attention_s * (1 << layout.ATTENTION_BITS)),
        "context": to_ps(slow * steps.context_s),
        "sequence": to_ps(slow * steps.sequence_s),
        "kv_blocks": steps.kv_tokens // layout.BLOCK_TOKENS,
        "stages": steps.stages,
        "link": link,
        "kv_ps_per_token": to_ps(steps.kv_bytes_per_token / KV_TRANSFER_BANDWIDTH),
        "batched_tokens": replica.batched_tokens,
        "max_sequences": min(replica.max_sequences, HEAP_ROOM),
        "noise": round(noise * (1 << layout.NOISE_BITS)),
        "seed": seed,
        "speed": 1.0,
        "model": model,
        "gpu_kind": gpu_kind,
        "generation": generation,
        "role": ROLES[replica.role],
        "phase": layout.SERVING,
        "queue": -1,
        "oldest": -1,
        "newest": -1,
    }
    return tuple(values.values())
