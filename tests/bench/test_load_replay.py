"""What a load does on the wire: when it sends, what it sends, and how it tells errors apart."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from canned_server import Canned, canned_server
from streaming_server import HEAD, TEMPLATE_TOKENS, Server, streaming_server

from autopoiesis.bench.load import Asking, Endpoint, Kind, Replay, Result, Settings, send
from autopoiesis.errors import AutopoiesisError, ScenarioError
from autopoiesis.workload import SLO, Requests
from autopoiesis.workload.requests import single_requests

BOUND_S = 1.0
"""What a busy machine may delay."""


def singles(count: int, gap_s: float = 0.0, prompt: int = 5, answer: int = 3) -> Requests:
    return single_requests(gap_s * np.arange(count, dtype=np.float64), np.full(count, prompt), np.full(count, answer))


def conversation(think_s: tuple[float, ...], arrival_s: tuple[float, ...]) -> Requests:
    n = len(think_s)
    prompts = 10 + 20 * np.arange(n)
    prefix = np.concatenate([[0], prompts[:-1]])
    columns = replace(single_requests(np.array(arrival_s), prompts, np.full(n, 3)), prefix_tokens=prefix)
    return replace(columns, previous=np.arange(-1, n - 1), think_s=np.array(think_s))


def sent(server: Server, requests: Requests, settings: Settings | None = None, kind: Kind = Kind.COMPLETIONS) -> Result:
    with streaming_server(server):
        return send(Endpoint(server.url, "m", kind), requests, settings or Settings())


# --- when --------------------------------------------------------------------------------------------------------


def test_requests_go_out_at_their_times_whether_or_not_there_is_an_answer() -> None:
    server = Server(faults={0: "hang", 1: "hang"})
    result = sent(server, singles(4, gap_s=0.2), Settings(timeout_s=0.9))
    began_s = np.array(server.began_s) - server.began_s[0]
    assert np.all(began_s > np.array([-1, 0.1, 0.3, 0.5]))
    assert np.all(result.came.late_s < BOUND_S)
    assert result.came.faults == ("timeout", "timeout", "", "")


def test_the_next_call_of_a_session_follows_the_end_of_the_one_before_and_its_think_time() -> None:
    server = Server(token_s=0.03)
    # recorded, the calls would have come at once
    sent(server, conversation((0.0, 0.15, 0.3), (0.0, 0.001, 0.002)))
    for call, think_s in ((1, 0.15), (2, 0.3)):
        thought_s = server.began_s[call] - server.ended_s[call - 1]
        assert think_s - 0.01 < thought_s < think_s + BOUND_S
    assert [len(body["prompt"]) for body in server.asked] == [10, 30, 50]


def test_a_session_goes_on_after_a_call_that_failed() -> None:
    server = Server(faults={0: "status 503"})
    result = sent(server, conversation((0.0, 0.05), (0.0, 0.0)))
    assert result.came.faults == ("status 503", "")


def test_in_an_open_loop_calls_of_sessions_arrive_as_recorded() -> None:
    server = Server(token_s=0.3)
    sent(server, conversation((0.0, 60.0), (0.0, 0.1)), Settings(closed_loop=False))
    assert server.began_s[1] < server.ended_s[0]


def test_no_more_requests_than_the_limit_are_under_way() -> None:
    server = Server(token_s=0.01)
    result = sent(server, singles(8), Settings(concurrency_limit=3))
    events = [(at_s, 1) for at_s in server.began_s] + [(at_s, -1) for at_s in server.ended_s.values()]
    # an answer has ended for the client a little before it has for the server
    assert max(np.cumsum([step for _, step in sorted(events)])) <= 4
    assert server.connections <= 4
    assert not result.came.errors()


def test_a_load_that_is_stopped_gives_up_what_is_under_way_and_tells_the_rest() -> None:
    server = Server(faults={1: "hang"})

    async def attend(replay: Replay) -> None:
        while len(replay.ended) < 1 or replay.running < 1:
            await asyncio.sleep(0.01)
        replay.stop()

    with streaming_server(server):
        result = send(Endpoint(server.url, "m"), singles(3, gap_s=0.3), Settings(), attend)
    assert (result.came.cut, result.came.faults) == (1, ("",))


# --- what --------------------------------------------------------------------------------------------------------


def test_a_prompt_of_completions_is_token_ids_and_an_answer_as_long_as_planned() -> None:
    server = Server()
    result = sent(server, singles(2, prompt=30, answer=4), Settings(first_token=100, last_token=199))
    for body in server.asked:
        assert len(body["prompt"]) == 30
        assert all(100 <= token <= 199 for token in body["prompt"])
        assert (body["model"], body["max_tokens"], body["ignore_eos"], body["stream"]) == ("m", 4, True, True)
        assert body["stream_options"]["include_usage"] is True
        assert "min_tokens" not in body
    assert result.came.served.output_tokens.tolist() == [4, 4]


def test_what_is_no_part_of_the_protocol_can_be_left_out() -> None:
    server = Server()
    sent(server, singles(1), Settings(asking=Asking(ignore_eos=False, running_usage=False)))
    assert set(server.asked[0]) == {"model", "temperature", "stream", "stream_options", "max_tokens", "prompt"}
    assert server.asked[0]["stream_options"] == {"include_usage": True}


def test_a_chat_learns_first_how_many_tokens_a_word_is_and_says_how_long_prompts_really_were() -> None:
    server = Server()
    result = sent(server, singles(2, prompt=101), kind=Kind.CHAT)
    assert [len(body["messages"][0]["content"].split()) for body in server.asked[2:]] == [47, 47]
    assert result.came.prompt_tokens.tolist() == [94 + TEMPLATE_TOKENS] * 2
    assert result.came.rows.tolist() == [0, 1]


def test_a_chat_that_does_not_answer_is_an_error_before_the_load() -> None:
    with pytest.raises(AutopoiesisError, match=r"did not answer a short chat request \(status 404\)"):
        sent(Server(faults={0: "status 404"}), singles(2), kind=Kind.CHAT)


def test_connections_are_used_again_and_only_where_that_is_wanted() -> None:
    for keep_alive, connections in ((True, 1), (False, 4)):
        server = Server()
        sent(server, singles(4), Settings(keep_alive=keep_alive, concurrency_limit=1))
        assert server.connections == connections


def test_a_key_is_sent_and_shown_nowhere() -> None:
    server = Server()
    with streaming_server(server):
        endpoint = Endpoint(server.url, "m", api_key="sk-secret")
        send(endpoint, singles(1), Settings())
    assert b"Authorization: Bearer sk-secret\r\n" in server.heads[0]
    assert "secret" not in repr(endpoint)


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A file with a key and a certificate of this machine that it signed itself."""
    made = tmp_path / "made.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-days", "1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made), "-out", str(made)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return str(made)


