"""What operators do with a gateway: drain, swap policies, add replicas, run several workers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from gateway_processes import CHAT, PATIENCE_S, Engine, Exchange, Running, ask, chat, gateway

MODULE = '''"""A policy that routes."""

from autopoiesis.policy import Decision, ReplicaView, Request, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    return {answer}
'''


def always(index: object) -> str:
    return MODULE.format(answer=index)


@pytest.fixture
def running(engine: Engine, other: Engine, tmp_path: Path) -> Iterator[Running]:
    with gateway(tmp_path, [engine.url, other.url]) as running:
        running.until(
            lambda: all(replica["health"] == "healthy" for replica in running.operate("replicas")["replicas"])
        )
        yield running


class Slow:
    """Answers once it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        assert self.go_on.wait(PATIENCE_S)
        exchange.plain()


def swap(running: Running, text: str, name: str = "mine") -> object:
    return running.operate(f"policy?name={name}", text, method="PUT")


def served_by(running: Running, count: int = 4) -> set[str]:
    return {running.ask(CHAT, chat()).json["choices"][0]["message"]["content"] for _ in range(count)}


def test_a_draining_replica_gets_no_new_request_and_finishes_the_old(
    engine: Engine, other: Engine, running: Running
) -> None:
    engine.answer = slow = Slow()
    swap(running, always(0))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(running.ask, CHAT, chat())
        running.until(lambda: running.replica("a")["in_flight"] == 1)
        assert running.operate("replicas/a/drain", method="POST")["draining"]
        assert served_by(running) == {str(other.port)}
        slow.go_on.set()
        assert answer.result().status == 200
    assert running.replica("a")["in_flight"] == 0


def test_a_drain_can_be_cancelled(engine: Engine, running: Running) -> None:
    running.operate("replicas/a/drain", method="POST")
    running.operate("replicas/a/drain", method="DELETE")
    swap(running, always(0))
    assert served_by(running) == {str(engine.port)}


def test_replicas_come_and_go_while_it_serves(engine: Engine, other: Engine, running: Running) -> None:
    third = Engine()
    running.operate("replicas", {"id": "c", "url": third.url})
    running.until(lambda: running.replica("c")["health"] == "healthy")
    swap(running, always(2))
    assert served_by(running) == {str(third.port)}
    running.operate("replicas/c", method="DELETE")
    assert served_by(running) == {str(engine.port)}  # index 2 is none now: a fault, and the balancer chooses
    assert running.operate("policy")["faults"] == 4
    third.close()


def test_a_replica_with_requests_is_not_removed_by_accident(engine: Engine, running: Running) -> None:
    engine.answer = slow = Slow()
    swap(running, always(0))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(running.ask, CHAT, chat())
        running.until(lambda: running.replica("a")["in_flight"] == 1)
        assert ask(running.admin, "/admin/replicas/a", method="DELETE").status == 409
        running.operate("replicas/a?force=true", method="DELETE")
        slow.go_on.set()
        assert answer.result().status == 200


def test_a_policy_is_swapped_and_rolled_back(engine: Engine, other: Engine, running: Running) -> None:
    swap(running, always(0), "first")
    assert served_by(running) == {str(engine.port)}
    swap(running, always(1), "second")
    assert served_by(running) == {str(other.port)}
    assert running.operate("policy/rollback", method="POST")["name"] == "first"
    assert served_by(running) == {str(engine.port)}
    assert running.operate("policy/rollback", method="POST")["identity"] is None
    assert ask(running.admin, "/admin/policy/rollback", method="POST").status == 422


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not python at all :", "syntax"),
        (always("open"), "open"),
        (MODULE.split("def route")[0] + "def route(request, replicas):\n    while True:\n        pass\n", "while"),
    ],
)
def test_a_policy_that_is_refused_changes_nothing(engine: Engine, running: Running, text: str, said: str) -> None:
    swap(running, always(0))
    answer = ask(running.admin, "/admin/policy?name=bad", text, method="PUT")
    assert answer.status == 422
    assert said in answer.json["error"]["message"]
    assert running.operate("policy")["name"] == "mine"
    assert served_by(running) == {str(engine.port)}


@pytest.mark.parametrize("answer", ["7", "-5"])
def test_a_bad_index_falls_back_and_is_counted(running: Running, answer: str) -> None:
    swap(running, always(answer))
    assert len(served_by(running, 3)) <= 2
    assert running.operate("policy")["faults"] == 3
    assert running.metric('autopoiesis_policy_faults_total{function="route"}') == 3


