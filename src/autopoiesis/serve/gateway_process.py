"""The process of one gateway among several on a port: `python -m autopoiesis.serve.gateway_process`.

Its arguments are two file descriptors: a connection to the process that started it, over which it is told how it begins
and then what there is, and the board.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import socket
import sys
from typing import cast

import msgspec

from autopoiesis.serve.board import Board
from autopoiesis.serve.fleet import SLOTS
from autopoiesis.serve.keys import KeyRing
from autopoiesis.serve.log import Log
from autopoiesis.serve.messages import FRAME, Frames, Message, Order, Ready, Start, Stop, framed, orders
from autopoiesis.serve.metrics import Metrics
from autopoiesis.serve.worker import SEED_BYTES, Worker, bound, run


class Connection(asyncio.Protocol):
    """The connection of a gateway process to the one that started it."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._early: list[Order] = []
        """What came before there was a worker."""
        self._worker: Worker | None = None

    def begin(self, worker: Worker) -> None:
        """From now on the worker does what it is told, and first what it was told before."""
        self._worker = worker
        for order in self._early:
            worker.obey(order)
        self._early.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._obey(orders.decode(frame))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._obey(Stop())

    def tell(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(framed(message))

    def _obey(self, order: Order) -> None:
        if self._worker is None:
            self._early.append(order)
        else:
            self._worker.obey(order)


async def serve_alone(start: Start, board_file: int, connection: socket.socket) -> None:
    """Be a gateway process until it is stopped."""
    loop = asyncio.get_running_loop()
    config = start.config
    metrics = Metrics([model.name for model in config.models], KeyRing(config.keys).names, SLOTS)
    board = Board(config.listen.workers, metrics.columns, start.worker, board_file)
    log = Log(config.log.level, requests=config.log.requests, worker=start.worker)
    _, protocol = await loop.create_connection(Connection, sock=connection)
    worker = Worker(
        config,
        board,
        metrics,
        log,
        protocol.tell,
        seed=start.seed,
        rng=random.Random(f"{config.policy.seed}/{start.worker}"),
        ids=random.Random(secrets.token_bytes(SEED_BYTES)),
    )
    # Ctrl-C in a terminal reaches every process of the group; the one that was started says when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)
    protocol.begin(worker)
    port = await worker.listen(bound(config.listen.host, start.port, shared=True))
    protocol.tell(Ready(port))
    await worker.ended()


def main() -> None:
    """The gateway process: the connection's and the board's file descriptors are its arguments."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    (size,) = FRAME.unpack(_exactly(connection, FRAME.size))
    start = msgspec.msgpack.decode(_exactly(connection, size), type=Start)
    run(serve_alone(start, int(sys.argv[2]), connection))


def _exactly(connection: socket.socket, size: int) -> bytes:
    return connection.recv(size, socket.MSG_WAITALL)


if __name__ == "__main__":
    main()
