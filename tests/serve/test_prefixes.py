"""What is believed to be cached where: hashes of prompts, and the memory of what was sent to whom."""

from __future__ import annotations

import os
import random
import tracemalloc
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from idle_fleet import idle_fleet

from autopoiesis.serve.prefixes import BLOCK_BYTES, EXTENTS, MOST_BLOCKS, PrefixIndex, blocks

SEED = os.urandom(32)
TOKENS, SIZE = 1_000, 4_000
"""Of a prompt, where they do not matter."""


# --- hashes ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=4_000), st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_prompts_share_as_many_hashes_as_whole_blocks(common: bytes, one: bytes, other: bytes) -> None:
    first, second = common + b"1" + one, common + b"2" + other
    shared = sum(a == b for a, b in zip(blocks(first, seed=SEED), blocks(second, seed=SEED), strict=False))
    assert shared == len([end for end in EXTENTS[1:] if end <= len(common)])


def test_what_comes_after_a_difference_is_never_equal_again() -> None:
    first = random.Random(0).randbytes(100_000)
    second = b"?" + first[1:]
    assert not set(blocks(first, seed=SEED)) & set(blocks(second, seed=SEED))


def test_an_incomplete_last_block_has_no_hash() -> None:
    assert blocks(b"x" * (BLOCK_BYTES - 1), seed=SEED) == ()
    assert len(blocks(b"x" * (2 * BLOCK_BYTES - 1), seed=SEED)) == 1


def test_a_prompt_of_any_length_has_few_hashes_and_they_cover_most_of_a_mebibyte() -> None:
    assert len(blocks(bytes(5 << 20), seed=SEED)) == MOST_BLOCKS
    assert 0.99 * 2**20 < EXTENTS[MOST_BLOCKS] <= 2**20


def test_who_does_not_know_the_seed_does_not_know_the_hashes() -> None:
    prompt = bytes(100_000)
    assert not set(blocks(prompt, seed=SEED)) & set(blocks(prompt, seed=os.urandom(32)))


@given(st.binary(max_size=3_000))
def test_a_view_of_a_prompt_has_the_hashes_of_the_prompt(prompt: bytes) -> None:
    assert blocks(memoryview(b"{" + prompt)[1:], seed=SEED) == blocks(prompt, seed=SEED)


# --- what was sent where --------------------------------------------------------------------------------------------


@dataclass
class Naive:
    """The index's meaning, from the whole history: of every prompt where it went and what was new there."""

    kv_tokens: int
    history: dict[int, list[tuple[tuple[int, ...], int]]] = field(default_factory=dict)

    def depth(self, prompt: tuple[int, ...], slot: int) -> int:
        since = best = 0
        for sent, new in reversed(self.history.get(slot, [])):
            if since > self.kv_tokens:
                break
            # Hashes are chained, so that those in common are those of a common beginning.
            best = max(best, len(set(sent) & set(prompt)))
            since += new
        return best

    def believed(self, prompt: tuple[int, ...], slot: int, tokens: int, size: int) -> int:
        return tokens * EXTENTS[self.depth(prompt, slot)] // size

    def remember(self, prompt: tuple[int, ...], slot: int, tokens: int, size: int) -> None:
        new = tokens - self.believed(prompt, slot, tokens, size)
        self.history.setdefault(slot, []).append((prompt, new))


PROMPTS = st.lists(st.integers(0, 1), max_size=6).map(
    # Chained, so that equal hashes stand at equal depths behind equal beginnings.
    lambda path: tuple(int("1" + "".join(map(str, path[: i + 1])), 2) for i in range(len(path)))
)
SENT = st.tuples(PROMPTS, st.integers(0, 2), st.integers(1, 900))


