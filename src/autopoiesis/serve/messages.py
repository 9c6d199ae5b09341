"""What the process that an operator starts and its gateway processes tell each other: MessagePack in frames.

The first tells all gateways the same things in the same order, and what they are told is all they know: which replicas
there are, who of them is healthy, what their engines say of their load, and the policy in force.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from autopoiesis.serve.config import Config, ReplicaConfig

FRAME = struct.Struct(">I")
FRAME_BYTES = 16 * 2**20


class Message(msgspec.Struct, frozen=True, tag=True):
    """Any message, told apart by the name of its class."""


class Start(Message, frozen=True):
    """How a gateway process begins; the first frame on its connection."""

    config: Config
    worker: int
    port: int
    """That it shares with the others; 0 for the first, if the system chooses."""
    seed: bytes
    """A secret that all share."""


class AddReplica(Message, frozen=True):
    """A replica is to be served with, once it is healthy."""

    config: ReplicaConfig
    slot: int


class RemoveReplica(Message, frozen=True):
    id: str


class SetDraining(Message, frozen=True):
    """The replica gets no new requests, or gets them again."""

    id: str
    draining: bool


class SetHealth(Message, frozen=True):
    """The replica is able to serve, or not."""

    id: str
    healthy: bool


class SetTelemetry(Message, frozen=True):
    """What the replica's engine said of itself at a time, by the machine's monotonic clock."""

    id: str
    running: float
    waiting: float
    kv_use: float
    scraped_at: float
    kv_tokens: float | None


class UsePolicy(Message, frozen=True):
    """The policy in force from now on; without machine code, the built-in balancer alone."""

    name: str
    identity: str
    route: bytes | None
    priority: bytes | None
    reads: frozenset[str] = frozenset()
    """Fields of a replica that its `route` reads."""


class Stop(Message, frozen=True):
    """Take no more requests, and end when those under way have."""


class Cancel(Message, frozen=True):
    """End what is under way at once."""


class Ready(Message, frozen=True):
    """The gateway listens."""

    port: int


class ReplicaFailed(Message, frozen=True):
    """By what its requests met, the gateway holds the replica for unable to serve."""

    id: str


Order = AddReplica | RemoveReplica | SetDraining | SetHealth | SetTelemetry | UsePolicy | Stop | Cancel
"""What a gateway is told."""
News = Ready | ReplicaFailed
"""What it tells."""

_encoder = msgspec.msgpack.Encoder()
orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
news: msgspec.msgpack.Decoder[News] = msgspec.msgpack.Decoder(News)


def framed(message: Message) -> bytes:
    body = _encoder.encode(message)
    return FRAME.pack(len(body)) + body


class Frames:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises ValueError for a frame of more than FRAME_BYTES."""
        self._received += data
        while len(self._received) >= FRAME.size:
            size = FRAME.unpack_from(self._received)[0]
            if size > FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes")
            if len(self._received) < FRAME.size + size:
                return
            yield bytes(self._received[FRAME.size : FRAME.size + size])
            del self._received[: FRAME.size + size]
