"""The benchmark of evolution: what a process and its kin used, how a result is read, and what the tables say."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from autopoiesis.bench.evolution import __main__ as command
from autopoiesis.bench.evolution import drivers, programs, tables, watched
from autopoiesis.bench.evolution.contenders import CONTENDERS, Contender
from autopoiesis.bench.evolution.drivers.openevolve_evaluator import evaluate
from autopoiesis.bench.evolution.measure import Import, Row, import_time, row_of, run
from autopoiesis.bench.evolution.watched import Watched, watch

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
PROGRAM = Path(programs.__file__).with_name("program.py")
OURS = CONTENDERS[0]
ENDED = Watched("", "", 0, wall_s=3.0, cpu_s=2.5, main_peak_mb=80.0, tree_peak_mb=120.0, left_over=0)
RESULT = '{"iterations": 200, "run_s": 2.0, "per_s": 100.0, "timeouts": 3, "correct": 197, "start_cpu_s": 0.5}'

STAND_IN = """
import argparse, http.client, json, pathlib
parser = argparse.ArgumentParser()
for name in ("--iterations", "--jobs", "--port"):
    parser.add_argument(name, type=int)
parser.add_argument("--hang", action="store_true")
given = parser.parse_args()
assert pathlib.Path("program.py").stat().st_size == 4096
model = http.client.HTTPConnection("127.0.0.1", given.port)
right = 0
for _ in range(given.iterations):
    model.request("POST", "/v1/chat/completions", json.dumps({"model": "hang" if given.hang else "full"}))
    right += b"while True" not in model.getresponse().read()
print("RESULT", json.dumps({"iterations": given.iterations, "run_s": 0.5, "per_s": given.iterations / 0.5,
                            "timeouts": given.iterations - right, "correct": right}))
