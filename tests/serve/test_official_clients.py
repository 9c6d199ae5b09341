"""The official `openai` client and `litellm` as clients of the gateway, in front of emulated engines."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from engine_processes import MODEL, ready_engine
from gateway_processes import Engine as Scripted
from gateway_processes import Exchange, Running, gateway

openai = pytest.importorskip("openai", reason="the official client is not installed; pip install 'autopoiesis[dev]'")

KEY = "sk-official"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = [{"name": "team", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    with ExitStack() as stack:
        engines = [stack.enter_context(ready_engine("--speed", "50")) for _ in range(2)]
        models = [{"name": MODEL, "aliases": ["gpt-4o-mini"]}]
        urls = [engine.url for engine in engines]
        yield stack.enter_context(gateway(tmp_path_factory.mktemp("gateway"), urls, models=models, keys=keys))


@pytest.fixture
def client(served: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "gpt-4o-mini"]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_chat_is_answered(client: Any) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=5)
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].message.content


def test_a_stream_is_the_whole_answer_in_parts(client: Any) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, seed=3)
    parts = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, seed=3, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content


def test_usage_comes_at_the_end_of_a_stream_for_who_asks(client: Any) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, **asked))
    assert parts[-1].usage.completion_tokens == 7
    assert parts[-1].choices == []


def test_who_does_not_ask_gets_no_event_without_choices(client: Any) -> None:
    parts = list(client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7, stream=True))
    assert all(part.choices for part in parts)


def test_completions_and_embeddings_are_answered(client: Any) -> None:
    assert client.completions.create(model=MODEL, prompt="Once", max_tokens=3).usage.completion_tokens == 3
    assert len(client.embeddings.create(model=MODEL, input="a text").data) == 1


def test_the_asynchronous_client_has_many_requests_at_once(served: Running) -> None:
    async def ask() -> list[int]:
        address = f"http://127.0.0.1:{served.port}/v1"
        async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0) as client:
            answers = [
                client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=tokens)
                for tokens in range(1, 33)
            ]
            return [answer.usage.completion_tokens for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == list(range(1, 33))


def test_errors_have_the_client_s_own_types(served: Running, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="unknown", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=HELLO, n=3)
    stranger = openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="sk-other", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=MODEL, messages=HELLO)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    engine = Scripted()
    yield engine
    engine.close()


def test_a_broken_stream_is_an_error_of_the_client(scripted: Scripted, tmp_path: Path) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.event("one")
        exchange.cut()

    scripted.answer = answer
    with (
        gateway(tmp_path, [scripted.url]) as running,
        openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="any", max_retries=0) as client,
    ):
        parts = iter(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
        assert next(parts).choices[0].delta.content == "one"
        with pytest.raises(openai.APIError, match="lost"):
            next(parts)


def test_who_is_refused_for_now_comes_again_by_itself(scripted: Scripted, tmp_path: Path) -> None:
    """The client waits as long as `Retry-After` says, and is then served."""
    keys = [{"name": "team", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "requests_per_minute": 60}]
    with (
        gateway(tmp_path, [scripted.url], keys=keys) as running,
        openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key=KEY, max_retries=3) as client,
    ):
        for _ in range(12):
            assert client.chat.completions.create(model="tiny", messages=HELLO).choices
        assert running.metric('autopoiesis_requests_total{model="",status="429"}') >= 1


def test_litellm_is_served(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the network for prices
    litellm = pytest.importorskip("litellm", reason="litellm is not installed; pip install 'autopoiesis[clients]'")
    asked: dict[str, Any] = {
        "model": "openai/gpt-4o-mini", "messages": HELLO, "max_tokens": 6,
        "api_base": f"http://127.0.0.1:{served.port}/v1", "api_key": KEY,
    }  # fmt: skip
    whole = litellm.completion(**asked)
    assert whole.usage.completion_tokens == 6
    parts = litellm.completion(**asked, stream=True)
    assert (
        "".join(part.choices[0].delta.content or "" for part in parts).strip()
        == whole.choices[0].message.content.strip()
    )
    assert asyncio.run(litellm.acompletion(**asked)).usage.completion_tokens == 6
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**asked | {"api_key": "sk-other"})
