"""Clients that are not clear about where a request begins or ends, so that somebody might take its inside for another.

Inside is a whole request with a tag of its own: it must reach no engine, and no reply may come for it.
"""

from __future__ import annotations

from hostile.acts import act
from hostile.good import check_plain
from hostile.replies import Violation
from hostile.talk import CHAT, Target, chat_bytes


def inside(target: Target) -> bytes:
    """A request that must not be seen."""
    return target.post(chat_bytes(target.hidden()))


@act(8)
async def two_ways_to_end(target: Target) -> None:
    """A length beside chunks, or transfer codings that one server understands and another does not."""
    async with target.talk() as talk:
        hidden = inside(target)
        encodings = [
            *(b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked", b"Transfer-Encoding:\tchunked"),
            *(b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked"),
            *(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: identity"),
            *(
                b"Transfer-Encoding\t: chunked",
                b"Transfer-Encoding: chunked, identity",
                b"X: y\nTransfer-Encoding: chunked",
            ),
            *(b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \x00chunked", b"Transfer-Encoding:\r\n chunked"),
        ]
        lines = [b"content-length: %d" % target.rng.choice([0, 5, len(hidden) + 5]), target.rng.choice(encodings)]
        target.rng.shuffle(lines)
        await talk.send(target.head(*lines) + b"0\r\n\r\n" + hidden)
        await talk.refused(400)


@act(3)
async def codings_that_are_none(target: Target) -> None:
    async with target.talk() as talk:
        coding = target.rng.choice(
            [b"identity", b"xchunked", b"chunked, identity", b"chunked, chunked", b"", b'"chunked"', b"gzip"]
        )
        await talk.send(target.head(b"transfer-encoding: " + coding) + b"0\r\n\r\n" + inside(target))
        await talk.refused(400)


@act(4)
async def lengths_that_are_none(target: Target) -> None:
    async with target.talk() as talk:
        lengths = [
            *(b"-1", b"+5", b"0x10", b"1e2", b"5 5", b"5,5", b"5;5", b"", b"\xb2", b"9" * 40, b"18446744073709551621"),
            *(b"5\r\ncontent-length: 6", b"6\r\ncontent-length: 6", b"0\r\nContent-Length: 900", b"4 \x00", b"1_0"),
        ]
        await talk.send(target.head(b"content-length: " + target.rng.choice(lengths)) + b"{}" + inside(target))
        await talk.refused(400)


@act(4)
async def chunks_that_are_none(target: Target) -> None:
    async with target.talk() as talk:
        chunks = [
            *(
                b"zz\r\n",
                b"-1\r\n{}\r\n",
                b"+2\r\n{}\r\n",
                b"0x2\r\n{}\r\n",
                b"2\n{}\n0\n\n",
                b"2\r\n{}}\r\n",
                b" 2\r\n{}\r\n",
            ),
            *(
                b"f" * 17 + b"\r\n",
                b"2\r{}",
                b"2;\x00\r\n{}\r\n",
                b"\r\n2\r\n{}\r\n",
                b"2\r\n{}0\r\n\r\n",
                b"2 \r\n{}\r\n\x00",
            ),
        ]
        await talk.send(target.head(b"transfer-encoding: chunked") + target.rng.choice(chunks) + inside(target))
        await talk.refused(400)


@act(4)
async def lines_that_end_otherwise(target: Target) -> None:
    async with target.talk() as talk:
        request = target.post(talk.body())
        old, new = target.rng.choice(
            [(b"\r\n", b"\n"), (b"\r\n", b"\r"), (b"\r\n", b"\r\r\n"), (b"\r\nhost", b"\nhost"), (b"\r\n\r\n", b"\n\n")]
        )
        await talk.send(request.replace(old, new, 1 if old != b"\r\n" else -1) + inside(target))
        talk.half_close()
        reply = await talk.reply(400)
        if not reply.closes:
            raise Violation("left open")
        await talk.over()


@act(4)
async def headers_that_are_none(target: Target) -> None:
    async with target.talk() as talk:
        lines = [
            *(
                b"x y: z",
                b": z",
                b"x",
                b"x\x00: y",
                b"x: \x00",
                b"x: a\x01b",
                b"x: a\rb",
                b"x\r\n y: z",
                b"\xff: y",
                b"(x): y",
            ),
            *(b"x: a\r\n b", b"content-length : 2", b"x: a\x7fb", b"x: a\nb"),
        ]
        await talk.send(target.post(b"{}", target.rng.choice(lines)) + inside(target))
        await talk.refused(400)


@act(4)
async def first_lines_that_are_none(target: Target) -> None:
    async with target.talk() as talk:
        lines = [
            *(
                b"POST",
                b"POST ",
                b"POST /",
                b"POST  / HTTP/1.1",
                b"post / HTTP/1.1",
                b"POST / HTTP/1.1 x",
                b"POST /\x00 HTTP/1.1",
            ),
            *(
                b"POST / HTTP/3.0",
                b"POST / HTTP/0.9",
                b"POST / HTTP/2.0",
                b"POST / HTTP/1.",
                b"POST / HTTQ/1.1",
                b"POST / http/1.1",
            ),
            *(
                b"P\x00ST / HTTP/1.1",
                b"FROB / HTTP/1.1",
                b"POST /\xff HTTP/1.1",
                b"POST \x7f HTTP/1.1",
                b"\x00",
                b"GET",
                b"/ HTTP/1.1",
            ),
        ]
        await talk.send(target.rng.choice(lines) + b"\r\nhost: a\r\ncontent-length: 0\r\n\r\n" + inside(target))
        talk.half_close()
        await talk.refused(400, 404, 405)


@act(3)
async def other_protocols(target: Target) -> None:
    async with target.talk() as talk:
        greetings = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            bytes.fromhex("16030100f8010000f40303") + target.rng.randbytes(200),  # TLS
            b"\x05\x01\x00",  # SOCKS
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"EHLO evil\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"GIOP\x01\x02" + bytes(10),
            b"\r\n" * 200 + b"\x00",
            target.rng.randbytes(target.rng.randint(1, 5000)),
        ]
        await talk.send(target.rng.choice(greetings))
        talk.half_close()
        # The beginning of something that might be HTTP is no request at all when the client closes.
        if (reply := await talk.maybe_reply()) is not None:
            if reply.status not in (400, 431) or not reply.closes:
                raise Violation(f"{reply.status} to another protocol")
            await talk.over()


@act(2)
async def http_0_9(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.rng.choice([b"GET /health\r\n\r\n", b"GET /health\r\n", b"GET /health\n"]))
        talk.half_close()
        if (reply := await talk.maybe_reply(method="GET")) is not None and reply.status < 400:
            raise Violation(f"{reply.status} to HTTP/0.9")


@act(2)
async def more_after_a_last_request(target: Target) -> None:
    """What follows `connection: close` is nothing."""
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(), b"connection: close") + inside(target))
        check_plain(talk, await talk.reply())
        await talk.over()


@act(2)
async def trailers_that_want_to_be_headers(target: Target) -> None:
    async with target.talk() as talk:
        body = talk.body()
        trailer = target.rng.choice(
            [
                b"x-evil: 1",
                b"authorization: Bearer x",
                b"content-length: 5",
                b"connection: close",
                b"x-request-id: t@h0@",
            ]
        )
        await talk.send(
            target.head(b"transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer)
        )
        reply = await talk.maybe_reply()
        if reply is not None and reply.status == 200:
            check_plain(talk, reply)


@act(2)
async def many_headers(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(b"POST %b HTTP/1.1\r\n" % CHAT)
        for start in range(0, 5_000, 100):
            if not await talk.send(b"".join(b"x-%d: %d\r\n" % (i, i) for i in range(start, start + 100))):
                break
        await talk.refused(431)


@act(2)
async def long_headers(target: Target) -> None:
    async with target.talk() as talk:
        line, kilobyte = b"POST / HTTP/1.1\r\n", b"a" * 1_000
        ways = [(b"POST /", kilobyte), (line + b"x: ", kilobyte), (line, kilobyte), (line, b"x: %b\r\n" % kilobyte)]
        start, piece = target.rng.choice([*ways, (b"P" * 10, b"P" * 1_000)])
        await talk.send(start)
        for _ in range(600):
            if not await talk.send(piece):
                break
        await talk.refused(400, 404, 408, 431)


@act(1)
async def a_chunk_extension_without_end(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.head(b"transfer-encoding: chunked") + b"2;")
        for _ in range(300):
            if not await talk.send(b"x" * 1_000):
                break
        await talk.refused(400, 408, 413, 431)


@act(1)
async def trailers_without_end(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.head(b"transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n")
        for _ in range(400):
            if not await talk.send(target.rng.choice([b"x: y\r\n", b"x: %b\r\n" % (b"y" * 900)])):
                break
        await talk.refused(400, 408, 431)
