"""Processes of a benchmark: pinned, listening, and ended with all that they have started."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopoiesis.bench.engine_process import end_group
from autopoiesis.bench.environment import Unavailable

HOST = "127.0.0.1"
ASK_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where; on a machine of one core, all on that."""

    gateway: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_process(cls) -> Cores:
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others or [first]))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started here runs on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(
    command: Sequence[str], cores: frozenset[int], log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own that says what it has to say to `log`. Raises Unavailable if it cannot start."""
    with log.open("ab") as said, pinned(cores):
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=environ
            )
        except OSError as error:
            raise Unavailable(f"{command[0]}: {error.strerror}") from None
    try:
        yield process
    finally:
        end_group(process)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: bytes | None = None, key: str = "") -> tuple[int, Any]:
    """Status and JSON (None if it is none) of an answer. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ASK_S)
    try:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(content)
    except ValueError:
        return response.status, None


def wait_ready(
    port: int, chat: bytes, key: str, process: subprocess.Popen[bytes], log: Path, patience_s: float
) -> None:
    """Wait until chats are answered with 200. Raises Unavailable with the last words of the process."""
    until = time.monotonic() + patience_s
    what = "it did not listen"
    while time.monotonic() < until and process.poll() is None:
        try:
            status, _ = ask(port, "POST", "/v1/chat/completions", chat, key)
            if status == 200:
                return
            what = f"it answered {status}"
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(POLL_S)
    words = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise Unavailable(f"not ready within {patience_s:g} s: {what}" + (f"; it said: {words[-1][:300]}" if words else ""))
