"""`autopoiesis load`: what it prints and writes, what it refuses, and Ctrl-C."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from streaming_server import Server, streaming_server

from autopoiesis.cli import main
from autopoiesis.cost.telemetry import read_telemetry

LOAD = ["--model", "m", "--quiet", "--rate", "20", "--cv", "0", "--duration", "0.5", "--input", "20", "--output", "4"]
NOWHERE = "http://127.0.0.1:1/v1"


def test_a_load_prints_figures_beside_the_prediction_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows, tokens = (str(tmp_path / name) for name in ("out.json", "rows.csv", "tokens.jsonl"))
    files = ["--json", out, "--requests-csv", rows, "--telemetry", tokens]
    with streaming_server(Server(faults={3: "status 503"})) as server:
        assert main(["load", server.url, *LOAD, *files, "--predict", "llama-3.1-8b:h100,replicas=2,tp=2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Load\n")
    for words in ("measured predicted difference %", "TTFT p99 ms", "TPOT p50 ms", "end to end p90 ms", "good %"):
        assert words in printed
    assert "10 of 10 requests sent, 9 answered, 1 failed: 1 status 503" in printed
    read = json.loads(Path(out).read_text())
    assert (read["requests"], read["sent"], read["errors"]) == (10, 10, {"status 503": 1})
    assert (read["measured"]["completed"], read["predicted"]["completed"]) == (9, 10)
    error = read["predicted"]["ttft_s"]["p50"] / read["measured"]["ttft_s"]["p50"] - 1
    assert read["difference"]["ttft_s"]["p50"] == pytest.approx(error, rel=1e-6)
    assert read["client"]["cpu_s"] > 0
    table = list(csv.DictReader(Path(rows).read_text().splitlines()))
    assert [row["error"] for row in table].count("status 503") == 1
    assert [row["output_tokens"] for row in table if not row["error"]] == ["4"] * 9
    assert [len(stream.token_s) for stream in read_telemetry(tokens)] == [4] * 9


def test_without_engines_to_predict_there_is_no_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    with streaming_server(Server()) as server:
        assert main(["load", server.url, *LOAD]) == 0
    assert "predicted" not in capsys.readouterr().out


def test_a_trace_is_replayed_with_its_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["arrival_s,input_tokens,output_tokens,session_id,prefix_tokens,think_time_s", "0,30,2,a,0,"]
    rows += ["0.1,50,2,a,30,0.05", "0.2,9,3,,,"]
    trace.write_text("\n".join(rows) + "\n")
    with streaming_server(Server()) as server:
        assert main(["load", server.url, "--model", "m", "--quiet", "--workload", str(trace)]) == 0
    first, second = sorted((body["prompt"] for body in server.asked if len(body["prompt"]) > 9), key=len)
    assert (len(first), len(second), second[:30]) == (30, 50, first)
    assert "3 of 3 requests sent, 3 answered" in capsys.readouterr().out


def test_time_is_not_stretched_silently(capsys: pytest.CaptureFixture[str]) -> None:
    with streaming_server(Server()) as server:
        assert main(["load", server.url, *LOAD[:2], *LOAD[3:], "--time-scale", "0.5"]) == 0
    assert "arrivals and think times are 0.5 times as long as in the workload" in capsys.readouterr().err


def test_a_key_comes_from_the_environment_and_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOAD_KEY", "sk-secret")
    with streaming_server(Server()) as server:
        assert main(["load", server.url, *LOAD, "--api-key-env", "LOAD_KEY"]) == 0
    assert b"Bearer sk-secret" in server.heads[0]
    assert "secret" not in "".join(capsys.readouterr())


WRONG = {
    "--rate 0": "argument --rate: must be requests per second, above 0",
    "--input 0": "argument --input: must be tokens, as in 512",
    "--token-ids 5": "argument --token-ids: must be two token ids, LOW-HIGH",
    "--predict x": "argument --predict: must have the form MODEL:GPU[,OPTION=N...]",
    "--predict x:y,replica=2": "unknown option 'replica'; there are: replicas, tp",
    "--predict x:y,tp=0": "tp must be a whole number from 1 to 1024, got '0'",
    "--predict llama-3.1-9b:h100": "unknown model 'llama-3.1-9b'; did you mean llama-3.1-8b",
    "--predict llama-3.1-8b:h10": "unknown GPU 'h10'; did you mean h100",
    "--predict llama-3.1-8b:h100 --predict llama-3.1-70b:h100": "must be of one model",
    "--workload chat": "--input and --output belong to --rate",
    "--api-key-env ABSENT": "--api-key-env ABSENT: the variable holds no key",
    "--json absent/x.json": "--json absent/x.json: folder 'absent' does not exist",
    "--open --sessions": "argument --sessions: not allowed with argument --open",
    "--concurrency-limit 0": "argument --concurrency-limit: must be requests from 1",
}


@pytest.mark.parametrize(("flags", "why"), WRONG.items())
def test_a_wrong_flag_is_refused_in_one_line(flags: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(["load", NOWHERE, *LOAD, *flags.split()])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert why in captured.err


def test_another_machine_is_not_loaded_unless_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "http://192.0.2.1:8000", *LOAD]) == 2
    assert "not an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("workload", "why"),
    [("absent.csv", "there is no such file"), ("conversatoin", "unknown preset 'conversatoin'; did you mean convers")],
)
def test_a_workload_that_is_neither_file_nor_preset_is_named(
    workload: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", NOWHERE, "--model=m", "--workload", workload]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--rate", "--input"])
def test_a_load_without_a_trace_needs_a_rate_and_lengths(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = LOAD.index(missing)
    assert main(["load", NOWHERE, *LOAD[:at], *LOAD[at + 2 :]]) == 2
    assert f"{missing}: say it, or give a trace" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_load_with_the_figures_of_what_has_been_done(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--model=m", "--rate=20", "--input=9", "--output=2", "--duration=600", "--json", str(out)]
    with streaming_server(Server()) as server:
        command = [sys.executable, "-m", "autopoiesis", "load", server.url, *flags]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline_s = time.monotonic() + 60
        while len(server.ended_s) < 3 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        load.send_signal(number)
        printed, said = load.communicate(timeout=60)
    assert load.returncode == 128 + number
    assert "TTFT p50 ms" in printed
    assert said.endswith("interrupted; the figures are of what had been sent\n")
    assert json.loads(out.read_text())["measured"]["completed"] >= 3
