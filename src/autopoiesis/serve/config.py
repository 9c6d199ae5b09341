"""What an operator says about a gateway: the configuration file as data. `docs/gateway.md` has all of it in one table.

Sections say what is wrong with their own values; what does not fit together is found by `config_problems`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from autopoiesis.serve.config_values import (
    DAY_S,
    FieldError,
    Problem,
    above_zero,
    host,
    one_of,
    seconds,
    sha256,
    spelled,
    where,
    within,
)

ROUTERS = (
    "balanced", "round-robin", "least-outstanding", "power-of-two", "weighted", "shares", "prefix-affinity",
)  # fmt: skip
ENGINES = ("auto", "vllm", "sglang", "llamacpp", "openai")
LEVELS = ("debug", "info", "warning", "error")
MANY = 10**6
TERABYTE = 2**40


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of a configuration. Raises FieldError, a ValueError, for values that it cannot have."""

    def __post_init__(self) -> None:
        found = list(self.wrong())
        if found:
            raise FieldError(found)

    def wrong(self) -> Iterator[Problem]:
        """Each field whose value cannot be, and what it must be."""
        return iter(())


class TLS(Section, frozen=True):
    certificate: str
    """PEM file with the certificate and those that lead to its authority."""
    key: str
    """PEM file with its private key."""


class Listen(Section, frozen=True):
    host: str = "127.0.0.1"
    """Name or address to listen on; 0.0.0.0: every IPv4 address of the machine."""
    port: int = 8000
    """TCP port; 0: the system chooses one."""
    workers: int = 1
    """Processes that share the port."""
    tls: TLS | None = None
    """Certificate of the gateway; without one it speaks plain HTTP."""
    backlog: int = 2048
    """Connections that may wait to be accepted."""
    drain_s: float = 30.0
    """Seconds that requests may go on after the gateway was told to stop."""

    def wrong(self) -> Iterator[Problem]:
        yield from host(self, "host")
        yield from within(self, 0, 65535, "port")
        yield from within(self, 1, 64, "workers")
        yield from within(self, 1, 65535, "backlog")
        yield from within(self, 0, DAY_S, "drain_s")


class Admin(Section, frozen=True):
    host: str = "127.0.0.1"
    """Name or address that the admin API listens on."""
    port: int = 8001
    """TCP port; 0: the system chooses one."""
    token_sha256: str | None = None
    """SHA-256 of the token that requests must bear; may be left out on a loopback address only."""

    def wrong(self) -> Iterator[Problem]:
        yield from host(self, "host")
        yield from within(self, 0, 65535, "port")
        yield from sha256(self, "token_sha256")


class SLOConfig(Section, frozen=True):
    ttft_s: float = 1.0
    """Seconds to the first token, for a prompt without length."""
    ttft_s_per_input_token: float = 0.0005
    """Seconds more for each token of the prompt."""
    tpot_s: float = 0.05
    """Seconds between two tokens, on average over an answer."""

    def wrong(self) -> Iterator[Problem]:
        yield from seconds(self, "ttft_s", "tpot_s")
        yield from within(self, 0, 1, "ttft_s_per_input_token")


class ModelConfig(Section, frozen=True):
    name: str
    """What clients ask for."""
    served_as: str | None = None
    """The name that the replicas know, where it is another one."""
    aliases: tuple[str, ...] = ()
    """Other names that clients may use."""
    bytes_per_token: float = 4.0
    """Bytes of a prompt per token: the first guess; the ratio is learnt from what engines count."""
    slo: SLOConfig = SLOConfig()
    """When an answer is in time; policies see it."""

    def wrong(self) -> Iterator[Problem]:
        for field, names in (("name", (self.name,)), ("served_as", (self.served_as,)), ("aliases", self.aliases)):
            if any(name is not None and not (0 < len(name) <= 256 and name.isprintable()) for name in names):
                yield field, "must have 1 to 256 printable characters"
        yield from above_zero(self, 1000, "bytes_per_token")


