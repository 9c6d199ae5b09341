"""The official `openai` client and `litellm` as clients of the gateway.

`litellm` takes 270 MB with what it needs, so `make test-slow` installs it and `make test` does without.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from engine_processes import MODEL, ready_engine
from gateway_processes import Engine as Scripted
from gateway_processes import Exchange, Running, gateway

openai = pytest.importorskip("openai", reason="the official client is not installed; pip install 'autopoiesis[dev]'")

KEY = "sk-official"
KEYS = [{"name": "team", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
HELLO = [{"role": "user", "content": "Hello"}]


def v1(running: Running) -> str:
    return f"http://127.0.0.1:{running.port}/v1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway in front of two emulated engines."""
    with ExitStack() as stack:
        engines = [stack.enter_context(ready_engine("--speed", "50")) for _ in range(2)]
        models = [{"name": MODEL, "aliases": ["gpt-4o-mini", "org/model"]}]
        urls = [engine.url for engine in engines]
        yield stack.enter_context(gateway(tmp_path_factory.mktemp("gateway"), urls, models=models, keys=KEYS))


@pytest.fixture
def client(served: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=v1(served), api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    engine = Scripted()
    yield engine
    engine.close()


@pytest.fixture
def alone(scripted: Scripted, tmp_path: Path) -> Iterator[Running]:
    """A gateway in front of one engine that does what a test says."""
    with gateway(tmp_path, [scripted.url]) as running:
        yield running


@pytest.fixture
def its_client(alone: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=v1(alone), api_key="any", max_retries=0) as client:
        yield client


def refusing(status: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.plain(b'{"error":{"message":"not now"}}', status=status)


def breaking(exchange: Exchange) -> None:
    """A stream that is cut off after its first event."""
    exchange.begin_stream()
    exchange.event("one")
    exchange.cut()


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "gpt-4o-mini", "org/model"]


def test_models_are_retrieved_by_any_of_their_names(client: Any) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("org/model").id == "org/model"


def test_a_chat_is_answered(client: Any) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=5)
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].message.content


def test_an_answer_has_the_id_of_its_request(client: Any) -> None:
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 1}
    answer = client.chat.completions.create(**asked, extra_headers={"x-request-id": "mine-1"})
    assert answer._request_id == "mine-1"
    assert client.chat.completions.create(**asked)._request_id.startswith("req-")


def test_a_stream_is_the_whole_answer_in_parts(client: Any) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, seed=3)
    parts = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, seed=3, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content


def test_a_stream_of_a_completion_is_the_whole_answer_in_parts(client: Any) -> None:
    whole = client.completions.create(model=MODEL, prompt="Once", max_tokens=7, seed=3)
    parts = client.completions.create(model=MODEL, prompt="Once", max_tokens=7, seed=3, stream=True)
    assert whole.usage.completion_tokens == 7
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_usage_comes_at_the_end_of_a_stream_for_who_asks(client: Any, api: str) -> None:
    parts = streamed(client, api, stream_options={"include_usage": True})
    assert parts[-1].usage.completion_tokens == 7
    assert parts[-1].choices == []


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_who_does_not_ask_gets_no_event_without_choices(client: Any, api: str) -> None:
    assert all(part.choices for part in streamed(client, api))


def streamed(client: Any, api: str, **fields: object) -> list[Any]:
    if api == "chat":
        return list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, stream=True, **fields))
    return list(client.completions.create(model=MODEL, prompt="Once", max_tokens=7, stream=True, **fields))


def test_embeddings_are_answered(client: Any) -> None:
    answer = client.embeddings.create(model=MODEL, input=["a text", "another"])
    assert [len(each.embedding) for each in answer.data] == [64, 64]
    assert answer.usage.prompt_tokens > 0


