"""Clients that keep to the rules: whatever others do, they get their own answers. Some ask an engine that does not."""

from __future__ import annotations

import json

from hostile import evil
from hostile.acts import act
from hostile.replies import Reply, Truncated, Violation, events_of, is_openai_error
from hostile.talk import Talk, Target


def check_plain(talk: Talk, reply: Reply) -> None:
    """The answer of the good engine to this request."""
    if reply.status != 200 or json.loads(reply.body)["choices"][0]["message"]["content"] != talk.tag.decode():
        raise Violation(f"not the answer to {talk.tag!r}: {reply.status} {reply.body[:200]!r}")


def check_stream(talk: Talk, reply: Reply, events: int, *, usage: bool = False) -> None:
    """All events of the stream, in order, and usage only if it was asked for."""
    data = events_of(reply)
    if reply.status != 200 or data.pop() != b"[DONE]":
        raise Violation(f"a stream of {reply.status} without its end: {reply.body[-200:]!r}")
    if usage and json.loads(data.pop())["usage"]["completion_tokens"] != events:
        raise Violation("a stream without the usage that was asked for")
    said = [json.loads(event)["choices"][0]["delta"]["content"] for event in data]
    if said != [f"{talk.tag.decode()}/{i}" for i in range(events)]:
        raise Violation(f"not the stream for {talk.tag!r}: {said}")


@act(25)
async def plain(target: Target) -> None:
    async with target.talk() as talk:
        check_plain(talk, await talk.ask(talk.body()))


@act(10)
async def stream(target: Target) -> None:
    async with target.talk() as talk:
        usage = target.rng.random() < 0.5
        options = {"stream_options": {"include_usage": True}} if usage else {}
        events = target.rng.randint(1, 30)
        reply = await talk.ask(talk.body(stream=True, max_tokens=events, **options))
        check_stream(talk, reply, events, usage=usage)


@act(5)
async def one_after_the_other(target: Target) -> None:
    async with target.talk() as talk:
        for _ in range(5):
            talk.tag = target.tag()
            target.requests += 1
            check_plain(talk, await talk.ask(talk.body()))


@act(3)
async def ahead_of_the_answers(target: Target) -> None:
    async with target.talk() as talk:
        tags = [target.tag() for _ in range(target.rng.randint(2, 20))]
        data = b""
        for talk.tag in tags:
            data += target.post(talk.body())
        target.requests += len(tags) - 1
        for start in range(0, len(data), step := target.rng.randint(50, 5000)):
            await talk.send(data[start : start + step])
        for talk.tag in tags:
            check_plain(talk, await talk.reply())


@act(2)
async def chunked(target: Target) -> None:
    async with target.talk() as talk:
        body = talk.body()
        data = target.head(b"transfer-encoding: chunked")
        step = target.rng.randint(1, 60)
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            extension = target.rng.choice([b"", b";a=b", b';a="b;c"'])
            data += b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
        await talk.send(data + b"0\r\n" + target.rng.choice([b"", b"x-trailer: a\r\n"]) + b"\r\n")
        check_plain(talk, await talk.reply())


@act(2)
async def in_small_pieces(target: Target) -> None:
    async with target.talk() as talk:
        data = target.post(talk.body())
        for start in range(0, len(data), 7):
            await talk.send(data[start : start + 7])
        check_plain(talk, await talk.reply())


@act(1)
async def of_version_1_0(target: Target) -> None:
    async with target.talk() as talk:
        streams = target.rng.random() < 0.5
        await talk.send(target.post(talk.body(stream=streams, max_tokens=3), version=b"1.0"))
        reply = await talk.reply()
        if streams:
            check_stream(talk, reply, 3)
        else:
            check_plain(talk, reply)
        await talk.over()


@act(1)
async def expecting_100_continue(target: Target) -> None:
    async with target.talk() as talk:
        body = talk.body()
        await talk.send(target.head(b"content-length: %d" % len(body), b"expect: 100-continue"))
        if await talk.reader.read(25) != b"HTTP/1.1 100 Continue\r\n\r\n":
            raise Violation("no 100 Continue")
        await talk.send(body)
        check_plain(talk, await talk.reply())


@act(1)
async def asking_for_another_protocol(target: Target) -> None:
    """An upgrade that nobody needs to know: the request is answered, once."""
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(), b"connection: upgrade, http2-settings", b"upgrade: h2c"))
        check_plain(talk, await talk.reply())
        talk.half_close()
        await talk.over()


@act(1)
async def half_closed(target: Target) -> None:
    """Some clients close for writing as soon as they have asked."""
    async with target.talk() as talk:
        await talk.send(target.post(talk.body()))
        talk.half_close()
        if (reply := await talk.maybe_reply()) is not None:
            check_plain(talk, reply)


@act(2)
async def looking_around(target: Target) -> None:
    async with target.talk() as talk:
        paths = [target.rng.choice([b"/health", b"/v1/models", b"/v1/models/good", b"/metrics"]) for _ in range(3)]
        methods = [target.rng.choice([b"GET", b"HEAD"]) for _ in paths]
        await talk.send(
            b"".join(target.head(method=method, path=path) for method, path in zip(methods, paths, strict=True))
        )
        for method in methods:
            reply = await talk.reply(200, method=method.decode())
            if method == b"GET" and not reply.size:
                raise Violation("an empty answer")


@act(15)
async def of_the_evil_engine(target: Target) -> None:
    async with target.talk() as talk:
        name = evil.drawn(target.rng)
        each = evil.EVIL[name]
        fields = {"stream": True} if each.streams else {}
        limit = [b"x-request-timeout: %.2f" % target.rng.uniform(0.3, 0.6)] if each.hangs else []
        try:
            reply = await talk.ask(talk.body(do=name, **fields), *limit)
        except Truncated:
            if each.cut:
                return
            raise
        if reply.status not in each.statuses:
            raise Violation(f"{reply.status} for {name}: {reply.body[:200]!r}")
        if reply.status == 200 and each.streams:
            *data, last = events_of(reply)
            if last != b"[DONE]":
                raise Violation(f"{name}: a stream that does not say that it is over: {reply.body[-200:]!r}")
            if each.breaks and not is_openai_error(data[-1]):
                raise Violation(f"{name}: no error at the end: {data[-1]!r}")
            if not each.breaks and any(map(evil.error_in, data)):
                raise Violation(f"{name}: an error in a whole stream: {data[-1]!r}")
        elif reply.status == 200 and not each.cut:
            whole = talk.tag in reply.body and reply.headers.get(b"content-type") == b"application/json"
            if not whole:
                raise Violation(f"{name}: not the answer that was given: {reply.headers} {reply.body[:200]!r}")
        check_next = not reply.closes and target.rng.random() < 0.3
        if check_next:
            talk.tag = target.tag()
            target.requests += 1
            check_plain(talk, await talk.ask(talk.body(do="well")))


@act(0.04, alone=True)
async def a_hundred_megabytes_back(target: Target) -> None:
    async with target.talk() as talk:
        reply = await talk.ask(talk.body(do="a_hundred_megabytes"))
        if reply.size != evil.BIG or not reply.tail.endswith(b'a"}'):
            raise Violation(f"{reply.size} of {evil.BIG} bytes")


@act(0.3, alone=True)
async def leaving_within_a_large_answer(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(do="a_hundred_megabytes")))
        await talk.drain(at_most=target.rng.randint(1, 4 * 2**20))
        talk.reset()


@act(1)
async def leaving_a_stream_without_end(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(do="events_without_end", stream=True)))
        await talk.drain(at_most=target.rng.randint(1, 2**18))
        if target.rng.random() < 0.5:
            talk.reset()
