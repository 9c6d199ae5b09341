"""Server-sent events on their way through, however the stream is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.events import EVENT_BYTES, Events, EventTooLong, error_event
from autopoiesis.serve.openai import Usage, unavailable

texts = st.text(max_size=20) | st.sampled_from(['"prompt_tokens": 7', "[DONE]", "\n\n", "data: ", ""])
separators = st.sampled_from([b"\n", b"\r\n"])


def event(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def usage_alone(prompt: int, completion: int) -> dict[str, object]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}}


tokens = st.integers(0, 10**9 - 1)
payloads = st.lists(texts.map(event) | st.builds(usage_alone, tokens, tokens), max_size=12)


def stream(payloads: list[dict[str, object]], newline: bytes, *, done: bool = True) -> bytes:
    data = b"".join(b"data: " + json.dumps(payload).encode() + newline * 2 for payload in payloads)
    return data + b"data: [DONE]" + newline * 2 if done else data


def parsed(data: bytes) -> list[object]:
    """As a client reads a stream. Every event is whole."""
    events = data.replace(b"\r\n", b"\n").split(b"\n\n")
    assert events.pop() == b""
    return ["DONE" if e == b"data: [DONE]" else json.loads(e.removeprefix(b"data: ")) for e in events]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


cuts = st.lists(st.integers(0, 10**6), max_size=30)


@given(payloads, separators, cuts)
def test_however_it_is_cut_a_stream_passes_unchanged(
    payloads: list[dict[str, object]], newline: bytes, cuts: list[int]
) -> None:
    data = stream(payloads, newline)
    events = Events(hide_usage=False)
    assert b"".join(events.whole(piece) for piece in pieces(data, cuts)) + events.rest() == data
    assert events.done


@given(payloads, separators, cuts, st.booleans())
def test_what_has_been_passed_on_at_any_moment_is_whole_events(
    payloads: list[dict[str, object]], newline: bytes, cuts: list[int], hide: bool
) -> None:
    events = Events(hide_usage=hide)
    passed = b""
    for piece in pieces(stream(payloads, newline), cuts):
        passed += events.whole(piece)
        parsed(passed)


@given(payloads, separators, cuts)
def test_usage_that_nobody_asked_for_is_taken_out_and_nothing_else(
    payloads: list[dict[str, object]], newline: bytes, cuts: list[int]
) -> None:
    events = Events(hide_usage=True)
    passed = b"".join(events.whole(piece) for piece in pieces(stream(payloads, newline), cuts)) + events.rest()
    assert parsed(passed) == [*(payload for payload in payloads if payload["choices"]), "DONE"]


@given(payloads, separators, cuts, st.booleans())
def test_the_last_usage_is_what_counts(
    payloads: list[dict[str, object]], newline: bytes, cuts: list[int], hide: bool
) -> None:
    events = Events(hide_usage=hide)
    for piece in pieces(stream(payloads, newline), cuts):
        events.whole(piece)
    last = None
    for payload in payloads:
        if isinstance(usage := payload.get("usage"), dict):
            last = Usage(usage["prompt_tokens"], usage["completion_tokens"])
    assert events.usage == last


@given(payloads, separators, cuts, st.booleans())
def test_a_last_event_without_its_blank_line_is_an_event_like_the_others(
    payloads: list[dict[str, object]], newline: bytes, cuts: list[int], hide: bool
) -> None:
    payloads = [*payloads, usage_alone(3, 4)]
    data = stream(payloads, newline, done=False).rstrip()
    events = Events(hide_usage=hide)
    passed = b"".join(events.whole(piece) for piece in pieces(data, cuts)) + events.rest()
    assert parsed(passed) == [payload for payload in payloads if payload["choices"] or not hide]
    assert events.usage == Usage(3, 4)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_stream_is_done_even_if_its_last_blank_line_is_missing(newline: bytes) -> None:
    events = Events(hide_usage=False)
    events.whole(stream([event("a")], newline).rstrip())
    assert events.done


def test_a_stream_that_only_speaks_of_done_is_not_done() -> None:
    events = Events(hide_usage=False)
    events.whole(stream([event("[DONE]")], b"\n", done=False))
    assert not events.done


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    events = Events(hide_usage=False)
    piece = b"x" * (EVENT_BYTES // 4)
    for _ in range(4):
        assert events.whole(piece) == b""
    with pytest.raises(EventTooLong):
        events.whole(piece)


def test_an_error_event_is_an_openai_error_and_the_end() -> None:
    error, done = parsed(error_event(unavailable("it is gone", "gone")))
    assert isinstance(error, dict)
    assert error["error"] == {"message": "it is gone", "type": "server_error", "param": None, "code": "gone"}
    assert done == "DONE"
