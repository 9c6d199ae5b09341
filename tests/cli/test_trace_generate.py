"""`autopoiesis trace generate`: the file, what is said of it, and what is said of bad input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from autopoiesis.cli import main
from autopoiesis.workload import read_requests
from autopoiesis.workload.presets import generate, names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*argv: str) -> int:
    return main(["trace", "generate", *argv])


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a command line is refused; nothing is left behind."""
    before = sorted(os.listdir())
    try:
        code: object = made(*argv)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1, captured.err
    assert sorted(os.listdir()) == before
    return captured.err


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_file_holds_the_load(name: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"load{suffix}"
    assert made("--preset", name, "--hours", "0.3", "--seed", "4", "--rate", "2", "--out", path) == 0
    load, read = generate(name, 0.3, 4, rate=2.0), read_requests(path)
    assert np.array_equal(read.arrival_s, load.arrival_s)
    assert np.array_equal(read.previous, load.previous)
    assert np.array_equal(read.block_ids, load.block_ids)
    assert capsys.readouterr().err == f"{path}: {len(load)} requests over 0.3 h\n"


def test_columns_that_say_nothing_are_left_out() -> None:
    headers = {}
    for name in ("code", "agentic", "longcontext"):
        assert made("--preset", name, "--hours", "0.3", "--out", "load.csv") == 0
        headers[name] = Path("load.csv").read_text().split("\n", 1)[0]
    assert headers == {
        "code": "arrival_s,input_tokens,output_tokens",
        "agentic": "arrival_s,input_tokens,output_tokens,session_id,prefix_tokens,think_time_s",
        "longcontext": "arrival_s,input_tokens,output_tokens,session_id,prefix_tokens,think_time_s,block_ids",
    }


def test_equal_commands_write_equal_bytes() -> None:
    for path in ("one.csv.gz", "other.csv.gz"):
        assert made("--preset", "longcontext", "--hours", "0.2", "--seed", "9", "--out", path) == 0
    assert Path("one.csv.gz").read_bytes() == Path("other.csv.gz").read_bytes()


@pytest.mark.parametrize(("flag", "context"), [(["--context"], 131_072), (["--context", "4096"], 4096)])
def test_a_context_cuts_and_says_how_many(flag: list[str], context: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert made("--preset", "agentic", "--hours", "2", "--out", "load.csv", *flag) == 0
    load, read = generate("agentic", 2.0, 0), read_requests("load.csv")
    over = int(np.sum(load.input_tokens + load.output_tokens > context))
    assert over > 0
    assert int(np.max(read.input_tokens + read.output_tokens)) == context
    assert capsys.readouterr().err.endswith(f"{over} of them cut to a context of {context} tokens\n")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--preset", "cod", "--out", "a.csv"], "did you mean code"),
        (["--preset", "code", "--out", "a.json"], "must end with .csv or .csv.gz"),
        (["--preset", "code", "--out", "missing/a.csv"], "create it or name another file"),
        (["--preset", "code", "--out", "a.csv", "--hours", "0"], "--hours"),
        (["--preset", "code", "--out", "a.csv", "--seed", "-1"], "--seed"),
        (["--preset", "code", "--out", "a.csv", "--rate", "0"], "--rate"),
        (["--preset", "code", "--out", "a.csv", "--amplitude", "2"], "do not drift"),
        (["--preset", "code", "--out", "a.csv", "--context", "3"], "--context"),
        (["--preset", "conversation", "--out", "a.csv", "--rate", "1e-9"], "raise --rate or --hours"),
        (["--preset", "code", "--out", "a.csv", "--hours", "9000", "--rate", "9000"], "lower rate or hours"),
        (["--preset", "code"], "--out"),
    ],
)
def test_bad_input_is_refused_in_one_line(argv: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in said(capsys, *argv)
