"""KV caches on their way from one replica to another, over links that they share.

The replicas of a node share the node's link to the others. Transfers over a link follow one another, each at the link's
full bandwidth.
"""

from __future__ import annotations

from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import State, Whole

TRANSFER_BASE = 50_000_000
"""Picoseconds before a KV transfer moves its first byte."""


@inlined
def send_cache(state: State, slot: Whole, tokens: Whole, t: Whole) -> Whole:
    """A replica sends the KV cache of so many tokens, at `t` at the earliest; when it has arrived."""
    replica = state.replicas[slot]
    replica.moved_tokens += tokens
    ends = max(state.link_free[replica.link], t) + replica.kv_ps_per_token * tokens
    state.link_free[replica.link] = ends
    return ends + TRANSFER_BASE