@settings(max_examples=300)
@given(st.lists(SENT, max_size=25), st.integers(0, 2_000))
def test_a_replica_has_what_it_was_sent_until_its_cache_was_filled_anew(
    sent: list[tuple[tuple[int, ...], int, int]], kv_tokens: int
) -> None:
    index, naive, fleet = PrefixIndex(1_000), Naive(kv_tokens), idle_fleet(3)
    for slot in range(3):
        index.resize(slot, kv_tokens)
    for prompt, slot, tokens in sent:
        size = EXTENTS[len(prompt)] + 100
        if prompt:
            expected = [naive.believed(prompt, replica.slot, tokens, size) for replica in fleet]
            assert index.believed(prompt, fleet, tokens, size) == expected
        index.remember(prompt, slot, tokens, size)
        naive.remember(prompt, slot, tokens, size)


def test_without_blocks_nothing_is_believed() -> None:
    assert PrefixIndex(10).believed((), idle_fleet(3), TOKENS, SIZE) == []


def test_beliefs_are_told_in_the_order_of_the_replicas_asked_for() -> None:
    index, fleet = PrefixIndex(10), idle_fleet(3)
    index.remember((1,), 2, TOKENS, SIZE)
    assert index.believed((1,), [fleet[0], fleet[2]], TOKENS, SIZE) == [0, TOKENS * BLOCK_BYTES // SIZE]


def test_a_replica_that_has_started_anew_has_nothing() -> None:
    index, fleet = PrefixIndex(10), idle_fleet(2)
    index.remember((1, 2), 0, TOKENS, SIZE)
    index.remember((1, 2), 1, TOKENS, SIZE)
    index.forget(0)
    assert index.believed((1, 2), fleet, TOKENS, SIZE)[0] == 0
    assert index.believed((1, 2), fleet, TOKENS, SIZE)[1] > 0
    assert len(index) == 2


def test_to_forget_a_replica_that_nobody_knows_is_nothing() -> None:
    PrefixIndex(10).forget(7)


def test_a_cache_that_turns_out_smaller_has_lost_what_was_sent_first() -> None:
    index, fleet = PrefixIndex(10), idle_fleet(1)
    index.remember((1,), 0, TOKENS, SIZE)
    index.remember((2,), 0, TOKENS, SIZE)
    index.resize(0, TOKENS - 1)
    assert index.believed((1,), fleet, TOKENS, SIZE) == [0]
    assert index.believed((2,), fleet, TOKENS, SIZE) != [0]


# --- bounded memory -------------------------------------------------------------------------------------------------


@given(st.lists(SENT, max_size=40), st.integers(1, 12))
def test_no_more_is_kept_than_there_are_entries(sent: list[tuple[tuple[int, ...], int, int]], entries: int) -> None:
    index = PrefixIndex(entries)
    for prompt, slot, tokens in sent:
        index.remember(prompt, slot, tokens, EXTENTS[len(prompt)] + 100)
        assert len(index) <= entries


@given(st.lists(SENT, min_size=1, max_size=40), st.integers(6, 12))
def test_the_prompt_sent_last_is_known_however_little_is_kept(
    sent: list[tuple[tuple[int, ...], int, int]], entries: int
) -> None:
    index, fleet = PrefixIndex(entries), idle_fleet(1)
    for prompt, _, tokens in sent:
        size = EXTENTS[len(prompt)] + 100
        index.remember(prompt, 0, tokens, size)
        if prompt:
            assert index.believed(prompt, fleet, tokens, size) == [tokens * EXTENTS[len(prompt)] // size]


def test_where_room_is_short_prompts_lose_their_tails_first() -> None:
    index, fleet = PrefixIndex(2), idle_fleet(1)
    index.remember((1, 2, 3), 0, TOKENS, SIZE)
    assert index.believed((1, 2, 3), fleet, TOKENS, SIZE) == [TOKENS * EXTENTS[2] // SIZE]


def test_memory_stays_flat_under_a_flood_of_distinct_prompts() -> None:
    index, rng = PrefixIndex(4_096), random.Random(0)
    for slot in range(8):
        index.resize(slot, 10**9)

    def flood() -> int:
        for _ in range(5_000):
            index.remember((rng.getrandbits(64), rng.getrandbits(64)), rng.randrange(8), TOKENS, SIZE)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        flood()
        before = flood()
        assert flood() < 1.2 * before
        assert before < 400 * 4_096
    finally:
        tracemalloc.stop()
    assert len(index) == 4_096
