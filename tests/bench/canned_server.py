"""A server that answers every connection with the same bytes, some at a time, and keeps what it was asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Canned:
    """What the server does, and what it has seen."""

    pieces: list[bytes]
    pause_s: float = 0.02
    stays_open: bool = False
    url: str = ""
    asked: list[bytes] = field(default_factory=list)


@contextmanager
def canned_server(canned: Canned) -> Iterator[Canned]:
    """Serve until the end of the block."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        canned.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=_serve, args=(listener, canned, over))
        thread.start()
        try:
            yield canned
        finally:
            over.set()
            thread.join()


def _serve(listener: socket.socket, canned: Canned, over: threading.Event) -> None:
    while not over.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(5.0)
            canned.asked.append(_message(connection))
            for piece in canned.pieces:
                connection.sendall(piece)
                time.sleep(canned.pause_s)
            if canned.stays_open:
                over.wait(5.0)


def _message(connection: socket.socket) -> bytes:
    message = b""
    while b"\r\n\r\n" not in message:
        message += connection.recv(65536)
    head, _, body = message.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def event(text: str) -> bytes:
    """A server-sent event as one chunk."""
    data = f"data: {text}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
