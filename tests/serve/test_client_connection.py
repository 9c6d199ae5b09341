"""A client's connection: in whatever pieces requests come and whenever answers end, each is taken up once, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.serve.client import Client
from autopoiesis.serve.config import Limits
from autopoiesis.serve.openai import ApiError
from autopoiesis.serve.request import Request


class Paper(asyncio.Transport):
    """Everything written is read at once, unless the test says that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return not self.open

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.open = False

    def abort(self) -> None:
        self.open = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Desk:
    """Takes requests up, and answers one when the test says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = Limits(header_bytes=4096, body_bytes=10_000)
        self.loop = loop
        self.now: Callable[[], float] = time.monotonic
        self.stopping = False
        self.buffered_bytes = 0
        self.accepted: list[Request] = []
        self.errors: list[int] = []

    def joined(self, client: Client) -> bool:
        return True

    def left(self, client: Client) -> None:
        pass

    def look_at_head(self, request: Request) -> None:
        pass

    def body_too_large(self) -> ApiError:
        return ApiError(413, "too large", close=True)

    def refused(self, error: ApiError, request_id: bytes) -> None:
        self.errors.append(error.status)

    def accept(self, client: Client, request: Request) -> None:
        self.accepted.append(request)
        client.exchange = self

    def check(self, now: float) -> None:
        pass

    def client_gone(self) -> None:
        pass

    def cancel(self, error: ApiError) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


class Scene:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.desk = Desk(loop)
        self.paper = Paper()
        self.client = Client(self.desk)
        self.client.connection_made(self.paper)

    def answer(self) -> None:
        """End the answer under way, if any; what follows from it waits for the next turn of the loop."""
        if self.client.exchange is not None:
            self.client.write(b"x")
            self.client.finished(True)

    def turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    def settle(self) -> None:
        for _ in range(100):
            self.answer()
            self.turn()


@contextmanager
def scene() -> Iterator[Scene]:
    loop = asyncio.new_event_loop()
    try:
        yield Scene(loop)
    finally:
        loop.close()


def post(body: bytes) -> bytes:
    return b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


bodies = st.lists(st.binary(max_size=200), min_size=1, max_size=20)
cuts = st.lists(st.integers(0, 10**6), max_size=15)
orders = st.lists(st.sampled_from(["answer", "turn", "block", "unblock"]), max_size=60)


@given(bodies, cuts, orders)
def test_every_request_is_taken_up_once_and_in_order(bodies: list[bytes], cuts: list[int], orders: list[str]) -> None:
    data = b"".join(map(post, bodies))
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    blocked = False
    with scene() as made:
        while pieces or orders:
            if pieces and made.paper.reading:
                made.client.data_received(pieces.pop(0))
            elif not orders:
                made.settle()
            for order in orders[:3]:
                if order == "answer":
                    made.answer()
                elif order == "turn":
                    made.turn()
                elif (order == "block") != blocked:
                    blocked = not blocked
                    (made.client.pause_writing if blocked else made.client.resume_writing)()
            del orders[:3]
            if not orders and blocked:
                blocked = False
                made.client.resume_writing()
        made.settle()
        assert [request.body for request in made.desk.accepted] == bodies
        assert made.desk.errors == []
        assert made.paper.written == b"x" * len(bodies)
        assert made.desk.buffered_bytes == 0


def test_what_comes_between_the_end_of_an_answer_and_the_next_turn_of_the_loop_stays_in_order() -> None:
    second = post(b"second")
    with scene() as made:
        made.client.data_received(post(b"first"))
        made.client.data_received(second[:10])
        made.answer()
        made.client.data_received(second[10:])
        made.turn()
        assert [request.body for request in made.desk.accepted] == [b"first", b"second"]


def test_while_a_client_does_not_read_its_answers_no_more_requests_are_taken_up() -> None:
    with scene() as made:
        made.client.data_received(post(b"a"))
        made.client.pause_writing()
        made.answer()
        made.turn()
        made.client.data_received(post(b"b"))
        made.turn()
        assert len(made.desk.accepted) == 1
        made.client.resume_writing()
        made.turn()
        assert len(made.desk.accepted) == 2


@given(st.binary(max_size=300), cuts)
def test_what_is_no_request_is_refused_once(data: bytes, cuts: list[int]) -> None:
    data = b"\x00" + data
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    with scene() as made:
        for start, end in pairwise(places):
            made.client.data_received(data[start:end])
        made.settle()
        assert made.desk.errors == [400]
        assert made.paper.written.count(b"HTTP/1.1 400 ") == 1
        assert not made.paper.open
        assert made.desk.buffered_bytes == 0


@given(bodies, st.integers(0, 10**6))
def test_whoever_leaves_leaves_nothing_behind(bodies: list[bytes], cut: int) -> None:
    data = b"".join(map(post, bodies))
    with scene() as made:
        made.client.data_received(data[: cut % len(data)])
        made.client.connection_lost(None)
        made.turn()
        assert made.desk.buffered_bytes == 0


def test_requests_beyond_those_that_may_come_at_once_leave_nothing_behind() -> None:
    with scene() as made:
        made.client.data_received(post(b"body") * 100)
        made.settle()
        assert len(made.desk.accepted) == 64
        assert made.desk.errors == [429]
        assert made.desk.buffered_bytes == 0


def test_a_refused_client_that_had_sent_ahead_is_read_on_so_that_it_can_read_its_refusal() -> None:
    with scene() as made:
        made.client.data_received(post(b"body") + b"nonsense\x00\r\n\r\n")
        for _ in range(5):
            made.client.data_received(b"x" * 2**14)
        assert not made.paper.reading
        made.settle()
        assert made.desk.errors == [400]
        assert made.paper.reading