def test_the_asynchronous_client_has_many_requests_at_once(served: Running) -> None:
    async def ask() -> list[int]:
        async with openai.AsyncOpenAI(base_url=v1(served), api_key=KEY, max_retries=0) as client:
            answers = [
                client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=tokens)
                for tokens in range(1, 33)
            ]
            return [answer.usage.completion_tokens for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == list(range(1, 33))


def test_the_asynchronous_client_has_many_streams_at_once(served: Running) -> None:
    async def ask() -> list[int]:
        async with openai.AsyncOpenAI(base_url=v1(served), api_key=KEY, max_retries=0) as client:

            async def stream(tokens: int) -> int:
                asked = {"max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
                parts = await client.chat.completions.create(model=MODEL, messages=HELLO, **asked)
                return int([part async for part in parts][-1].usage.completion_tokens)

            return list(await asyncio.gather(*map(stream, range(1, 33))))

    assert asyncio.run(ask()) == list(range(1, 33))


def test_a_client_that_gives_up_is_gone_from_the_engine(scripted: Scripted, its_client: Any) -> None:
    scripted.answer = Exchange.until_left
    with pytest.raises(openai.APITimeoutError):
        its_client.chat.completions.create(model="tiny", messages=HELLO, timeout=0.3)
    assert scripted.left.wait(10)


def test_errors_have_the_client_s_own_types(served: Running, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="unknown", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=HELLO, n=3)
    stranger = openai.OpenAI(base_url=v1(served), api_key="sk-other", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=MODEL, messages=HELLO)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_so_have_errors_of_engines(scripted: Scripted, its_client: Any, status: int, error: type[Exception]) -> None:
    scripted.answer = refusing(status)
    with pytest.raises(error) as refused:
        its_client.chat.completions.create(model="tiny", messages=HELLO)
    assert isinstance(refused.value, openai.APIStatusError)
    assert refused.value.status_code == status


def test_a_broken_stream_is_an_error_of_the_client(scripted: Scripted, its_client: Any) -> None:
    scripted.answer = breaking
    parts = iter(its_client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    assert next(parts).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError, match="lost") as broken:
        next(parts)
    assert broken.value.code == "replica_lost"


def test_who_asks_too_often_is_told_when_to_come_again(scripted: Scripted, tmp_path: Path) -> None:
    keys = [KEYS[0] | {"requests_per_minute": 6}]
    with (
        gateway(tmp_path, [scripted.url], keys=keys) as running,
        openai.OpenAI(base_url=v1(running), api_key=KEY, max_retries=0) as client,
    ):
        client.chat.completions.create(model="tiny", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="tiny", messages=HELLO)
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 10


def test_who_is_refused_for_now_comes_again_by_itself(scripted: Scripted, tmp_path: Path) -> None:
    """The client waits as long as `Retry-After` says, and is then served."""
    keys = [KEYS[0] | {"requests_per_minute": 60}]
    with (
        gateway(tmp_path, [scripted.url], keys=keys) as running,
        openai.OpenAI(base_url=v1(running), api_key=KEY, max_retries=3) as client,
    ):
        for _ in range(12):
            assert client.chat.completions.create(model="tiny", messages=HELLO).choices
        assert running.metric('autopoiesis_requests_total{model="",status="429"}') >= 1


def test_a_gateway_without_replicas_says_so_in_time(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, [], ready=False, queue={"max_wait_s": 0.1}) as running,
        openai.OpenAI(base_url=v1(running), api_key="any", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as refused,
    ):
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert (refused.value.status_code, refused.value.code) == (503, "no_replica")


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the network for prices
        yield pytest.importorskip("litellm", reason="litellm is not installed; pip install 'autopoiesis[clients]'")


def through(running: Running, **fields: object) -> dict[str, Any]:
    """What litellm is to ask."""
    asked = {"messages": HELLO, "api_base": v1(running), "api_key": KEY, "max_retries": 0, "num_retries": 0}
    return asked | fields


def test_litellm_is_served(litellm: Any, served: Running) -> None:
    asked = through(served, model="openai/gpt-4o-mini", max_tokens=6, seed=3)
    whole = litellm.completion(**asked)
    assert whole.usage.completion_tokens == 6
    parts = list(litellm.completion(**asked, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content


def test_litellm_is_served_asynchronously(litellm: Any, served: Running) -> None:
    asked = through(served, model="openai/org/model", max_tokens=6, seed=3)

    async def ask() -> tuple[Any, list[Any]]:
        whole = await litellm.acompletion(**asked)
        parts = await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True})
        return whole, [part async for part in parts]

    whole, parts = asyncio.run(ask())
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens == 6


def test_litellm_s_errors_have_its_own_types(litellm: Any, served: Running) -> None:
    asked = through(served, model="openai/gpt-4o-mini")
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**asked | {"api_key": "sk-other"})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked | {"model": "openai/unknown"})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**asked, n=3)


@pytest.mark.parametrize(("status", "error"), [(429, "RateLimitError"), (503, "ServiceUnavailableError")])
def test_so_have_errors_of_engines_for_litellm(
    litellm: Any, scripted: Scripted, alone: Running, status: int, error: str
) -> None:
    scripted.answer = refusing(status)
    with pytest.raises(getattr(litellm, error)):
        litellm.completion(**through(alone, model="openai/tiny"))


def test_a_broken_stream_is_an_error_of_litellm(litellm: Any, scripted: Scripted, alone: Running) -> None:
    scripted.answer = breaking
    parts = litellm.completion(**through(alone, model="openai/tiny"), stream=True)
    assert next(parts).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError, match="lost"):
        list(parts)
