"""`autopoiesis config`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.cli.config import EXAMPLES
from autopoiesis.serve.config_file import parse_config


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `config check` prints of a file that is right."""
    Path("gateway.yaml").write_text(text)
    assert main(["config", "check", "gateway.yaml"]) == 0
    return capsys.readouterr().out.splitlines()


def test_check_says_what_would_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.py").touch()
    lines = checked(
        "models:\n"
        "  - {name: a, aliases: [b]}\n"
        "  - {name: c}\n"
        "replicas:\n"
        "  - {url: 'http://h:1', model: a, id: left, gpu: h100, engine: vllm}\n"
        "listen: {host: '::1', workers: 2}\n"
        "policy: {file: p.py}\n"
        f"keys: [{{name: team, sha256: {'a' * 64}}}]\n",
        capsys,
    )
    assert lines == [
        "listen   http://[::1]:8000, 2 processes",
        "admin    http://127.0.0.1:8001, without a token, for this machine only",
        "model    a, also b",
        "replica  left at http://h:1, vllm, h100",
        "model    c",
        "replica  none yet; add some by the admin API",
        "policy   p.py, else balanced",
        "key      team",
    ]


def test_check_says_that_a_gateway_without_keys_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        checked("models: [{name: a}]\nadmin: null\n", capsys)[-1]
        == "key      none; whoever reaches the port may use it"
    )


def test_check_says_everything_that_is_wrong_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.yaml").write_text("models: [{name: a}]\nlisten: {port: -1}\npolcy: {}\n")
    assert main(["config", "check", "gateway.yaml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "autopoiesis: error: gateway.yaml, line 2: listen.port: must be from 0 to 65535",
        "autopoiesis: error: gateway.yaml, line 3: polcy: unknown field 'polcy'; did you mean policy?",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_can_be_checked_as_it_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("gateway.pem", "gateway.key"):
        Path(file).touch()
    assert main(["config", "example", name]) == 0
    assert checked(capsys.readouterr().out, capsys)[0].startswith("listen ")


def test_the_example_without_a_name_is_the_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example"]) == 0
    smallest = capsys.readouterr().out
    assert main(["config", "example", "minimal"]) == 0
    assert capsys.readouterr().out == smallest


def test_an_unknown_example_is_named_with_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example", "produktion"]) == 2
    assert "did you mean production?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["team-a", "no", "1.5"])
def test_a_key_is_printed_once_beside_the_lines_that_let_it_in(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "key", name]) == 0
    printed = capsys.readouterr()
    made = printed.out.rstrip("\n")
    assert made.startswith("sk-ap-")
    assert made not in printed.err
    config = parse_config(f"models: [{{name: a}}]\n{printed.err}".encode(), "f", Path())
    assert [(key.name, key.sha256) for key in config.keys] == [(name, hashlib.sha256(made.encode()).hexdigest())]


def test_no_two_keys_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "key", "a"]) == main(["config", "key", "a"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first != second


def test_a_key_for_a_name_that_no_configuration_takes_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "key", "a b"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a b: name must have 1 to 64" in printed.err
