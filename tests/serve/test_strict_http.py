"""What a gateway makes of HTTP that few clients or engines send: one request is one reply, and nothing is kept."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_processes import CHAT, PATIENCE_S, Engine, Exchange, Running, chat, gateway

from autopoiesis.serve.exchange import KEPT_BYTES

LIMITS = {"header_timeout_s": 1.0, "idle_timeout_s": 1.0, "body_timeout_s": 1.0, "write_timeout_s": 1.0}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def running(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with gateway(folder, [engine.url], limits=LIMITS, health={"failures": 1000, "max_ejected": 0.0}) as running:
        yield running


@pytest.fixture(autouse=True)
def as_usual(engine: Engine) -> None:
    engine.answer = lambda exchange: exchange.plain()
    engine.asked.clear()


def said(running: Running, *pieces: bytes) -> bytes:
    """All that comes back until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.01)
        received = b""
        while data := client.recv(65536):
            received += data
        return received


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in (b"host: a", b"content-length: %d" % len(body), *headers))
    return b"POST %b HTTP/1.1\r\n%b\r\n%b" % (CHAT.encode(), lines, body)


BODY = json.dumps(chat()).encode()


@pytest.mark.parametrize("target", [b"/health", b"/metrics", b"/v1/models", b"/v1/models/none", b"/nowhere"])
def test_head_gets_no_body(running: Running, target: bytes) -> None:
    answer = said(running, b"HEAD %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % target)
    assert answer.startswith(b"HTTP/1.1 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1.2", b""])
def test_versions_that_are_not_spoken_are_refused(running: Running, version: bytes) -> None:
    answer = said(running, b"GET /health %b\r\n\r\n" % version)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_http"' in answer


@pytest.mark.parametrize("step", [1_000, 100_000])
def test_a_request_that_offers_another_protocol_is_answered_as_if_it_did_not(
    engine: Engine, running: Running, step: int
) -> None:
    body = json.dumps(chat("x" * 20_000)).encode()
    data = post(body, b"connection: upgrade, http2-settings", b"upgrade: h2c") + post(BODY, b"connection: close")
    answer = said(running, data[:200], *(data[i : i + step] for i in range(200, len(data), step)))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"HTTP/1.1 ") == 2
    assert [sent for _, sent in engine.asked] == [body, BODY]


def test_an_offer_of_another_protocol_may_come_in_chunks(engine: Engine, running: Running) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n" % CHAT.encode()
    chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    answer = said(running, chunked + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert [sent for _, sent in engine.asked] == [BODY]


def test_an_offer_of_another_protocol_hides_no_bad_coding(engine: Engine, running: Running) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n" % CHAT.encode()
    answer = said(running, head + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + post(BODY))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert engine.asked == []


def test_a_trailer_is_no_header(engine: Engine, running: Running) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" % CHAT.encode()
    trailers = b"x-role: admin\r\nx-request-id: trailing\r\nx-request-timeout: soon\r\n"
    answer = said(running, head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(BODY), BODY, trailers))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"trailing" not in answer
    assert "x-role" not in engine.asked[0][0]


@pytest.mark.parametrize(
    "start",
    [
        b"GET /health HTTP/1.1\r\nx: ",
        b"GET /health HTTP/1.1\r\n",
        b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;",
        b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
    ],
)
def test_what_never_ends_is_not_kept(running: Running, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client:
        client.sendall(start)
        for _ in range(4_000):  # 64 MiB, if they were taken
            try:
                client.sendall(b"x" * 2**14)
            except OSError:
                break
            if b"HTTP/1.1 431 " in (answer := _ready(client)):
                assert b'"code":"headers_too_large"' in answer
                return
    raise AssertionError("it was taken")


def _ready(client: socket.socket) -> bytes:
    client.setblocking(False)
    try:
        return client.recv(65536)
    except BlockingIOError:
        return b""
    finally:
        client.settimeout(PATIENCE_S)


def test_a_flood_of_requests_is_answered_in_part_and_leaves_no_bytes_behind(engine: Engine, running: Running) -> None:
    answer = said(running, post(BODY) * 100)
    assert answer.count(b"HTTP/1.1 200 ") == 64
    assert answer.count(b"HTTP/1.1 429 ") == 1
    assert answer.count(b"HTTP/1.1 ") == 65
    running.until(lambda: running.metric("autopoiesis_buffered_bytes") == 0)


def resident(running: Running) -> int:
    """Bytes."""
    return int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]) * 4096


def test_what_large_bodies_took_goes_back_to_the_system(running: Running) -> None:
    before = resident(running)
    for number in (8, 4, 8):
        with ThreadPoolExecutor(number) as clients:
            answers = [clients.submit(running.ask, CHAT, b"x" * 15 * 2**20) for _ in range(number)]
            assert {answer.result().status for answer in answers} == {400}
    running.until(lambda: resident(running) - before < 8 * 2**20)


