"""A monitor watches small servers on real sockets; intervals are short, and nothing depends on how short."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from engine_pages import LLAMACPP, SGLANG, SLOTS, VLLM
from tiny_servers import Reply, TinyServer, answer, endless, hang, raw, reset, serving, until

from autopoiesis.serve.config import HealthConfig, TelemetryConfig
from autopoiesis.serve.health import Failure, Health, State
from autopoiesis.serve.monitor import Monitor
from autopoiesis.serve.replica import Replica

MODELS = answer(json.dumps({"object": "list", "data": [{"id": "llama", "object": "model"}]}).encode())
COMPLETION = answer(json.dumps({"choices": [{"index": 0, "text": " there"}]}).encode())
WELL: dict[str, Reply] = {
    "/health": answer(),
    "/v1/models": MODELS,
    "/v1/completions": COMPLETION,
    "/metrics": answer(VLLM),
}
HEALTH = HealthConfig(interval_s=0.02, timeout_s=0.5, failures=2, eject_s=0.05, eject_max_s=0.2)
TELEMETRY = TelemetryConfig(interval_s=0.02, timeout_s=0.2)


def well(**others: Reply) -> TinyServer:
    """A server that does all a vLLM does, but for what is said otherwise: `v1_models` is `/v1/models`."""
    return TinyServer(WELL | {f"/{name.replace('_', '/')}": reply for name, reply in others.items()})


def replica_at(server: TinyServer, health: HealthConfig = HEALTH, engine: str = "auto") -> Replica:
    url = f"http://127.0.0.1:{server.port}"
    return Replica(url[7:], url, "127.0.0.1", server.port, "chat", health=Health(health), engine=engine)


@asynccontextmanager
async def monitoring(health: HealthConfig = HEALTH) -> AsyncIterator[Monitor]:
    monitor = Monitor(health, TELEMETRY, rng=random.Random(0))
    try:
        yield monitor
    finally:
        await monitor.close()


async def rounds(server: TinyServer, path: str, count: int = 3) -> None:
    """Wait until the path was asked for so many times more."""
    enough = server.paths().count(path) + count
    await until(lambda: server.paths().count(path) >= enough)


def test_a_replica_gets_requests_once_it_lives_serves_the_model_and_completes_a_token() -> None:
    async def scenario() -> None:
        async with serving(well()) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama", bearer="secret")
            assert not replica.health.admits
            await until(lambda: replica.health.admits)
            probes = [path for path in server.paths() if path != "/metrics"]
            assert probes[:3] == ["/health", "/v1/models", "/v1/completions"]
            asked = next(json.loads(body) for path, _, body in server.asked if path == "/v1/completions")
            assert (asked["model"], asked["max_tokens"]) == ("llama", 1)
            assert all(b"\r\nAuthorization: Bearer secret\r\n" in head for _, head, _ in server.asked)
            await rounds(server, "/health")
            assert server.paths().count("/v1/completions") == 1

    asyncio.run(scenario())


def test_an_engine_that_knows_chats_only_completes_a_chat() -> None:
    async def scenario() -> None:
        server = well(v1_completions=answer(status=404), v1_chat_completions=COMPLETION)
        async with serving(server), monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)

    asyncio.run(scenario())


def test_no_completion_is_asked_for_where_the_operator_wants_none() -> None:
    async def scenario() -> None:
        config = HealthConfig(interval_s=0.02, probe_completion=False)
        async with serving(well()) as server, monitoring(config) as monitor:
            replica = replica_at(server, config)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)
            assert "/v1/completions" not in server.paths()

    asyncio.run(scenario())


@pytest.mark.parametrize("engine", ["openai", "auto"])
def test_a_server_without_a_health_page_lives_if_it_lists_its_models(engine: str) -> None:
    async def scenario() -> None:
        server = TinyServer({"/v1/models": MODELS, "/v1/completions": COMPLETION})
        async with serving(server), monitoring() as monitor:
            replica = replica_at(server, engine=engine)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)
            assert ("/metrics" in server.paths()) is (engine == "auto")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "reply", "said"),
    [
        ("health", answer(status=503), "GET /health answers 503"),
        ("health", hang, "no answer within 0.5 s"),
        ("health", reset, "the connection failed"),
        ("health", raw(b"\xff garbage \r\n\r\n"), "what it answers is not HTTP"),
        ("health", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "an answer of more than 1048576 bytes"),
        ("v1_models", answer(b'{"data": [{"id": "other"}]}'), "it does not serve 'llama'; set `served_as`"),
        ("v1_models", answer(b'{"data": {"id": "llama"}}'), "answers what no OpenAI-compatible server does"),
        ("v1_models", answer(status=401), "name the variable that holds its key: `api_key_env`"),
        ("v1_completions", answer(b"{}"), "answers what no OpenAI-compatible server does"),
        ("v1_completions", answer(b'{"choices": []}'), "answers without a choice"),
        ("v1_completions", answer(status=500), "POST /v1/completions answers 500"),
        ("v1_completions", answer(status=404), "set `probe_completion: false`"),
    ],
)
def test_a_replica_that_fails_a_check_gets_no_request_and_the_log_says_why_once(
    path: str, reply: Reply, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(well(**{path: reply})) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await rounds(server, "/health")
            assert replica.health.state is State.UNKNOWN

    asyncio.run(scenario())
    warnings = [record.getMessage() for record in caplog.records if said in record.getMessage()]
    assert len(warnings) == 1
    assert "127.0.0.1" in warnings[0]


def test_nothing_that_a_replica_answers_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        says = raw(b"HTTP/1.1 500 leaked\r\nx-leaked: leaked\r\nContent-Length: 6\r\n\r\nleaked")
        lists = answer(b'{"data": [{"id": "leaked"}]}')
        for path, reply in {"health": says, "v1_models": lists, "v1_completions": says, "metrics": says}.items():
            async with serving(well(**{path: reply})) as server, monitoring() as monitor:
                monitor.watch(replica_at(server), "llama")
                await rounds(server, "/health")

    asyncio.run(scenario())
    assert caplog.records
    assert "leaked" not in caplog.text


def test_a_replica_that_stops_answering_is_left_out_and_comes_back_when_it_completes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with serving(well()) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)
            server.replies["/health"] = server.replies["/v1/completions"] = answer(status=503)
            await until(lambda: not replica.health.admits)
            server.replies["/health"] = answer()
            await rounds(server, "/v1/completions")
            assert not replica.health.admits
            server.replies["/v1/completions"] = COMPLETION
            await until(lambda: replica.health.admits)

    caplog.set_level("INFO")
    asyncio.run(scenario())
    assert "answers its probes again" in caplog.messages[-1]


def test_a_replica_ejected_for_failed_requests_must_complete_a_token_to_come_back() -> None:
    async def scenario() -> None:
        async with serving(well()) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)
            for _ in range(HEALTH.failures):
                replica.health.failed(asyncio.get_running_loop().time(), Failure.RESET)
            assert not replica.health.admits
            before = server.paths().count("/v1/completions")
            await until(lambda: replica.health.admits)
            assert server.paths().count("/v1/completions") == before + 1

    asyncio.run(scenario())


@pytest.mark.parametrize(("engine", "page"), [("vllm", VLLM), ("sglang", SGLANG), ("llamacpp", LLAMACPP)])
def test_the_load_is_read_from_whatever_engine_it_is(engine: str, page: bytes) -> None:
    async def scenario() -> None:
        async with serving(well(metrics=answer(page), slots=answer(SLOTS))) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await until(lambda: replica.running)
            assert replica.engine == engine
            assert replica.prefix_hits > 0
            assert replica.prefix_queries > replica.prefix_hits
            assert 0 < replica.kv_use < 1
            assert replica.kv_tokens is not None
            before = replica.scraped_at
            await until(lambda: replica.scraped_at > before)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "reply",
    [answer(status=404), answer(b"garbage"), answer(VLLM.replace(b"} 3.0", b"} NaN")), hang, reset],
    ids=["none", "garbage", "nan", "hang", "reset"],
)
def test_a_load_that_cannot_be_read_stays_as_it_was_and_ages(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(well()) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            await until(lambda: replica.running and replica.health.admits)
            server.replies["/metrics"] = reply
            await rounds(server, "/metrics", 2)
            read_at = replica.scraped_at
            await rounds(server, "/metrics")
            assert (replica.running, replica.scraped_at) == (7.0, read_at)
            assert replica.health.admits
            server.replies["/metrics"] = answer(VLLM.replace(b"} 3.0", b"} 5.0"))
            await until(lambda: replica.running == 9.0)

    asyncio.run(scenario())
    assert sum("no telemetry" in message for message in caplog.messages) == 1


def test_whoever_wants_to_know_is_told_of_every_load_that_was_read() -> None:
    async def scenario() -> None:
        told: list[tuple[str, float]] = []
        async with serving(well()) as server:
            replica = replica_at(server)
            monitor = Monitor(
                HEALTH, TELEMETRY, rng=random.Random(0), scraped=lambda known: told.append((known.id, known.running))
            )
            monitor.watch(replica, "llama")
            await until(lambda: len(told) == 3)
            await monitor.close()
            assert set(told) == {(replica.id, 7.0)}

    asyncio.run(scenario())


def test_replicas_that_hang_or_flood_hold_up_nobody_else() -> None:
    async def scenario() -> None:
        flood = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)
        bad = [well(health=reply, metrics=reply) for reply in (hang, flood, reset, hang, flood)]
        async with AsyncExitStack() as stack:
            monitor = await stack.enter_async_context(monitoring(HealthConfig(interval_s=0.02, timeout_s=10.0)))
            for server in bad:
                await stack.enter_async_context(serving(server))
                monitor.watch(replica_at(server), "llama")
            good = await stack.enter_async_context(serving(well()))
            replica = replica_at(good)
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits and replica.running)
            await rounds(good, "/health", 20)
            assert replica.health.admits
            assert replica.health.ejections == 0

    asyncio.run(scenario())


def test_a_replica_that_is_left_alone_is_asked_nothing_and_told_nothing() -> None:
    async def scenario() -> None:
        async with serving(well(health=hang)) as server, monitoring() as monitor:
            replica = replica_at(server)
            monitor.watch(replica, "llama")
            monitor.watch(replica, "llama")
            await until(lambda: "/health" in server.paths())
            monitor.unwatch(replica)
            monitor.unwatch(replica)
            asked, read_at = len(server.asked), replica.scraped_at
            await asyncio.sleep(5 * HEALTH.interval_s)
            assert (len(server.asked), replica.scraped_at) == (asked, read_at)
            server.replies["/health"] = answer()
            monitor.watch(replica, "llama")
            await until(lambda: replica.health.admits)

    asyncio.run(scenario())


def test_a_closed_monitor_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        async with serving(well(health=hang, metrics=hang)) as server:
            monitor = Monitor(HEALTH, TELEMETRY, rng=random.Random(0))
            replicas = [replica_at(server) for _ in range(2)]
            replicas[1].id = "other"
            for replica in replicas:
                monitor.watch(replica, "llama")
            await until(lambda: len(server.asked) >= 4)
            monitor.unwatch(replicas[0])
            await monitor.close()
            assert not [task for task in asyncio.all_tasks() if "Monitor" in repr(task)]

    asyncio.run(scenario())
