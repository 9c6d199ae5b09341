"""The admin API: replicas, draining, the policy in force. On a port of its own, with a token or on loopback only.

A web page that an operator's browser shows could send requests to loopback addresses, so without a token requests are
refused that a browser sends for a page, or under a name that is not this machine's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from autopoiesis.errors import AutopoiesisError, ConfigError, PolicyError
from autopoiesis.policy.source import SOURCE_BYTES
from autopoiesis.serve.client import Client
from autopoiesis.serve.config import Admin as AdminConfig
from autopoiesis.serve.config import Limits, ReplicaConfig
from autopoiesis.serve.config_values import is_loopback
from autopoiesis.serve.http import PLAIN, for_method, refusal, reply
from autopoiesis.serve.metrics import metrics_page
from autopoiesis.serve.openai import ApiError
from autopoiesis.serve.replica import Replica
from autopoiesis.serve.request import Request
from autopoiesis.serve.service import Service

LIMITS = Limits(body_bytes=2 * SOURCE_BYTES, connections=64, request_timeout_s=120.0)

Answer = tuple[int, object]


class Admin:
    """The admin API of a service, for connections of `client.Client`."""

    def __init__(self, service: Service, token_sha256: str | None) -> None:
        self.config = service.config
        self.limits = LIMITS
        self.loop = asyncio.get_running_loop()
        self.now = time.monotonic
        self.buffered_bytes = 0
        self.stopping = False
        self._service = service
        self._token = token_sha256
        self._clients: set[Client] = set()
        self._routes: dict[tuple[bytes, bytes], Callable[[Request, str], Awaitable[Answer]]] = {
            (b"GET", b"replicas"): self._list_replicas,
            (b"POST", b"replicas"): self._add_replica,
            (b"GET", b"replicas/ID"): self._show_replica,
            (b"DELETE", b"replicas/ID"): self._remove_replica,
            (b"POST", b"replicas/ID/drain"): self._drain,
            (b"DELETE", b"replicas/ID/drain"): self._cancel_drain,
            (b"GET", b"policy"): self._show_policy,
            (b"PUT", b"policy"): self._use_policy,
            (b"POST", b"policy/rollback"): self._roll_back,
        }

    # What connections call.

    def joined(self, client: Client) -> bool:
        self._clients.add(client)
        return len(self._clients) <= self.limits.connections

    def left(self, client: Client) -> None:
        self._clients.discard(client)

    def look_at_head(self, request: Request) -> None:
        """Refuse who may not. Raises ApiError."""
        if self._token is None:
            host = request.host.decode("latin-1")
            name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
            if request.origin or not is_loopback(name):
                message = "without a token, requests come from programs of this machine: no `Origin`, `Host` loopback"
                raise ApiError(403, message, kind="permission_error", code="not_local", close=True)
        else:
            token = (request.authorization or b"").partition(b" ")[2].strip()
            if not hmac.compare_digest(hashlib.sha256(token).hexdigest(), self._token):
                message = "the admin token is missing or wrong; send `Authorization: Bearer TOKEN`"
                raise ApiError(401, message, kind="authentication_error", code="invalid_token", close=True)
        if request.length is not None and request.length > self.limits.body_bytes:
            raise self.body_too_large()

    def body_too_large(self) -> ApiError:
        message = f"the body is longer than {self.limits.body_bytes} bytes"
        return ApiError(413, message, code="body_too_large", close=True)

    def refused(self, error: ApiError, request_id: bytes) -> None:
        self._service.log.warning("admin request refused", status=error.status, code=error.code)

    def accept(self, client: Client, request: Request) -> None:
        client.exchange = _Call(self, client, request)

    def check(self) -> None:
        now = self.now()
        for client in tuple(self._clients):
            client.check(now)

    async def answer(self, request: Request) -> bytes:
        """The reply to a request, whatever it is."""
        close = not request.keep_alive
        try:
            if request.method in (b"GET", b"HEAD") and request.path == b"/metrics":
                service = self._service
                page = metrics_page(service.metrics, service.board, service.replicas.values(), self.now())
                return reply(200, page, kind=PLAIN, close=close)
            status, answer = await self._call(request)
        except ApiError as error:
            return refusal(error, close=close)
        except (ConfigError, PolicyError) as error:
            return refusal(ApiError(422, str(error), code="unusable"), close=close)
        except AutopoiesisError as error:
            return refusal(ApiError(500, str(error), kind="server_error", code="failed"), close=close)
        return reply(status, msgspec.json.encode(answer), close=close)

    async def _call(self, request: Request) -> Answer:
        head, _, rest = request.path.removeprefix(b"/admin/").partition(b"/")
        name, path = "", head
        if head == b"replicas" and rest:
            id, _, action = rest.partition(b"/")
            name, path = unquote(id), b"replicas/ID/" + action if action else b"replicas/ID"
        elif rest:
            path += b"/" + rest
        if request.path.startswith(b"/admin/"):
            call = self._routes.get((request.method, path))
            if call is not None:
                return await call(request, name)
            if any(known == path for _, known in self._routes):
                raise ApiError(405, "the method is not allowed here", code="method_not_allowed")
        raise ApiError(404, "there is no such path; docs/gateway.md lists those of the admin API", code="not_found")

    # Replicas.

    async def _list_replicas(self, request: Request, name: str) -> Answer:
        return 200, {"replicas": [self._shown(replica) for replica in self._service.replicas.values()]}

    async def _show_replica(self, request: Request, name: str) -> Answer:
        return 200, self._shown(self._replica(name))

    async def _add_replica(self, request: Request, name: str) -> Answer:
        try:
            config = msgspec.json.decode(request.body, type=ReplicaConfig)
        except msgspec.MsgspecError as error:
            raise ApiError(422, f"the replica cannot be used: {error}", code="unusable") from None
        return 201, self._shown(self._service.add(config))

    async def _remove_replica(self, request: Request, name: str) -> Answer:
        replica = self._replica(name)
        shown = self._shown(replica)
        if shown["in_flight"] and b"force=true" not in request.target.partition(b"?")[2]:
            message = "the replica has requests in flight; drain it first, or remove it with ?force=true"
            raise ApiError(409, message, code="busy")
        self._service.remove(replica)
        return 200, shown

    async def _drain(self, request: Request, name: str) -> Answer:
        self._service.set_draining(self._replica(name), True)
        return 200, self._shown(self._replica(name))

    async def _cancel_drain(self, request: Request, name: str) -> Answer:
        self._service.set_draining(self._replica(name), False)
        return 200, self._shown(self._replica(name))

    def _replica(self, name: str) -> Replica:
        replica = self._service.replicas.get(name)
        if replica is None:
            raise ApiError(404, "there is no such replica; GET /admin/replicas lists them", code="not_found")
        return replica

    def _shown(self, replica: Replica) -> dict[str, Any]:
        board, metrics = self._service.board, self._service.metrics
        by_worker = [int(count) for count in board.by_worker(metrics.in_flight + replica.slot)]
        age_s = time.monotonic() - replica.scraped_at
        return {
            "id": replica.id,
            "url": replica.url,
            "model": replica.model,
            "engine": replica.engine,
            "health": replica.health.state.value,
            "draining": replica.draining,
            "in_flight": sum(by_worker),
            "in_flight_by_worker": by_worker,
            "in_flight_prompt_tokens": int(board.total(metrics.in_flight_tokens + replica.slot)),
            "requests": int(board.total(metrics.sent + replica.slot)),
            "running": replica.running,
            "waiting": replica.waiting,
            "kv_use": replica.kv_use,
            "telemetry_age_s": round(age_s, 3) if math.isfinite(age_s) else None,
        }

    # The policy.

    async def _show_policy(self, request: Request, name: str) -> Answer:
        board, metrics, policies = self._service.board, self._service.metrics, self._service.policies
        return 200, {
            "name": policies.current.name,
            "identity": policies.current.identity or None,
            "route": policies.current.route is not None,
            "priority": policies.current.priority is not None,
            "router": self.config.policy.router,
            "faults": int(board.total(metrics.faults) + board.total(metrics.faults + 1)),
            "text": policies.text or None,
        }

    async def _use_policy(self, request: Request, name: str) -> Answer:
        query = dict(part.partition("=")[::2] for part in request.target.decode("latin-1").partition("?")[2].split("&"))
        name = query.get("name") or "policy"
        if not name.isidentifier():
            raise ApiError(422, "?name= must be a name of letters, digits and `_`", code="unusable")
        try:
            text = request.body.decode("utf-8")
        except UnicodeDecodeError:
            raise ApiError(422, "the policy module is not UTF-8", code="unusable") from None
        use = await self._service.use_policy(name, text)
        return 200, {"name": use.name, "identity": use.identity}

    async def _roll_back(self, request: Request, name: str) -> Answer:
        use = self._service.roll_back()
        return 200, {"name": use.name, "identity": use.identity or None}


class OpenAdmin:
    """The admin API on its port."""

    def __init__(self, admin: Admin, server: asyncio.Server) -> None:
        self._admin = admin
        self._server = server
        self._check()
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        self._timer.cancel()
        self._server.close()

    def _check(self) -> None:
        self._timer = self._admin.loop.call_later(1.0, self._check)
        self._admin.check()


async def open_admin(service: Service, config: AdminConfig) -> OpenAdmin:
    """Listen for what operators ask. Raises OSError."""
    admin = Admin(service, config.token_sha256)
    server = await admin.loop.create_server(lambda: Client(admin), config.host, config.port)
    return OpenAdmin(admin, server)


class _Call:
    """One request of the admin API."""

    def __init__(self, admin: Admin, client: Client, request: Request) -> None:
        self._client = client
        self._task = admin.loop.create_task(self._answer(admin, request))

    async def _answer(self, admin: Admin, request: Request) -> None:
        try:
            async with asyncio.timeout(LIMITS.request_timeout_s):
                answer = await admin.answer(request)
        except TimeoutError:
            answer = refusal(ApiError(504, "it took too long", kind="server_error", code="timeout"), close=True)
        self._client.write(for_method(request.method, answer))
        self._client.finished(request.keep_alive)

    def check(self, now: float) -> None:
        pass

    def client_gone(self) -> None:
        """What was asked for is done all the same."""

    def cancel(self, error: ApiError) -> None:
        self._task.cancel()

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass
