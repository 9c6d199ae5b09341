"""One request on its way: waiting, sent to a replica, perhaps to another, and its answer on the way back.

Nothing reaches the client before the first byte of an answer's body, and a plain answer only once it is whole (or too
large to keep), so whatever a replica fails until then is sent to another one. A stream that breaks later ends in an
error event.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from autopoiesis.serve.events import Events, EventTooLong, error_event
from autopoiesis.serve.health import Failure
from autopoiesis.serve.http import LAST_CHUNK, chunk, head, refusal, reply
from autopoiesis.serve.openai import ApiError, as_error, read_usage, unavailable

if TYPE_CHECKING:
    from autopoiesis.serve.client import Client
    from autopoiesis.serve.gateway import Gateway
    from autopoiesis.serve.keys import Key
    from autopoiesis.serve.offer import Offer
    from autopoiesis.serve.policy import ActivePolicy
    from autopoiesis.serve.replica import Replica
    from autopoiesis.serve.request import Request
    from autopoiesis.serve.served import Served
    from autopoiesis.serve.upstream import Pool, Upstream

KEPT_BYTES = 1024 * 1024
"""Of a plain answer, before it is passed on piece by piece."""
RETRIED = frozenset((502, 503, 504))
"""Statuses by which an engine says that it cannot serve now."""
CLIENT_LEFT = 499


class Exchange:
    """A request that was admitted. The gateway places it; it receives what the replica answers."""

    __slots__ = (
        "_client", "_connecting", "_events", "_first_at", "_gateway", "_held_bytes", "_kept", "_kept_bytes", "_passing",
        "_payload", "_pool", "_request", "_stale", "_upstream", "arrived", "attempts", "deadline", "hide_usage", "key",
        "limited", "offer", "policy", "priority", "prompt_bytes", "queued_at", "replica", "served", "status", "tried",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        client: Client,
        request: Request,
        served: Served,
        key: Key,
        offer: Offer,
        payload: bytes,
        policy: ActivePolicy,
        *,
        prompt_bytes: int,
        hide_usage: bool,
        deadline: float,
        limited: bool,
        priority: float,
    ) -> None:
        self._gateway = gateway
        self._client = client
        self._request = request
        self._payload = payload
        self._held_bytes = len(payload)
        gateway.buffered_bytes += len(payload)
        self._pool: Pool | None = None
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._passing = False
        self._events: Events | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._first_at = 0.0
        self._stale = False
        self.served = served
        self.key = key
        self.offer = offer
        self.policy = policy
        """In force when the request came; it keeps this one."""
        self.prompt_bytes = prompt_bytes
        self.hide_usage = hide_usage
        self.priority = priority
        self.arrived = offer.arrived
        self.deadline = deadline
        self.limited = limited
        """Whether the deadline is the client's own, and no replica's fault."""
        self.queued_at = 0.0
        """Since when it waits for a replica; 0: it does not."""
        self.replica: Replica | None = None
        self.tried: tuple[Replica, ...] = ()
        """Replicas that have failed it."""
        self.attempts = 0
        self.status = 0
        """Of the answer, once that has begun."""

    # What the gateway calls.

    def send(self, replica: Replica, pool: Pool) -> None:
        """Send the request to a replica, which the gateway has counted, over one of its connections."""
        self.replica, self._pool = replica, pool
        self.attempts += 1
        upstream = pool.take()
        if upstream is not None:
            self._stale = upstream.used
            self._begin(upstream)
        else:
            self._connect()

    def refuse(self, error: ApiError) -> None:
        """Answer with an error; nothing has been sent to the client."""
        self._drop()
        self.status = error.status
        keep = self._request.keep_alive and not error.close
        self._client.write(refusal(error, self._request_id(), close=not keep))
        self._finish(keep)

    def check(self, now: float) -> None:
        if now > self.deadline or (self.queued_at and now - self.queued_at > self._gateway.config.queue.max_wait_s):
            self.expire()

    def expire(self) -> None:
        """The time that the client or the operator gave the request is over."""
        message = "the request took longer than it may"
        error = ApiError(504, message, kind="server_error", code="timeout")
        if self._passing:
            self._break_off(error)
        elif self.replica is None and self._gateway.now() <= self.deadline:
            self.refuse(unavailable("no replica could take the request in time", "no_replica", 1.0))
        else:
            if self.replica is not None and not self.limited:
                self._gateway.failed(self.replica, Failure.TIMEOUT)
            self.refuse(error)

    def cancel(self, error: ApiError) -> None:
        """End it now, in the best form that is left."""
        if self._passing:
            self._break_off(error)
        else:
            self.refuse(error)

    # What the client's connection calls.

    def client_gone(self) -> None:
        self._drop()
        if not self.status or self._passing:
            self.status = CLIENT_LEFT
        self._gateway.ended(self)

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # What the connection to the replica calls.

    def body(self, data: bytes) -> None:
        if self._events is not None:
            try:
                data = self._events.whole(data)
            except EventTooLong:
                self._fail(Failure.PROTOCOL)
                return
            if not data:
                return
        if self._passing:
            self._client.write(chunk(data) if self._request.minor else data)
            return
        upstream = self._upstream
        assert upstream is not None
        if self._events is None:
            if upstream.status == 200 and upstream.kind.startswith(b"text/event-stream"):
                self._events = Events(hide_usage=self.hide_usage)
                self.body(data)
                return
            self._keep(data)
            if self._kept_bytes <= KEPT_BYTES and self._gateway.has_buffers:
                return
            if upstream.status >= 400:
                self._fail(Failure.PROTOCOL)
                return
            data = self._taken()
        self._pass(upstream, data)

    def ended(self) -> None:
        upstream, replica = self._upstream, self.replica
        assert upstream is not None
        assert replica is not None
        status = upstream.status
        if self._events is not None and not upstream.framed and not self._events.done:
            self.lost(Failure.RESET)
            return
        if self._passing:
            self._end_passing()
            return
        self._upstream = None
        if status in RETRIED:
            self._gateway.failed(replica, Failure.SERVER_ERROR)
            self._again(None)
            return
        body = self._taken()
        if status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED:  # what it never can is no sign that it is ill
            self._gateway.failed(replica, Failure.SERVER_ERROR)
        else:
            self._gateway.succeeded(replica)
        kind = upstream.kind
        if status >= 400:
            body, kind = as_error(status, body), b"application/json"
            upstream.headers = [line for line in upstream.headers if not line.startswith(b"content-encoding:")]
        else:
            self._gateway.used(self, read_usage(body))
        self.status = status
        keep = self._request.keep_alive and not self._gateway.stopping
        self._client.write(
            reply(
                status,
                body,
                kind=kind or b"application/octet-stream",
                headers=self._request_id() + self._returned(upstream),
                close=not keep,
            )
        )
        self._finish(keep)

    def lost(self, kind: Failure) -> None:
        upstream, replica = self._upstream, self.replica
        assert replica is not None
        self._upstream = None
        if self._stale and kind is Failure.RESET and upstream is not None and not upstream.answered:
            # The replica had closed the connection before it could know of the request: nobody's fault.
            self._connect()
            return
        if self._passing and self._events is not None and self._events.done:
            self._end_passing()  # all was said but the end of the encoding
            return
        self._gateway.failed(replica, kind)
        error = ApiError(502, "the replica was lost while it answered", kind="server_error", code="replica_lost")
        if self._passing:
            self._break_off(error)
        else:
            self._again(error)

    # What happens here.

    def _begin(self, upstream: Upstream) -> None:
        self._upstream = upstream
        assert self._pool is not None
        start = b"POST %b HTTP/1.1\r\n%b" % (self._request.target, self._pool.lines)
        upstream.send(start + self._payload, self)

    def _connect(self) -> None:
        self._stale = False
        self._connecting = self._gateway.loop.create_task(self._connected())

    async def _connected(self) -> None:
        assert self._pool is not None
        try:
            upstream = await self._pool.connect()
        except (OSError, TimeoutError):
            self._connecting = None
            self.lost(Failure.CONNECT)
            return
        self._connecting = None
        if upstream.usable:
            self._begin(upstream)
        else:
            self.lost(Failure.RESET)

    def _fail(self, kind: Failure) -> None:
        if self._upstream is not None:
            self._upstream.abandon()
        self.lost(kind)

    def _again(self, error: ApiError | None) -> None:
        """Try another replica, or give up with this error."""
        self._taken()
        self._events = None
        assert self.replica is not None
        self.tried = (*self.tried, self.replica)
        replica, self.replica = self.replica, None
        self._gateway.release(self, replica)
        if self._gateway.may_retry(self):
            self._gateway.place(self)
        else:
            self.refuse(error or unavailable("no replica could serve the request", "no_replica", 1.0))

    def _pass(self, upstream: Upstream, data: bytes) -> None:
        """Begin to pass the answer on."""
        self._passing = True
        self._payload = b""  # from now on it is not sent again
        self._give_back(self._held_bytes)
        self.status = upstream.status
        self._first_at = self._gateway.now()
        lines = b"content-type: %b\r\n%b%b" % (
            upstream.kind or b"application/octet-stream",
            self._request_id(),
            self._returned(upstream),
        )
        if self._request.minor:
            data = chunk(data)
            lines += b"transfer-encoding: chunked\r\n"
        if not self._keeps:
            lines += b"connection: close\r\n"
        self._client.write(head(upstream.status, lines) + data)
        if not self._client.writable:
            upstream.pause()

    @property
    def _keeps(self) -> bool:
        """Whether the connection can go on after an answer without a length; not with HTTP/1.0."""
        return self._request.keep_alive and self._request.minor != 0 and not self._gateway.stopping

    def _end_passing(self) -> None:
        self._upstream = None
        assert self.replica is not None
        self._gateway.succeeded(self.replica)
        events, data = self._events, b""
        if events is not None:
            data = events.rest()
            self._gateway.used(self, events.usage)
            self._gateway.streamed(self, self._first_at, events)
        if self._request.minor:
            data = (chunk(data) if data else b"") + LAST_CHUNK
        self._client.write(data)
        self._finish(self._keeps)

    def _break_off(self, error: ApiError) -> None:
        """End an answer that has begun and cannot go on."""
        self._drop()
        if self._events is None:
            # Only a cut tells the client that a plain answer is not whole.
            self.status, self._passing = error.status, False
            self._client.abort()
            return
        self._gateway.broke(self)
        data = error_event(error)
        self._client.write(chunk(data) + LAST_CHUNK if self._request.minor else data)
        self._finish(self._keeps)

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)
        self._held_bytes += len(data)
        self._gateway.buffered_bytes += len(data)

    def _taken(self) -> bytes:
        """What was kept of an answer, and is not any more."""
        data = b"".join(self._kept)
        self._give_back(self._kept_bytes)
        self._kept.clear()
        self._kept_bytes = 0
        return data

    def _give_back(self, size: int) -> None:
        self._held_bytes -= size
        self._gateway.buffered_bytes -= size

    def _drop(self) -> None:
        """Wait for nothing any more."""
        self._give_back(self._held_bytes)
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            upstream.abandon()

    def _finish(self, keep: bool) -> None:
        self._give_back(self._held_bytes)
        self._gateway.ended(self)
        self._client.finished(keep)

    @property
    def request_id(self) -> str:
        return self._request.id.decode("latin-1")

    def _request_id(self) -> bytes:
        return b"x-request-id: %b\r\n" % self._request.id

    def _returned(self, upstream: Upstream) -> bytes:
        return b"".join(upstream.headers)
