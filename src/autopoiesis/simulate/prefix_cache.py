"""What an ended sequence leaves behind in a replica's KV cache for the next call of its session.

Its blocks are freed tail first, behind those that were free before, and allocations take the least recently freed
first. So the head of the prompt is gone once as much has been allocated as was free at its end, and before that what
remains is as long as what can still be allocated.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.jit import inlined
from autopoiesis.simulate.layout import BLOCK_TOKENS, State, Whole


@inlined
def keep_cached(state: State, slot: Whole, row: Whole, tokens: Whole) -> None:
    """The KV entries of these tokens have been freed; until they are needed they serve the next call."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.cache_slot = slot
    request.cache_generation = replica.generation
    request.cache_tokens = tokens
    request.cache_mark = replica.allocated + replica.kv_tokens - replica.kv_used


@inlined
def cached_tokens(state: State, slot: Whole, row: Whole) -> Whole:
    """Prompt tokens of a request that lie in this replica's prefix cache, in whole blocks; at least one is computed."""
    request = state.requests[row]
    if request.prefix <= 0 or request.previous < 0:
        return np.int64(0)
    before = state.requests[request.previous]
    replica = state.replicas[slot]
    if before.cache_slot != slot or before.cache_generation != replica.generation:
        return np.int64(0)
    tokens = min(before.cache_mark - replica.allocated, np.int64(before.cache_tokens))
    tokens = min(tokens, np.int64(request.prefix), np.int64(request.input) - 1)
    return max(tokens, np.int64(0)) // BLOCK_TOKENS * BLOCK_TOKENS
