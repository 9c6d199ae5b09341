"""Two real vLLM engines, on a CPU, behind one gateway.

`VLLM_PYTHON` names the interpreter of an environment with vLLM; `make test-slow` makes one and sets it. The model has
no tokenizer: prompts are token ids.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gateway_processes import PATIENCE_S, Answer, Running, ask, gateway

from autopoiesis.bench.engine_process import Engine, running_engine
from autopoiesis.serve.telemetry import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="needs vLLM; run it by `make test-slow`"),
]

SERVER = Path(__file__).parents[1] / "engines" / "vllm_server.py"
PATH = "/v1/completions"
CLIENTS = 6


def start(stack: ExitStack, port: int = 0) -> Engine:
    command = [os.environ["VLLM_PYTHON"], str(SERVER), "--slots=8", "--batched-tokens=256", "--cache-prompts"]
    return stack.enter_context(running_engine([*command, f"--port={port}"], start_s=300))


def question(first: int, length: int = 40, **fields: object) -> dict[str, object]:
    prompt = [3 + (first * 37 + i) % 2000 for i in range(length)]
    return {"model": "random", "prompt": prompt, "max_tokens": 12, "ignore_eos": True, "temperature": 0} | fields


def hits(engine: Engine) -> float:
    port = urlsplit(engine.address).port or 0
    return read("vllm", ask(port, "/metrics").content).prefix_hits


def computing(running: Running) -> float:
    """Sequences in the engines' batches, as the gateway knows."""
    return float(sum(replica["running"] for replica in running.operate("replicas")["replicas"]))


@pytest.fixture
def engines() -> Iterator[tuple[ExitStack, dict[str, Engine]]]:
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        starting = [pool.submit(start, stack) for _ in range(2)]
        yield stack, dict(zip("ab", [each.result() for each in starting], strict=True))


def test_vllm_is_served_left_killed_restarted_and_drained(
    engines: tuple[ExitStack, dict[str, Engine]], tmp_path: Path
) -> None:
    stack, by_name = engines
    with gateway(
        tmp_path,
        [engine.address for engine in by_name.values()],
        models=[{"name": "random"}],
        health={"interval_s": 0.5, "timeout_s": 10.0, "eject_s": 1.0, "probe_completion": False},
        policy={"router": "prefix-affinity"},
    ) as running:
        running.until(lambda: all(r["health"] == "healthy" for r in running.operate("replicas")["replicas"]))

        plain = running.ask(PATH, question(1))
        assert plain.status == 200, plain.content
        assert (plain.json["usage"]["prompt_tokens"], plain.json["usage"]["completion_tokens"]) == (40, 12)
        stream = running.ask(PATH, question(1, stream=True, stream_options={"include_usage": True}))
        assert stream.events[-1] == "[DONE]"
        assert '"completion_tokens":12' in stream.events[-2]

        running.until(lambda: {r["engine"] for r in running.operate("replicas")["replicas"]} == {"vllm"})
        running.until(lambda: all(r["telemetry_age_s"] is not None for r in running.operate("replicas")["replicas"]))

        before = sum(map(hits, by_name.values()))
        sent = {name: running.replica(name)["requests"] for name in "ab"}
        for turn in range(4):
            assert running.ask(PATH, question(5, 320 + 32 * turn)).status == 200
        assert sum(map(hits, by_name.values())) - before >= 3 * 320
        assert sorted(running.replica(name)["requests"] - sent[name] for name in "ab") == [0, 4]

        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
        long = json.dumps(question(1, stream=True, max_tokens=2000))
        connection.request("POST", PATH, long, {"content-type": "application/json"})
        connection.getresponse().readline()
        running.until(lambda: computing(running) == 1)
        connection.sock.close()
        connection.close()
        running.until(lambda: computing(running) == 0)

        def kill_and_start_again() -> None:
            os.killpg(by_name["b"].group, signal.SIGKILL)
            running.until(lambda: running.replica("b")["health"] != "healthy")
            again = start(stack, urlsplit(by_name["b"].address).port or 0)
            by_name["b"] = again
            running.until(lambda: running.replica("b")["health"] == "healthy")

        plains, streams = under_load(running, kill_and_start_again)
        assert [answer.content for answer in plains if answer.status != 200] == []
        assert [answer.content for answer in streams if answer.events[-1:] != ["[DONE]"]] == []

        def drain() -> None:
            running.operate("replicas/b/drain", method="POST")
            running.until(lambda: running.replica("b")["in_flight"] == 0)
            os.killpg(by_name["b"].group, signal.SIGKILL)

        plains, streams = under_load(running, drain)
        assert [answer.content for answer in plains if answer.status != 200] == []
        assert [answer.content for answer in streams if '"error"' in "".join(answer.events)] == []


def under_load(running: Running, during: Callable[[], None]) -> tuple[list[Answer], list[Answer]]:
    """The plain answers and the streams that came while something was done."""
    stop = threading.Event()
    plains: list[Answer] = []
    streams: list[Answer] = []

    def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            stream = number % 2 == 0
            answer = running.ask(PATH, question(100 * number + turn, stream=stream))
            (streams if stream else plains).append(answer)

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            running.until(lambda: len(plains) > 6 and len(streams) > 6)
            during()
            before = len(plains)
            running.until(lambda: len(plains) > before + 6)
        finally:
            stop.set()
        for done in clients:
            done.result()
    return plains, streams
