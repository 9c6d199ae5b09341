"""What is taken for a token in a streamed answer, and for a fault."""

from __future__ import annotations

import pytest

from autopoiesis.bench.load.answer import LINE_BYTES, Answer

TOKEN = b'data: {"choices":[{"index":0,"text":" word","finish_reason":null}]}\n\n'


def fed(*pieces: bytes) -> Answer:
    answer = Answer()
    for at_s, piece in enumerate(pieces, 1):
        assert answer.feed(piece, float(at_s)) == ""
    return answer


@pytest.mark.parametrize(
    "choice",
    ['{"text":"a"}', '{"delta":{"content":"a"}}', '{"delta":{"reasoning_content":"a"}}', '{"delta":{"reasoning":"a"}}'],
)
def test_an_event_with_text_is_a_token(choice: str) -> None:
    assert fed(f'data: {{"choices":[{choice}]}}\n\n'.encode()).token_s.tolist() == [1.0]


@pytest.mark.parametrize(
    "event",
    [
        '{"choices":[{"delta":{"role":"assistant","content":""}}]}',
        '{"choices":[{"text":"","finish_reason":"stop"}]}',
        '{"choices":[]}',
        '{"usage":null,"choices":null}',
        "{}",
    ],
)
def test_an_event_without_text_is_none(event: str) -> None:
    assert not fed(f"data: {event}\n\n".encode()).token_s


def test_each_token_has_the_time_at_which_its_event_was_whole() -> None:
    assert fed(TOKEN, TOKEN[:20], TOKEN[20:] + TOKEN).token_s.tolist() == [1.0, 3.0, 3.0]


def test_lines_may_end_with_carriage_returns_and_comments_are_passed_over() -> None:
    assert len(fed(b": ping\r\n\r\n", TOKEN.replace(b"\n", b"\r\n")).token_s) == 1


def test_the_running_usage_counts_where_an_event_brings_several_tokens() -> None:
    def counted(tokens: int) -> bytes:
        return b'data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":4,"completion_tokens":%d}}\n\n' % tokens

    assert fed(counted(1), counted(3)).token_s.tolist() == [1.0, 2.0, 2.0]


def test_the_last_usage_says_how_long_the_prompt_was_and_how_much_of_it_was_cached() -> None:
    usage = '{"prompt_tokens":40,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":16}}'
    answer = fed(TOKEN, f'data: {{"choices":[],"usage":{usage}}}\n\ndata: [DONE]\n\n'.encode())
    assert (answer.prompt_tokens, answer.cached_tokens, len(answer.token_s), answer.done) == (40, 16, 1, True)


@pytest.mark.parametrize(
    "event", ['{"error":{"message":"x"}}', '{"object":"error","message":"x"}', '{"error":"x","choices":7}']
)
def test_an_error_in_the_stream_is_told_apart(event: str) -> None:
    assert Answer().feed(f"data: {event}\n\n".encode(), 1.0) == "error event"


@pytest.mark.parametrize("event", ["{", "7", '{"choices":7}', '{"usage":{"completion_tokens":"many"}}', "\xff"])
def test_an_event_of_another_form_is_malformed(event: str) -> None:
    assert Answer().feed(f"data: {event}\n\n".encode("latin-1"), 1.0) == "malformed"


def test_a_line_without_an_end_is_malformed_in_time() -> None:
    assert Answer().feed(b"x" * (LINE_BYTES + 1), 1.0) == "malformed"


def test_a_count_that_nobody_can_believe_takes_no_memory() -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\n'
    assert len(fed(usage % 10**15).token_s) <= 1_000_000
