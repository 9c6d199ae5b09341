"""The gateway: requests are admitted, placed on a replica by the policy in force, held, or refused.

All of it runs in one thread, so that nothing here waits and nothing needs a lock: between two steps of the event loop
every count is right.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from autopoiesis.policy.fields import HOLD, SHED
from autopoiesis.serve.admission import Admission
from autopoiesis.serve.board import Board
from autopoiesis.serve.client import Client
from autopoiesis.serve.config import Config
from autopoiesis.serve.events import Events
from autopoiesis.serve.exchange import CLIENT_LEFT, Exchange
from autopoiesis.serve.health import Failure
from autopoiesis.serve.http import PLAIN, for_method, refusal, reply
from autopoiesis.serve.keys import KeyRing
from autopoiesis.serve.log import Log
from autopoiesis.serve.metrics import FAILURES, Metrics, metrics_page
from autopoiesis.serve.offer import Offer
from autopoiesis.serve.openai import (
    ApiError,
    Usage,
    asking_for_usage,
    overloaded,
    read_body,
    renamed,
    unavailable,
    wants_usage,
)
from autopoiesis.serve.pages import APIS, MODELS, models_page, no_such, ready_page
from autopoiesis.serve.policy import ActivePolicy
from autopoiesis.serve.prefixes import PrefixIndex, blocks
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.request import Request, span
from autopoiesis.serve.served import Served
from autopoiesis.serve.upstream import Pool

OFFER_S = 0.1
"""How often held requests are offered again where nothing has changed."""
CHECK_S = 0.25


class Gateway:
    """What all connections of one worker process share."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        board: Board,
        metrics: Metrics,
        served: Sequence[Served],
        keys: KeyRing,
        log: Log,
        *,
        clock: Callable[[], float],
        seed: bytes,
        ids: random.Random,
    ) -> None:
        self.config = config
        self.limits = config.limits
        self.loop = loop
        self.board = board
        self.metrics = metrics
        self.log = log
        self.now = clock
        self.policy: ActivePolicy
        """In force; a swap is an assignment to this attribute."""
        self.stopping = False
        self.buffered_bytes = 0
        self.exchanges = 0
        """Under way."""
        self.served = tuple(served)
        self.replicas: dict[str, Replica] = {}
        """By id."""
        self._ids = ids
        """Of requests and spans: drawn anew by every process, so that they never come again."""
        self._count = board.mine
        self._alone = board.workers == 1
        self._models: dict[str, Served] = {}
        for entry, model in zip(self.served, config.models, strict=True):
            self._models |= dict.fromkeys((model.name, *model.aliases), entry)
        self._admission = Admission(keys, self._models, board, metrics, config.queue.retry_after_s)
        self._seed = seed
        self.prefixes = PrefixIndex(config.policy.prefix_entries)
        self._pools: dict[str, Pool] = {}
        self.clients: set[Client] = set()
        """Open connections."""
        self._waiting = 0
        self._sequence = 0
        self._retries = float(config.retry.burst)
        """Retries left: each request earns a part of one, up to the burst."""
        self._offering = False

    # The fleet.

    def add(self, replica: Replica, token: str | None) -> None:
        """Serve with a replica from now on, once it is healthy."""
        self.replicas[replica.id] = replica
        limits = self.config.limits
        self._pools[replica.id] = Pool(
            self.loop, replica.host, replica.port, tls=replica.tls, token=token,
            connect_timeout_s=limits.connect_timeout_s,
        )  # fmt: skip
        served = self._models[replica.model]
        served.set_replicas((*served.replicas, replica))

    def remove(self, replica: Replica) -> None:
        """Forget a replica. What it is answering goes on."""
        served = self._models[replica.model]
        served.set_replicas(tuple(other for other in served.replicas if other is not replica))
        del self.replicas[replica.id]
        self._pools.pop(replica.id).close()
        self.prefixes.forget(replica.slot)

    def changed(self, replica: Replica) -> None:
        """The replica's health has changed, or whether it stays."""
        served = self._models[replica.model]
        served.refresh()
        if not replica.health.admits:
            self.prefixes.forget(replica.slot)
        self.offer_held(served)

    def served_by(self, replica: Replica) -> Served:
        """The model that the replica serves."""
        return self._models[replica.model]

    # Connections of clients.

    def joined(self, client: Client) -> bool:
        """A client has connected; whether it may stay."""
        self.clients.add(client)
        self._count[self.metrics.connections] = len(self.clients)
        return len(self.clients) <= self.config.limits.connections

    def left(self, client: Client) -> None:
        self.clients.discard(client)
        self._count[self.metrics.connections] = len(self.clients)

    def look_at_head(self, request: Request) -> None:
        """Refuse what no body can make right. Raises ApiError."""
        if request.method == b"POST":
            if request.path not in APIS:
                raise no_such(request)
            request.key = self._admission.key(request.authorization)
            if request.length is not None and request.length > self.config.limits.body_bytes:
                raise self.body_too_large()
            if self.buffered_bytes + (request.length or 0) > self.config.limits.buffered_bytes:
                message = "the gateway holds as many bytes of requests as it may"
                raise unavailable(message, "out_of_buffers", self.config.queue.retry_after_s)
        elif request.method not in (b"GET", b"HEAD"):
            raise no_such(request)

    @property
    def has_buffers(self) -> bool:
        """Whether more of requests and answers may be kept."""
        return self.buffered_bytes <= self.limits.buffered_bytes

    def body_too_large(self) -> ApiError:
        limit = self.config.limits.body_bytes
        return ApiError(413, f"the body is longer than {limit} bytes", code="body_too_large", close=True)

    def accept(self, client: Client, request: Request) -> None:
        """A whole request has come."""
        request.id = request.id or b"req-%016x" % self._ids.getrandbits(64)
        try:
            if request.method == b"POST":
                exchange = client.exchange = self._admitted(client, request)
                self.place(exchange)
                return
            answer = self._answer(request)
        except ApiError as error:
            self.refused(error, request.id)
            lines = b"x-request-id: %b\r\n" % request.id
            keep = request.keep_alive and not error.close
            client.write(for_method(request.method, refusal(error, lines, close=not keep)))
            client.finished(keep)
            return
        client.write(for_method(request.method, answer))
        client.finished(request.keep_alive)

    def refused(self, error: ApiError, request_id: bytes) -> None:
        """A request came to nothing before it had a model."""
        self._count[self.metrics.request(-1, error.status)] += 1.0
        if self.log.requests:
            self.log.info("refused", status=error.status, code=error.code, request=request_id.decode("latin-1"))

    # Requests on their way.

    def place(self, exchange: Exchange) -> None:
        """Send the request to a replica, or let it wait for one."""
        now = self.now()
        waiting = exchange.served.waiting
        if (waiting and waiting.must_queue(exchange.priority, exchange.arrived, now)) or not self._offer(exchange, now):
            self._hold(exchange, now)

    def offer_held(self, served: Served) -> None:
        """Offer held requests in order, until one must go on waiting."""
        if self._offering:
            return
        self._offering = True
        try:
            now = self.now()
            while (exchange := served.waiting.head(now)) is not None:
                exchange.policy = self.policy
                if not self._offer(exchange, now):
                    break
        finally:
            self._offering = False

    def may_retry(self, exchange: Exchange) -> bool:
        """Whether a request that a replica has failed is sent to another one."""
        if exchange.attempts >= self.config.retry.attempts or self._retries < 1.0 or self.now() > exchange.deadline:
            return False
        self._retries -= 1.0
        self._count[self.metrics.retries + exchange.served.index] += 1.0
        return True

    def release(self, exchange: Exchange, replica: Replica) -> None:
        """The replica does not have the request any more."""
        tokens = exchange.offer.prompt_tokens
        replica.in_flight -= 1
        replica.in_flight_tokens -= tokens
        slot = replica.slot
        self._count[self.metrics.in_flight + slot] -= 1.0
        self._count[self.metrics.in_flight_tokens + slot] -= tokens
        if exchange.served.waiting:
            self.loop.call_soon(self.offer_held, exchange.served)

    def failed(self, replica: Replica, kind: Failure) -> None:
        """The replica could not answer."""
        self._count[self.metrics.failures + replica.slot * len(FAILURES) + FAILURES.index(kind)] += 1.0
        replica.health.failed(self.now(), kind)

    def succeeded(self, replica: Replica) -> None:
        self._count[self.metrics.answered + replica.slot] += 1.0
        replica.health.succeeded(self.now())

    def used(self, exchange: Exchange, usage: Usage | None) -> None:
        """What the request took, as the engine counted."""
        if usage is None:
            return
        index = exchange.served.index
        self._count[self.metrics.prompt_tokens + index] += usage.prompt_tokens
        self._count[self.metrics.completion_tokens + index] += usage.completion_tokens
        exchange.served.prompt_length.learn(exchange.prompt_bytes, usage.prompt_tokens)
        self._admission.correct(exchange.key, exchange.offer.prompt_tokens, usage)

    def streamed(self, exchange: Exchange, first_at: float, events: Events) -> None:
        """A stream has come to its end."""
        row, index = self._count, exchange.served.index
        self.metrics.first_byte.observe(row, index, first_at - exchange.arrived)
        tokens = events.usage.completion_tokens if events.usage is not None else events.count
        if tokens > 1:
            self.metrics.token_seconds.observe(row, index, (self.now() - first_at) / (tokens - 1))

    def broke(self, exchange: Exchange) -> None:
        self._count[self.metrics.broken + exchange.served.index] += 1.0

    def ended(self, exchange: Exchange) -> None:
        """The exchange is over, however it ended."""
        now = self.now()
        served, metrics, row = exchange.served, self.metrics, self._count
        self.exchanges -= 1
        self._admission.end(exchange.key)
        if exchange.queued_at:
            self._leave(exchange, now)
        if exchange.replica is not None:
            self.release(exchange, exchange.replica)
        row[metrics.request(served.index, exchange.status)] += 1.0
        if exchange.status != CLIENT_LEFT:
            metrics.seconds.observe(row, served.index, now - exchange.arrived)
        if self._retries < self.config.retry.burst:
            self._retries += self.config.retry.ratio
        if self.log.requests:
            self.log.info(
                "request",
                request=exchange.request_id,
                model=served.name,
                key=exchange.key.name,
                status=exchange.status,
                replica=None if exchange.replica is None else exchange.replica.id,
                attempts=exchange.attempts,
                seconds=round(now - exchange.arrived, 6),
                prompt_tokens=exchange.offer.prompt_tokens,
            )

    # The clock.

    def check(self) -> None:
        """Look for what is overdue; every CHECK_S."""
        now = self.now()
        self._count[self.metrics.buffered] = self.buffered_bytes
        for client in tuple(self.clients):
            client.check(now)
        for pool in self._pools.values():
            pool.reap()
        self._admission.look(now)

    def offer_all(self) -> None:
        """Offer what is held, since a policy may go by the time; every OFFER_S."""
        for served in self.served:
            if served.waiting:
                self.offer_held(served)

    # The end.

    def stop(self) -> None:
        """Take no more requests; those under way go on."""
        self.stopping = True
        for client in tuple(self.clients):
            client.stop()

    def cancel(self) -> None:
        """End what is still under way."""
        error = unavailable("the gateway is shutting down", "shutting_down", 1.0)
        for client in tuple(self.clients):
            if client.exchange is not None:
                client.exchange.cancel(error)
            client.stop()

    # What happens here.

    def _admitted(self, client: Client, request: Request) -> Exchange:
        """The exchange of a request that may be served. Raises ApiError."""
        now = self.now()
        key = request.key
        assert key is not None
        body = read_body(request.body)
        served = self._admission.model(body.model, key)
        if self.stopping:
            raise unavailable("the gateway is shutting down", "shutting_down", 1.0)
        text = body.text
        tokens = served.prompt_length.estimate(len(text))
        self._admission.check(key, tokens, now)
        payload = request.body
        streams = body.stream is True and request.path != b"/v1/embeddings"
        hide_usage = False
        if streams and self.config.accounting and not wants_usage(body):
            payload, hide_usage = asking_for_usage(payload, body), True
        if body.model != served.served_as:
            payload = renamed(payload, served.served_as)
        slo = served.slo
        offer = Offer(
            model=served.index,
            class_index=served.request_class(tokens),
            prompt_tokens=tokens,
            prefix_key=self._prefix_key(request.session or (body.prompt_cache_key or "").encode()),
            ttft_slo_s=slo.ttft_s + slo.ttft_s_per_input_token * tokens,
            tpot_slo_s=slo.tpot_s,
            arrived=now,
            sequence=self._sequence,
        )
        self._sequence += 1
        policy = self.policy
        if policy.needs_prefixes:
            offer.blocks = blocks(text, seed=self._seed)
        self._admission.begin(key, tokens)
        self.exchanges += 1
        lines = b"%bx-request-id: %b\r\ntraceparent: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            request.lines(), request.id, span(request.trace, self._ids), len(payload), payload,
        )  # fmt: skip
        request.body = b""  # `lines` is what is kept, and counted
        limit = min(self.config.limits.request_timeout_s, request.timeout_s)
        return Exchange(
            self, client, request, served, key, offer, lines, policy,
            prompt_bytes=len(text), hide_usage=hide_usage, deadline=now + limit,
            limited=request.timeout_s < self.config.limits.request_timeout_s,
            priority=policy.priority(offer, now),
        )  # fmt: skip

    def _prefix_key(self, session: bytes) -> float:
        """The number that the calls of a session have in common; -1 for a single request."""
        return -1.0 if not session else float(zlib.crc32(session))

    def _offer(self, exchange: Exchange, now: float) -> bool:
        """Offer a request to the policy; whether it need not wait any longer."""
        served = exchange.served
        able: Sequence[Replica] = served.able
        if exchange.tried:
            able = [replica for replica in able if replica not in exchange.tried] or able
        if not self._alone:
            self._count_others(able)
        if served.capped:
            able = [r for r in able if not r.max_in_flight or r.in_flight < r.max_in_flight]
        if not able:
            return False
        policy, offer = exchange.policy, exchange.offer
        if policy.needs_prefixes:
            offer.cached = self.prefixes.believed(offer.blocks, able, offer.prompt_tokens, exchange.prompt_bytes)
        patient = not exchange.queued_at or now - exchange.arrived < self.config.queue.hold_s
        choice = policy.choose(offer, able, now, patient=patient)
        if choice == HOLD:
            return False
        if choice == SHED:
            self._count[self.metrics.shed + served.index] += 1.0
            message = "the gateway's policy refuses the request now"
            exchange.refuse(overloaded(message, "shed", self.config.queue.retry_after_s))
            return True
        replica = able[choice]
        if exchange.queued_at:
            self._leave(exchange, now)
        tokens = offer.prompt_tokens
        replica.in_flight += 1
        replica.in_flight_tokens += tokens
        slot, row, metrics = replica.slot, self._count, self.metrics
        row[metrics.in_flight + slot] += 1.0
        row[metrics.in_flight_tokens + slot] += tokens
        row[metrics.sent + slot] += 1.0
        if policy.needs_prefixes:
            self.prefixes.remember(offer.blocks, slot, tokens, exchange.prompt_bytes)
        exchange.send(replica, self._pools[replica.id])
        return True

    def _count_others(self, replicas: Sequence[Replica]) -> None:
        """Bring what all workers have in flight up to date."""
        total, first, tokens = self.board.total, self.metrics.in_flight, self.metrics.in_flight_tokens
        for replica in replicas:
            replica.in_flight = int(total(first + replica.slot))
            replica.in_flight_tokens = int(total(tokens + replica.slot))

    def _hold(self, exchange: Exchange, now: float) -> None:
        if self._waiting >= self.config.queue.max_requests:
            retry_after_s = self.config.queue.retry_after_s
            if exchange.served.able:
                exchange.refuse(overloaded("too many requests wait already", "queue_full", retry_after_s))
            else:
                exchange.refuse(unavailable("no replica is available", "no_replica", retry_after_s))
            return
        exchange.queued_at = now
        exchange.served.waiting.push(exchange, exchange.priority, exchange.arrived)
        self._waiting += 1
        self._count[self.metrics.queued + exchange.served.index] += 1.0
        self._count[self.metrics.held + exchange.served.index] += 1.0

    def _leave(self, exchange: Exchange, now: float) -> None:
        """The request waits no longer."""
        exchange.served.waiting.remove(exchange)
        self.metrics.queue_seconds.observe(self._count, exchange.served.index, now - exchange.queued_at)
        exchange.queued_at = 0.0
        self._waiting -= 1
        self._count[self.metrics.queued + exchange.served.index] -= 1.0

    def _answer(self, request: Request) -> bytes:
        """The reply to a GET. Raises ApiError."""
        path = request.path
        if path == b"/health":
            return reply(200, b'{"status":"ok"}')
        if path == b"/ready":
            return ready_page(self.served, stopping=self.stopping)
        if path == b"/metrics":
            return reply(200, self.metrics_page(), kind=PLAIN)
        if path == MODELS or path.startswith(MODELS + b"/"):
            key = self._admission.key(request.authorization)
            name = unquote(path.removeprefix(MODELS).removeprefix(b"/"))
            return models_page(self._admission.allowed(key), name)
        raise no_such(request)

    def metrics_page(self) -> bytes:
        """What all workers have counted, and what is known of the replicas."""
        return metrics_page(self.metrics, self.board, self.replicas.values(), self.now())
