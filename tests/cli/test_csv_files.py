"""The CSV tables of a simulation: what stands in the files, what the page about them says, and what can go wrong."""

from __future__ import annotations

import csv
import gzip
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cli_reports import simulate_report

import autopoiesis.control.run as control
from autopoiesis.cli import main
from autopoiesis.cli.csv_files import TABLES, csv_files
from autopoiesis.cli.flags import TABLES as FLAGS
from autopoiesis.cli.output import WholeFile
from autopoiesis.control.config import EvolutionConfig, RunConfig, ScenarioConfig, SimulateReport, WorkloadFile
from autopoiesis.errors import AutopoiesisError, ScenarioError
from autopoiesis.policy.library import library
from autopoiesis.simulate.run import Notice

PAGE = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
SECTIONS = {
    "--requests-csv": "Requests",
    "--windows-csv": "Windows",
    "--replicas-csv": "Replicas",
    "--replica-windows-csv": "Replicas by window",
}
MODEL = "llama-3.1-8b"
TINY = '[[pool]]\nname = "l40s"\ngpu = "l40s"\ngpus_per_node = 2\nminimum = 2\nmaximum = 2\n'
Rows = list[dict[str, str]]


class Unwatched:
    def stage(self, text: str) -> None: ...

    def progress(self, row: str, mode: str, fraction: float) -> None: ...

    def notice(self, row: str, mode: str, notice: Notice) -> None: ...


def write_inputs(folder: Path) -> RunConfig:
    lines = [f"{i}.0,{400 + 37 * (i % 29)},{60 + 11 * (i % 17)}\n" for i in range(150)]
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + "".join(lines))
    (folder / "tiny.toml").write_text(TINY)
    workloads = (WorkloadFile(MODEL, str(folder / "trace.csv")),)
    scenario = ScenarioConfig(workloads, str(folder / "tiny.toml"), load=1.1, window_s=20.0)
    return RunConfig(scenario, EvolutionConfig(), paper=True, store=str(folder / "store.db"))


def simulated(folder: Path, suffix: str) -> tuple[SimulateReport, dict[str, Path]]:
    """A policy that moves, through all modes, with every table; each table's file by flag."""
    paths = {flag: folder / f"{flag[2:]}{suffix}" for flag in TABLES}
    with csv_files({flag: str(path) for flag, path in paths.items()}) as served:
        report = control.simulate(write_inputs(folder), library()["scale-to-load"], Unwatched(), served)
    return report, paths


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulateReport, dict[str, Path]]:
    return simulated(tmp_path_factory.mktemp("tables"), ".csv")


def read(path: Path, **only: str) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[name] == value for name, value in only.items())]


def total(rows: Rows, name: str) -> float:
    return sum(float(row[name]) for row in rows)


def test_every_flag_has_its_table_and_its_section() -> None:
    assert list(TABLES) == list(FLAGS) == list(SECTIONS)
    assert all(f"`{flag} FILE`" in PAGE for flag in FLAGS)


