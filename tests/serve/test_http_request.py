"""One request over a real socket, and what becomes of it where the other side does not do its part."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from tiny_servers import Reply, TinyServer, answer, endless, hang, raw, reset, serving

from autopoiesis.errors import ReplicaError
from autopoiesis.serve.http_request import Answer, Endpoint, get, post

BYTES_MAX = 10_000


async def _ask(reply: Reply, timeout_s: float = 10.0) -> Answer:
    async with serving(TinyServer({"/": reply})) as server:
        return await get(Endpoint("127.0.0.1", server.port), "/", timeout_s=timeout_s, bytes_max=BYTES_MAX)


def ask(reply: Reply, timeout_s: float = 10.0) -> Answer:
    return asyncio.run(_ask(reply, timeout_s))


def test_an_answer_is_its_status_and_its_body() -> None:
    assert ask(answer(b"well", status=503)) == (503, b"well")


@pytest.mark.parametrize(
    "reply",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Len", b"gth: 4\r\n\r\nwe", b"ll"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n", b"2\r\nll\r\n0\r\n\r\n"),
        raw(b"HTTP/1.0 200 OK\r\n\r\nwe", b"ll"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwellHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"),
    ],
    ids=["pieces", "chunks", "until-the-end", "after-continue", "one-too-many"],
)
def test_a_body_may_come_in_any_form(reply: Reply) -> None:
    assert ask(reply) == (200, b"well")


def test_a_request_says_where_it_goes_and_bears_the_key() -> None:
    async def scenario() -> None:
        async with serving(TinyServer({"/v1/completions": answer()})) as server:
            endpoint = Endpoint("127.0.0.1", server.port, bearer="secret")
            await post(endpoint, "/v1/completions", b'{"a": 1}', timeout_s=10.0, bytes_max=BYTES_MAX)
            ((_, head, body),) = server.asked
            assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n")
            assert b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in head
            assert b"\r\nAuthorization: Bearer secret\r\n" in head
            assert body == b'{"a": 1}'
            assert "secret" not in repr(endpoint)

    asyncio.run(scenario())


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert Endpoint("::1", 80).authority == "[::1]:80"


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (reset, r"the connection failed \(Connection reset by peer\)"),
        (raw(b""), "ended before"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwe"), "ended before"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n"), "ended before"),
        (raw(b"\x16\x03\x01 garbage \xff\xfe\r\n\r\n"), "not HTTP"),
        (raw(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"), "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), "not HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096), "more than 10000 bytes"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"x-flood: y\r\n" * 400), "more than 10000 bytes"),
        (endless(b"HTTP/1.1 200 OK\r\nx-flood: ", b"y" * 4096), "more than 10000 bytes"),
        (endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), "more than 10000 bytes"),
    ],
)
def test_whatever_else_comes_is_one_kind_of_error(reply: Reply, wrong: str) -> None:
    with pytest.raises(ReplicaError, match=wrong):
        ask(reply)


async def half_a_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await hang(writer)


@pytest.mark.parametrize("reply", [hang, half_a_head])
def test_nobody_is_waited_for_longer_than_the_timeout(reply: Reply) -> None:
    with pytest.raises(ReplicaError, match=r"no answer within 0\.05 s"):
        ask(reply, timeout_s=0.05)


def test_an_error_says_nothing_of_what_was_answered() -> None:
    with pytest.raises(ReplicaError) as caught:
        ask(raw(b"secret text"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid", "a..b", "x" * 300])
def test_a_host_where_nobody_listens_is_said_to_be_out_of_reach(host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = Endpoint(host, unused.getsockname()[1])
        with pytest.raises(ReplicaError, match=r"the connection failed|no answer"):
            asyncio.run(get(endpoint, "/", timeout_s=10.0, bytes_max=BYTES_MAX))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    subject = ["-subj", "/CN=replica", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*make, *subject, "-keyout", key, "-out", file], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not installed")
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + file.read_bytes())
    return both


async def _ask_by_tls(certificate: Path, client: ssl.SSLContext) -> Answer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(TinyServer({"/": answer(b"well")}), tls=context) as server:
        return await get(Endpoint("127.0.0.1", server.port, client), "/", timeout_s=10.0, bytes_max=BYTES_MAX)


def test_a_replica_may_be_asked_by_tls(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    assert asyncio.run(_ask_by_tls(certificate, trusting)) == (200, b"well")


def test_a_certificate_that_nobody_vouches_for_is_refused_with_the_mend(certificate: Path) -> None:
    with pytest.raises(ReplicaError, match=r"not trusted; SSL_CERT_FILE"):
        asyncio.run(_ask_by_tls(certificate, ssl.create_default_context()))
