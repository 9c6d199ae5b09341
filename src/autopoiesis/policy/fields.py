"""What `route` and `priority` read and answer, as a process that only calls them needs it: names, order, codes.

A module of its own, and part of `interface`, because who serves imports this and not the plans of `interface`.
"""

from __future__ import annotations

HOLD = -1
"""`route` answers HOLD to keep the request in the gateway's queue: offered again on any change and every 100 ms."""
SHED = -2
"""`route` answers SHED to refuse the request at once."""
FAULT = -3
"""What a `route` answers that failed: the built-in router places the request, and the policy is charged."""

REQUEST_FIELDS = (
    "model", "class_index", "prompt_tokens", "phase", "prefix_key", "ttft_slo_s", "tpot_slo_s", "waited_s", "sequence",
    "uniform1", "uniform2",
)  # fmt: skip
"""Fields of `Request`, in the order of the array that a compiled `route` or `priority` reads; all are floats."""

REPLICA_FIELDS = (
    "in_flight", "in_flight_tokens", "running", "waiting", "kv_use", "telemetry_age_s", "cached_tokens", "share",
    "max_sequences", "gpu_kind", "speed",
)  # fmt: skip
"""Fields of `ReplicaView` (beside `index`), in the order of the rows that a compiled `route` reads; all are floats."""
