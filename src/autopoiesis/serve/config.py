"""What an operator says about a gateway: the configuration file as data. `docs/gateway.md` has all of it in one table.

Fields say what is wrong with a single value; `problems` says what does not fit together. Times are seconds.
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

ROUTERS = (
    "balanced", "round-robin", "least-outstanding", "power-of-two", "weighted", "shares", "prefix-affinity",
)  # fmt: skip
ENGINES = ("auto", "vllm", "sglang", "llamacpp", "openai")
LEVELS = ("debug", "info", "warning", "error")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def where(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether by TLS. Raises ValueError."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"url must be http://HOST:PORT or https://HOST:PORT, without a path; not {url!r}")
    if parts.username is not None:
        raise ValueError("url must not hold a password; name a variable of the environment: `api_key_env`")
    tls = parts.scheme == "https"
    return parts.hostname, port or (443 if tls else 80), tls


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}")


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not (0 < value < math.inf or (zero and value == 0)):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}")


def _sha256(name: str, value: str | None) -> None:
    if value is not None and not _SHA256.fullmatch(value):
        raise ValueError(f"{name} must be 64 hexadecimal digits (lower case)")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of a configuration."""


class TLS(Section, frozen=True):
    certificate: str
    """PEM file with the certificate and those that lead to its authority."""
    key: str
    """PEM file with its private key."""


