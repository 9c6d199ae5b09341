"""The memory of the event kernel: one record per request, one per replica slot, prefix caches, a few queues.

All times are integers of picoseconds, so that a run of decode steps summed in closed form and the same steps taken
one by one end at the same instant; 2⁶³ ps are 106 days.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Whole: TypeAlias = Any
"""An integer of compiled code: 64 bits there, an `int` or a numpy integer for Python."""
Records: TypeAlias = Any
"""A structured array. In compiled code `records[i].field` reads and writes one."""

SECOND = 1_000_000_000_000
"""Picoseconds."""
NEVER: Whole = np.iinfo(np.int64).max
FOREVER = NEVER - 1
"""Until nothing happens any more."""

# Phases of a replica slot.
ABSENT, SERVING, DRAINING = 0, 1, 2
# Roles, in the order of `plan.Role`.
MIXED, PREFILL, DECODE = 0, 1, 2
# Why a request was lost.
NOT_LOST, LOST_KV, LOST_UNSERVED = 0, 1, 2
# Answers of `advance`.
REACHED, DRAINED, EMPTY = 0, 1, 2
# What has changed for the held requests of a model.
UNCHANGED, ENDED, FLEET = 0, 1, 3

NOISE_BITS = 10
"""Step noise is a factor of integer / 2¹⁰."""
ATTENTION_BITS = 10
"""A unit of S² − p² takes some picoseconds only, so its time is held as integer / 2¹⁰."""
BLOCK_TOKENS = 16
"""Tokens of one KV block: vLLM's default."""
HOLD_INTERVAL = SECOND // 10
HOLD_LIMIT = 60 * SECOND
UNSERVED_LIMIT = 600 * SECOND
"""A request for which no replica exists waits this long at the gateway, then it is lost."""

REQUEST = np.dtype(
    [
        ("arrival", "i8"),  # released at; NEVER until the call before it in the session has ended
        ("think", "i8"),
        ("first", "i8"),  # first token, -1 before
        ("done", "i8"),  # end, whatever the status; -1 before
        ("held_since", "i8"),  # -1 unless held
        ("finish", "i8"),  # the replica's decode step count at which it ends
        ("chain", "i8"),  # where its prompt's segments begin in `State.chains` …
        ("key", "f8"),  # order in a queue: smaller first, then `sequence`
        ("sequence", "i4"),
        ("admitted", "i4"),  # order of admission, the newest is preempted first
        ("input", "i4"),
        ("output", "i4"),
        ("prefix", "i4"),
        ("previous", "i4"),
        ("next", "i4"),
        ("session", "i4"),  # row of the session's first call, -1 for a single request
        ("generated", "i4"),  # tokens that exist; of a decoding sequence, as of its last (re)start
        ("left", "i4"),  # tokens still to prefill
        ("chunk", "i4"),  # of these, in the step under way
        ("slot", "i4"),  # the replica, -1 at the gateway
        ("segments", "i4"),  # … how many there are …
        ("segment_blocks", "i4"),  # … and their KV blocks
        ("own", "i4"),  # the segment that begins where these end and that a later call continues, -1 for none
        ("pinned", "i4"),  # of its segments, how many it holds in the replica's prefix cache …
        ("shared", "i4"),  # … and how many of its KV blocks are theirs
        ("cached", "i4"),  # prompt tokens found cached, where it was prefilled for the first time
        ("preemptions", "i4"),
        ("moves", "i4"),  # times it was taken off a replica
        ("model", "i4"),
        ("request_class", "i4"),
        ("status", "i1"),  # workload.Status
        ("reason", "i1"),
        ("phase", "i1"),  # 0: to prefill, 1: KV cache at hand, to decode
        ("held", "i1"),  # waits at the gateway
        ("linked", "i1"),  # bit p: has a node in a queue of phase p at the gateway, perhaps a stale one
        ("timed", "i1"),  # a timer for its patience runs
    ],
    align=True,
)

