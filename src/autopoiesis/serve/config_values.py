"""What single values of a configuration may be: checks of the fields of a section, each of which says the mend."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

Problem = tuple[str, str]
"""The name of a field, and what it must be."""

DAY_S = 86400.0
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FieldError(ValueError):
    """Values that a section cannot have."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{field} {text}" for field, text in problems))
        self.problems = problems


def where(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether by TLS. Raises ValueError."""
    expected = "must be http://HOST:PORT or https://HOST:PORT, without a path"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None:
        raise ValueError("must not hold a password; name a variable of the environment: `api_key_env`")
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not is_host(host) or port == 0 or not url.isprintable():
        raise ValueError(expected)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(expected)
    tls = parts.scheme == "https"
    return host, port or (443 if tls else 80), tls


def is_host(name: str) -> bool:
    """Whether it can be the name or the address of a machine."""
    return _HOST.fullmatch(name) is not None or _address(name) is not None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach it."""
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def within(section: Any, least: float, most: float, *fields: str) -> Iterator[Problem]:
    """Numbers, where they are given, from `least` to `most`."""
    for field in fields:
        value = getattr(section, field)
        if value is not None and not least <= value <= most:
            yield field, f"must be from {least} to {most}"


def above_zero(section: Any, most: float, *fields: str) -> Iterator[Problem]:
    """Numbers, where they are given, above 0 and at most `most`."""
    for field in fields:
        value = getattr(section, field)
        if value is not None and not 0 < value <= most:
            yield field, f"must be above 0 and at most {most:.15g}"


def seconds(section: Any, *fields: str) -> Iterator[Problem]:
    """Times above 0 and at most a day."""
    return above_zero(section, DAY_S, *fields)


def one_of(section: Any, known: tuple[str, ...], field: str) -> Iterator[Problem]:
    """One of the names."""
    if getattr(section, field) not in known:
        yield field, f"must be one of {', '.join(known)}"


def sha256(section: Any, field: str) -> Iterator[Problem]:
    """A hash, where it is given, as `sha256sum` prints it."""
    value = getattr(section, field)
    if value is not None and not _SHA256.fullmatch(value):
        yield field, "must be 64 hexadecimal digits in lower case; `autopoiesis config key NAME` prints some"


def host(section: Any, field: str) -> Iterator[Problem]:
    """A name or address to listen on."""
    if not is_host(getattr(section, field)):
        yield field, "must be a host name or an IP address without brackets, such as 127.0.0.1 or 0.0.0.0"


def spelled(section: Any, pattern: str, expected: str, field: str) -> Iterator[Problem]:
    """A text, where it is given, that the pattern matches whole."""
    value = getattr(section, field)
    if value is not None and not re.fullmatch(pattern, value, re.ASCII):
        yield field, expected
