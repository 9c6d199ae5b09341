"""What an emulated engine answers to which path."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from autopoiesis import __version__
from autopoiesis.serve.emulated.answers import StreamedAnswer, Vectors, WholeAnswer
from autopoiesis.serve.emulated.calls import Completion, Reader
from autopoiesis.serve.emulated.connection import Connection, Request
from autopoiesis.serve.emulated.engine import Engine, Phase
from autopoiesis.serve.emulated.refusal import Refusal

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
WHY = {
    Phase.LOADING: "the engine loads; ask again once /health answers 200",
    Phase.DRAINING: "the engine drains and takes nothing new; ask another one",
}


@dataclass
class Routes:
    """The endpoints of one engine."""

    engine: Engine
    reader: Reader
    rng: random.Random
    """Of ids for calls that bring none."""
    time: Callable[[], float]
    """Seconds since 1970."""
    wake_s: float
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def serve(self, request: Request, connection: Connection) -> None:
        """Answer a call, now or later. Raises Refusal."""
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                self._complete(self.reader.chat, request, connection)
            case "POST", "/v1/completions":
                self._complete(self.reader.completion, request, connection)
            case "POST", "/v1/embeddings":
                self._embed(request, connection)
            case "GET", "/v1/models":
                connection.respond(200, self._models())
            case "GET", "/health":
                connection.respond(200 if self.engine.phase is Phase.SERVING else 503)
            case "GET", "/load":
                connection.respond(200, msgspec.json.encode({"server_load": self.engine.load}))
            case "GET", "/version":
                connection.respond(200, msgspec.json.encode({"version": f"autopoiesis-{__version__}"}))
            case "GET", "/metrics":
                state = "weights_offloaded" if self.engine.asleep else "awake"
                connection.respond(200, self.engine.metrics.page(state).encode(), EXPOSITION)
            case "GET", "/is_sleeping":
                connection.respond(200, msgspec.json.encode({"is_sleeping": self.engine.asleep}))
            case "POST", "/sleep":
                self._sleep(request, connection)
            case "POST", "/wake_up":
                self._later(self._wake(), connection)
            case "POST", "/reset_prefix_cache":
                self.engine.batch.blocks.forget_idle()
                connection.respond(200)
            case _, path if path in METHODS:
                raise Refusal(405, f"this path takes {METHODS[path]}")
            case _:
                raise Refusal(404, "there is no such path here; see docs/engine.md for those there are")

    def _complete(self, read: Callable[[bytes], Completion], request: Request, connection: Connection) -> None:
        self._check_serving()
        call = read(request.body)
        kind = StreamedAnswer if call.stream else WholeAnswer
        at = int(self.time())
        self.engine.submit(kind(call, connection, self.engine.abort, self._id(request), self.reader.names[0], at))

    def _embed(self, request: Request, connection: Connection) -> None:
        self._check_serving()
        call = self.reader.embedding(request.body)
        self.engine.submit(Vectors(call, connection, self.engine.abort, self._id(request), self.reader.names[0]))

    def _check_serving(self) -> None:
        if self.engine.phase in WHY:
            raise Refusal(503, WHY[self.engine.phase])

    def _id(self, request: Request) -> str:
        return request.id or f"{self.rng.getrandbits(128):032x}"

    def _models(self) -> bytes:
        names = self.reader.names
        entries = [
            {
                "id": name,
                "object": "model",
                "created": int(self.time()),
                "owned_by": "autopoiesis",
                "root": names[0],
                "parent": None,
                "max_model_len": self.reader.context,
            }
            for name in names
        ]
        return msgspec.json.encode({"object": "list", "data": entries})

    def _sleep(self, request: Request, connection: Connection) -> None:
        self._check_serving()
        level, mode = request.query.get("level", ["1"])[-1], request.query.get("mode", ["abort"])[-1]
        if level != "1":
            raise Refusal(400, "'level' must be 1: deeper sleep is not emulated", "level")
        if mode not in ("abort", "wait"):
            raise Refusal(400, "'mode' must be abort or wait", "mode")
        self._later(self.engine.sleep(abort=mode == "abort"), connection)

    async def _wake(self) -> None:
        await asyncio.sleep(self.wake_s)
        self.engine.wake()

    def _later(self, deed: Awaitable[None], connection: Connection) -> None:
        """Answer once it is done, if there is still somebody to answer."""

        async def carry_out() -> None:
            await deed
            if connection.waits:
                connection.respond(200)

        task = asyncio.ensure_future(carry_out())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


METHODS = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/embeddings": "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/load": "GET",
    "/version": "GET",
    "/metrics": "GET",
    "/is_sleeping": "GET",
    "/sleep": "POST",
    "/wake_up": "POST",
    "/reset_prefix_cache": "POST",
}
