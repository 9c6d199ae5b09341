"""Clients whose HTTP is in order and whose bodies are not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hostile.acts import act
from hostile.good import check_plain
from hostile.replies import Violation
from hostile.talk import CHAT, Target, chat

JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e300,
    "",
    "x",
    "\x00",
    "😀" * 50,
    [],
    [[]],
    {},
    {"a": {"b": []}},
    [1, "a", None],
]
FIELDS = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "prompt",
    "input",
    "max_tokens",
    "n",
    "prompt_cache_key",
    "temperature",
)


@act(4)
async def truncated_json(target: Target) -> None:
    async with target.talk() as talk:
        body = talk.body()
        if (await talk.ask(body[: target.rng.randrange(len(body))])).status != 400:
            _not_refused(body)
        check_plain(talk, await talk.ask(talk.body()))


@act(8)
async def a_field_of_any_type(target: Target) -> None:
    async with target.talk() as talk:
        fields = {target.rng.choice(FIELDS): target.rng.choice(JUNK) for _ in range(target.rng.randint(1, 3))}
        reply = await talk.ask(json.dumps(chat(talk.tag) | {"max_tokens": 2} | fields, default=str).encode())
        if reply.status not in (200, 400, 404, 422):
            raise Violation(f"{reply.status} for {fields}")


@act(3)
async def a_body_of_bytes(target: Target) -> None:
    async with target.talk() as talk:
        junk = [
            b"",
            b"\x00",
            b"null",
            b"[]",
            b'""',
            b"1",
            b"\xef\xbb\xbf{}",
            b"{",
            b"{}" * 50,
            talk.body().decode().encode("utf-16"),
        ]
        body = target.rng.choice([*junk, target.rng.randbytes(target.rng.randint(1, 2000))])
        reply = await talk.ask(body)
        if reply.status != 400:
            _not_refused(body)


@act(3)
async def a_damaged_body(target: Target) -> None:
    async with target.talk() as talk:
        body = bytearray(talk.body())
        for _ in range(target.rng.randint(1, 3)):
            body[target.rng.randrange(len(body))] = target.rng.randrange(256)
        talk.tag = b""  # it may be another one now
        await talk.ask(bytes(body))


@act(2)
async def fields_twice(target: Target) -> None:
    async with target.talk() as talk:
        twice = target.rng.choice([b'"model":"good"', b'"messages":[]', b'"model":"none"', b'"tag":"x"'])
        body = b'{"model":"none",%b,%b' % (twice, talk.body()[1:])
        check_plain(talk, await talk.ask(body))


@act(2)
async def names_that_are_no_text(target: Target) -> None:
    async with target.talk() as talk:
        name = target.rng.choice([b"\xff", b"\\ud800", b"\\u0000", b"", b"\x01", b"a" * 10_000])
        body = b'{"%b":1,%b' % (
            name,
            talk.body(stream=True, max_tokens=1, model=target.rng.choice(["good", "best"]))[1:],
        )
        reply = await talk.ask(body)
        if reply.status not in (200, 400):
            raise Violation(f"{reply.status} for a name of {name[:20]!r}")


@act(2)
async def nested_deeply(target: Target) -> None:
    async with target.talk() as talk:
        depth = target.rng.choice([100, 2_000, 100_000])
        start, inner, end = target.rng.choice(
            [(b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b"[", b"", b""), (b'{"a":[', b"", b"]}")]
        )
        name = target.rng.choice([b"messages", b"stream_options", b"model", b"x"])
        body = b'{"%b":%b%b%b,%b' % (name, start * depth, inner, end * depth, talk.body()[1:])
        await talk.ask(body)


@act(1)
async def numbers_without_end(target: Target) -> None:
    async with target.talk() as talk:
        number = target.rng.choice(
            [b"9" * 5_000, b"-" + b"1" * 500, b"1e" + b"9" * 300, b"0." + b"1" * 5_000, b"1E-99999"]
        )
        await talk.ask(b'{"%b":%b,%b' % (target.rng.choice([b"max_tokens", b"x", b"stream"]), number, talk.body()[1:]))


@act(1)
async def models_that_are_not_there(target: Target) -> None:
    async with target.talk() as talk:
        model = target.rng.choice(
            ["none", "../good", "good\n", "\x00", "x" * 50_000, "'\";--", "%s%n", "\U0001f600", ""]
        )
        reply = await talk.ask(talk.body(model=model))
        if reply.status != 404 or len(reply.body) > 4_000:
            raise Violation(f"{reply.status} of {len(reply.body)} bytes for a model that is not there")


@act(0.5)
async def a_model_whose_engine_is_dead(target: Target) -> None:
    async with target.talk() as talk:
        reply = await talk.ask(talk.body(model="dead"))
        if reply.status not in (429, 503):
            raise Violation(f"{reply.status} without an engine")


@act(1)
async def a_few_megabytes(target: Target) -> None:
    """Large, and allowed."""
    async with target.talk() as talk:
        check_plain(talk, await talk.ask(talk.body(padding="x" * target.rng.randint(2**18, 2**20))))


@act(1)
async def a_hundred_megabytes_announced(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.head(b"content-length: 104857600") + b'{"model":"good","x":"')
        await talk.refused(413)


@act(0.15, alone=True)
async def a_hundred_megabytes_sent(target: Target) -> None:
    async with target.talk() as talk:
        whole = target.rng.random() < 0.5
        await talk.send(target.head(b"content-length: 104857600" if whole else b"transfer-encoding: chunked"))
        piece = b"x" * 2**20  # in few steps: whatever the others do, 16 MiB come before the body is overdue

        async def flood() -> None:
            sent = 0
            while sent < 104857600 and await talk.send(piece if whole else b"100000\r\n%b\r\n" % piece):
                sent += len(piece)

        flooding = asyncio.create_task(flood())
        try:
            await talk.refused(413)
        finally:
            flooding.cancel()


@act(1)
async def paths_and_methods(target: Target) -> None:
    async with target.talk() as talk:
        method = target.rng.choice(
            [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"POST"]
        )
        paths = [
            b"/",
            b"/v1",
            b"/v1/chat",
            b"/v1/chat/completions/",
            b"//v1/chat/completions",
            b"/admin/replicas",
            b"*",
        ]
        paths += [
            b"/v1/chat/completions%00",
            b"/../etc/passwd",
            b"/?" + b"a" * 5_000,
            b"http://evil/v1/chat/completions",
            CHAT,
        ]
        path = target.rng.choice(paths)
        if method == b"POST" and path == CHAT:
            path = b"/"
        await talk.send(target.head(b"content-length: 2", method=method, path=path) + b"{}")
        reply = await talk.reply(400, 404, 405, method=method.decode())
        if reply.closes:
            await talk.over()


@act(1)
async def without_a_key(target: Target) -> None:
    async with target.talk() as talk:
        headers = [b"", b"authorization: Bearer", b"authorization: Bearer x", b"authorization: Basic " + target.key]
        headers += [
            b"authorization: Bearer \xff\xfe",
            b"authorization: Bearer " + b"x" * 5_000,
            b"x-api-key: " + target.key,
        ]
        header = target.rng.choice(headers)
        lines = [b"host: a", b"content-length: 2", *([header] if header else [])]
        await talk.send(b"POST %b HTTP/1.1\r\n%b\r\n\r\n{}" % (CHAT, b"\r\n".join(lines)))
        await talk.refused(401)


@act(1)
async def headers_that_cannot_be_used(target: Target) -> None:
    async with target.talk() as talk:
        value = target.rng.choice([b"0", b"-1", b"nan", b"inf", b"1e999", b"soon", b"", b"\xff"])
        await talk.send(target.post(talk.body(), b"x-request-timeout: " + value))
        await talk.refused(400)


@act(1)
async def headers_that_are_ignored(target: Target) -> None:
    async with target.talk() as talk:
        headers = [
            *(
                b"x-request-id: \xff\xfe",
                b"x-request-id: " + b"a" * 500,
                b"traceparent: 00-0-0-0",
                b"traceparent: \xff",
            ),
            *(b"x-session-id: " + b"s" * 2_000, b"connection: content-length, authorization, host", b"te: trailers"),
            *(b"accept-encoding: gzip", b"content-encoding: identity", b"proxy-connection: close", b"keep-alive: 9999"),
        ]
        check_plain(talk, await talk.ask(talk.body(), *target.rng.sample(headers, 3)))


def _not_refused(body: bytes) -> None:
    raise Violation(f"not refused: {body[:80]!r}")
