"""A gateway in a process of its own, as the service sees it: started, told what there is, started again if it dies."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, cast

from autopoiesis.serve.messages import Frames, Message, News, Order, Ready, Start, framed, news

if TYPE_CHECKING:
    from autopoiesis.serve.service import Service

RESTART_S = 1.0
"""Before a process that has died is started again."""


class WorkerProcess:
    """A gateway in a process of its own, started again whenever it ends before it should."""

    def __init__(self, service: Service, number: int) -> None:
        self._service = service
        self._number = number
        self._popen: subprocess.Popen[bytes] | None = None
        self._connection: _Connection | None = None
        self._ready: asyncio.Future[int]
        self._ended = asyncio.Event()

    @classmethod
    async def start(cls, service: Service, number: int) -> WorkerProcess:
        """Raises OSError if the process cannot be started or cannot listen."""
        worker = cls(service, number)
        await worker._begin()
        return worker

    def obey(self, order: Order) -> None:
        if self._connection is not None:
            self._connection.tell(order)

    async def ended(self) -> None:
        await self._ended.wait()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        board = self._service.board_file
        with theirs:
            module = "autopoiesis.serve.gateway_process"
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(board)]
            self._popen = subprocess.Popen(command, pass_fds=(theirs.fileno(), board), stdin=subprocess.DEVNULL)
        self._ready = loop.create_future()
        _, self._connection = await loop.create_connection(lambda: _Connection(self), sock=ours)
        service = self._service
        self._connection.tell(Start(service.config, self._number, service.port, service.seed))
        service.join(self)
        service.port = await self._ready

    def heard(self, message: News) -> None:
        if isinstance(message, Ready):
            if not self._ready.done():
                self._ready.set_result(message.port)
        else:
            self._service.heard(message)

    def lost(self) -> None:
        """The process has ended, or is about to."""
        self._connection = None
        asyncio.get_running_loop().create_task(self._again())

    async def _again(self) -> None:
        assert self._popen is not None
        code = await asyncio.to_thread(self._popen.wait)
        if not self._ready.done():
            # Whoever started it waits for it.
            self._ready.set_exception(OSError(f"gateway process {self._number} ended with {code} before it listened"))
            return
        service = self._service
        service.board.clear(self._number, service.metrics.gauges)
        if not service.stopping.is_set():
            service.log.error("gateway process ended", number=self._number, code=code)
        while not service.stopping.is_set():
            await asyncio.sleep(RESTART_S)
            try:
                await self._begin()
            except OSError as error:
                service.log.error("gateway process cannot be started", number=self._number, reason=str(error))
            else:
                return
        self._ended.set()


class _Connection(asyncio.Protocol):
    """The connection to a gateway process."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._process.heard(news.decode(frame))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._process.lost()

    def tell(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(framed(message))
