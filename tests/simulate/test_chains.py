"""Prompts as chains of segments, from the blocks that a trace names and from sessions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_scenes import calls

from autopoiesis.simulate.chains import build_chains
from autopoiesis.simulate.layout import BLOCK_TOKENS
from autopoiesis.simulate.records import request_records
from autopoiesis.workload import Requests


def chains_of(requests: Requests) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """Each request's segments with their blocks, and its own segment."""
    rows = request_records(requests, closed_loop=True)
    chains, count = build_chains(rows, requests)
    found = []
    for row in rows:
        part = chains[row["chain"] : row["chain"] + row["segments"]]
        assert row["segment_blocks"] == part[:, 1].sum()
        assert np.all(part[:, 1] > 0)
        found.append([(int(segment), int(blocks)) for segment, blocks in part])
    own = rows["own"].tolist()
    named = {segment for chain in found for segment, _ in chain} | {segment for segment in own if segment >= 0}
    assert named <= set(range(count))
    return found, own


def test_requests_without_sessions_or_blocks_have_no_segments() -> None:
    assert chains_of(calls((0.0, 5000, 5), (1.0, 5000, 5))) == ([[], []], [-1, -1])


def test_named_blocks_are_segments_as_far_as_the_prompt_fills_them() -> None:
    chains, own = chains_of(calls((0.0, 1100, 5), (1.0, 1600, 5), blocks=[(70, 80), (70, 80, 90)]))
    assert chains == [[(0, 32), (1, 32)], [(0, 32), (1, 32), (2, 32)]]
    assert own == [-1, -1]


def test_what_a_call_adds_to_its_conversation_is_a_segment_that_the_next_call_begins_with() -> None:
    rows = calls((0.0, 100, 29), (1.0, 160, 17), (2.0, 200, 5), previous=[-1, 0, 1], prefix=[0, 128, 176])
    chains, own = chains_of(rows)
    # 100 prompt tokens and 28 with KV entries are 8 blocks; the next call's 160 and 16 are 11
    assert own == [0, 1, -1]
    assert chains == [[], [(0, 8)], [(0, 8), (1, 3)]]


def test_a_call_that_reuses_less_ends_its_chain_there() -> None:
    rows = calls((0.0, 100, 29), (1.0, 160, 17), (2.0, 200, 5), previous=[-1, 0, 1], prefix=[0, 128, 70])
    assert chains_of(rows)[0][2] == [(0, 4)]


@st.composite
def conversations(draw: st.DrawFn) -> Requests:
    rows, previous, prefix = [], [], []
    ends: list[int] = []
    for i in range(draw(st.integers(1, 25))):
        rows.append((float(i), draw(st.integers(1, 400)), draw(st.integers(0, 60))))
        before = draw(st.sampled_from([-1, *ends]))
        previous.append(before)
        prefix.append(draw(st.integers(0, 500)) if before >= 0 else 0)
        if before >= 0:
            ends.remove(before)
        ends.append(i)
    return calls(*rows, previous=previous, prefix=prefix)


@settings(max_examples=200, deadline=None)
@given(conversations())
def test_a_call_begins_as_the_one_before_it_went(requests: Requests) -> None:
    chains, own = chains_of(requests)
    for row, chain in enumerate(chains):
        before = int(requests.previous[row])
        reused = min(int(requests.prefix_tokens[row]), int(requests.input_tokens[row]))
        assert sum(blocks for _, blocks in chain) <= reused // BLOCK_TOKENS
        if before < 0:
            assert chain == []
            continue
        # the earlier call's segments in their order, the last perhaps in part, then its own
        offered = [*chains[before], (own[before], 10**9)]
        for position, (segment, blocks) in enumerate(chain):
            assert segment == offered[position][0]
            assert blocks <= offered[position][1]
        assert all(blocks == offered[position][1] for position, (_, blocks) in enumerate(chain[:-1]))
    used = [segment for segment in own if segment >= 0]
    assert len(set(used)) == len(used)
    assert all(a < b for a, b in pairwise(used))
