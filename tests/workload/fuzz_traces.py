"""Damages samples of all formats by a seed and reads them, in a process that may hold little memory.

`python fuzz_traces.py SEED COUNT FOLDER` prints as JSON how many were read, and what went wrong: any ending but
requests or one line that names the file. A file that takes longer than its alarm allows is one that hangs.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from trace_samples import SAMPLES

from autopoiesis.errors import TraceError
from autopoiesis.workload import read_requests

ALARM_S = 60
MEMORY_BYTES = 768 << 20
"""Above what the process holds before the first file."""
NUMBERS = [b"-1", b"1e308", b"1e999", b"9" * 400, b"NaN", b"Infinity", b"0x10", b"1_0", b"18446744073709551616", b""]
WORDS = [b"null", b"true", b'"text"', b"[]", b"{}", b"[[1]]", b'{"a": {"b": []}}', b"\\u0000", b"2023-02-30 00:00:00"]
BYTES = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\r",
    b"\r\n",
    b'"',
    b"'",
    b",",
    b"\n\n",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
]

Damage = Callable[[random.Random, bytes], bytes]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def patched(choices: list[bytes]) -> Damage:
    def patch(rng: random.Random, data: bytes) -> bytes:
        start = rng.randrange(len(data) + 1)
        return data[:start] + rng.choice(choices) + data[start + rng.randrange(9) :]

    return patch


def cell(rng: random.Random, data: bytes) -> bytes:
    """Another value between two separators."""
    places = [i for i, byte in enumerate(data) if byte in b",\n:[]"]
    at = rng.randrange(len(places) - 1)
    return data[: places[at] + 1] + rng.choice(NUMBERS + WORDS) + data[places[at + 1] :]


def deep(rng: random.Random, data: bytes) -> bytes:
    start = data.find(b":", rng.randrange(len(data))) + 1
    return data[:start] + rng.choice([b"[", b'{"a":', b"("]) * rng.choice([50, 5_000, 400_000]) + data[start:]


def long(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice([b"1", b" ", b"a", b",", b"0,"]) * rng.choice([5_000, 1_100_000]) + data[start:]


def lines(rng: random.Random, data: bytes) -> bytes:
    """Lines repeated, dropped and swapped."""
    rows = data.splitlines(keepends=True)
    return b"".join(rng.choice(rows) for _ in range(rng.randrange(12))) + rng.choice(rows)


def encoded(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"]), "replace")


def gzip_damaged(rng: random.Random, data: bytes) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return rng.choice([cut, bits])(rng, packed)


def gzip_bomb(rng: random.Random, data: bytes) -> bytes:
    end = data.rstrip().rfind(b"\n") + 1
    filling = rng.choice([data[end:].rstrip() + b"\n", b"0" * 4096, b"\n" * 512, b'{"a":'])
    return gzip.compress(data + filling * ((48 << 20) // len(filling)), 9, mtime=0)


def gzip_stacked(rng: random.Random, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) + rng.choice([b"", b"\0" * 8, gzip.compress(data), b"junk", b"\x1f\x8b"])


COMMON: list[Damage] = [
    cut,
    bits,
    bits,
    patched(NUMBERS),
    patched(WORDS),
    patched(BYTES),
    cell,
    cell,
    cell,
    cell,
    lines,
]
RARE: list[Damage] = [deep, long, encoded, gzip_damaged, gzip_stacked]


def damaged(rng: random.Random, sample: bytes) -> bytes:
    if rng.random() < 0.004:
        return gzip_bomb(rng, sample)
    data = sample
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if len(data) > 2 and data.count(b",") > 2:
            data = rng.choice(COMMON if rng.random() < 0.9 else RARE)(rng, data)
    return data


def ending(path: str) -> str:
    """ "read", "refused", or what a reader must not do with a file."""
    try:
        read_requests(path)
    except TraceError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or not message.startswith(path) or len(message) > len(path) + 500:
            return f"not one line that names the file: {message[:300]!r}"
        return "refused"
    except BaseException:
        return traceback.format_exc()
    return "read"


def main(seed: int, count: int, folder: Path) -> dict[str, Any]:
    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"no end after {ALARM_S} s")

    signal.signal(signal.SIGALRM, ring)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    path = folder / "trace"
    read = 0
    found: list[dict[str, str]] = []
    names = sorted(SAMPLES)
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        path.write_bytes(damaged(rng, SAMPLES[name].encode()))
        signal.alarm(ALARM_S)
        end = ending(str(path))
        signal.alarm(0)
        read += end == "read"
        if end not in ("read", "refused"):
            found.append({"number": str(number), "sample": name, "problem": end})
    return {"read": read, "problems": found}


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), sys.stdout)
