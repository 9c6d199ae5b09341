"""Three real engines behind one gateway: llama.cpp's server with random weights."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from gateway_processes import CHAT, PATIENCE_S, Answer, Running, ask, gateway

from autopoiesis.bench.engine_process import Engine, running_engine

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith(("linux", "darwin")), reason="xllamacpp has no wheel for this platform"
)

ENGINES = Path(__file__).parents[1] / "engines"
NAMES = ("a", "b", "c")
SLOTS = 4
CLIENTS = 12


@dataclass
class Replicas:
    """Three engines that can be killed and started again, and the gateway in front of them."""

    model: Path
    stack: ExitStack
    engines: dict[str, Engine]
    running: Running

    def port(self, name: str) -> int:
        return urlsplit(self.engines[name].address).port or 0

    def kill(self, name: str) -> None:
        os.killpg(self.engines[name].group, signal.SIGKILL)

    def start_again(self, name: str) -> None:
        self.engines[name] = start(self.stack, self.model, self.port(name))

    def asked_directly(self, name: str, path: str, body: object = None) -> Answer:
        return ask(self.port(name), path, body)

    def in_flight(self, name: str) -> int:
        return int(self.running.replica(name)["in_flight"])


def start(stack: ExitStack, model: Path, port: int = 0) -> Engine:
    command = [sys.executable, str(ENGINES / "llamacpp_server.py"), str(model), f"--slots={SLOTS}", "--cache-prompts"]
    return stack.enter_context(running_engine([*command, "--batched-tokens=256", f"--port={port}"], start_s=60))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "random.gguf"
    subprocess.run([sys.executable, ENGINES / "random_gguf.py", file], check=True, timeout=60)
    return file


@pytest.fixture
def replicas(model: Path, tmp_path: Path) -> Iterator[Replicas]:
    with ExitStack() as stack:
        engines = {name: start(stack, model) for name in NAMES}
        running = stack.enter_context(
            gateway(
                tmp_path,
                [engine.address for engine in engines.values()],
                models=[{"name": "random"}],
                health={"interval_s": 0.2, "timeout_s": 5.0, "eject_s": 0.4},
                policy={"router": "prefix-affinity"},
            )
        )
        running.until(lambda: all(r["health"] == "healthy" for r in running.operate("replicas")["replicas"]))
        yield Replicas(model, stack, engines, running)


def question(text: str = "Tell me", **fields: object) -> dict[str, object]:
    body = {"model": "random", "messages": [{"role": "user", "content": text}], "temperature": 0, "seed": 1}
    return body | {"max_tokens": 16, "ignore_eos": True} | fields


def said(events: list[str]) -> str:
    return "".join(
        json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events if e.startswith('{"choices')
    )


@dataclass
class Load:
    """Clients that ask one thing after the other until they are told to stop."""

    plain: list[Answer]
    streams: list[Answer]

    @property
    def failed(self) -> list[bytes]:
        return [answer.content for answer in self.plain if answer.status != 200]

    @property
    def unfinished(self) -> list[bytes]:
        return [answer.content for answer in self.streams if answer.events[-1:] != ["[DONE]"]]

    @property
    def broken(self) -> int:
        return sum('"error"' in event for answer in self.streams for event in answer.events)


def under_load(replicas: Replicas, during: Any) -> Load:
    """What came of a load while something was done. A client that hangs fails the test by its timeout."""
    stop = threading.Event()
    load = Load([], [])

    def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            stream = number % 2 == 0
            body = question(f"{number} asks {turn}", stream=stream, max_tokens=48 if stream else 8)
            (load.streams if stream else load.plain).append(replicas.running.ask(CHAT, body))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            replicas.running.until(lambda: len(load.plain) > 20 and len(load.streams) > 5)
            during()
            before = len(load.plain)
            replicas.running.until(lambda: len(load.plain) > before + 20)
        finally:
            stop.set()
        for done in clients:
            done.result()
    return load


def test_answers_through_the_gateway_are_those_of_the_engine(replicas: Replicas) -> None:
    direct = replicas.asked_directly("a", CHAT, question()).json["choices"]
    through = replicas.running.ask(CHAT, question()).json["choices"]
    assert through[0]["message"] == direct[0]["message"]


def test_streams_through_the_gateway_are_those_of_the_engine(replicas: Replicas) -> None:
    direct = replicas.asked_directly("a", CHAT, question(stream=True)).events
    through = replicas.running.ask(CHAT, question(stream=True)).events
    assert said(through) == said(direct) != ""
    assert through[-1] == "[DONE]"


def test_the_telemetry_of_all_three_arrives(replicas: Replicas) -> None:
    def seen() -> list[tuple[str, bool]]:
        return [
            (replica["engine"], replica["telemetry_age_s"] is not None)
            for replica in replicas.running.operate("replicas")["replicas"]
        ]

    replicas.running.until(lambda: seen() == [("llamacpp", True)] * 3)


def test_a_killed_engine_costs_no_plain_request_and_comes_back(replicas: Replicas) -> None:
    def kill_and_start_again() -> None:
        replicas.kill("b")
        replicas.running.until(lambda: replicas.running.replica("b")["health"] != "healthy")
        replicas.start_again("b")
        replicas.running.until(lambda: replicas.running.replica("b")["health"] == "healthy")
        before = replicas.running.replica("b")["requests"]
        replicas.running.until(lambda: replicas.running.replica("b")["requests"] > before)

    load = under_load(replicas, kill_and_start_again)
    assert load.failed == []
    assert load.unfinished == []
    assert load.broken <= CLIENTS // 2


def test_a_drain_under_load_loses_nothing(replicas: Replicas) -> None:
    def drain() -> None:
        replicas.running.operate("replicas/b/drain", method="POST")
        replicas.running.until(lambda: replicas.in_flight("b") == 0)
        sent = replicas.running.replica("b")["requests"]
        replicas.kill("b")
        assert replicas.running.replica("b")["requests"] == sent

    load = under_load(replicas, drain)
    assert (load.failed, load.unfinished, load.broken) == ([], [], 0)


def test_the_calls_of_a_session_go_where_their_beginning_is_cached(replicas: Replicas) -> None:
    text = " ".join(f"word{i}" for i in range(80))
    messages = [{"role": "user", "content": text}]
    cached, sent = [], []
    for turn in range(4):
        before = {name: replicas.running.replica(name)["requests"] for name in NAMES}
        answer = replicas.running.ask(CHAT, question(messages=list(messages))).json
        sent += [name for name in NAMES if replicas.running.replica(name)["requests"] > before[name]]
        cached.append(answer["timings"]["cache_n"] / answer["usage"]["prompt_tokens"])
        messages += [answer["choices"][0]["message"], {"role": "user", "content": f"and {turn}?"}]
    assert len(set(sent)) == 1
    assert min(cached[1:]) > 0.5, cached


def test_a_client_that_leaves_frees_its_slot(replicas: Replicas) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", replicas.running.port, timeout=PATIENCE_S)
    connection.request("POST", CHAT, json.dumps(question(stream=True, max_tokens=3000)))
    connection.getresponse().readline()
    assert busy(replicas) == 1
    connection.sock.close()
    connection.close()
    replicas.running.until(lambda: busy(replicas) == 0)


def busy(replicas: Replicas) -> int:
    """Slots of all engines that are computing."""
    slots = [slot for name in NAMES for slot in replicas.asked_directly(name, "/slots").json]
    return sum(slot["is_processing"] for slot in slots)


def test_the_length_of_prompts_is_learnt_from_what_the_engine_counts(replicas: Replicas) -> None:
    text = "learn this " * 60
    for _ in range(30):
        counted = replicas.running.ask(CHAT, question(text, max_tokens=1)).json["usage"]["prompt_tokens"]
    connection = http.client.HTTPConnection("127.0.0.1", replicas.running.port, timeout=PATIENCE_S)
    connection.request("POST", CHAT, json.dumps(question(text, stream=True, max_tokens=3000)))
    connection.getresponse().readline()
    estimated = sum(replicas.running.replica(name)["in_flight_prompt_tokens"] for name in NAMES)
    connection.sock.close()
    connection.close()
    assert abs(estimated - counted) < 0.2 * counted, (estimated, counted)


def test_what_an_engine_refuses_is_refused_in_openai_s_form(replicas: Replicas) -> None:
    refused = replicas.running.ask(CHAT, question("word " * 3000, stream=True))
    assert (refused.status, refused.json["error"]["type"]) == (400, "exceed_context_size_error")
    assert refused.json["error"].keys() == {"message", "type", "param", "code"}


def test_engines_are_asked_again_after_what_they_do_not_offer(replicas: Replicas) -> None:
    for _ in range(4):
        assert replicas.running.ask("/v1/embeddings", {"model": "random", "input": "a"}).status == 501
    assert {replicas.running.replica(name)["health"] for name in NAMES} == {"healthy"}
