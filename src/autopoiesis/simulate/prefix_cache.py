"""The KV blocks of a replica: held by sequences, kept for prompts that begin alike, taken back oldest first.

A prompt is a chain of *segments*: runs of KV blocks that are computed, kept and lost together (`chains`). A segment
that a replica has computed is a *node* of its prefix cache. Sequences that begin alike hold the same nodes, and their
blocks count once. A node that nobody holds any more is *idle*: it stays until its blocks are needed, and the one idle
for longest goes first, from its tail on, as in vLLM, whose sequences free their blocks tail first. Blocks that nothing
will ask for again (what a sequence decoded, incomplete blocks) queue up among the idle too and delay the others' end.

Where a workload has no segments at all nothing of this is kept, and a replica only counts the blocks in use.
"""

from __future__ import annotations

import numpy as np

from autopoiesis.simulate.draws import hash64
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import BLOCK_TOKENS, DECODE, FREE_NODE, State, Whole


@inlined
def blocks_of(tokens: Whole) -> Whole:
    """KV blocks that hold so many tokens."""
    return (tokens + (BLOCK_TOKENS - 1)) // BLOCK_TOKENS


# --- nodes ----------------------------------------------------------------------------------------------------------


@inlined
def bucket_of(state: State, slot: Whole, segment: Whole) -> Whole:
    word = hash64((np.uint64(slot) << np.uint64(32)) | np.uint64(segment))
    return np.int64(word & np.uint64(len(state.table) - 1))


@inlined
def find_node(state: State, slot: Whole, segment: Whole) -> Whole:
    """The segment's node in this replica's cache, -1 if there is none."""
    at = np.int64(state.table[bucket_of(state, slot, segment)])
    while at >= 0:
        node = state.nodes[at]
        if node.segment == segment and node.slot == slot:
            return at
        at = np.int64(node.chained)
    return at


@inlined
def new_node(state: State, slot: Whole, segment: Whole, blocks: Whole) -> Whole:
    """A node that somebody holds; there are as many nodes as all caches have blocks, so one is free."""
    scalars = state.scalars
    at = scalars[FREE_NODE]
    node = state.nodes[at]
    scalars[FREE_NODE] = node.chained
    node.slot = slot
    node.segment = segment
    node.blocks = blocks
    node.references = 1
    node.chained = -1
    if segment >= 0:
        bucket = bucket_of(state, slot, segment)
        node.chained = state.table[bucket]
        state.table[bucket] = at
    return at


@compiled
def free_node(state: State, at: Whole) -> None:
    """Forget a node that is in no list."""
    node = state.nodes[at]
    if node.segment >= 0:
        bucket = bucket_of(state, np.int64(node.slot), np.int64(node.segment))
        other = np.int64(state.table[bucket])
        if other == at:
            state.table[bucket] = node.chained
        else:
            while state.nodes[other].chained != at:
                other = np.int64(state.nodes[other].chained)
            state.nodes[other].chained = node.chained
    node.chained = state.scalars[FREE_NODE]
    state.scalars[FREE_NODE] = at


@compiled
def rebuild_table(state: State) -> None:
    """Fill an empty hash table with the nodes that are in use; free ones have no blocks."""
    for at in range(len(state.nodes)):
        node = state.nodes[at]
        if node.blocks > 0 and node.segment >= 0:
            bucket = bucket_of(state, np.int64(node.slot), np.int64(node.segment))
            node.chained = state.table[bucket]
            state.table[bucket] = at


# --- idle nodes -----------------------------------------------------------------------------------------------------


@inlined
def let_go(state: State, slot: Whole, at: Whole) -> None:
    """Nobody holds the node any more: it is the newest of the idle."""
    replica = state.replicas[slot]
    node = state.nodes[at]
    node.references = 0
    node.older = replica.newest
    node.newer = -1
    if replica.newest >= 0:
        state.nodes[replica.newest].newer = at
    else:
        replica.oldest = at
    replica.newest = at
    replica.kv_idle += node.blocks


@compiled
def take_up(state: State, slot: Whole, at: Whole) -> None:
    """The node is idle no longer. Blocks that nothing asks for and that lay on both sides of it are one node then."""
    replica = state.replicas[slot]
    node = state.nodes[at]
    if node.older >= 0:
        state.nodes[node.older].newer = node.newer
    else:
        replica.oldest = node.newer
    if node.newer >= 0:
        state.nodes[node.newer].older = node.older
    else:
        replica.newest = node.older
    replica.kv_idle -= node.blocks
    if node.older >= 0 and node.newer >= 0:
        older, newer = state.nodes[node.older], state.nodes[node.newer]
        if older.segment < 0 and newer.segment < 0:
            merged = np.int64(node.newer)
            older.blocks += newer.blocks
            older.newer = newer.newer
            if newer.newer >= 0:
                state.nodes[newer.newer].older = newer.older
            else:
                replica.newest = newer.older
            newer.blocks = 0
            free_node(state, merged)


@inlined
def let_go_blocks(state: State, slot: Whole, blocks: Whole) -> None:
    """Blocks that nothing will ask for again join the idle."""
    replica = state.replicas[slot]
    if blocks <= 0:
        return
    if replica.newest >= 0 and state.nodes[replica.newest].segment < 0:
        state.nodes[replica.newest].blocks += blocks
        replica.kv_idle += blocks
    else:
        let_go(state, slot, new_node(state, slot, np.int64(-1), blocks))


