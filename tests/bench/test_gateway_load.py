"""The load on gateways: what it sends, what it takes for an answer, and how it names what is none."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from canned_server import Canned, canned_server
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.bench.gateway.answer import Answer, Ending, Malformed
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.load import Load
from autopoiesis.bench.gateway.load_plan import LoadPlan, Report
from autopoiesis.bench.gateway.processes import Cores
from autopoiesis.bench.gateway.ticket import Ticket, stamp_in, ticket_in

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ERROR = '{"error":{"message":"the replica was lost","type":"server_error"}}'


def chunked(*events: str) -> bytes:
    """Events of a stream and the end of its encoding."""
    datas = [f"data: {event}\n\n".encode() for event in events]
    return b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in datas) + b"0\r\n\r\n"


def token(number: int) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": f"[{number:010} 1000000 2000000]"}}]})


def plain(content: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()


def completion(number: int, tokens: int = 3) -> str:
    message = {"role": "assistant", "content": f"[{number:010} 1000000 2000000]"}
    return json.dumps({"choices": [{"message": message}], "usage": {"completion_tokens": tokens}})


def ending_of(data: bytes, *, stream: bool, number: int = 7, tokens: int = 3) -> Ending:
    """What a client makes of bytes that come at once."""
    answer = Answer(number, tokens, stream=stream)
    assert answer.feed(data, 3_000_000)
    return answer.ending


WHOLE = SSE + chunked(*[token(7)] * 3, "[DONE]")
BROKEN = SSE + chunked(token(7), ERROR, "[DONE]")

# --- answers --------------------------------------------------------------------------------------------------------


def test_a_stream_with_all_its_tokens_is_whole() -> None:
    assert ending_of(WHOLE, stream=True) is Ending.WHOLE


def test_a_plain_answer_to_its_request_is_whole() -> None:
    assert ending_of(plain(completion(7)), stream=False) is Ending.WHOLE


def test_a_stream_that_ends_in_an_error_and_done_has_ended_in_an_error_event() -> None:
    assert ending_of(BROKEN, stream=True) is Ending.ERROR_EVENT


def test_a_stream_that_ends_in_an_error_without_done_is_malformed() -> None:
    assert ending_of(SSE + chunked(token(7), ERROR), stream=True) is Ending.MALFORMED


@pytest.mark.parametrize("events", [(token(7), "[DONE]"), (token(7),) * 3])
def test_a_stream_that_lacks_tokens_or_done_and_does_not_say_so_is_short(events: tuple[str, ...]) -> None:
    assert ending_of(SSE + chunked(*events), stream=True) is Ending.SHORT


def test_an_error_in_openais_form_is_a_refusal() -> None:
    assert ending_of(plain(ERROR, "503 Service Unavailable"), stream=False) is Ending.REFUSED


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        pytest.param(plain(completion(8)), False, id="answer to another request"),
        pytest.param(plain(completion(7, tokens=9)), False, id="usage of another answer"),
        pytest.param(plain("{}"), False, id="no completion"),
        pytest.param(plain("no JSON", "500 Oh"), False, id="error without form"),
        pytest.param(plain(completion(7)) + b"x", False, id="more than its length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", False, id="no framing"),
        pytest.param(b"SSH-2.0\r\n\r\n", False, id="no HTTP"),
        pytest.param(plain(completion(7)), True, id="no stream"),
        pytest.param(SSE + chunked(token(8)), True, id="another request's token"),
        pytest.param(SSE + chunked("{"), True, id="no JSON in an event"),
        pytest.param(SSE + chunked('{"choices":[]}'), True, id="usage that nobody asked for"),
        pytest.param(SSE + chunked(ERROR, token(7)), True, id="a token after the error"),
        pytest.param(SSE + chunked("[DONE]", token(7)), True, id="a token after the end"),
        pytest.param(SSE + b"zz\r\n", True, id="no chunk"),
        pytest.param(SSE + b"1\r\nabc", True, id="chunk longer than its size"),
        pytest.param(WHOLE + b"x", True, id="more than the last chunk"),
    ],
)
def test_what_breaks_the_protocol_or_belongs_to_another_request_is_malformed(data: bytes, stream: bool) -> None:
    with pytest.raises(Malformed):
        ending_of(data, stream=stream)


@given(st.sampled_from([(WHOLE, True), (BROKEN, True), (plain(completion(7)), False)]), st.data())
def test_an_answer_means_the_same_wherever_reads_part_it(sample: tuple[bytes, bool], data: st.DataObject) -> None:
    content, stream = sample
    cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=12)))
    answer = Answer(7, 3, stream=stream)
    overs = [answer.feed(content[a:b], 3_000_000) for a, b in pairwise((0, *cuts, len(content)))]
    assert overs == [False] * len(cuts) + [True]
    assert answer.ending is ending_of(content, stream=stream)


@given(st.integers(0, 10**10 - 1), st.integers(0, 10**5), st.integers(0, 10**5), st.text())
def test_a_ticket_comes_through_any_text_around_it(number: int, first: int, each: int, text: str) -> None:
    ticket = Ticket(number, first, each)
    assert ticket_in(f"{re.sub('[][]', '', text)}{ticket}") == ticket


def test_text_without_a_ticket_asks_for_no_delay_and_text_that_is_no_stamp_is_none() -> None:
    assert ticket_in("hello") == (0, 0, 0)
    assert stamp_in("hello") is None


# --- stub engine ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with Engines(Cores.of_this_process(), tmp_path_factory.mktemp("engines")) as running:
        yield running


def ask(port: int, **fields: Any) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        content = json.dumps({"model": "stub", "messages": [{"role": "user", "content": "hello"}], **fields})
        connection.request("POST", "/v1/chat/completions", content)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_engine_streams_as_many_tokens_as_are_asked_for(engines: Engines, name: str) -> None:
    events = ask(engines.ports[0], stream=True, **{name: 5}).split("\n\n")
    assert (events[-2:], sum('"content"' in event for event in events)) == (["data: [DONE]", ""], 5)


def test_the_engine_tells_usage_in_a_stream_only_if_it_is_asked_to(engines: Engines) -> None:
    asked = ask(engines.ports[0], stream=True, stream_options={"include_usage": True})
    assert ("usage" in asked, "usage" in ask(engines.ports[0], stream=True)) == (True, False)


def test_the_engine_counts_requests_with_a_ticket_and_no_probes(engines: Engines) -> None:
    port = engines.ports[1]
    before = engines.state(port)["answered"]
    ask(port)
    ask(port, messages=[{"role": "user", "content": str(Ticket(1, 0, 0))}])
    assert engines.state(port) == {"running": 0, "answered": before + 1}


# --- loads ----------------------------------------------------------------------------------------------------------


def report_of(port: int, **fields: Any) -> Report:
    plan: dict[str, Any] = {"port": port, "key": "k", "seconds": 20.0, "connections": 4}
    return asyncio.run(Load(LoadPlan(**plan | fields)).run())


def port_of(canned: Canned) -> int:
    return int(canned.url.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize("stream", [False, True])
def test_every_request_gets_its_own_answer_and_the_engine_answers_as_many(engines: Engines, stream: bool) -> None:
    before = engines.state(engines.ports[0])["answered"]
    report = report_of(engines.ports[0], requests=100, stream=stream, tokens=8, each_ms=1)
    assert report.endings == {Ending.WHOLE: 100}
    assert report.tokens == (800 if stream else 100)
    assert engines.state(engines.ports[0])["answered"] == before + 100


def test_what_the_engine_takes_is_not_added_by_the_gateway(engines: Engines) -> None:
    report = report_of(engines.ports[0], requests=8, first_ms=200)
    assert report.total is not None
    assert report.added is not None
    assert report.total.p50 >= 200 > report.added.p50


def test_an_answer_that_is_cut_off_is_named_so() -> None:
    with canned_server(Canned([SSE + chunked(token(1))[:-5]])) as canned:
        report = report_of(port_of(canned), connections=1, requests=1, stream=True)
    assert report.endings == {Ending.CUT: 1}
    assert report.reasons == {"cut: after the first token": 1}


def test_a_request_of_which_nothing_is_heard_hangs() -> None:
    with canned_server(Canned([], stays_open=True)) as canned:
        report = report_of(port_of(canned), connections=1, requests=1, patience_s=0.1)
    assert report.endings == {Ending.HUNG: 1}


def test_a_gateway_that_does_not_listen_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert report_of(port, requests=8).endings == {Ending.UNREACHABLE: 8}


@pytest.mark.parametrize("wrong", [{"seconds": 61.0}, {"seconds": 0.0}, {"requests": 200_001}, {"tempo": 1}])
def test_a_load_without_bounds_is_refused(wrong: dict[str, float]) -> None:
    plan: dict[str, Any] = {"port": 1, "key": "k", "seconds": 1.0, "connections": 1}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(plan | wrong, LoadPlan)


def test_a_replica_that_was_killed_is_gone_and_comes_back_at_its_port(tmp_path: Path) -> None:
    with Engines(Cores.of_this_process(), tmp_path, apart=True) as apart:
        kept, killed = apart.ports
        apart.kill(killed)
        assert report_of(killed, requests=4).endings == {Ending.UNREACHABLE: 4}
        assert report_of(kept, requests=4).endings == {Ending.WHOLE: 4}
        apart.restart(killed)
        assert report_of(killed, requests=4).endings == {Ending.WHOLE: 4}
