"""Messages between our processes: MessagePack in frames, written and read under a deadline.

Light to import, because whoever starts a process needs it, and not what the process is for.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Any

import msgspec

ANSWER_BYTES = 2**20
"""Largest answer of a process that nobody trusts, encoded."""
FRAME = struct.Struct(">I")
"""A frame is its length in bytes, then a message."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Any message, told apart by the name of its class."""


def plain(value: Any) -> Any:
    """numpy's numbers are ordinary results of a policy's arithmetic; they travel as Python's."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} cannot be part of an answer")


_encoder = msgspec.msgpack.Encoder(enc_hook=plain)


def framed(message: Any) -> bytes:
    """A message as bytes on the wire. Raises TypeError where a value is not plain data."""
    body = _encoder.encode(message)
    return FRAME.pack(len(body)) + body


def send_frame(connection: socket.socket, frame: bytes, deadline: float) -> None:
    """Raises TimeoutError past `deadline` (by `time.monotonic`), OSError where nobody listens."""
    connection.settimeout(_remaining(deadline))
    connection.sendall(frame)


def receive_frame(connection: socket.socket, deadline: float) -> bytes:
    """One frame's body. Raises TimeoutError past `deadline`, EOFError at the end, ValueError if it is too large."""
    size = FRAME.unpack(_receive_exactly(connection, FRAME.size, deadline))[0]
    if size > ANSWER_BYTES:
        raise ValueError(f"it has {size} bytes, more than {ANSWER_BYTES}")
    return _receive_exactly(connection, size, deadline)


def _receive_exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        connection.settimeout(_remaining(deadline))
        part = connection.recv(size - len(received))
        if not part:
            raise EOFError("the other side has ended")
        received += part
    return bytes(received)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
