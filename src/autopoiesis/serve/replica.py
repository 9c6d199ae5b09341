"""One engine behind the gateway: where it is, what it serves, and what is known of its load."""

from __future__ import annotations

import math

from autopoiesis.serve.health import Health


class Replica:
    """An engine's endpoint. The loads are what routers look at; whoever knows them writes them here."""

    __slots__ = (
        "draining", "engine", "gpu_kind", "health", "host", "id", "in_flight", "in_flight_tokens", "kv_tokens",
        "kv_use", "max_in_flight", "max_sequences", "model", "port", "prefix_hits", "prefix_queries", "running",
        "scraped_at", "share", "slot", "speed", "tls", "url", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        url: str,
        host: str,
        port: int,
        model: str,
        *,
        health: Health,
        slot: int = 0,
        tls: bool = False,
        engine: str = "auto",
        max_in_flight: int = 0,
        max_sequences: float = 256.0,
        gpu_kind: float = 0.0,
        speed: float = 1.0,
        share: float = 0.0,
    ) -> None:
        self.id = id
        self.url = url
        self.host = host
        self.port = port
        self.model = model
        self.health = health
        self.slot = slot
        """Its place on the board, for as long as it is known."""
        self.tls = tls
        self.engine = engine
        """`vllm`, `sglang`, `llamacpp`, `openai` (no telemetry), or `auto` until its metrics have told."""
        self.max_in_flight = max_in_flight
        """Requests sent there at once, by all workers; 0: no cap."""
        self.max_sequences = max_sequences
        self.gpu_kind = gpu_kind
        self.speed = speed
        self.share = share
        self.in_flight = 0
        """Requests sent there and not ended, by all workers; brought up to date before every choice."""
        self.in_flight_tokens = 0
        """Their prompt tokens, as far as they are known."""
        self.running = 0.0
        self.waiting = 0.0
        self.kv_use = 0.0
        """Part of its KV cache that is taken."""
        self.kv_tokens: float | None = None
        """Tokens that its KV cache holds; None where the engine does not say."""
        self.prefix_queries = 0.0
        """Prompt tokens looked up in its prefix cache since the engine started, …"""
        self.prefix_hits = 0.0
        """… and those of them that it held."""
        self.scraped_at = -math.inf
        """When the six above were true, by `time.monotonic`."""
        self.draining = False
