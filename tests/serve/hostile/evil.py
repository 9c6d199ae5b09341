"""How an engine can answer against the rules, and what the client behind the gateway may see of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hostile.engine import Call, chunk, whole

BIG = 100 * 2**20
Answer = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Evil:
    """One way to answer."""

    answer: Answer
    statuses: tuple[int, ...]
    """That a client may get for it."""
    streams: bool = False
    """Whether the client asks for a stream."""
    breaks: bool = False
    """Whether a stream that has begun ends in an error event."""
    cut: bool = False
    """Whether an answer that has begun may end with its connection only."""
    hangs: bool = False
    """Whether the client must give it a time limit."""
    weight: float = 1.0


EVIL: dict[str, Evil] = {"well": Evil(lambda call: _well(call), (200,))}

LOST = (502, 503)


def evil(
    *statuses: int,
    streams: bool = False,
    breaks: bool = False,
    cut: bool = False,
    hangs: bool = False,
    weight: float = 1,
) -> Callable[[Answer], Answer]:
    def known(answer: Answer) -> Answer:
        EVIL[answer.__name__] = Evil(answer, statuses, streams, breaks, cut, hangs, weight)
        return answer

    return known


async def _well(call: Call) -> None:
    await call.plain()


def end(call: Call) -> None:
    call.writer.close()


def cut(call: Call) -> None:
    call.writer.transport.abort()


# What is no answer.


@evil(*LOST)
async def no_http(call: Call) -> None:
    await call.send(call.rng.randbytes(200) + b"\r\n\r\n")
    end(call)


@evil(*LOST)
async def no_word(call: Call) -> None:
    end(call)


@evil(*LOST)
async def reset_at_once(call: Call) -> None:
    cut(call)


@evil(*LOST)
async def half_a_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-le")
    end(call)


@evil(*LOST)
async def http_0_9(call: Call) -> None:
    await call.send(call.completion())
    end(call)


@evil(*LOST)
async def another_protocol(call: Call) -> None:
    await call.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x00")


@evil(504, *LOST, hangs=True, weight=0.3)
async def silence(call: Call) -> None:
    await asyncio.sleep(30)


@evil(504, *LOST, hangs=True, weight=0.3)
async def silence_after_the_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{")
    await asyncio.sleep(30)


# Heads.


@evil(*LOST, weight=0.3)
async def headers_without_end(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\n")
    for i in range(20_000):
        await call.send(b"x-%d: %b\r\n" % (i, b"a" * 100))
    await asyncio.sleep(30)


@evil(*LOST, weight=0.3)
async def a_header_without_end(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\nx-a: ")
    for _ in range(64):
        await call.send(b"a" * 2**16)
    await asyncio.sleep(30)


@evil(*LOST, weight=0.3)
async def interim_replies_without_end(call: Call) -> None:
    for _ in range(2_000):
        await call.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 50)
    await asyncio.sleep(30)


@evil(200)
async def interim_replies_first(call: Call) -> None:
    await call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    await call.plain()


@evil(*LOST)
async def control_bytes_in_a_header(call: Call) -> None:
    await call.plain(None, b"200 OK", call.rng.choice([b"x-a: a\x00b", b"x-a: a\rset-cookie: b", b"x a: b", b": b"]))


@evil(*LOST)
async def a_folded_header(call: Call) -> None:
    await call.plain(None, b"200 OK", b"x-a: b\r\n  c")


@evil(200, *LOST)
async def headers_of_the_connection(call: Call) -> None:
    await call.plain(
        None, b"200 OK", b"connection: x-a", b"keep-alive: timeout=0", b"x-request-id: a", b"date: b", b"server: c"
    )


@evil(*LOST)
async def a_status_that_is_none(call: Call) -> None:
    await call.plain(None, call.rng.choice([b"099 X", b"20 OK", b"2000 OK", b"-1 OK", b"abc OK", b"600 X", b"999 X"]))
    end(call)


@evil(200, *LOST)
async def a_status_without_a_phrase(call: Call) -> None:
    await call.plain(None, call.rng.choice([b"200", b"200 ", b"200 \xe4\xf6\xfc"]))


@evil(204)
async def no_content(call: Call) -> None:
    await call.send(b"HTTP/1.1 204 No Content\r\n\r\n")


# Lengths.


@evil(*LOST)
async def less_than_its_length(call: Call) -> None:
    content = call.completion()
    await call.send(whole(content)[: -call.rng.randint(1, len(content))])
    end(call)


@evil(200, *LOST)
async def more_than_its_length(call: Call) -> None:
    await call.send(whole(call.completion()) + call.rng.choice([b"x" * 50, b"\r\n" * 5, b"\x00"]))
    end(call)


@evil(200, *LOST)
async def two_answers_at_once(call: Call) -> None:
    await call.send(whole(call.completion()) + whole(b'{"other": "t@other1@"}'))


@evil(*LOST)
async def two_lengths(call: Call) -> None:
    content = call.completion()
    await call.plain(content, b"200 OK", b"content-length: %d" % (len(content) + 5))
    end(call)


@evil(*LOST)
async def a_length_that_is_none(call: Call) -> None:
    length = call.rng.choice([b"-5", b"+5", b"5,5", b"0x5", b"9" * 30, b"", b" "])
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\nhello" % length)
    cut(call)


@evil(*LOST)
async def length_and_chunks(call: Call) -> None:
    await call.plain(chunk(call.completion()) + chunk(b""), b"200 OK", b"transfer-encoding: chunked")
    end(call)


@evil(*LOST)
async def chunks_that_are_none(call: Call) -> None:
    await call.begin_stream()
    await call.send(call.rng.choice([b"zz\r\n", b"-1\r\n", b"1\r\nab\r\n", b"f" * 40 + b"\r\n", b"1\nab"]))
    end(call)


@evil(200)
async def a_body_to_the_end_of_the_connection(call: Call) -> None:
    await call.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + call.completion())
    end(call)


@evil(*LOST)
async def a_body_to_a_reset(call: Call) -> None:
    await call.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + call.completion())
    await asyncio.sleep(0.01)
    sock = call.writer.get_extra_info("socket")
    sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: on, 0 s
    cut(call)


@evil(200)
async def the_end_of_the_connection_after_it(call: Call) -> None:
    await call.plain()
    end(call)


@evil(200)
async def byte_by_byte(call: Call) -> None:
    for byte in whole(call.completion()):
        await call.send(bytes((byte,)))
        await asyncio.sleep(0)


@evil(200)
async def trailers(call: Call) -> None:
    await call.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n"
        + chunk(call.completion())
        + b"0\r\nx-a: b\r\ncontent-type: text/html\r\nx-request-id: a\r\n\r\n"
    )


# Errors.


@evil(400, 401, 404, 418, 429, 500, 501, *LOST)
async def an_error_as_a_page(call: Call) -> None:
    status = call.rng.choice([b"400 A", b"401 B", b"404 C", b"418 D", b"429 E", b"500 F", b"501 G", b"502 H", b"503 I"])
    await call.plain(b"<html><body>No</body></html>", status, b"content-type: text/html")


@evil(400, 500)
async def an_error_of_its_own_making(call: Call) -> None:
    content = call.rng.choice(
        [
            *(b"", b"null", b"[]", b'"no"', b"{}", b'{"error":null}', b'{"error":[]}', b'{"error":{"message":{}}}'),
            *(b'{"detail":"\\ud800"}', b'{"detail":[{"loc":["body"]}]}', b'{"message":1}', b'{"error":"\xff"}'),
            *(b"[" * 50_000, b'{"error":{"message":null,"type":null,"param":null,"code":null}}', b"\x00", b"NaN"),
            '{"error":{"message":"a","type":"b","param":null,"code":1}}'.encode("utf-16"),
        ]
    )
    await call.plain(content, call.rng.choice([b"400 Bad Request", b"500 Internal Server Error"]))


@evil(400)
async def a_compressed_error(call: Call) -> None:
    content = gzip.compress(b'{"detail":"no"}')
    await call.plain(content, b"400 Bad Request", b"content-encoding: gzip")


@evil(400)
async def an_error_as_a_stream(call: Call) -> None:
    content = b'data: {"error":{}}\n\n'
    await call.plain(content, b"400 Bad Request", b"content-type: text/event-stream")


@evil(400, *LOST, weight=0.05)
async def an_error_without_end(call: Call) -> None:
    await call.send(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\r\n")
    for _ in range(100):
        await call.send(b"a" * 2**16)
    end(call)


# Streams.


@evil(200, streams=True, breaks=True)
async def a_stream_that_is_reset(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(call.event(0)))
    await call.send(chunk(call.event(1)[: call.rng.randint(1, 40)]))
    await asyncio.sleep(0.01)
    cut(call)


@evil(*LOST, streams=True)
async def a_stream_that_is_reset_before_its_first_event(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(call.event(0)[:20]))
    cut(call)


@evil(200, 504, *LOST, streams=True, breaks=True, hangs=True, weight=0.3)
async def a_stream_that_falls_silent(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(call.event(0)))
    await asyncio.sleep(30)


@evil(200, *LOST, streams=True, breaks=True)
async def a_stream_with_a_broken_chunk(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(call.event(0)))
    await asyncio.sleep(0.01)
    await call.send(b"nonsense\r\n")


@evil(200, streams=True)
async def a_stream_of_other_newlines(call: Call) -> None:
    await call.begin_stream()
    data = b"".join(call.event(i) for i in range(4)) + b"data: [DONE]\n\n"
    for piece in call.cut(data.replace(b"\n", b"\r\n")):
        await call.send(chunk(piece))
    await call.send(chunk(b""))


@evil(200, streams=True)
async def a_stream_with_comments_and_usage_everywhere(call: Call) -> None:
    await call.begin_stream()
    usage = {"prompt_tokens": 1, "completion_tokens": 10**9, "total_tokens": -1}
    data = b": ping\n\n" + b"".join(call.event(i, usage=usage) for i in range(4)) + b"data: [DONE]\n\n"
    for piece in call.cut(data):
        await call.send(chunk(piece))
    await call.send(chunk(b""))


@evil(200, streams=True)
async def a_stream_without_its_last_blank_line(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    await call.send(call.event(0) + b"data: [DONE]\n")
    end(call)


@evil(*LOST, streams=True, weight=0.05)
async def an_event_without_end(call: Call) -> None:
    await call.begin_stream()
    for _ in range(80):
        await call.send(chunk(b"data: " + b"a" * 2**16))
    await asyncio.sleep(30)


@evil(200, streams=True)
async def a_stream_that_says_nothing_but_done(call: Call) -> None:
    await call.begin_stream()
    await call.send(chunk(b"data: [DONE]\n\n") + chunk(b""))


@evil(200, weight=0)
async def events_without_end(call: Call) -> None:
    await call.begin_stream()
    event = chunk(call.event(0))
    while True:
        await call.send(event)


# Sizes.


@evil(200, weight=0)
async def a_hundred_megabytes(call: Call) -> None:
    start = b'{"choices":[],"tag":"%b","text":"' % call.tag.encode()
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % BIG + start)
    for _ in range((BIG - len(start) - 2) // 2**16):
        await call.send(b"a" * 2**16)
    await call.send(b"a" * ((BIG - len(start) - 2) % 2**16) + b'"}')


@evil(200, *LOST, cut=True, weight=0.1)
async def megabytes_that_are_reset(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % BIG)
    for _ in range(call.rng.randint(10, 60)):
        await call.send(b"a" * 2**16)
    await asyncio.sleep(0.01)
    cut(call)


def drawn(rng: random.Random) -> str:
    """The name of one of them."""
    return rng.choices(list(EVIL), [each.weight for each in EVIL.values()])[0]


def answers() -> dict[str, Answer]:
    return {name: each.answer for name, each in EVIL.items()}


def error_in(event: bytes) -> bool:
    try:
        return "error" in json.loads(event)
    except ValueError:
        return False