"""


def watch_python(code: str, folder: Path, limit_s: float = 60.0, last_word: str | None = None) -> Watched:
    argv = [sys.executable, "-c", code]
    return watch(argv, folder, dict(os.environ), limit_s, lambda said: last_word is not None and last_word in said)


def contender(tmp_path: Path, code: str) -> Contender:
    """Somebody who does what the code says."""
    script = tmp_path / "contender.py"
    script.write_text(code)
    return Contender("other", "Other 1", PROGRAM, "import json", (str(script),), long=None, hanging=10)


# --- watched --------------------------------------------------------------------------------------------------------


def test_time_and_memory_of_a_command_and_its_children_are_counted(tmp_path: Path) -> None:
    spends = (
        "import subprocess, sys; b = bytes(range(256)) * 200_000; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    child = (
        "import time; b = bytes(range(256)) * 400_000; e = time.process_time() + 0.3\nwhile time.process_time() < e: 0"
    )
    seen = watch([sys.executable, "-c", spends, child], tmp_path, dict(os.environ), 60.0)
    assert (seen.code, seen.left_over) == (0, 0)
    assert seen.cpu_s > 0.3
    assert 48 < seen.main_peak_mb < 97
    assert seen.tree_peak_mb > 48 + 97


def test_what_a_command_says_is_kept(tmp_path: Path) -> None:
    seen = watch_python("import sys; print('said'); sys.stderr.write('complained'); sys.exit(3)", tmp_path)
    assert (seen.said, seen.complained, seen.code) == ("said\n", "complained", 3)


def test_a_process_that_is_left_behind_is_counted_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "SETTLE_S", 0.1)
    leaves = (
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\nprint(child.pid)"
    )
    seen = watch_python(leaves, tmp_path)
    assert (seen.code, seen.left_over) == (0, 1)
    assert not is_running(int(seen.said))


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "SETTLE_S", 0.1)
    hangs = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "while True: pass"
    )
    seen = watch_python(hangs, tmp_path, limit_s=1.0)
    assert seen.code is None
    assert seen.left_over == 1
    assert not is_running(int(seen.said))


def test_a_command_that_has_said_its_last_word_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "GRACE_S", 0.1)
    seen = watch_python("print('RESULT', flush=True)\nwhile True: pass", tmp_path, 60.0, last_word="RESULT")
    assert seen.code is None
    assert seen.wall_s < 30


def test_an_interrupt_ends_what_was_started(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupts(said: str) -> bool:
        if said.endswith("\n"):
            raise Interrupted
        return False

    says = "import os; print(os.getpid(), flush=True)\nwhile True: pass"
    with pytest.raises(Interrupted):
        watch([sys.executable, "-c", says], tmp_path, dict(os.environ), 60.0, interrupts)
    assert not is_running(int((tmp_path / "stdout").read_text()))


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than as an entry that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_result_is_read_from_among_what_else_is_said() -> None:
    seen = replace(ENDED, said=f"a banner\nRESULT {RESULT}\nbye\n")
    row = row_of(OURS, 200, seen, programs=200, load=0.25, hanging=False)
    assert (row.run_s, row.per_s, row.timeouts, row.correct, row.why) == (2.0, 100.0, 3, 197, "")
    assert row.cpu_ms == pytest.approx(10.0)
    assert (row.ended, row.left_over, row.programs, row.load) == ("clean", 0, 200, 0.25)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (replace(ENDED, complained="Traceback\nKeyError: 'x'\n\n"), "no result after 3 s: KeyError: 'x'"),
        (replace(ENDED, said="Iteration 7\n"), "no result after 3 s: Iteration 7"),
        (ENDED, "no result after 3 s: it said nothing"),
        (replace(ENDED, said='RESULT {"iterations": 1}\n'), 'RESULT {"iterations": 1}: Object missing required field'),
        (replace(ENDED, said="RESULT {\n"), "RESULT {: Input data was truncated"),
    ],
)
def test_without_a_result_the_row_says_why(seen: Watched, why: str) -> None:
    row = row_of(OURS, 200, seen, programs=0, load=0.0, hanging=False)
    assert row.per_s is None
    assert row.why.startswith(why)


@pytest.mark.parametrize(("code", "ended"), [(0, "clean"), (3, "code 3"), (-11, "signal 11"), (None, "killed")])
def test_it_is_told_how_a_contender_ended(code: int | None, ended: str) -> None:
    assert row_of(OURS, 200, replace(ENDED, code=code), 0, 0.0, hanging=True).ended == ended


def test_a_contender_meets_a_model_of_its_own(tmp_path: Path) -> None:
    row = run(contender(tmp_path, STAND_IN), Path(sys.executable), 10, hanging=True)
    assert (row.iterations, row.programs, row.timeouts, row.correct) == (10, 10, 2, 8)
    assert (row.per_s, row.ended, row.left_over, row.why) == (20.0, "clean", 0, "")


def test_an_import_is_timed_beside_a_bare_interpreter() -> None:
    measured = import_time(replace(OURS, imports="import decimal, json"), Path(sys.executable))
    assert measured.bare_s is not None
    assert measured.bare_s > 0


# --- peers ----------------------------------------------------------------------------------------------------------


def test_a_peer_that_cannot_be_had_is_in_every_table_and_says_why(tmp_path: Path) -> None:
    peer = next(contender for contender in CONTENDERS if contender.name == "openevolve")
    python = tmp_path / "openevolve-0.4.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'no matching distribution' >&2\nexit 1\n")
    python.chmod(0o755)
    bench = command.Bench(tmp_path, iterations=20, long=True)
    bench.measure(peer)
    for rows in (bench.runs, bench.hanging, bench.imports):
        assert [row.why for row in rows] == ["not measured: no matching distribution"]


def test_a_peer_is_told_nothing_of_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "src")
    for peer in CONTENDERS[1:]:
        given = peer.environ(tmp_path / "bin" / "python", tmp_path)
        assert "secret" not in given.values()
        assert "PYTHONPATH" not in given


def test_each_evaluator_answers_in_the_way_of_its_framework(tmp_path: Path) -> None:
    score = 1.0 - (0.1 - 0.7) ** 2
    assert evaluate(str(PROGRAM)) == {"combined_score": score}
    script = str(Path(drivers.__file__).with_name("shinka_evaluator.py"))
    argv = [sys.executable, "-I", script, "--program_path", str(PROGRAM), "--results_dir", str(tmp_path / "results")]
    subprocess.run(argv, check=True)
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    correct = json.loads((tmp_path / "results" / "correct.json").read_text())
    assert (metrics["combined_score"], correct) == (score, {"correct": True, "error": None})


def test_the_versions_on_the_page_are_those_that_are_measured() -> None:
    for peer in CONTENDERS[1:]:
        assert f"`{peer.requirement}`" in PAGE


# --- tables ---------------------------------------------------------------------------------------------------------


def lines(table: Table) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=140).print(table)
    return [" ".join(line.split()) for line in page.getvalue().splitlines()]


def test_the_tables_show_what_was_measured_and_why_something_was_not() -> None:
    seen = replace(ENDED, said=f"RESULT {RESULT}")
    measured = row_of(OURS, 200, seen, programs=200, load=0.25, hanging=True)
    absent = Row("other", "Other 1", False, 200, why="not measured: no network")
    assert lines(tables.rates([measured, absent]))[2:] == [
        f"{OURS.title} 200 2 100 10 80 120 197 0.25",
        "Other 1 200 - - - - - - - not measured: no network",
    ]
    assert lines(tables.hanging([measured, absent]))[2:] == [
        f"{OURS.title} 200 40 3 197 2 clean 0",
        "Other 1 - - - - - - - not measured: no network",
    ]


def test_the_table_of_imports_names_the_statement() -> None:
    rows = [Import("x", "X 1", "import x", 0.02, 0.412), Import("y", "Y 1", "import y", why="not measured: no network")]
    assert lines(tables.imports(rows))[2:] == ["X 1 0.412 import x", "Y 1 - not measured: no network"]


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--iterations", "0"], "must be a whole number above 0, got '0'"),
        (["--only", "nobody"], "invalid choice: 'nobody'"),
        (["--json", "absent/x.json"], "folder 'absent' does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        got: object = command.main(argv)
    except SystemExit as stop:
        got = stop.code
    assert got == 2
    assert why in capsys.readouterr().err


def test_without_peers_the_figures_of_ours_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = contender(tmp_path, STAND_IN)
    monkeypatch.setattr(command, "CONTENDERS", (other, CONTENDERS[1]))
    path = tmp_path / "figures.json"
    assert command.main(["--skip-peers", "--iterations", "20", "--json", str(path)]) == 0
    read = json.loads(path.read_text())
    assert set(read) == {"machine", "runs", "hanging", "imports"}
    assert [(row["name"], row["iterations"], row["correct"]) for row in read["runs"]] == [("other", 20, 20)]
    assert [(row["programs"], row["timeouts"]) for row in read["hanging"]] == [(10, 2)]
    assert "Other 1" in capsys.readouterr().out