def test_shed_is_429_and_counted(running: Running) -> None:
    swap(running, always("SHED"))
    answer = running.ask(CHAT, chat())
    assert (answer.status, answer.json["error"]["code"]) == (429, "shed")
    assert int(answer.headers["retry-after"]) >= 1
    assert running.metric('autopoiesis_shed_requests_total{model="tiny"}') == 1


def test_held_requests_go_on_once_the_policy_is_another(running: Running) -> None:
    swap(running, always("HOLD"))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(running.ask, CHAT, chat())
        running.until(lambda: running.metric('autopoiesis_queued_requests{model="tiny"}') == 1)
        swap(running, always(0), "other")
        assert answer.result().status == 200


def test_after_its_patience_the_balancer_places_what_a_policy_holds(engine: Engine, tmp_path: Path) -> None:
    with gateway(tmp_path, [engine.url], queue={"hold_s": 0.3}) as running:
        swap(running, always("HOLD"))
        assert running.ask(CHAT, chat()).status == 200


def test_held_requests_are_served_in_order_of_the_policy_s_priority(engine: Engine, tmp_path: Path) -> None:
    text = always(0) + "\n\ndef priority(request: Request) -> float:\n    return request.prompt_tokens\n"
    replicas = [{"id": "a", "url": engine.url, "max_in_flight": 1}]
    engine.answer = slow = Slow()
    with gateway(tmp_path, [], replicas=replicas) as running, ThreadPoolExecutor() as pool:
        swap(running, text)
        answers = [pool.submit(running.ask, CHAT, chat())]
        running.until(lambda: running.replica("a")["in_flight"] == 1)
        for number, words in enumerate((100, 3000, 900), 1):
            answers.append(pool.submit(running.ask, CHAT, chat("x" * words)))
            running.until(lambda n=number: running.metric('autopoiesis_queued_requests{model="tiny"}') == n)  # type: ignore[misc]
        slow.go_on.set()
        assert {answer.result().status for answer in answers} == {200}
    lengths = [len(json.loads(body)["messages"][0]["content"]) for _, body in engine.asked]
    assert lengths == [5, 3000, 900, 100]


def test_a_policy_of_the_configuration_is_in_force_from_the_start(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(always(0))
    with gateway(tmp_path, [engine.url], policy={"file": "mine.py"}) as running:
        assert running.operate("policy")["name"] == "mine"
        assert running.operate("policy")["route"]


def test_the_admin_api_shows_what_engines_say_of_themselves(running: Running) -> None:
    running.until(lambda: running.replica("a")["telemetry_age_s"] is not None)
    replica = running.replica("a")
    assert (replica["engine"], replica["running"], replica["waiting"], replica["kv_use"]) == ("vllm", 1, 2, 0.25)
    assert running.metric('autopoiesis_replica_kv_use{replica="a"}') == 0.25


def test_a_replica_is_found_by_its_name_as_it_stands_in_a_path(engine: Engine, running: Running) -> None:
    name = running.operate("replicas", {"url": engine.url, "model": "tiny"})["id"]
    assert name == f"127.0.0.1:{engine.port}"
    assert running.replica(name)["id"] == running.replica(quote(name))["id"] == name


def test_web_pages_cannot_use_the_admin_api(running: Running) -> None:
    assert ask(running.admin, "/admin/replicas", origin="http://evil.example").status == 403
    assert ask(running.admin, "/admin/replicas", host="evil.example").status == 403


def test_the_admin_token_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    token = hashlib.sha256(b"operator").hexdigest()
    with gateway(tmp_path, [engine.url], admin={"token_sha256": token}) as running:
        assert ask(running.admin, "/admin/replicas").status == 401
        assert ask(running.admin, "/admin/replicas", authorization="Bearer operator").status == 200


@pytest.mark.parametrize("path", ["nothing", "replicas/z", "replicas/a/nothing"])
def test_what_the_admin_api_does_not_have_is_404(running: Running, path: str) -> None:
    assert ask(running.admin, f"/admin/{path}").status == 404


def test_workers_share_a_port_and_count_together(engine: Engine, tmp_path: Path) -> None:
    engine.answer = slow = Slow()
    with gateway(tmp_path, [engine.url], listen={"workers": 2}) as running, ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(running.ask, CHAT, chat()) for _ in range(24)]
        running.until(lambda: running.replica("a")["in_flight"] == 24)
        by_worker = running.replica("a")["in_flight_by_worker"]
        assert len(by_worker) == 2
        assert min(by_worker) > 0
        slow.go_on.set()
        assert {answer.result().status for answer in answers} == {200}
        assert running.replica("a")["in_flight"] == 0
        assert running.metric('autopoiesis_requests_total{model="tiny",status="200"}') == 24


