"""Emulated engines as processes, and what is asked of them over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MODEL = "llama-3.1-8b"
STARTED = ("--load-s", "0", "--warm-s", "0")
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Engine:
    """One that listens."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status, and the body as JSON where it is."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            data = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            content = response.read().decode()
            return response.status, json.loads(content) if content.startswith("{") else content

    def complete(self, prompt: Any = "Once upon a time", **fields: Any) -> tuple[int, Any]:
        return self.call("POST", "/v1/completions", {"model": MODEL, "prompt": prompt, **fields})

    def metric(self, name: str, **labels: str) -> float:
        """The only sample of this name that has these labels."""
        _, page = self.call("GET", "/metrics")
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        (line,) = [
            line
            for line in page.splitlines()
            if line.partition("{")[0] == name and all(label in line for label in wanted)
        ]
        return float(line.rpartition(" ")[2])

    def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.metric(name, **labels) != value:
            assert time.monotonic() < deadline_s, f"{name} has not become {value}"
            time.sleep(0.01)

    def begin_stream(self, **fields: Any) -> tuple[socket.socket, Any]:
        """A socket with a file of a completion's stream, of which the first event has come."""
        body = json.dumps({"prompt": "a story", "stream": True, **fields}).encode()
        client = socket.create_connection(self.address, timeout=PATIENCE_S)
        head = f"POST /v1/completions HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        file = client.makefile("rb")
        while not file.readline().startswith(b"data:"):
            pass
        return client, file

    def exchange(self, data: bytes) -> bytes:
        """What comes back for these bytes until the engine closes, nothing more being sent."""
        with socket.create_connection(self.address, timeout=PATIENCE_S) as client:
            received = b""
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while more := client.recv(65536):
                    received += more
            except OSError:
                pass
            return received


@contextlib.contextmanager
def engine(*flags: str) -> Iterator[Engine]:
    """Started with these flags; killed at the end."""
    command = [sys.executable, "-m", "autopoiesis", "engine", "--model", MODEL, "--gpu", "h100", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            line = it.stdout.readline().strip()
            assert line.startswith("http://127.0.0.1:"), it.communicate(timeout=PATIENCE_S)[1]
            yield Engine(line, it)
        finally:
            it.kill()


@contextlib.contextmanager
def ready_engine(*flags: str) -> Iterator[Engine]:
    """One that serves."""
    with engine(*STARTED, *flags) as it:
        deadline_s = time.monotonic() + PATIENCE_S
        while it.call("GET", "/health")[0] != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield it
