"""The load client: what it sends, what it takes for a token, and where it refuses to send."""

from __future__ import annotations

import json

import numpy as np
import pytest
from canned_server import HEAD, Canned, canned_server, event

from autopoiesis.bench.openai_load import Endpoint, LoadResult, send_load
from autopoiesis.errors import ScenarioError
from autopoiesis.workload import Requests
from autopoiesis.workload.requests import single_requests

TOKEN = '{"choices":[{"index":0,"text":" word","finish_reason":null}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}'
LAST = '{"choices":[{"text":"","finish_reason":"length"}],"usage":{"completion_tokens":3}}'
END = event("[DONE]") + b"0\r\n\r\n"


def load(*rows: tuple[float, int, int]) -> Requests:
    arrival_s, prompt, answer = (np.array(column) for column in zip(*rows, strict=True))
    return single_requests(arrival_s.astype(np.float64), prompt, answer)


def send(canned: Canned, requests: Requests, timeout_s: float = 10.0) -> LoadResult:
    with canned_server(canned):
        return send_load(Endpoint(canned.url, "m", 100, 199), requests, seed=3, timeout_s=timeout_s)


def test_events_with_text_are_tokens_and_each_has_the_time_of_its_own_packet() -> None:
    result = send(Canned([HEAD, event(TOKEN), event(TOKEN), event(TOKEN), event(LAST) + END]), load((0.0, 4, 3)))
    (stream,) = result.streams
    assert (result.failures, stream.prompt_tokens, len(stream.token_s)) == ((), 4, 3)
    assert np.all(np.diff(stream.token_s) > 0.01)


def test_the_running_usage_counts_where_tokens_have_no_text() -> None:
    def counted(tokens: int) -> bytes:
        return event(f'{{"choices":[{{"text":""}}],"usage":{{"completion_tokens":{tokens}}}}}')

    # two tokens came in one event
    (stream,) = send(Canned([HEAD, counted(1), counted(3), event(USAGE) + END]), load((0.0, 4, 3))).streams
    first_s, second_s, third_s = stream.token_s
    assert first_s < second_s == third_s


def test_an_event_that_is_torn_between_packets_has_the_time_of_its_end() -> None:
    whole = event(TOKEN)
    (stream,) = send(Canned([HEAD + event(TOKEN) + whole[:30], whole[30:] + END]), load((0.0, 4, 2))).streams
    assert stream.token_s[1] - stream.token_s[0] > 0.01


def test_prompts_are_token_ids_of_the_length_asked_for_and_never_alike() -> None:
    canned = Canned([HEAD + event(TOKEN) + END], pause_s=0.0)
    send(canned, load((0.0, 30, 1), (0.01, 7, 1)))
    bodies = [json.loads(message.partition(b"\r\n\r\n")[2]) for message in canned.asked]
    assert sorted(len(body["prompt"]) for body in bodies) == [7, 30]
    assert all(100 <= token <= 199 for body in bodies for token in body["prompt"])
    assert all(body["ignore_eos"] and body["stream"] and body["max_tokens"] == 1 for body in bodies)
    assert len({tuple(body["prompt"][:7]) for body in bodies}) == 2


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "HTTP status 503"),
        ([HEAD + event(TOKEN) + END], "1 of 2 tokens came"),
        ([HEAD + event('{"error": {"message": "the text of an engine"}}') + END], "the engine answered with an error"),
        ([HEAD + event("{") + END], "an event is not JSON"),
        ([], "no answer in time"),
    ],
)
def test_what_is_not_answered_in_full_has_failed_and_says_why(pieces: list[bytes], reason: str) -> None:
    result = send(Canned(pieces), load((0.0, 4, 2)))
    assert (result.streams, result.failures) == ((), (reason,))


def test_a_load_ends_in_time_whatever_the_engine_does() -> None:
    result = send(Canned([HEAD + event(TOKEN)], stays_open=True), load((0.0, 4, 2), (60.0, 4, 2)), timeout_s=0.5)
    assert len(result.failures) == 2


def test_an_engine_that_is_not_there_is_a_failure_of_each_request() -> None:
    with canned_server(Canned([])) as gone:
        pass
    result = send_load(Endpoint(gone.url, "m", 1, 2), load((0.0, 1, 1)), seed=0, timeout_s=5)
    assert result.failures[0].startswith("cannot connect")


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "127.0.0.1.example.com", "0.0.0.0"])
def test_only_this_machine_is_loaded_unless_that_is_allowed(host: str) -> None:
    with pytest.raises(ScenarioError, match="not an address of this machine"):
        Endpoint(f"http://{host}:8000/v1", "m", 1, 2).address()
    allowed = Endpoint(f"http://{host}:8000/v1", "m", 1, 2, allow_remote=True)
    assert allowed.address() == (host, 8000, "/v1/completions")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_addresses_of_this_machine(host: str) -> None:
    assert Endpoint(f"http://{host}/v1/", "m", 1, 2).address() == (host.strip("[]"), 80, "/v1/completions")


@pytest.mark.parametrize("url", ["https://127.0.0.1/v1", "127.0.0.1:80", "http://127.0.0.1:x/v1", "http:///v1"])
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(ScenarioError, match="must be http://HOST:PORT/v1"):
        Endpoint(url, "m", 1, 2).address()


def test_a_load_is_bounded() -> None:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "m", 1, 2)
    for timeout_s in (0.0, float("nan"), 1e9):
        with pytest.raises(ScenarioError, match="timeout_s"):
            send_load(endpoint, load((0.0, 1, 1)), seed=0, timeout_s=timeout_s)
    with pytest.raises(ScenarioError, match="from 1 to 20000 requests, not 20001"):
        send_load(endpoint, load(*[(0.0, 1, 1)] * 20_001), seed=0, timeout_s=1)
    with pytest.raises(ScenarioError, match="at least one token"):
        send_load(endpoint, load((0.0, 1, 0)), seed=0, timeout_s=1)
