"""What clients see of a gateway: requests go through unharmed, and come to a good end whatever a replica does."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest
from gateway_processes import CHAT, PATIENCE_S, Engine, Exchange, Running, chat, gateway


@pytest.fixture
def running(engine: Engine, tmp_path: Path) -> Iterator[Running]:
    with gateway(tmp_path, [engine.url]) as running:
        yield running


def test_a_body_reaches_the_replica_byte_for_byte(engine: Engine, running: Running) -> None:
    body = b' { "model" : "tiny",\n "messages":[ {"role":"user","content":"\\u00e4 \xc3\xa4"} ], "x":1.50 }'
    assert running.ask(CHAT, body).status == 200
    assert engine.asked[0][1] == body


def test_an_answer_reaches_the_client_as_the_replica_gave_it(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.plain(b'{"any": "thing"}')
    assert running.ask(CHAT, chat()).content == b'{"any": "thing"}'


def test_embeddings_and_completions_are_passed_on(engine: Engine, running: Running) -> None:
    assert running.ask("/v1/embeddings", {"model": "tiny", "input": ["a"]}).status == 200
    assert running.ask("/v1/completions", {"model": "tiny", "prompt": "a"}).status == 200
    assert [json.loads(body).get("input") for _, body in engine.asked] == [["a"], None]


def test_a_stream_comes_event_by_event(engine: Engine, running: Running) -> None:
    go_on = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        assert go_on.wait(PATIENCE_S)
        exchange.event("two")
        exchange.end_stream()

    engine.answer = answer
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
    connection.request("POST", CHAT, json.dumps(chat(stream=True)))
    response = connection.getresponse()
    assert b"one" in response.readline()
    go_on.set()
    assert b"two" in response.read()
    connection.close()


def test_usage_is_asked_for_and_hidden_from_a_client_that_did_not_ask(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.stream("one", "two")
    events = running.ask(CHAT, chat(stream=True)).events
    assert json.loads(engine.asked[0][1])["stream_options"] == {"include_usage": True}
    assert [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]] == ["one", "two"]
    assert events[-1] == "[DONE]"
    assert running.metric('autopoiesis_completion_tokens_total{model="tiny"}') == 2


def test_a_client_that_asks_for_usage_gets_it(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.stream("one")
    events = running.ask(CHAT, chat(stream=True, stream_options={"include_usage": True})).events
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 1


def test_without_accounting_no_body_is_touched(engine: Engine, tmp_path: Path) -> None:
    engine.answer = lambda exchange: exchange.stream("one")
    with gateway(tmp_path, [engine.url], accounting=False) as running:
        running.ask(CHAT, body := json.dumps(chat(stream=True)))
    assert engine.asked[0][1].decode() == body


def test_an_alias_becomes_the_name_that_the_replica_knows(engine: Engine, tmp_path: Path) -> None:
    models = [{"name": "big", "served_as": "tiny", "aliases": ["gpt"]}]
    with gateway(tmp_path, [engine.url], models=models) as running:
        assert running.ask(CHAT, chat(model="gpt")).status == 200
        assert [card["id"] for card in running.ask("/v1/models").json["data"]] == ["big", "gpt"]
    assert json.loads(engine.asked[0][1])["model"] == "tiny"


@pytest.mark.parametrize("path", ["org%2Ftiny%201", "org/tiny%201", "gr%C3%B6%C3%9Fe"])
def test_a_model_is_found_by_its_name_as_it_stands_in_a_path(engine: Engine, tmp_path: Path, path: str) -> None:
    models = [{"name": "org/tiny 1", "aliases": ["größe"], "served_as": "tiny"}]
    with gateway(tmp_path, [engine.url], models=models) as running:
        card = running.ask(f"/v1/models/{path}").json
    assert (card["id"], card["root"]) == (unquote(path), "org/tiny 1")


def test_the_client_s_key_does_not_reach_the_replica(engine: Engine, running: Running) -> None:
    running.ask(CHAT, chat(), authorization="Bearer secret", x_custom="kept")
    headers, _ = engine.asked[0]
    assert "authorization" not in headers
    assert headers["x-custom"] == "kept"


def test_headers_of_the_connection_are_not_passed_on(engine: Engine, running: Running) -> None:
    running.ask(CHAT, chat(), connection="keep-alive, x-private", x_private="1", te="trailers")
    headers, _ = engine.asked[0]
    assert not headers.keys() & {"x-private", "te", "connection"}


def test_request_ids_go_both_ways(engine: Engine, running: Running) -> None:
    assert running.ask(CHAT, chat(), x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    assert engine.asked[0][0]["x-request-id"] == "mine-1"
    assert running.ask(CHAT, chat()).headers["x-request-id"] == engine.asked[1][0]["x-request-id"]


def test_a_trace_goes_on_with_a_span_of_the_gateway_s_own(engine: Engine, running: Running) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    running.ask(CHAT, chat(), traceparent=f"00-{trace}-{parent}-01", tracestate="vendor=1")
    version, same, span, flags = engine.asked[0][0]["traceparent"].split("-")
    assert (version, same, flags) == ("00", trace, "01")
    assert span != parent
    assert engine.asked[0][0]["tracestate"] == "vendor=1"


def test_a_client_that_leaves_cancels_its_request(engine: Engine, running: Running) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        exchange.until_left()

    engine.answer = answer
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
    connection.request("POST", CHAT, json.dumps(chat(stream=True)))
    connection.getresponse().readline()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert engine.left.wait(PATIENCE_S)
    running.until(lambda: running.replica("a")["in_flight"] == 0)
    assert running.metric('autopoiesis_requests_total{model="tiny",status="499"}') == 1


def test_a_client_that_does_not_read_makes_the_engine_wait(engine: Engine, running: Running) -> None:
    sent = 0
    full = threading.Event()

    def answer(exchange: Exchange) -> None:
        nonlocal sent
        exchange.begin_stream()
        exchange.connection.settimeout(2.0)
        try:
            for _ in range(3000):
                exchange.event("x" * 100_000)
                sent += 100_000
        except TimeoutError:
            full.set()

    engine.answer = answer
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        body = json.dumps(chat(stream=True)).encode()
        client.sendall(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
        )
        assert full.wait(PATIENCE_S)
    assert sent < 100_000_000


def test_a_request_that_a_dying_replica_had_goes_to_another(engine: Engine, other: Engine, tmp_path: Path) -> None:
    engine.answer = other.answer = lambda exchange: exchange.cut() if exchange.engine is engine else exchange.plain()
    with gateway(tmp_path, [engine.url, other.url], policy={"router": "round-robin"}) as running:
        assert {running.ask(CHAT, chat()).status for _ in range(4)} == {200}
        assert running.metric('autopoiesis_retries_total{model="tiny"}') >= 1
    assert engine.asked


def test_what_breaks_before_its_first_byte_is_no_broken_stream(engine: Engine, other: Engine, tmp_path: Path) -> None:
    def break_early(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.cut()

    engine.answer = break_early
    other.answer = lambda exchange: exchange.stream("fine")
    with gateway(tmp_path, [engine.url, other.url], policy={"router": "round-robin"}) as running:
        assert all(running.ask(CHAT, chat(stream=True)).events[-1] == "[DONE]" for _ in range(4))
    assert engine.asked


def test_a_stream_that_breaks_ends_in_an_error_event(engine: Engine, running: Running) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        exchange.send(b"40\r\ndata: {half an event")
        exchange.cut()

    engine.answer = answer
    events = running.ask(CHAT, chat(stream=True)).events
    assert json.loads(events[0])["choices"][0]["delta"]["content"] == "one"
    assert json.loads(events[1])["error"].keys() == {"message", "type", "param", "code"}
    assert events[2:] == ["[DONE]"]
    assert running.metric('autopoiesis_broken_streams_total{model="tiny"}') == 1


def test_a_stream_that_has_said_it_is_done_is_whole_even_if_its_encoding_is_not(
    engine: Engine, running: Running
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        exchange.data("[DONE]")
        exchange.cut()

    engine.answer = answer
    events = running.ask(CHAT, chat(stream=True)).events
    assert json.loads(events[0])["choices"][0]["delta"]["content"] == "one"
    assert events[1:] == ["[DONE]"]


def test_connections_to_a_replica_are_kept(engine: Engine, running: Running) -> None:
    for _ in range(10):
        assert running.ask(CHAT, chat()).status == 200
    assert len(set(engine.peers)) == 1


def test_a_connection_that_the_replica_had_closed_is_nobody_s_fault(engine: Engine, running: Running) -> None:
    def answer_and_close(exchange: Exchange) -> None:
        exchange.plain()
        exchange.cut()

    engine.answer = answer_and_close
    assert [running.ask(CHAT, chat()).status for _ in range(10)] == [200] * 10
    assert running.replica("a")["health"] == "healthy"


def test_errors_of_engines_come_in_openai_s_form(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.plain(b'{"detail":"no such voice"}', status=400)
    answer = running.ask(CHAT, chat())
    assert answer.status == 400
    assert answer.json["error"]["message"] == "no such voice"


def test_a_replica_is_not_to_blame_for_what_it_does_not_offer(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.plain(b'{"error":"no embeddings here"}', status=501)
    assert running.ask("/v1/embeddings", {"model": "tiny", "input": "a"}).status == 501
    assert running.metric('autopoiesis_replica_failures_total{replica="a",kind="5xx"}') == 0
    engine.answer = lambda exchange: exchange.plain(b'{"error":"out of order"}', status=500)
    assert running.ask(CHAT, chat()).status == 500
    assert running.metric('autopoiesis_replica_failures_total{replica="a",kind="5xx"}') == 1


def test_a_replica_that_says_it_cannot_serve_is_not_asked_twice(engine: Engine, other: Engine, tmp_path: Path) -> None:
    engine.answer = lambda exchange: exchange.plain(b"{}", status=503)
    with gateway(tmp_path, [engine.url, other.url], policy={"router": "round-robin"}) as running:
        assert {running.ask(CHAT, chat()).status for _ in range(8)} == {200}


def test_a_dead_replica_is_left_out_and_comes_back(engine: Engine, other: Engine, tmp_path: Path) -> None:
    with gateway(tmp_path, [engine.url, other.url]) as running:
        engine.close()
        running.until(lambda: running.replica("a")["health"] in ("ejected", "probing"))
        assert {running.ask(CHAT, chat()).status for _ in range(5)} == {200}
        again = Engine(engine.port)
        running.until(lambda: running.replica("a")["health"] == "healthy")
        again.close()


def test_without_a_replica_requests_wait_for_one(tmp_path: Path) -> None:
    engine = Engine()
    engine.close()
    with gateway(tmp_path, [engine.url], ready=False) as running, ThreadPoolExecutor() as pool:
        answer = pool.submit(running.ask, CHAT, chat())
        running.until(lambda: running.metric('autopoiesis_queued_requests{model="tiny"}') == 1)
        assert running.ask("/ready").json["models_without_replica"] == ["tiny"]
        again = Engine(engine.port)
        assert answer.result().status == 200
        again.close()


def test_who_has_waited_too_long_is_told_so(tmp_path: Path) -> None:
    engine = Engine()
    engine.close()
    with gateway(tmp_path, [engine.url], ready=False, queue={"max_wait_s": 0.2}) as running:
        answer = running.ask(CHAT, chat())
    assert answer.status == 503
    assert answer.json["error"]["code"] == "no_replica"
    assert "retry-after" in answer.headers


def test_a_full_queue_refuses_with_429(engine: Engine, tmp_path: Path) -> None:
    release = threading.Event()

    def answer(exchange: Exchange) -> None:
        release.wait(PATIENCE_S)
        exchange.plain()

    engine.answer = answer
    replicas = [{"id": "a", "url": engine.url, "max_in_flight": 1}]
    with (
        gateway(tmp_path, [], replicas=replicas, queue={"max_requests": 1}) as running,
        ThreadPoolExecutor() as pool,
    ):
        answers = [pool.submit(running.ask, CHAT, chat())]
        running.until(lambda: running.replica("a")["in_flight"] == 1)
        answers.append(pool.submit(running.ask, CHAT, chat()))
        running.until(lambda: running.metric('autopoiesis_queued_requests{model="tiny"}') == 1)
        refused = running.ask(CHAT, chat())
        release.set()
        assert [answer.result().status for answer in answers] == [200, 200]
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")


def test_the_client_s_own_time_limit_ends_its_request_and_is_no_fault_of_the_replica(
    engine: Engine, running: Running
) -> None:
    engine.answer = lambda exchange: exchange.until_left()
    answer = running.ask(CHAT, chat(), x_request_timeout="0.2")
    assert (answer.status, answer.json["error"]["code"]) == (504, "timeout")
    assert engine.left.wait(PATIENCE_S)
    assert running.metric('autopoiesis_replica_failures_total{replica="a",kind="timeout"}') == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_body"),
        (b'{"model": 1}', 400, "invalid_body"),
        (b'{"model": "tiny", "stream": "yes"}', 400, "invalid_body"),
        (b'{"model": "unknown"}', 404, "model_not_found"),
    ],
)
def test_what_cannot_be_served_is_refused(running: Running, body: bytes, status: int, code: str) -> None:
    answer = running.ask(CHAT, body)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_requests_sent_ahead_are_answered_in_order(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.plain(exchange.asked["messages"][0]["content"].encode())
    bodies = [json.dumps(chat(f"number {i}")).encode() for i in range(20)]
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client:
        head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
        client.sendall(b"".join(head % (CHAT.encode(), len(body), body) for body in bodies))
        received = b""
        while received.count(b"number") < 20:
            received += client.recv(65536)
    assert [received.find(b"number %d\r" % i) < received.find(b"number %d\r" % (i + 1)) for i in range(3)]
    assert received.index(b"number 3") < received.index(b"number 15")


def test_keys_are_known_by_their_hashes(engine: Engine, tmp_path: Path) -> None:
    keys = [{"name": "team", "sha256": hashlib.sha256(b"sk-1").hexdigest(), "concurrent": 1}]
    release = threading.Event()

    def answer(exchange: Exchange) -> None:
        release.wait(PATIENCE_S)
        exchange.plain()

    engine.answer = answer
    with gateway(tmp_path, [engine.url], keys=keys) as running, ThreadPoolExecutor() as pool:
        assert running.ask(CHAT, chat()).status == 401
        assert running.ask(CHAT, chat(), authorization="Bearer sk-2").status == 401
        first = pool.submit(running.ask, CHAT, chat(), authorization="Bearer sk-1")
        running.until(lambda: running.replica("a")["in_flight"] == 1)
        assert running.ask(CHAT, chat(), authorization="Bearer sk-1").status == 429
        release.set()
        assert first.result().status == 200
        assert running.metric('autopoiesis_key_requests_total{key="team"}') == 1


def test_a_key_over_its_rate_is_told_when_to_come_again(engine: Engine, tmp_path: Path) -> None:
    keys = [{"name": "team", "sha256": hashlib.sha256(b"sk-1").hexdigest(), "requests_per_minute": 6}]
    with gateway(tmp_path, [engine.url], keys=keys) as running:
        assert running.ask(CHAT, chat(), authorization="Bearer sk-1").status == 200
        refused = running.ask(CHAT, chat(), authorization="Bearer sk-1")
    assert refused.status == 429
    assert 5 <= int(refused.headers["retry-after"]) <= 10


def test_logs_and_metrics_hold_no_prompt_and_no_key(engine: Engine, tmp_path: Path) -> None:
    keys = [{"name": "team", "sha256": hashlib.sha256(b"sk-private").hexdigest()}]
    with gateway(tmp_path, [engine.url], keys=keys, log={"level": "debug", "requests": True}) as running:
        running.ask(CHAT, chat("a secret plan"), authorization="Bearer sk-private")
        running.ask(CHAT, b'{"model": "a secret plan', authorization="Bearer sk-private")
        page = running.ask("/metrics").content.decode()
    said = "\n".join(running.lines) + page
    assert '"key":"team"' in said
    assert "secret plan" not in said
    assert "sk-private" not in said


def test_stopping_finishes_what_is_under_way(engine: Engine, running: Running) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        begun.set()
        assert go_on.wait(PATIENCE_S)
        exchange.event("two")
        exchange.end_stream()

    engine.answer = answer
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(running.ask, CHAT, chat(stream=True))
        assert begun.wait(PATIENCE_S)
        running.process.terminate()
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            running.ask(CHAT, chat())
        go_on.set()
        assert stream.result().events[-1] == "[DONE]"
    assert running.process.wait(PATIENCE_S) == 0


def test_nothing_is_kept_once_requests_have_ended(engine: Engine, running: Running) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.asked.get("stream"):
            exchange.stream("one")
        else:
            exchange.plain(b"{%s}" % (b" " * 3_000_000))

    engine.answer = answer
    for stream in (False, True):
        assert running.ask(CHAT, chat("x" * 1_000_000, stream=stream)).status == 200
    running.until(lambda: running.metric("autopoiesis_buffered_bytes") == 0)
    assert running.replica("a")["in_flight_prompt_tokens"] == 0


def test_a_gateway_whose_buffers_are_full_refuses(engine: Engine, tmp_path: Path) -> None:
    with gateway(tmp_path, [engine.url], limits={"buffered_bytes": 10_000}) as running:
        answer = running.ask(CHAT, chat("x" * 20_000))
        assert (answer.status, answer.json["error"]["code"]) == (503, "out_of_buffers")
        assert running.ask(CHAT, chat()).status == 200


def test_a_large_answer_is_passed_on_before_it_is_whole(engine: Engine, running: Running) -> None:
    engine.answer = lambda exchange: exchange.plain(b"[%s]" % (b"1," * 2_000_000 + b"1"))
    answer = running.ask(CHAT, chat())
    assert (answer.status, len(answer.content)) == (200, 4_000_003)
    assert "content-length" not in answer.headers


def test_head_requests_get_no_body(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client:
        client.sendall(b"HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.endswith(b"\r\n\r\n")
