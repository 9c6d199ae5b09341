"""Replicas made of what a configuration, or an operator, says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from autopoiesis.errors import ConfigError
from autopoiesis.serve.config import Config, ReplicaConfig, identity
from autopoiesis.serve.config_values import where
from autopoiesis.serve.health import Health
from autopoiesis.serve.replica import Replica

SLOTS = 512
"""Replicas that a gateway can know at once."""


def kinds_of_gpu(replicas: Iterable[ReplicaConfig]) -> dict[str, float]:
    """The numbers by which policies know the kinds of GPU."""
    names = sorted({replica.gpu for replica in replicas if replica.gpu is not None})
    return {name: float(number) for number, name in enumerate(names)}


def make_replica(config: ReplicaConfig, slot: int, health: Health, models: Config, gpus: dict[str, float]) -> Replica:
    """The replica that a configuration speaks of."""
    host, port, tls = where(config.url)
    return Replica(
        identity(config),
        config.url,
        host,
        port,
        config.model or models.models[0].name,
        health=health,
        slot=slot,
        tls=tls,
        engine=config.engine,
        max_in_flight=config.max_in_flight,
        max_sequences=float(config.max_sequences),
        gpu_kind=gpus.setdefault(config.gpu, float(len(gpus))) if config.gpu is not None else 0.0,
        speed=config.speed,
        share=0.0 if config.share is None else config.share,
    )


def token_of(config: ReplicaConfig) -> str | None:
    """The key that the engine wants. Raises ConfigError if the environment lacks it."""
    if config.api_key_env is None:
        return None
    token = os.environ.get(config.api_key_env)
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"replica {identity(config)}: the environment variable {config.api_key_env} is not set, or is no key; "
            "set it, or leave `api_key_env` out"
        )
    return token