REPLICA = np.dtype(
    [
        # what the gateway looks at
        ("kv_blocks", "i8"),
        ("in_flight", "i8"),
        ("in_flight_tokens", "i8"),
        ("routed_tokens", "i8"),  # prompt tokens sent here that were not believed to be cached here
        ("speed", "f8"),
        ("model", "i4"),
        ("gpu_kind", "i4"),
        ("generation", "i4"),
        ("role", "i1"),
        ("phase", "i1"),
        # the batch
        ("queue", "i8"),  # root of the waiting queue
        ("waiting", "i8"),
        ("decoding", "i8"),
        ("prefilling", "i8"),
        ("kv_used", "i8"),  # blocks that sequences hold, those held in common counted once
        ("kv_idle", "i8"),  # blocks that nobody holds and that may serve a prompt again …
        ("oldest", "i8"),  # … from the node that goes first …
        ("newest", "i8"),  # … to the one that goes last
        ("contexts", "i8"),  # tokens of all decoding sequences
        ("decode_step", "i8"),
        ("max_sequences", "i8"),
        ("batched_tokens", "i8"),
        ("admissions", "i8"),
        ("epoch", "i8"),  # counts changes of the batch
        # the run of steps under way: `steps` steps from `began`, step i taking a + b·(contexts + i·decoding)
        ("began", "i8"),
        ("steps", "i8"),
        ("a", "i8"),
        ("b", "i8"),
        ("factor", "i8"),
        # what a step takes, in picoseconds
        ("fixed", "i8"),
        ("prefill_fixed", "i8"),
        ("weights", "i8"),
        ("token", "i8"),
        ("communication", "i8"),
        ("attention", "i8"),  # in 2^-ATTENTION_BITS
        ("context", "i8"),
        ("sequence", "i8"),
        ("stages", "i8"),  # of its pipeline
        ("kv_ps_per_token", "i8"),  # transfer to another replica …
        ("link", "i8"),  # … over this link
        ("noise", "i8"),  # standard deviation of the step noise, in 2^-NOISE_BITS
        ("seed", "u8"),
        # what telemetry reports, counted since the start of the replica
        ("busy", "i8"),
        ("prompt_tokens", "i8"),
        ("generated_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("moved_tokens", "i8"),  # whose KV cache was transferred elsewhere
        ("preemptions", "i8"),
        ("pure_steps", "i8"),  # steps that only decoded
        ("pure_sequences", "i8"),
        ("pure_contexts", "i8"),
        ("pure_busy", "i8"),
    ],
    align=True,
)

SEGMENT = np.dtype(
    [
        ("mark", "i8"),  # `routed_tokens` of the replica to which it was sent last …
        ("slot", "i4"),  # … that replica's slot, -1 for none …
        ("generation", "i4"),  # … and which of that slot's replicas
    ],
    align=True,
)
"""What the gateway believes of a segment of prompts: KV blocks that are computed, kept and lost together."""

NODE = np.dtype(
    [
        ("slot", "i4"),
        ("segment", "i4"),  # -1: blocks that nothing will ask for again
        ("blocks", "i4"),  # what is left of it, its head
        ("references", "i4"),  # sequences that hold it
        ("older", "i4"),
        ("newer", "i4"),  # neighbours among the idle of its slot
        ("chained", "i4"),  # next of the same hash; next of the free nodes
    ],
    align=True,
)
"""A segment in the prefix cache of a replica."""

# Built-in routers.
BALANCED, ROUND_ROBIN, LEAST_OUTSTANDING, POWER_OF_TWO, WEIGHTED, SHARES = range(6)

# Scalars of the kernel, by position in `State.scalars`.
(
    NOW,
    NEXT_ORDER,
    ORDER_END,
    PENDING,
    SEQUENCE,
    ARRIVED,
    FINISHED,
    UNFINISHED,
    ROUTE,  # address of the policy's function, 0 where there is none
    PRIORITY,
    EXACT,
    STOP_EMPTY,
    NEXT_OFFER,
    OUT_SLOT,
    FAULTS,
    HELD,
    SEED,
    OFFERS,
    SLOTS,
    OWES_EMPTY,
    SERVES_ALL,  # nothing may be shed: SHED is a fault
    ROUTER,  # which of the built-in routers
    FREE_NODE,  # first of the free nodes of the prefix caches, -1 for none
) = range(23)
SCALARS = 23


class State(NamedTuple):
    """Everything `advance` reads and writes. n requests, s slots, m models, c classes."""

    requests: Records
    """(n,) REQUEST."""
    links: NDArray[np.int32]
    """(3n, 2) child and sibling in a queue: node i is row i waiting at a replica, n + i and 2n + i row i at the gateway
    for phases 0 and 1."""
    replicas: Records
    """(s,) REPLICA."""
    ends: NDArray[np.int64]
    """(s,) when the run under way ends, NEVER for an idle replica, now for one that has been given work."""
    heap_key: NDArray[np.int64]
    """(s, 1024) per slot: a heap of the decode steps at which sequences end …"""
    heap_row: NDArray[np.int64]
    """(s, 1024) … and whose they are."""
    prefills: NDArray[np.int64]
    """(s, 1024) rows that prefill, in order of admission."""
    growth: NDArray[np.int64]
    """(s, 16) decoding sequences that need another KV block in a step whose count is j modulo 16."""
    link_free: NDArray[np.int64]
    """(l,) when the transfers over a link that are under way or waiting will be over."""
    segments: Records
    """(g,) SEGMENT."""
    chains: NDArray[np.int32]
    """(k, 2) segments of prompts and how many of their KV blocks the prompt has, request by request."""
    nodes: Records
    """(p,) NODE, of all slots; the free ones are chained."""
    table: NDArray[np.int32]
    """(2^h,) hash table over slot and segment: the first node of each hash, -1 for none."""
    candidates: NDArray[np.int64]
    """(2m, s) slots that serve model i in phase p, at row 2i + p, ascending."""
    candidate_count: NDArray[np.int64]
    """(2m,)"""
    shares: NDArray[np.float64]
    """(c, s) the plan's shares; a row of negative numbers where it has none."""
    credit: NDArray[np.float64]
    """(c, s) what the plan's shares owe a slot, in requests."""
    turn: NDArray[np.int64]
    """(2m,) the slot whose turn it was last."""
    telemetry: NDArray[np.float64]
    """(s, 4) running, waiting, KV use and the time in seconds of the sample, as visible now."""
    slos: NDArray[np.float64]
    """(m, 3) TTFT base, TTFT per prompt token, TPOT, in seconds."""
    context: NDArray[np.int64]
    """(m,) the models' context lengths."""
    order: NDArray[np.int64]
    """(n,) rows that arrive by themselves, by arrival."""
    pending_time: NDArray[np.int64]
    """(2n,) heap of what is due later …"""
    pending_row: NDArray[np.int64]
    """(2n,) … i: row i arrives (a follow-up call, a transfer, an eviction), n + i: the patience of row i may be over.
    A row has at most one entry of each kind."""
    held: NDArray[np.int64]
    """(2m,) root node of the queue at the gateway of model i in phase p, at 2i + p; -1 where empty, never stale."""
    unfit: NDArray[np.int64]
    """(2m,) the same for held requests that none of the replicas could hold, until the fleet changes."""
    changed: NDArray[np.int64]
    """(m,) ENDED or FLEET where something has happened since the held requests were last offered."""
    arrived: NDArray[np.int32]
    """(n,) rows by arrival at the gateway."""
    finished: NDArray[np.int32]
    """(n,) rows by end."""
    scalars: NDArray[np.int64]
    request_view: NDArray[np.float64]
    """(11,) scratch for `route`."""
    replica_view: NDArray[np.float64]
    """(s, 11) scratch for `route`."""
    view_slot: NDArray[np.int64]
    """(s,) scratch: slot of each row of `replica_view`."""
    believed: NDArray[np.int64]
    """(s,) scratch: tokens of a prompt that the gateway believes to be cached at each slot."""