@pytest.mark.parametrize("flag", SECTIONS)
def test_the_page_names_every_column_in_order(flag: str) -> None:
    section = PAGE.split(f"\n## {SECTIONS[flag]}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [column.name for column in fields(TABLES[flag][0])]


def test_the_files_have_the_columns_of_the_page_and_the_rows_of_every_mode(
    ran: tuple[SimulateReport, dict[str, Path]],
) -> None:
    for flag, path in ran[1].items():
        rows = read(path)
        assert list(rows[0]) == ["mode", *(column.name for column in fields(TABLES[flag][0]))]
        assert list(dict.fromkeys(row["mode"] for row in rows)) == ["operator", "overlapped", "additive"]


def test_the_files_add_up_to_the_row_that_is_printed(ran: tuple[SimulateReport, dict[str, Path]]) -> None:
    report, paths = ran
    books = report.row.operator
    requests = read(paths["--requests-csv"], mode="operator")
    windows = read(paths["--windows-csv"], mode="operator", model="all")
    replicas = read(paths["--replicas-csv"], mode="operator")
    assert len(requests) == total(windows, "arrivals") == books.requests
    assert sum(row["status"] == "completed" for row in requests) == books.completed
    assert total(requests, "met_slo") == total(windows, "good") == total(replicas, "good") == books.good
    assert total(windows, "cost_usd") == pytest.approx(books.cost_usd, rel=1e-6)
    assert total(windows, "reschedules") == report.row.reschedules
    assert report.row.paper is not None
    for mode in ("overlapped", "additive"):
        windows = read(paths["--windows-csv"], mode=mode, model="all")
        assert float(windows[-1]["end_s"]) == pytest.approx(getattr(report.row.paper, mode).total_s)


def test_the_same_run_is_the_same_bytes_gzipped_or_not(
    ran: tuple[SimulateReport, dict[str, Path]], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    _, one = simulated(tmp_path / "one", ".csv.gz")
    _, two = simulated(tmp_path / "two", ".csv.gz")
    for flag, path in ran[1].items():
        assert one[flag].read_bytes() == two[flag].read_bytes()
        assert gzip.decompress(one[flag].read_bytes()) == path.read_bytes()


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n")
    return ["simulate", "--cluster", "demo-8", "--workload", f"{MODEL}=a.csv", "--policy", "static", "--quiet"]


def test_the_flags_say_where_the_tables_go(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "simulate", lambda *arguments: simulate_report())
    assert main([*command, *(word for flag in FLAGS for word in (flag, f"{flag[2:]}.csv"))]) == 0
    for flag in FLAGS:
        header = Path(f"{flag[2:]}.csv").read_text()
        assert header == ",".join(["mode", *(column.name for column in fields(TABLES[flag][0]))]) + "\n"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--requests-csv absent/r.csv", "--requests-csv absent/r.csv: folder 'absent' does not exist; create it"),
        ("--windows-csv .", "--windows-csv .: is a folder"),
        ("--replicas-csv a.csv", "--replicas-csv a.csv: is the file of --workload, which it would replace"),
        ("--requests-csv x --replica-windows-csv ./x", "--replica-windows-csv ./x: is the file of --requests-csv"),
        ("--json x --windows-csv x", "--windows-csv x: is the file of --json"),
        ("--request-csv x", "did you mean --requests-csv"),
    ],
)
def test_a_place_that_will_not_do_is_refused_before_anything_runs(
    flags: str, why: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "simulate", lambda *arguments: pytest.fail("it ran"))
    try:
        code: object = main([*command, *flags.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert os.listdir() == ["a.csv"]


def test_a_simulation_that_fails_leaves_the_old_files(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> SimulateReport:
        raise AutopoiesisError("no")

    monkeypatch.setattr(control, "simulate", fail)
    Path("w.csv").write_text("old")
    assert main([*command, "--windows-csv", "w.csv", "--requests-csv", "r.csv.gz"]) == 2
    assert Path("w.csv").read_text() == "old"
    assert sorted(os.listdir()) == ["a.csv", "w.csv"]


def test_devices_may_be_given_twice(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "simulate", lambda *arguments: simulate_report())
    assert main([*command, "--requests-csv", "/dev/null", "--windows-csv", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


def test_a_file_that_cannot_be_written_to_its_end_is_named_with_its_flag(tmp_path: Path) -> None:
    expected = r"/dev/full: cannot be written: No space left.*--windows-csv"
    with pytest.raises(ScenarioError, match=expected), WholeFile("/dev/full", "--windows-csv") as file:
        file.write(b"x" * 100_000)


def test_a_defect_of_the_block_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), WholeFile(str(tmp_path / "x.csv"), "--windows-csv"):
        raise FileNotFoundError("other")
    assert os.listdir(tmp_path) == []
