"""Prompts as chains of segments: what of it another prompt may begin with too.

Where a trace names the blocks of its prompts (`Requests.block_ids`), every block is a segment. In a session without
such names, what a call adds to the conversation, its new prompt tokens and its answer, is one segment, and the next
call's chain is as much of the earlier calls' as its `prefix_tokens` say. Segments are whole KV blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.jit import compiled
from autopoiesis.simulate.layout import BLOCK_TOKENS, Records, Whole
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, Requests

Columns = tuple[NDArray[np.int64], ...]


def build_chains(rows: NDArray[Any], requests: Requests) -> tuple[NDArray[np.int32], int]:
    """(k, 2) segments and their KV blocks, request by request; and how many segments there are.

    Fills the columns `chain`, `segments`, `segment_blocks` and `own` of `rows` (n,) REQUEST.
    """
    rows["own"] = -1
    named = requests.block_count > 0
    sessions = requests.previous >= 0
    if not (named.any() or sessions.any()):
        return np.zeros((0, 2), dtype=np.int32), 0
    names, ids = np.unique(requests.block_ids, return_inverse=True)
    continued = np.zeros(len(rows), dtype=bool)
    continued[requests.previous[sessions]] = True
    continued &= ~named
    rows["own"][continued] = len(names) + np.arange(int(continued.sum()))
    count = len(names) + int(continued.sum())
    columns = (
        ids.astype(np.int64),
        requests.block_start,
        requests.block_count,
        requests.previous,
        np.minimum(requests.prefix_tokens, requests.input_tokens),
    )
    nothing = np.zeros((0, 2), dtype=np.int32)
    stamps = np.zeros(count, dtype=np.int64)
    blocks_each = PREFIX_BLOCK_TOKENS // BLOCK_TOKENS
    chains = np.zeros((fill_chains(rows, columns, blocks_each, stamps, nothing), 2), dtype=np.int32)
    return chains[: fill_chains(rows, columns, blocks_each, stamps, chains)], count


@compiled
def fill_chains(
    rows: Records, columns: Columns, blocks_each: Whole, stamps: NDArray[np.int64], chains: NDArray[np.int32]
) -> Whole:
    """Write every request's chain; how many entries there are. With no room in `chains`, how many there can be.

    `stamps` says for each segment the last request whose chain has it, so that a chain has none twice.
    """
    ids, start, count, previous, prefix = columns
    writes = len(chains) > 0
    stamps[:] = -1
    at = np.int64(0)
    for row in range(len(rows)):
        request = rows[row]
        request.chain = at
        blocks = np.int64(0)
        most = np.int64(request.input) // BLOCK_TOKENS
        if count[row] > 0:
            for i in range(start[row], start[row] + count[row]):
                if blocks + blocks_each > most or stamps[ids[i]] == row:
                    break
                stamps[ids[i]] = row
                if writes:
                    chains[at, 0] = ids[i]
                    chains[at, 1] = blocks_each
                at += 1
                blocks += blocks_each
        elif previous[row] >= 0:
            before = rows[previous[row]]
            most = prefix[row] // BLOCK_TOKENS
            if not writes:
                # how many of the earlier calls' segments `prefix` reaches is known only from their chains
                at += before.segments + 1
            else:
                for i in range(before.chain, before.chain + before.segments):
                    if blocks >= most:
                        break
                    part = min(np.int64(chains[i, 1]), most - blocks)
                    chains[at, 0] = chains[i, 0]
                    chains[at, 1] = part
                    blocks += part
                    at += 1
                # the last token that a call decodes has no KV entry
                whole = (np.int64(before.input) + max(np.int64(before.output), np.int64(1)) - 1) // BLOCK_TOKENS
                left = min(whole - before.segment_blocks, most - blocks)
                if left > 0 and before.own >= 0 and blocks == before.segment_blocks:
                    chains[at, 0] = before.own
                    chains[at, 1] = left
                    blocks += left
                    at += 1
        request.segments = at - request.chain
        request.segment_blocks = blocks
    return at