class Listen(Section, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8000
    """0: the system chooses one."""
    workers: int = 1
    """Processes that share the port."""
    tls: TLS | None = None
    backlog: int = 2048
    """Connections that may wait to be accepted."""
    drain_s: float = 30.0
    """How long requests may go on after the gateway was told to stop."""

    def __post_init__(self) -> None:
        _within("port", self.port, 0, 65535)
        _within("workers", self.workers, 1, 64)
        _within("backlog", self.backlog, 1, 65535)
        _positive("drain_s", self.drain_s, zero=True)


class Admin(Section, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8001
    token_sha256: str | None = None
    """SHA-256 of the token that requests must bear; may be left out on a loopback address only."""

    def __post_init__(self) -> None:
        _within("port", self.port, 0, 65535)
        _sha256("token_sha256", self.token_sha256)


class SLOConfig(Section, frozen=True):
    ttft_s: float = 1.0
    ttft_s_per_input_token: float = 0.0005
    tpot_s: float = 0.05

    def __post_init__(self) -> None:
        _positive("ttft_s", self.ttft_s)
        _positive("ttft_s_per_input_token", self.ttft_s_per_input_token, zero=True)
        _positive("tpot_s", self.tpot_s)


class ModelConfig(Section, frozen=True):
    name: str
    """What clients ask for."""
    served_as: str | None = None
    """The name that the replicas know, where it is another one."""
    aliases: tuple[str, ...] = ()
    """Other names that clients may use."""
    bytes_per_token: float = 4.0
    """First guess; the ratio is learnt from what engines count."""
    context_tokens: int | None = None
    slo: SLOConfig = SLOConfig()

    def __post_init__(self) -> None:
        for name in (self.name, self.served_as, *self.aliases):
            if name is not None and not 0 < len(name) <= 256:
                raise ValueError("names of models have 1 to 256 characters")
        _positive("bytes_per_token", self.bytes_per_token)
        if self.context_tokens is not None:
            _within("context_tokens", self.context_tokens, 1, 10**9)


class ReplicaConfig(Section, frozen=True):
    url: str
    """`http://HOST:PORT` or `https://…`, without a path."""
    id: str | None = None
    """In metrics and the admin API; HOST:PORT unless said otherwise."""
    model: str | None = None
    """May be left out where there is one model only."""
    engine: str = "auto"
    """Whose metrics to expect: `vllm`, `sglang`, `llamacpp`; `openai`: none; `auto`: find out."""
    max_in_flight: int = 0
    """Requests sent there at once; more wait at the gateway. 0: no limit."""
    max_sequences: int = 256
    """Sequences that the engine computes at once; policies see it."""
    gpu: str | None = None
    """Kind of GPU; policies see kinds as numbers, in order of their names."""
    speed: float = 1.0
    """Decode speed relative to the fastest replica of the model."""
    share: float | None = None
    """Part of the model's requests that the plan gives it."""
    api_key_env: str | None = None
    """Environment variable with the key that the engine wants."""

    def __post_init__(self) -> None:
        where(self.url)
        if self.id is not None and not re.fullmatch(r"[\w.:\-]{1,128}", self.id):
            raise ValueError("id has 1 to 128 letters, digits, `.`, `:`, `-` or `_`")
        _one_of("engine", self.engine, ENGINES)
        _within("max_in_flight", self.max_in_flight, 0, 10**6)
        _within("max_sequences", self.max_sequences, 1, 10**6)
        if not 0 < self.speed <= 1:
            raise ValueError("speed must be above 0 and at most 1, that of the fastest replica")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError("share must be from 0 to 1")


class PolicyConfig(Section, frozen=True):
    router: str = "balanced"
    """The built-in balancer: alone, or where the policy does not answer."""
    file: str | None = None
    """A policy module; its `route` and `priority` are used."""
    prefix_entries: int = 65536
    """Pieces of prompts of which is remembered where they were sent."""
    seed: int = 0
    """Of the draws that policies are given."""

    def __post_init__(self) -> None:
        _one_of("router", self.router, ROUTERS)
        _within("prefix_entries", self.prefix_entries, 1, 10**7)


class QueueConfig(Section, frozen=True):
    max_requests: int = 1024
    """Requests that wait at the gateway; more are refused with 429."""
    max_wait_s: float = 60.0
    """Longest wait; then 503."""
    hold_s: float = 60.0
    """How long a policy may hold a request; then the built-in balancer places it."""
    retry_after_s: float = 1.0
    """What refused clients are told to wait."""

    def __post_init__(self) -> None:
        _within("max_requests", self.max_requests, 0, 10**6)
        _positive("max_wait_s", self.max_wait_s)
        _positive("hold_s", self.hold_s)
        _positive("retry_after_s", self.retry_after_s)


class KeyConfig(Section, frozen=True):
    name: str
    """In metrics and logs."""
    sha256: str
    """Of the key, in hexadecimal: `autopoiesis config key NAME` makes one."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrent: int | None = None
    """Requests under way at once."""
    models: tuple[str, ...] | None = None
    """Those it may use; all unless given."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.\-]{1,64}", self.name):
            raise ValueError("name has 1 to 64 letters, digits, `.`, `-` or `_`")
        _sha256("sha256", self.sha256)
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent"):
            if (value := getattr(self, name)) is not None:
                _positive(name, value)


class Limits(Section, frozen=True):
    body_bytes: int = 16 * 2**20
    header_bytes: int = 32 * 2**10
    headers: int = 100
    connections: int = 4096
    """Of clients, in each worker."""
    buffered_bytes: int = 512 * 2**20
    """Of requests and answers that are kept, in each worker; beyond, requests are refused and answers passed on."""
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 75.0
    """Between two requests of a connection."""
    write_timeout_s: float = 60.0
    """How long a client may leave its answer unread."""
    request_timeout_s: float = 600.0
    """From arrival to the last byte; clients may ask for less with `x-request-timeout`."""
    connect_timeout_s: float = 2.0
    """To a replica."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _positive(name, getattr(self, name))


class HealthConfig(Section, frozen=True):
    interval_s: float = 2.0
    timeout_s: float = 2.0
    failures: int = 3
    """In a row; then the replica is left out."""
    eject_s: float = 5.0
    """How long at first; twice as long each time it happens again."""
    eject_max_s: float = 120.0
    error_ratio: float = 0.5
    """Of the last `error_window` results; then the replica is left out, too."""
    error_window: int = 20
    max_ejected: float = 0.5
    """Part of a model's replicas that may be left out for their ratio of errors."""
    probe_completion: bool = True
    """Whether a replica must complete one token before it gets requests."""

    def __post_init__(self) -> None:
        for name in ("interval_s", "timeout_s", "eject_s", "eject_max_s"):
            _positive(name, getattr(self, name))
        _within("failures", self.failures, 1, 1000)
        _within("error_window", self.error_window, 1, 10000)
        for name in ("error_ratio", "max_ejected"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1")


class TelemetryConfig(Section, frozen=True):
    interval_s: float = 2.0
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        _positive("interval_s", self.interval_s)
        _positive("timeout_s", self.timeout_s)


class RetryConfig(Section, frozen=True):
    attempts: int = 3
    """Replicas that a request is sent to, at most."""
    ratio: float = 0.2
    """Retries that each request earns, so that retries cannot become the load."""
    burst: int = 256
    """Retries that can be saved up."""

    def __post_init__(self) -> None:
        _within("attempts", self.attempts, 1, 16)
        _within("burst", self.burst, 0, 10**6)
        if not 0 <= self.ratio <= 1:
            raise ValueError("ratio must be from 0 to 1")


class LogConfig(Section, frozen=True):
    level: str = "info"
    requests: bool = False
    """Whether each request gets a line; of numbers and names, never of text."""

    def __post_init__(self) -> None:
        _one_of("level", self.level, LEVELS)


class Config(Section, frozen=True):
    models: tuple[ModelConfig, ...]
    replicas: tuple[ReplicaConfig, ...] = ()
    """More may be added while it serves."""
    listen: Listen = Listen()
    admin: Admin | None = Admin()
    """`null`: none."""
    policy: PolicyConfig = PolicyConfig()
    queue: QueueConfig = QueueConfig()
    keys: tuple[KeyConfig, ...] = ()
    """None: everybody may use the gateway."""
    limits: Limits = Limits()
    health: HealthConfig = HealthConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    retry: RetryConfig = RetryConfig()
    accounting: bool = True
    """Whether streams are asked for their usage, so that tokens can be counted."""
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models must name at least one model")


Place = tuple[str | int, ...]
"""Where in a configuration: names of fields and places in lists."""


def problems(config: Config) -> list[tuple[Place, str]]:
    """What does not fit together, or is not there: the place, and what to do about it."""
    found: list[tuple[Place, str]] = []
    names: dict[str, str] = {}
    for i, model in enumerate(config.models):
        for name in (model.name, *model.aliases):
            if name in names:
                found.append(
                    (("models", i), f"{name!r} is a name or alias of {names[name]!r} already; names are unique")
                )
            names.setdefault(name, model.name)
    ids: set[str] = set()
    for i, replica in enumerate(config.replicas):
        if replica.model is None and len(config.models) > 1:
            found.append((("replicas", i), "there are several models; say which one it serves: `model: NAME`"))
        elif replica.model is not None and replica.model not in {model.name for model in config.models}:
            found.append((("replicas", i, "model"), f"no model is named {replica.model!r}; add it to `models`"))
        if (known := identity(replica)) in ids:
            found.append((("replicas", i), f"another replica is {known!r}; give this one an `id` of its own"))
        ids.add(known)
    hashes: set[str] = set()
    for i, key in enumerate(config.keys):
        if key.sha256 in hashes:
            found.append((("keys", i, "sha256"), "another key has the same hash; make one with `config key`"))
        hashes.add(key.sha256)
        if key.name in {other.name for other in config.keys[:i]}:
            found.append((("keys", i, "name"), f"another key is named {key.name!r}; names are unique"))
        for name in key.models or ():
            if name not in {model.name for model in config.models}:
                found.append((("keys", i, "models"), f"no model is named {name!r}; add it to `models`"))
    if config.admin is not None:
        if config.admin.token_sha256 is None and not is_loopback(config.admin.host):
            found.append((("admin", "token_sha256"), "missing; without a token, `host` must be a loopback address"))
        if config.admin.port == config.listen.port != 0 and config.admin.host == config.listen.host:
            found.append((("admin", "port"), "is the port of `listen`; give another one"))
    files: list[tuple[Place, str]] = []
    if config.listen.tls is not None:
        files += [(("listen", "tls", name), getattr(config.listen.tls, name)) for name in ("certificate", "key")]
    if config.policy.file is not None:
        files.append((("policy", "file"), config.policy.file))
    found += [(place, f"{file}: there is no such file") for place, file in files if not Path(file).is_file()]
    return found


def identity(replica: ReplicaConfig) -> str:
    """What the replica is called."""
    return replica.id or "{}:{}".format(*where(replica.url)[:2])


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