@inlined
def take_back(state: State, slot: Whole) -> None:
    """Make room for the blocks in use: idle ones go, oldest first, a node's tail before its head."""
    replica = state.replicas[slot]
    excess = replica.kv_used + replica.kv_idle - replica.kv_blocks
    while excess > 0 and replica.oldest >= 0:
        at = replica.oldest
        node = state.nodes[at]
        if node.blocks > excess:
            node.blocks -= excess
            replica.kv_idle -= excess
            return
        excess -= node.blocks
        take_up(state, slot, at)
        node.blocks = 0
        free_node(state, at)


# --- sequences ------------------------------------------------------------------------------------------------------


@inlined
def look_up(state: State, slot: Whole, row: Whole) -> tuple[Whole, Whole, Whole]:
    """What of the request's prompt this replica has cached: segments (the last perhaps in part), blocks of the prompt,
    and how many of these are idle and would be in use if it held them. At least one token is left to compute."""
    request = state.requests[row]
    none = np.int64(0)
    if request.segments == 0 or state.replicas[slot].role == DECODE:
        return none, none, none
    room = (np.int64(request.input) + request.generated - 1) // BLOCK_TOKENS
    segments = blocks = idle = none
    for i in range(request.chain, request.chain + request.segments):
        at = find_node(state, slot, np.int64(state.chains[i, 0]))
        if at < 0 or blocks >= room:
            break
        node = state.nodes[at]
        wanted = np.int64(state.chains[i, 1])
        found = min(np.int64(node.blocks), wanted, room - blocks)
        segments += 1
        blocks += found
        if node.references == 0:
            idle += found
        if found < wanted:
            break
    return segments, blocks, idle


@inlined
def pin(state: State, slot: Whole, row: Whole, segments: Whole, blocks: Whole) -> None:
    """Hold what was looked up.

    What the prompt does not share of an idle node, its tail, is let go. So a request needs as many blocks however much
    of its prompt is idle or taken back meanwhile, and one that finds no room finds none later in the same run.
    """
    request = state.requests[row]
    left = blocks
    for i in range(request.chain, request.chain + segments):
        at = find_node(state, slot, np.int64(state.chains[i, 0]))
        node = state.nodes[at]
        found = min(np.int64(node.blocks), np.int64(state.chains[i, 1]), left)
        left -= found
        if node.references == 0:
            take_up(state, slot, at)
            tail = node.blocks - found
            node.blocks = found
            let_go_blocks(state, slot, tail)
        node.references += 1
    request.pinned = segments
    request.shared = blocks


@inlined
def share_prompt(state: State, slot: Whole, row: Whole) -> None:
    """The prompt has been computed: its segments are in the cache from now on, held by this sequence.

    From a segment on that somebody else has computed meanwhile, the sequence keeps its own copies to itself.
    """
    request = state.requests[row]
    if request.segments == 0 or state.replicas[slot].role == DECODE:
        return
    if request.pinned > 0:
        # the last one may have been there in part only
        last = request.chain + request.pinned - 1
        node = state.nodes[find_node(state, slot, np.int64(state.chains[last, 0]))]
        missing = np.int64(state.chains[last, 1]) - node.blocks
        if missing > 0:
            node.blocks += missing
            request.shared += missing
    for i in range(request.chain + request.pinned, request.chain + request.segments):
        segment = np.int64(state.chains[i, 0])
        if find_node(state, slot, segment) >= 0:
            break
        blocks = np.int64(state.chains[i, 1])
        new_node(state, slot, segment, blocks)
        request.pinned += 1
        request.shared += blocks


@inlined
def release(state: State, slot: Whole, row: Whole, tokens: Whole, continued: bool) -> None:
    """Free the KV blocks of a sequence that holds so many tokens. `continued`: a later call may begin with them."""
    replica = state.replicas[slot]
    request = state.requests[row]
    private = blocks_of(tokens) - request.shared
    replica.kv_used -= private
    if len(state.segments) == 0 or replica.role == DECODE:
        return
    kept = np.int64(0)
    if continued and request.own >= 0 and find_node(state, slot, np.int64(request.own)) < 0:
        kept = min(tokens // BLOCK_TOKENS - request.segment_blocks, private)
    let_go_blocks(state, slot, private - kept)
    if kept > 0:
        let_go(state, slot, new_node(state, slot, np.int64(request.own), kept))
    for i in range(request.chain + request.pinned - 1, request.chain - 1, -1):
        at = find_node(state, slot, np.int64(state.chains[i, 0]))
        node = state.nodes[at]
        node.references -= 1
        if node.references == 0:
            replica.kv_used -= node.blocks
            let_go(state, slot, at)
    request.pinned = 0
    request.shared = 0


@inlined
def forget(state: State, slot: Whole) -> None:
    """The replica is gone, and nobody holds anything there."""
    replica = state.replicas[slot]
    while replica.oldest >= 0:
        at = replica.oldest
        take_up(state, slot, at)
        state.nodes[at].blocks = 0
        free_node(state, at)