def test_a_body_in_tiny_chunks_takes_no_more_than_its_bytes(engine: Engine, tmp_path: Path) -> None:
    with (
        gateway(tmp_path, [engine.url]) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client,
    ):
        before = resident(running)
        head = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" % CHAT.encode()
        client.sendall(head + b"2\r\nxx\r\n" * 2**19)
        running.until(lambda: running.metric("autopoiesis_buffered_bytes") == 2**20)
        assert resident(running) - before < 8 * 2**20


def test_a_body_is_kept_once_and_until_its_answer_begins(engine: Engine, running: Running) -> None:
    begin, end = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        assert begin.wait(PATIENCE_S)
        exchange.begin_stream()
        exchange.event("a")
        assert end.wait(PATIENCE_S)
        exchange.end_stream()

    engine.answer = answer
    before = resident(running)
    body = json.dumps(chat("x" * 12 * 2**20, stream=True))
    with ThreadPoolExecutor() as clients:
        answers = [clients.submit(running.ask, CHAT, body) for _ in range(4)]
        running.until(lambda: len(engine.asked) == 4)
        running.until(lambda: resident(running) - before < 60 * 2**20)
        begin.set()
        running.until(lambda: resident(running) - before < 8 * 2**20)
        end.set()
        assert {answer.result().status for answer in answers} == {200}


def test_who_asks_and_never_reads_gets_no_more_than_its_socket_holds(running: Running) -> None:
    before = resident(running)
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as client:
        client.settimeout(0.2)
        try:
            for _ in range(200):
                client.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 100)
        except TimeoutError:
            pass
        assert resident(running) - before < 20 * 2**20


def test_a_connection_to_a_replica_is_read_again_after_a_client_that_did_not_read(
    engine: Engine, running: Running
) -> None:
    large = KEPT_BYTES + 10  # its last piece is the first one that is passed on
    engine.answer = lambda exchange: exchange.plain(b"x" * (large if b"large" in exchange.body else 10))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", running.port))
        client.sendall(post(json.dumps(chat("large")).encode(), b"connection: close"))
        time.sleep(0.2)
        received = 0
        while data := client.recv(65536):
            received += len(data)
    assert received > large
    for _ in range(3):
        assert running.ask(CHAT, chat()).status == 200


def test_two_answers_to_one_request_are_none(engine: Engine, running: Running) -> None:
    first, second = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond",
    )
    engine.answer = lambda exchange: exchange.send(first + second)
    assert running.ask(CHAT, chat()).status == 502


def test_an_answer_that_nobody_asked_for_is_nobodys(engine: Engine, running: Running) -> None:
    def twice(exchange: Exchange) -> None:
        exchange.plain()
        time.sleep(0.1)
        exchange.plain(b'{"for": "nobody"}')

    engine.answer = twice
    assert running.ask(CHAT, chat()).status == 200
    time.sleep(0.3)
    engine.answer = lambda exchange: exchange.plain()
    assert "nobody" not in running.ask(CHAT, chat()).content.decode()


@pytest.mark.parametrize("status", [b"099", b"600", b"999"])
def test_a_status_that_http_does_not_have_is_no_answer(engine: Engine, running: Running, status: bytes) -> None:
    engine.answer = lambda exchange: exchange.send(b"HTTP/1.1 %b X\r\ncontent-length: 0\r\n\r\n" % status)
    assert running.ask(CHAT, chat()).status == 502


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 "], ids=["value", "name", "phrase"]
)
def test_a_replica_s_head_without_end_is_no_answer(engine: Engine, running: Running, start: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(start)
        for _ in range(40):
            exchange.send(b"x" * 2**14)
        exchange.until_left()

    engine.answer = answer
    assert running.ask(CHAT, chat()).status == 502


def test_interim_answers_without_end_are_no_answer(engine: Engine, running: Running) -> None:
    def answer(exchange: Exchange) -> None:
        for _ in range(100):
            exchange.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        exchange.until_left()

    engine.answer = answer
    assert running.ask(CHAT, chat()).status == 502


def test_a_trailer_of_a_replica_changes_nothing(engine: Engine, running: Running) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        exchange.chunk(b"{}")
        exchange.send(b"0\r\ncontent-type: text/html\r\nx-trailer: a\r\n\r\n")

    engine.answer = answer
    answered = running.ask(CHAT, chat())
    assert answered.headers["content-type"] == "application/json"
    assert "x-trailer" not in answered.headers


def test_an_error_that_came_compressed_is_passed_on_plain(engine: Engine, running: Running) -> None:
    head = b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n"
    engine.answer = lambda exchange: exchange.send(head + b"\x1f\x8b\x08")
    answered = running.ask(CHAT, chat())
    assert answered.status == 400
    assert "content-encoding" not in answered.headers
    assert answered.json["error"]["code"] == "engine_error"
