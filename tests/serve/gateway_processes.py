"""A gateway as an operator starts it, and engines behind it that do what a test says."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """A whole reply."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[str]:
        """The data of server-sent events."""
        return [part.removeprefix("data: ") for part in self.content.decode().split("\n\n") if part]


@dataclass
class Running:
    """A gateway that serves."""

    process: subprocess.Popen[str]
    port: int
    admin: int
    lines: list[str] = field(default_factory=list)
    """What it has said on stderr."""

    def ask(self, path: str, body: object = None, *, method: str | None = None, **headers: str) -> Answer:
        return ask(self.port, path, body, method=method, **headers)

    def operate(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """Ask the admin API; the answer must be a success."""
        answer = ask(self.admin, f"/admin/{path}", body, method=method)
        assert answer.status < 300, answer.content
        return answer.json

    def replica(self, name: str) -> Any:
        return self.operate(f"replicas/{name}")

    def metric(self, line: str) -> float:
        """The value of a line of /metrics; 0 if there is none."""
        page = self.ask("/metrics").content.decode()
        found = re.search(rf"^{re.escape(line)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something has come about."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, self.lines[-10:]
            time.sleep(0.02)


def ask(port: int, path: str, body: object = None, *, method: str | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        content = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content is not None:
            named.setdefault("content-type", "application/json")
        connection.request(method or ("GET" if body is None else "POST"), path, content, named)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def chat(text: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]} | fields


@contextmanager
def gateway(folder: Path, engines: list[str], *, ready: bool = True, **fields: Any) -> Iterator[Running]:
    """A gateway in front of the engines at these addresses, called `a`, `b` …; `fields` of its configuration."""
    config: dict[str, Any] = {
        "listen": {"port": 0, "drain_s": 5.0},
        "admin": {"port": 0},
        "models": [{"name": "tiny"}],
        "replicas": [{"id": chr(ord("a") + i), "url": url} for i, url in enumerate(engines)],
        "health": {"interval_s": 0.1, "timeout_s": 1.0, "eject_s": 0.3},
        "telemetry": {"interval_s": 0.2},
    }
    for name, value in fields.items():
        config[name] = config.get(name, {}) | value if isinstance(value, dict) else value
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "autopoiesis.serve", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    running = Running(process, 0, 0)
    assert process.stderr is not None
    serving = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.lines.append(line.rstrip())
            if line.startswith("serving on"):
                running.port, running.admin = map(int, re.findall(r":(\d+)\b", line))
                serving.set()
        serving.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert serving.wait(PATIENCE_S), running.lines
        assert running.port, running.lines
        if ready:
            running.until(lambda: running.ask("/ready").status == 200)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        process.stderr.close()


class Engine:
    """An OpenAI server of a thread of its own, that counts what comes and answers as a test says."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[tuple[dict[str, str], bytes]] = []
        """Heads and bodies of the requests for completions that came, probes left out."""
        self.peers: list[int] = []
        """The other end's port of each of them."""
        self.left = threading.Event()
        """Set once a client has gone before its answer was whole."""
        self.answer: Callable[[Exchange], None] = lambda exchange: exchange.plain()
        self.healthy = True
        self._connections: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Go away as a process does that is killed."""
        cut(self._socket)
        for connection in tuple(self._connections):
            cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        try:
            while (line := reader.readline()).strip():
                path = line.split()[1].decode()
                headers = {}
                while header := reader.readline().strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = reader.read(int(headers.get("content-length", 0)))
                self._respond(connection, path, headers, body)
        except (OSError, ValueError):
            return
        finally:
            self._connections.discard(connection)
            cut(connection)

    def _respond(self, connection: socket.socket, path: str, headers: dict[str, str], body: bytes) -> None:
        exchange = Exchange(self, connection, body)
        if path == "/health":
            exchange.plain(b"{}", status=200 if self.healthy else 503)
        elif path == "/v1/models":
            exchange.plain(b'{"object":"list","data":[{"id":"tiny","object":"model"}]}')
        elif path == "/metrics":
            exchange.plain(
                b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_waiting{engine="0"} 2\n'
                b'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
            )
        elif path == "/v1/completions" and b'"max_tokens":1,' in body:
            exchange.plain(b'{"choices":[{"text":"x"}]}')
        else:
            self.asked.append((headers, body))
            self.peers.append(connection.getpeername()[1])
            self.answer(exchange)


@dataclass
class Exchange:
    """A request that an engine has got, and what it can do about it."""

    engine: Engine
    connection: socket.socket
    body: bytes

    @property
    def asked(self) -> Any:
        return json.loads(self.body)

    def plain(self, content: bytes | None = None, *, status: int = 200, kind: str = "application/json") -> None:
        if content is None:
            content = json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "tiny",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": str(self.engine.port)},
                        }
                    ],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                }
            ).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
        self.send(head.encode() + content)

    def begin_stream(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(self, text: str, **fields: object) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        self.data(
            {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "tiny", "choices": [choice]} | fields
        )

    def data(self, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.chunk(f"data: {text}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.data("[DONE]")
        self.send(b"0\r\n\r\n")

    def stream(self, *texts: str) -> None:
        """A whole stream; with its usage if it was asked for."""
        self.begin_stream()
        for text in texts:
            self.event(text)
        if (self.asked.get("stream_options") or {}).get("include_usage"):
            self.event("", choices=[], usage={"prompt_tokens": 7, "completion_tokens": len(texts), "total_tokens": 9})
        self.end_stream()

    def cut(self) -> None:
        """End the connection without another word."""
        cut(self.connection)

    def until_left(self) -> None:
        """Wait until the client has gone."""
        self.connection.settimeout(PATIENCE_S)
        if not self.connection.recv(1):
            self.engine.left.set()

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)


def cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
