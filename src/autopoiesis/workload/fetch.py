"""Public traces from where they are published, with a checksum, in one step.

What is fetched is somebody else's data: their licence and the attribution they ask for are part of the catalogue and
are shown before anything is transferred. A download goes to a file beside the target, goes on where it broke off, and
takes its name only when its checksum is right.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from http.client import HTTPException, HTTPMessage
from importlib import resources
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from autopoiesis.errors import TraceError
from autopoiesis.workload.source import Progress

CHUNK_BYTES = 1 << 18
BYTES_MAX = 4 << 30
"""Largest file that is fetched."""
TIMEOUT_S = 30.0
"""Without a byte for so long, a server is gone."""
SHA256 = re.compile(r"[0-9a-f]{64}")


class TraceSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a trace is published, and under what terms."""

    url: str
    what: str
    licence: str
    attribution: str
    bytes: int
    sha256: str
    sha256_from: str
    """Who says so."""

    @property
    def most_bytes(self) -> int:
        """A file that is larger is another one."""
        return self.bytes + self.bytes // 4 + CHUNK_BYTES


@cache
def sources() -> Mapping[str, TraceSource]:
    """The traces that can be fetched, by name."""
    text = resources.files("autopoiesis.workload").joinpath("data", "sources.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, TraceSource])


def fetch(
    url: str,
    out: str,
    sha256: str,
    most_bytes: int = BYTES_MAX,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
) -> int:
    """Download `url` to `out`, and return the bytes of the file.

    It is there whole and with the right checksum, or not at all. What is left of a download that broke off is beside
    it, and the next one goes on from there. Raises TraceError.
    """
    if not url.lower().startswith(("https://", "http://")):
        raise TraceError(f"{url}: not an address of the web; give one that begins with https://")
    if not SHA256.fullmatch(sha256):
        raise TraceError(f"checksum {sha256!r}: not a SHA-256; give its 64 digits, 0-9 and a-f")
    target = Path(os.path.realpath(out))
    draft = target.with_name(f".{target.name}.download")
    try:
        size = _download(url, draft, most_bytes, progress, timeout_s)
        found = _digest(draft)
        if found != sha256:
            draft.unlink()
            text = f"{url}: the checksum of what came is {found}, not {sha256}"
            raise TraceError(f"{text}; fetch it again, or say by --sha256 that this is the one you want")
        draft.replace(target)
    except urllib.error.HTTPError as error:
        raise TraceError(
            f"{url}: the server answers {error.code} ({_one_line(error.reason)}); give the address by --url"
        ) from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = _one_line(getattr(error, "reason", None) or error) or type(error).__name__
        raise TraceError(f"{url}: cannot be fetched ({reason}); check the address, or try again later") from None
    except OSError as error:
        raise TraceError(f"{out}: cannot be written ({error.strerror or error}); name another file") from None
    return size


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections that stay with the scheme: from https nothing leads to what anybody may have changed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise urllib.error.URLError(f"it leads on to {newurl}, which is not {urlsplit(req.full_url).scheme}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, draft: Path, most: int, progress: Progress | None, timeout_s: float) -> int:
    """Bytes of the whole file, now in `draft`. Raises what urllib and the file system raise, and TraceError."""
    have = draft.stat().st_size if draft.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "autopoiesis", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_SameScheme)
    try:
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # nothing lies beyond what is here, or the file is another one
            raise
        draft.unlink()
        return _download(url, draft, most, progress, timeout_s)
    with response:
        resumed = response.status == 206 and _begins_at(response.headers.get("Content-Range"), have)
        if response.status == 206 and not resumed:
            raise TraceError(f"{url}: the server sends another part than was asked for; remove {draft} and try again")
        have = have if resumed else 0
        announced = response.headers.get("Content-Length")
        total = have + int(announced) if announced is not None and announced.isdigit() else None
        if total is not None and total > most:
            raise TraceError(f"{url}: {total:,} bytes, more than the {most:,} that a trace there may have")
        with open(draft, "ab" if resumed else "wb") as file:
            while data := response.read(CHUNK_BYTES):
                have += len(data)
                if have > most:
                    raise TraceError(f"{url}: more than {most:,} bytes, which a trace there may have")
                file.write(data)
                if progress is not None:
                    progress(have, total or 0)
    if total is not None and have < total:
        raise TraceError(
            f"{url}: broke off after {have:,} of {total:,} bytes; fetch it again, and it goes on from there"
        )
    return have


def _begins_at(content_range: Any, start: int) -> bool:
    return isinstance(content_range, str) and content_range.startswith(f"bytes {start}-")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
