"""Clients that are slow, greedy, or gone."""

from __future__ import annotations

import asyncio

from hostile.acts import act
from hostile.good import check_plain
from hostile.replies import Violation
from hostile.talk import CHAT, Target


@act(0.5)
async def heads_that_drip(target: Target) -> None:
    """Slow loris, on many connections."""

    async def drip() -> None:
        async with target.talk() as talk:
            for byte in target.head(b"content-length: 2"):
                await asyncio.sleep(0.1)
                if not await talk.send(bytes((byte,))):
                    break
                if talk.reader.at_eof() or talk.heard:
                    break
            await talk.refused(408)

    await asyncio.gather(*(drip() for _ in range(8)))


@act(1)
async def a_body_that_drips(target: Target) -> None:
    async with target.talk() as talk:
        chunked = target.rng.random() < 0.5
        await talk.send(target.head(b"transfer-encoding: chunked" if chunked else b"content-length: 1000"))
        while not talk.heard and await talk.send(b"1\r\n \r\n" if chunked else b" "):
            await asyncio.sleep(0.1)
        await talk.refused(408)


@act(1)
async def nothing_at_all(target: Target) -> None:
    async with target.talk() as talk:
        if target.rng.random() < 0.5:
            await talk.send(b"\r\n\r\n")
        await talk.over()


@act(1)
async def nothing_more(target: Target) -> None:
    async with target.talk() as talk:
        check_plain(talk, await talk.ask(talk.body()))
        await talk.over()


@act(3)
async def leaving_within_the_head(target: Target) -> None:
    async with target.talk() as talk:
        head = target.head(b"content-length: 10")
        await talk.send(head[: target.rng.randrange(len(head))])
        if target.rng.random() < 0.5:
            talk.reset()


@act(3)
async def leaving_within_the_body(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.head(b"content-length: 100000") + b"x" * target.rng.randint(1, 99_999))
        if target.rng.random() < 0.5:
            talk.reset()


@act(3)
async def closing_within_the_body(target: Target) -> None:
    """For writing only: no request has come, so no answer may be one to a request."""
    async with target.talk() as talk:
        data = target.post(talk.body())
        await talk.send(data[: -target.rng.randint(1, 20)])
        talk.half_close()
        if (reply := await talk.maybe_reply()) is not None and reply.status != 400:
            raise Violation(f"{reply.status} to half a request")


@act(3)
async def leaving_before_the_answer(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(delay_s=0.3)))
        await asyncio.sleep(target.rng.uniform(0, 0.1))
        talk.reset()


@act(3)
async def leaving_within_a_stream(target: Target) -> None:
    async with target.talk() as talk:
        await talk.send(target.post(talk.body(stream=True, max_tokens=500)))
        await talk.drain(at_most=target.rng.randint(1, 20_000))
        if target.rng.random() < 0.5:
            talk.reset()


@act(1)
async def asking_and_never_reading(target: Target) -> None:
    """The gateway must neither keep all the answers nor wait for ever."""
    async with target.talk(receive_bytes=4096) as talk:
        for _ in range(300):
            if not await talk.send_at_once(target.head(method=b"GET", path=b"/metrics") * 20):
                break
        await asyncio.sleep(2.0)


@act(0.5)
async def reading_slowly(target: Target) -> None:
    async with target.talk(receive_bytes=4096) as talk:
        await talk.send(target.post(talk.body(do="events_without_end", stream=True)))
        for _ in range(20):
            await talk.drain(at_most=1)
            await asyncio.sleep(0.05)


@act(1)
async def floods_of_requests(target: Target) -> None:
    """Sent ahead in one piece, more than may be: those before are answered, in order, then comes one refusal."""
    async with target.talk() as talk:
        many = target.rng.randint(65, 300)
        tags = [target.tag() for _ in range(many)]
        data = b""
        for talk.tag in tags:
            data += target.post(talk.body())
        target.requests += many - 1
        await talk.send(data)
        for talk.tag in tags:
            reply = await talk.reply()
            if reply.status == 429:
                if not reply.closes:
                    raise Violation("a flood that goes on")
                await talk.over()
                return
            check_plain(talk, reply)


@act(1)
async def floods_that_end_badly(target: Target) -> None:
    """Good requests, then nonsense."""
    async with target.talk() as talk:
        tags = [target.tag() for _ in range(target.rng.randint(1, 30))]
        data = b""
        for talk.tag in tags:
            data += target.post(talk.body())
        target.requests += len(tags)
        await talk.send(data + b"nonsense\x00\r\n\r\n")
        for talk.tag in tags:
            check_plain(talk, await talk.reply())
        await talk.refused(400)


@act(1)
async def connections_for_nothing(target: Target) -> None:
    async def come_and_go() -> None:
        async with target.talk() as talk:
            if target.rng.random() < 0.5:
                await talk.send(b"POST " + CHAT)
            if target.rng.random() < 0.5:
                talk.reset()

    await asyncio.gather(*(come_and_go() for _ in range(5)))
