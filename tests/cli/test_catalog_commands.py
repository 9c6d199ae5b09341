"""`autopoiesis cluster`, `model` and `gpu`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.cluster import catalog

NOUNS = {"cluster": catalog.cluster_names, "model": catalog.models, "gpu": catalog.gpus}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("noun", NOUNS)
def test_list_has_a_row_for_each_and_the_same_as_json(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([noun, "list", "--json", "out.json"]) == 0
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in NOUNS[noun]())
    assert [entry["name"] for entry in json.loads(Path("out.json").read_text())] == list(NOUNS[noun]())


@pytest.mark.parametrize("noun", NOUNS)
def test_show_has_every_field(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NOUNS[noun]():
        assert main([noun, "show", name, "--json", "out.json"]) == 0
        printed = capsys.readouterr().out
        shown = json.loads(Path("out.json").read_text())
        assert shown["name"] == name
        fields = shown["pools"][0] if noun == "cluster" else shown
        assert all(field in printed for field in fields if field != "name")


def test_a_mixture_shows_what_is_active(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "show", "qwen3-30b-a3b"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = {line[1]: line[3] for line in lines if len(line) == 5}
    assert (values["active_experts"], values["active_parameters"]) == ("8", "3352821760")


def test_a_history_is_shown_by_what_it_amounts_to(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("t_s,nodes\n0,4\n900,2\n1800,2\n")
    Path("mine.toml").write_text(
        '[[pool]]\nname = "[red]a"\ngpu = "l4"\ngpus_per_node = 1\nminimum = 0\nmaximum = 4\n'
        'spot = {history = "a.csv", notice_s = 30}\n'
    )
    assert main(["cluster", "show", "mine.toml", "--json", "out.json"]) == 0
    printed = capsys.readouterr().out
    assert "[red]a" in printed
    assert "availability 0.75" in printed
    spot = json.loads(Path("out.json").read_text())["pools"][0]["spot"]
    assert (spot["notice_s"], spot["losses_per_hour"], spot["recovery_s_p50"]) == (30.0, 2.0, None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cluster", "show", "demo8"], "unknown cluster 'demo8'; did you mean demo-8"),
        (["model", "show", "llama"], "unknown model 'llama'; did you mean llama-3.1-"),
        (["gpu", "show", "h1000"], "unknown GPU 'h1000'; did you mean h100"),
        (["gpu", "list", "--json", "nowhere/out.json"], "--json nowhere/out.json: folder 'nowhere' does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1