def test_an_endpoint_with_tls_is_loaded_as_one_without(certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    result = sent(Server(certificate=certificate), singles(3))
    assert result.came.faults == ("", "", "")


def test_a_certificate_that_nobody_vouches_for_is_not_spoken_to(certificate: str) -> None:
    assert sent(Server(certificate=certificate), singles(1)).came.faults == ("connect",)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status 503", "status 503"),
        ("status 429", "status 429"),
        ("reset", "reset"),
        ("hang", "timeout"),
        ("error event", "error event"),
        ("malformed", "malformed"),
        ("end early", "malformed"),
    ],
)
def test_an_error_is_counted_by_its_kind_and_harms_no_other_request(fault: str, kind: str) -> None:
    server = Server(faults={1: fault})
    result = sent(server, singles(4), Settings(timeout_s=1.5, concurrency_limit=1))
    assert result.came.faults == ("", kind, "", "")
    assert result.came.errors() == {kind: 1}
    assert result.measured(SLO(1e6)).completed == 3


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([b"HTTP/1.1 502 Bad Gateway\r\n\r\n"], "status 502"),
        ([b"SSH-2.0-OpenSSH\r\n"], "malformed"),
        ([HEAD + b"zz\r\n"], "malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"], "malformed"),
        ([], "reset"),
        ([HEAD + b"20\r\ndata: "], "reset"),
    ],
)
def test_an_answer_that_breaks_the_protocol_has_a_kind_too(pieces: list[bytes], kind: str) -> None:
    with canned_server(Canned(pieces, pause_s=0.0)) as server:
        assert send(Endpoint(server.url, "m"), singles(1), Settings()).came.faults == (kind,)


def test_an_endpoint_that_is_not_there_is_an_error_of_each_request() -> None:
    with canned_server(Canned([])) as gone:
        pass
    assert send(Endpoint(gone.url, "m"), singles(3), Settings()).came.errors() == {"connect": 3}


# --- where -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "127.0.0.1.example.com", "0.0.0.0"])
def test_only_this_machine_is_loaded_unless_that_is_allowed(host: str) -> None:
    with pytest.raises(ScenarioError, match="not an address of this machine"):
        Endpoint(f"http://{host}:8000/v1", "m").address()
    allowed = Endpoint(f"http://{host}:8000/v1", "m", allow_remote=True).address()
    assert (allowed.host, allowed.port, allowed.path) == (host, 8000, "/v1/completions")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_addresses_of_this_machine(host: str) -> None:
    address = Endpoint(f"http://{host}/v1/", "m", Kind.CHAT).address()
    assert (address.host, address.port, address.path) == (host.strip("[]"), 80, "/v1/chat/completions")


def test_a_url_without_a_path_is_of_version_one() -> None:
    assert Endpoint("https://localhost", "m").address().path == "/v1/completions"
    assert Endpoint("https://localhost", "m").address().port == 443


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:80", "http://127.0.0.1:x/v1", "http:///v1", "x"])
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(ScenarioError, match="must be http://HOST:PORT/v1 or https"):
        Endpoint(url, "m").address()


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ScenarioError, match="must have no user") as refused:
        Endpoint("http://me:secret@127.0.0.1/v1", "m").address()
    assert "secret" not in str(refused.value)