def test_a_cap_holds_over_all_workers(engine: Engine, tmp_path: Path) -> None:
    engine.answer = slow = Slow()
    replicas = [{"id": "a", "url": engine.url, "max_in_flight": 3}]
    with gateway(tmp_path, [], replicas=replicas, listen={"workers": 2}) as running, ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(running.ask, CHAT, chat()) for _ in range(16)]
        running.until(lambda: running.metric('autopoiesis_queued_requests{model="tiny"}') >= 12)
        assert running.replica("a")["in_flight"] <= 4  # two workers may take the last place at once
        slow.go_on.set()
        assert {answer.result().status for answer in answers} == {200}


def test_all_workers_take_a_new_policy(engine: Engine, other: Engine, tmp_path: Path) -> None:
    with gateway(tmp_path, [engine.url, other.url], listen={"workers": 2}) as running:
        running.until(lambda: all(r["health"] == "healthy" for r in running.operate("replicas")["replicas"]))
        swap(running, always(1))
        running.until(lambda: running.metric("autopoiesis_policy_swaps_total") == 2)
        assert served_by(running, 20) == {str(other.port)}


def test_a_worker_that_is_killed_is_replaced_and_its_counts_forgotten(engine: Engine, tmp_path: Path) -> None:
    engine.answer = slow = Slow()
    with gateway(tmp_path, [engine.url], listen={"workers": 2}) as running, ThreadPoolExecutor(32) as pool:
        before = workers_of(running)
        answers = [pool.submit(attempt, running) for _ in range(16)]
        running.until(lambda: running.replica("a")["in_flight"] == 16)
        running.until(lambda: min(running.replica("a")["in_flight_by_worker"]) > 0)
        os.kill(before[0], signal.SIGKILL)
        running.until(lambda: min(running.replica("a")["in_flight_by_worker"]) == 0)
        slow.go_on.set()
        assert "200" in {answer.result() for answer in answers}
        running.until(lambda: len(workers_of(running)) == 2 and before[0] not in workers_of(running))
        running.until(lambda: running.replica("a")["in_flight"] == 0)
        assert {attempt(running) for _ in range(10)} == {"200"}


def test_workers_end_with_the_process_that_started_them(engine: Engine, tmp_path: Path) -> None:
    with gateway(tmp_path, [engine.url], listen={"workers": 2}) as running:
        workers = workers_of(running)
        running.process.kill()
        running.process.wait()
        running.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_tls_is_served(engine: Engine, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl on the PATH to make a certificate with")
    tls = {"certificate": certificate.name, "key": key.name}
    with gateway(tmp_path, [engine.url], ready=False, listen={"tls": tls}) as running:
        running.until(lambda: running.replica("a")["health"] == "healthy")
        request = Request(f"https://127.0.0.1:{running.port}{CHAT}", json.dumps(chat()).encode())
        with urlopen(
            request, context=ssl.create_default_context(cafile=str(certificate)), timeout=PATIENCE_S
        ) as answer:
            assert answer.status == 200


def attempt(running: Running) -> str:
    """The status, or how the connection ended."""
    try:
        return str(running.ask(CHAT, chat()).status)
    except OSError as error:
        return type(error).__name__
    except Exception as error:  # http.client has a tree of its own
        return type(error).__name__


def workers_of(running: Running) -> list[int]:
    """The gateway processes, by their place in the command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == running.process.pid and b"autopoiesis.serve.gateway_process" in command:
            found.append(int(entry.parent.name))
    return sorted(found)


def test_a_replica_that_is_removed_while_a_request_waits_for_its_connection_fails_nobody(
    engine: Engine, running: Running
) -> None:
    engine.answer = slow = Slow()
    swap(running, always(0))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(running.ask, CHAT, chat()) for _ in range(8)]
        running.until(lambda: running.replica("a")["in_flight"] == 8)
        running.operate("replicas/a?force=true", method="DELETE")
        running.operate("replicas", {"id": "a", "url": engine.url})
        slow.go_on.set()
        assert {answer.result().status for answer in answers} == {200}
    running.until(lambda: running.replica("a")["health"] == "healthy")
    assert running.replica("a")["in_flight"] == 0
