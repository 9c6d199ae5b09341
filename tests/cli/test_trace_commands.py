"""`autopoiesis trace`."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.cli.plots import bars, curve, doubling_bins
from autopoiesis.workload import read_requests

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:50.99,3960,10\n"
    "2023-11-16 18:16:47.00,0,5\n2023-11-16 18:17:00.18,879,300\n"
)
MOONCAKE = "".join(
    f'{{"timestamp": {3000 * (i // 3)}, "input_length": 1600, "output_length": 5, "hash_ids": [0, 1, 2]}}\n'
    for i in range(30)
)
SERVEGEN = "window_start_s,rate_rps,mean_input_tokens,mean_output_tokens\n0,1,100,10\n600,2,100,10\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("azure.csv").write_text(AZURE)
    Path("mooncake.jsonl").write_text(MOONCAKE)
    Path("windows.csv").write_text(SERVEGEN)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["trace", *argv]) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    try:
        code: object = main(["trace", *argv])
    except SystemExit as left:
        code = left.code
    assert code == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.splitlines()[-1]


def test_info_prints_statistics_and_plots(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "info", "azure.csv")
    lines = dict(line.split(None, 1) for line in out.splitlines()[:4] if line)
    assert lines["format"] == "Azure"
    assert lines["requests"] == "3"
    assert "1 without a prompt" in out
    assert "requests/s over time" in out
    assert "< 1024 " in out


def test_info_writes_its_numbers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "info", "mooncake.jsonl", "--json", "info.json")
    written = json.loads(Path("info.json").read_text())
    assert written["rows"] == 30
    assert written["span_s"] == 27.0
    assert written["input_tokens"]["p50"] == 1600
    assert written["reusable_prefix_share"] == pytest.approx(29 * 1536 / (30 * 1600))


def test_info_of_rates_says_what_was_drawn_and_by_which_seed(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "info", "windows.csv", "--seed", "7", "--scale", "0.5")
    assert "0.5 times the recorded rates, seed 7" in out
    assert out == said(capsys, "info", "windows.csv", "--seed", "7", "--scale", "0.5")
    assert out != said(capsys, "info", "windows.csv", "--seed", "8", "--scale", "0.5")


def test_info_replaces_no_trace_by_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is the file of FILE" in failure(capsys, "info", "azure.csv", "--json", "azure.csv")
    assert Path("azure.csv").read_text() == AZURE


def test_a_bad_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.csv").write_text(AZURE.replace("374", "many"))
    assert "bad.csv: line 2: column 'ContextTokens'" in failure(capsys, "info", "bad.csv")
    assert "no such file" in failure(capsys, "convert", "absent.csv", "out.csv")
    assert not Path("out.csv").exists()


def test_convert_writes_what_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert "out.csv.gz: 30 requests, format Mooncake" in said(capsys, "convert", "mooncake.jsonl", "out.csv.gz")
    one, other = read_requests("mooncake.jsonl"), read_requests("out.csv.gz")
    assert one.arrival_s.tolist() == other.arrival_s.tolist()
    assert one.block_ids.tolist() == other.block_ids.tolist()


def test_convert_spreads_only_if_asked_and_by_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "convert", "mooncake.jsonl", "steps.csv")
    assert len(set(read_requests("steps.csv").arrival_s.tolist())) == 10
    said(capsys, "convert", "mooncake.jsonl", "spread.csv", "--spread")
    assert len(set(read_requests("spread.csv").arrival_s.tolist())) == 30
    said(capsys, "convert", "mooncake.jsonl", "again.csv", "--spread", "3", "--seed", "0")
    assert Path("again.csv").read_bytes() == Path("spread.csv").read_bytes()
    said(capsys, "convert", "mooncake.jsonl", "other.csv", "--spread", "--seed", "1")
    assert Path("other.csv").read_bytes() != Path("spread.csv").read_bytes()


def test_convert_does_not_guess_the_step_of_a_clock(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give it, as in --spread 1" in failure(capsys, "convert", "azure.csv", "out.csv", "--spread")


def test_convert_takes_hours_and_a_scale(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "convert", "windows.csv", "out.csv", "--hours", "0.1", "--scale", "2")
    requests = read_requests("out.csv")
    assert len(requests) == pytest.approx(720, rel=0.2)
    assert requests.arrival_s[-1] < 360


def test_only_windows_are_read_at_another_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--scale: only ServeGen windows" in failure(capsys, "convert", "azure.csv", "out.csv", "--scale", "2")
    assert not Path("out.csv").exists()


def test_convert_replaces_no_trace_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is the file of FILE" in failure(capsys, "convert", "azure.csv", "./azure.csv")
    assert "unknown format 'parquet'" in failure(capsys, "convert", "azure.csv", "out.csv", "--format", "parquet")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_fetch_shows_the_terms_before_and_checks_what_comes(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = hashlib.sha256(AZURE.encode()).hexdigest()
    argv = ["trace", "fetch", "azure-2023", "--out", "got.csv", "--url", f"{site}/azure.csv"]
    assert main([*argv, "--sha256", right]) == 0
    told = capsys.readouterr()
    assert "licence: CC-BY 4.0" in told.err
    assert "attribution: Patel et al." in told.err
    assert told.out == f"got.csv: {len(AZURE)} bytes, SHA-256 as given\n"
    assert Path("got.csv").read_text() == AZURE
    Path("got.csv").unlink()
    assert main(argv) == 2
    assert "the checksum of what came is" in capsys.readouterr().err
    assert not Path("got.csv").exists()


def test_fetch_names_the_traces_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean azure-2024 or azure-2023" in failure(capsys, "fetch", "azure-2032", "--out", "x")


def test_a_curve_fills_the_share_of_the_height() -> None:
    lines = curve("rate", [0.0, 4.0, 2.0], "9 s", height=2).splitlines()
    assert lines[:3] == ["rate", "       4  █", "       2  ██"]
    assert curve("nothing", [0.0, 0.0], "1 s")


def test_bars_are_relative_to_the_largest() -> None:
    assert bars("x", ["a", "b"], [0.75, 0.25], width=3).splitlines() == [
        "x",
        "       a ███ 75.0 %",
        "       b █ 25.0 %",
    ]


def test_bins_double_up_to_beyond_the_longest() -> None:
    assert doubling_bins(1) == [0, 1, 2]
    assert doubling_bins(5)[-1] > 5
