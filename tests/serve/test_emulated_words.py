"""Prompts and words of the emulated engine: laws that hits in the prefix cache rest on."""

from __future__ import annotations

from array import array
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.emulated.prompt import block_keys, chat_prompt, ids_prompt, text_prompt
from autopoiesis.serve.emulated.words import VOCABULARY, Words, answer_tokens, embedding, text

messages = st.lists(st.tuples(st.sampled_from(["user", "system", "tool"]), st.binary(max_size=200)), max_size=5)


def test_every_word_counts_as_one_token() -> None:
    assert {text_prompt(word, 0).tokens for word in VOCABULARY} == {1}
    assert len(set(VOCABULARY)) == 64


@given(st.integers(0, 2**64 - 1), st.integers(0, 50))
def test_words_drawn_one_by_one_are_the_text(digest: int, count: int) -> None:
    source = Words(digest)
    assert b"".join(source.draw() for _ in range(count)) == text(digest, count)


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_what_begins_alike_has_the_same_blocks_as_far_as_it_does(beginning: bytes, rest: bytes) -> None:
    keys = block_keys(beginning)
    assert len(keys) == len(beginning) // 64
    assert block_keys(beginning + rest)[: len(keys)] == keys


def test_a_difference_shows_in_every_block_from_its_own_on() -> None:
    one, other = (array("I", [first, *range(63)]) for first in (7, 8))
    assert not set(block_keys(one)) & set(block_keys(other))
    assert len(block_keys(one)) == 4


@given(messages, st.binary(max_size=50), st.integers(2, 60))
def test_the_next_turn_begins_with_the_blocks_of_prompt_and_answer(
    before: list[tuple[str, bytes]], question: bytes, answer: int
) -> None:
    prompt = chat_prompt(before, seed=0)
    sequence = prompt.sequence(answer)
    assert sequence.continued is not None
    kept = sequence.continued()
    said = text(prompt.digest, answer)
    following = chat_prompt([*before, ("assistant", said), ("user", question)], seed=0)
    # the last token that is decoded has no KV entry
    assert len(kept) == (sequence.prompt_tokens + answer - 1) // 16
    assert block_keys(following.content)[: len(kept)] == kept
    assert following.tokens >= sequence.prompt_tokens + answer


def test_a_client_that_strips_the_answer_finds_it_all_the_same() -> None:
    said = text(5, 20)
    assert chat_prompt([("assistant", said)], 0).content == chat_prompt([("assistant", said.strip())], 0).content


def test_seed_and_prompt_make_the_digest() -> None:
    digests = {text_prompt(content, seed).digest for content in (b"a", b"b") for seed in (0, 1)}
    assert len(digests) == 4
    assert ids_prompt(array("I", [1]), 0).digest == ids_prompt(array("I", [1]), 0).digest


@pytest.mark.parametrize("wanted", [1, 20, 256])
def test_answers_that_nobody_limits_have_the_mean_that_was_asked_for(wanted: int) -> None:
    lengths = [answer_tokens(text_prompt(b"%d" % i, 0).digest, wanted) for i in range(4000)]
    assert min(lengths) == 1
    assert mean(lengths) == pytest.approx(wanted, rel=0.1)


@given(st.integers(0, 2**64 - 1), st.integers(1, 300))
def test_vectors_have_length_1(digest: int, numbers: int) -> None:
    vector = embedding(digest, numbers)
    assert len(vector) == numbers
    assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)