class ReplicaConfig(Section, frozen=True):
    url: str
    """`http://HOST:PORT` or `https://HOST:PORT`, without a path."""
    id: str | None = None
    """Its name in metrics and the admin API; HOST:PORT unless said otherwise."""
    model: str | None = None
    """Name of the model it serves; may be left out where there is only one."""
    engine: str = "auto"
    """Whose metrics to expect: `vllm`, `sglang`, `llamacpp`; `openai`: none; `auto`: find out."""
    max_in_flight: int = 0
    """Requests sent there at once; more wait at the gateway. 0: no limit."""
    max_sequences: int = 256
    """Sequences that the engine computes at once; policies see it."""
    gpu: str | None = None
    """Kind of GPU; policies see kinds as numbers, in order of their names."""
    speed: float = 1.0
    """Decode speed relative to the fastest replica of the model; policies see it."""
    share: float | None = None
    """Part of the model's requests that it is to get, from 0 to 1; policies see it."""
    api_key_env: str | None = None
    """Environment variable with the key that the engine wants."""

    def wrong(self) -> Iterator[Problem]:
        try:
            where(self.url)
        except ValueError as error:
            yield "url", str(error)
        yield from spelled(self, r"[\w.:\-]{1,128}", "must have 1 to 128 letters, digits, `.`, `:`, `-` or `_`", "id")
        yield from one_of(self, ENGINES, "engine")
        yield from within(self, 0, MANY, "max_in_flight")
        yield from within(self, 1, MANY, "max_sequences")
        yield from above_zero(self, 1, "speed")
        yield from within(self, 0, 1, "share")
        variable = "must be the name of an environment variable, not the key itself"
        yield from spelled(self, r"[A-Za-z_]\w{0,127}", variable, "api_key_env")


class PolicyConfig(Section, frozen=True):
    router: str = "balanced"
    """The built-in balancer: alone, or where the policy does not answer."""
    file: str | None = None
    """A policy module; its `route` and `priority` are used."""
    prefix_entries: int = 65536
    """Pieces of prompts of which is remembered where they were sent."""
    seed: int = 0
    """Of the draws that policies are given."""

    def wrong(self) -> Iterator[Problem]:
        yield from one_of(self, ROUTERS, "router")
        yield from within(self, 1, 10**7, "prefix_entries")
        yield from within(self, 0, 2**63 - 1, "seed")


class QueueConfig(Section, frozen=True):
    max_requests: int = 1024
    """Requests that wait at the gateway, in each worker; more are refused with 429."""
    max_wait_s: float = 60.0
    """Seconds that a request waits at most; then 503."""
    hold_s: float = 60.0
    """Seconds that a policy may hold a request; then the built-in balancer places it."""
    retry_after_s: float = 1.0
    """Seconds that refused clients are told to wait."""

    def wrong(self) -> Iterator[Problem]:
        yield from within(self, 0, MANY, "max_requests")
        yield from seconds(self, "max_wait_s", "hold_s", "retry_after_s")


class KeyConfig(Section, frozen=True):
    name: str
    """Whose key it is, in metrics and logs."""
    sha256: str
    """SHA-256 of the key in hexadecimal: `autopoiesis config key NAME` makes one."""
    requests_per_minute: float | None = None
    """Requests that it may send per minute; no limit unless given."""
    tokens_per_minute: float | None = None
    """Tokens of prompts and answers per minute; no limit unless given."""
    concurrent: int | None = None
    """Requests under way at once; no limit unless given."""
    models: tuple[str, ...] | None = None
    """Names of the models it may use; all unless given."""

    def wrong(self) -> Iterator[Problem]:
        yield from spelled(self, r"[\w.\-]{1,64}", "must have 1 to 64 letters, digits, `.`, `-` or `_`", "name")
        yield from sha256(self, "sha256")
        yield from above_zero(self, 10**12, "requests_per_minute", "tokens_per_minute")
        yield from within(self, 1, MANY, "concurrent")


class Limits(Section, frozen=True):
    body_bytes: int = 16 * 2**20
    """Bytes of a request's body."""
    header_bytes: int = 32 * 2**10
    """Bytes of a request's line and headers together."""
    headers: int = 100
    """Headers of a request."""
    connections: int = 4096
    """Connections of clients, in each worker."""
    buffered_bytes: int = 512 * 2**20
    """Bytes of requests and answers kept, in each worker; beyond, requests are refused and answers passed on."""
    header_timeout_s: float = 10.0
    """Seconds for all headers to arrive."""
    body_timeout_s: float = 60.0
    """Seconds for the whole body to arrive."""
    idle_timeout_s: float = 75.0
    """Seconds between two requests of a connection."""
    write_timeout_s: float = 60.0
    """Seconds that a client may leave its answer unread."""
    request_timeout_s: float = 600.0
    """Seconds from arrival to the last byte; clients may ask for less with `x-request-timeout`."""
    connect_timeout_s: float = 2.0
    """Seconds to connect to a replica."""

    def wrong(self) -> Iterator[Problem]:
        yield from within(self, 1, TERABYTE, "body_bytes", "buffered_bytes")
        yield from within(self, 1, MANY, "header_bytes", "headers", "connections")
        yield from seconds(self, *(field for field in self.__struct_fields__ if field.endswith("_s")))


