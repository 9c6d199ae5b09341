"""Where a load goes, and where it must not."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from autopoiesis.errors import ScenarioError

PORTS = {"http": 80, "https": 443}


class Kind(str, Enum):
    """Which of the protocol's two ways to ask for text."""

    COMPLETIONS = "completions"
    CHAT = "chat"


PATHS = {Kind.COMPLETIONS: "/completions", Kind.CHAT: "/chat/completions"}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart."""

    host: str
    port: int
    path: str
    """Of the requests."""
    tls: bool

    def context(self) -> ssl.SSLContext | None:
        """How to check the other side's certificate; None without TLS."""
        return ssl.create_default_context() if self.tls else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server and what it is asked for."""

    url: str
    """Up to and including the version, as in `http://127.0.0.1:8000/v1`; without a path, `/v1` is added."""
    model: str
    kind: Kind = Kind.COMPLETIONS
    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token."""
    allow_remote: bool = False
    """Whether an address that is not this machine's own may be loaded."""

    def address(self) -> Address:
        """Raises ScenarioError for a URL that cannot be used or must not be loaded."""
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = None, 0
        if not port or not host or not parts.netloc.isascii():
            raise ScenarioError(f"endpoint {self.url!r}: must be http://HOST:PORT/v1 or https://HOST/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ScenarioError(f"endpoint at {host}: must have no user, query or fragment; a key goes into a variable")
        if not self.allow_remote and not _is_loopback(host):
            raise ScenarioError(
                f"endpoint {self.url!r}: not an address of this machine; a load may be sent elsewhere only where that "
                "is allowed explicitly (--allow-remote)"
            )
        return Address(host, port, (parts.path.rstrip("/") or "/v1") + PATHS[self.kind], parts.scheme == "https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
