"""The model of `bench.evolution`: it speaks the chat protocol, costs all the same, and says the same twice."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autopoiesis.bench.engine_process import running_engine
from autopoiesis.bench.evolution import programs, stub_model
from autopoiesis.bench.evolution.drivers.drive import is_score
from autopoiesis.bench.evolution.stub_model import SIZE, Programs
from autopoiesis.evolve.prompt import extract_source
from autopoiesis.evolve.providers.base import CompletionRequest, Message
from autopoiesis.evolve.providers.openai import OpenAIProvider
from autopoiesis.policy.check import check_policy

FOLDER = Path(programs.__file__).parent
KINDS = ("program.py", "policy.py")


def template(kind: str) -> str:
    return (FOLDER / kind).read_text(encoding="utf-8")


@contextmanager
def served(kind: str, *options: str) -> Iterator[str]:
    """The model as a process; its address."""
    command = [sys.executable, "-I", stub_model.__file__, "--program", str(FOLDER / kind), *options]
    with running_engine(command, start_s=30) as engine:
        yield engine.address


def asked(connection: http.client.HTTPConnection, model: str) -> tuple[int, Any]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "improve"}]})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_the_model_answers_chat_completions_on_one_connection() -> None:
    with served("program.py") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        statuses = []
        for _ in range(3):
            status, answer = asked(connection, "full")
            statuses.append(status)
            (choice,) = answer["choices"]
            assert choice["finish_reason"] == "stop"
            assert choice["message"]["role"] == "assistant"
            assert "CONST = " in choice["message"]["content"]
            usage = answer["usage"]
            assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
        connection.request("GET", "/calls")
        assert json.loads(connection.getresponse().read()) == {"calls": 3}
        connection.close()
    assert statuses == [200, 200, 200]


def test_our_provider_gets_a_policy_that_passes_the_checker() -> None:
    with served("policy.py") as address:
        provider = OpenAIProvider("full", f"{address}/v1", environment={})
        completion = provider.complete(CompletionRequest("1", (Message("user", "improve"),), 0.7, 4096, (), 0))
    assert check_policy(extract_source(completion.text)) == []


def test_a_model_that_there_is_not_is_refused() -> None:
    with served("program.py") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        status, answer = asked(connection, "gpt")
        connection.close()
    assert status == 404
    assert answer["error"]["message"] == "no model 'gpt'; there are full and hang"


@pytest.mark.parametrize("kind", KINDS)
def test_every_fifth_program_of_the_one_model_hangs_and_none_of_the_other(kind: str) -> None:
    written = Programs(template(kind))
    hanging = ["while True:" in extract_source(written.answer("hang")) for _ in range(15)]
    assert hanging == [False, False, False, False, True] * 3
    assert not any("while True:" in written.answer("full") for _ in range(15))


def test_every_program_has_one_size_whatever_its_kind() -> None:
    sizes = {
        len(extract_source(written.answer(model)).encode())
        for written in (Programs(template(kind)) for kind in KINDS)
        for model in stub_model.MODELS
        for _ in range(stub_model.HANG_EVERY)
    }
    assert sizes == {SIZE}


def test_the_same_seed_gives_the_same_answers_in_the_same_order() -> None:
    def said(seed: int) -> list[str]:
        written = Programs(template("program.py"), seed)
        return [written.answer(stub_model.MODELS[n % 2]) for n in range(10)]

    assert said(3) == said(3)
    assert said(3) != said(4)
    assert len(set(said(3))) == 10


def test_a_program_scores_by_its_constant() -> None:
    text = extract_source(Programs(template("program.py")).answer("full"))
    names: dict[str, Any] = {}
    exec(text, names)
    assert is_score(names["run"](), text)
    assert not is_score(names["run"]() + 1e-6, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [("def run():\n    # LOOP\n", "lacks its line"), ("CONST = 1\n", "lacks its line"), ("# LOOP\n" * 600, "lacks")],
)
def test_a_file_without_its_markers_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Programs(text)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=f"keep it below {SIZE}"):
        Programs("CONST = 1\n# LOOP\n" + "#" * SIZE)