class HealthConfig(Section, frozen=True):
    interval_s: float = 2.0
    """Seconds between two looks at a replica."""
    timeout_s: float = 2.0
    """Seconds that an answer may take."""
    failures: int = 3
    """Failures in a row after which a replica gets no requests."""
    eject_s: float = 5.0
    """Seconds that it gets none at first; twice as many each time it happens again."""
    eject_max_s: float = 120.0
    """Seconds that it gets none at most."""
    error_ratio: float = 0.5
    """Part of the last `error_window` results that must be failures for it to get none, too."""
    error_window: int = 20
    """Results by which the ratio is judged."""
    max_ejected: float = 0.5
    """Part of a model's replicas that may be left out for their ratio of errors."""
    probe_completion: bool = True
    """Whether a replica must complete one token before it gets requests."""

    def wrong(self) -> Iterator[Problem]:
        yield from seconds(self, "interval_s", "timeout_s", "eject_s", "eject_max_s")
        yield from within(self, 1, 1000, "failures")
        yield from above_zero(self, 1, "error_ratio")
        yield from within(self, 0, 1, "max_ejected")
        yield from within(self, 1, 10000, "error_window")
        if self.eject_max_s < self.eject_s:
            yield "eject_max_s", "must be at least `eject_s`"


class TelemetryConfig(Section, frozen=True):
    interval_s: float = 2.0
    """Seconds between two readings of an engine's metrics."""
    timeout_s: float = 2.0
    """Seconds that a reading may take."""

    def wrong(self) -> Iterator[Problem]:
        yield from seconds(self, "interval_s", "timeout_s")


class RetryConfig(Section, frozen=True):
    attempts: int = 3
    """Replicas that a request is sent to, at most."""
    ratio: float = 0.2
    """Retries that each request earns, so that retries cannot become the load."""
    burst: int = 256
    """Retries that can be saved up, in each worker."""

    def wrong(self) -> Iterator[Problem]:
        yield from within(self, 1, 16, "attempts")
        yield from within(self, 0, 1, "ratio")
        yield from within(self, 0, MANY, "burst")


class LogConfig(Section, frozen=True):
    level: str = "info"
    """What is worth a line: `debug`, `info`, `warning` or `error`, and what is worse."""
    requests: bool = False
    """Whether each request gets a line; of numbers and names, never of text."""

    def wrong(self) -> Iterator[Problem]:
        yield from one_of(self, LEVELS, "level")


class Config(Section, frozen=True):
    models: tuple[ModelConfig, ...]
    """What is served; at least one model."""
    replicas: tuple[ReplicaConfig, ...] = ()
    """The engines; more may be added while it serves."""
    listen: Listen = Listen()
    """Where clients connect."""
    admin: Admin | None = Admin()
    """Where operators connect; `null`: nowhere."""
    policy: PolicyConfig = PolicyConfig()
    """Who chooses replicas."""
    queue: QueueConfig = QueueConfig()
    """Requests that no replica can take yet."""
    keys: tuple[KeyConfig, ...] = ()
    """Who may use the gateway; without any, everybody."""
    limits: Limits = Limits()
    """What clients may ask of the gateway itself."""
    health: HealthConfig = HealthConfig()
    """When a replica is left out."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """How often engines are asked what they have to do."""
    retry: RetryConfig = RetryConfig()
    """What has produced no byte is sent elsewhere."""
    accounting: bool = True
    """Whether streams are asked for their usage, so that tokens can be counted."""
    log: LogConfig = LogConfig()
    """Lines on stderr."""

    def wrong(self) -> Iterator[Problem]:
        if not self.models:
            yield "models", "must name at least one model"


def identity(replica: ReplicaConfig) -> str:
    """What the replica is called."""
    return replica.id or "{}:{}".format(*where(replica.url)[:2])
