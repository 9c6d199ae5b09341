"""Flags, errors, signals: what an operator meets before and around a run."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_reports import report, simulate_report

import autopoiesis.control.run as control
import autopoiesis.report as report_page
from autopoiesis import __version__
from autopoiesis.cli import main
from autopoiesis.cli.jobs import evaluators
from autopoiesis.control.config import EvolutionConfig, Report, RunConfig, SimulateReport, Watch, WorkloadFile
from autopoiesis.errors import ScenarioError
from autopoiesis.evolve.worker_messages import Priority
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.run import Notice
from autopoiesis.workload import SLO

TRACE = "arrival_s,input_tokens,output_tokens\n0,10,10\n"
A, B = "llama-3.1-8b=a.csv", "llama-3.1-70b=b.csv"
SCENE = ["--cluster", "demo-8", "--workload", A]
TWO = [*SCENE, "--workload", B]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        Path(name).write_text(TRACE)
    return tmp_path


Told = Callable[[object], None] | None
"""Who is given the account of a run."""


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says which seed it is about; it needs no plots."""
    monkeypatch.setattr(report_page, "can_draw", lambda: True)
    monkeypatch.setattr("autopoiesis.cli.demo.can_draw", lambda: True)
    monkeypatch.setattr("autopoiesis.cli.pages.page", lambda config: f"<p>seed {config.scenario.seed}</p>")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that reach `control`, in place of what it would do with them."""
    seen: list[Any] = []

    def run(config: RunConfig, watch: Watch, account: Told) -> Report:
        seen.append(config)
        watch.notice("evolving", "operator", Notice(60.0, "swap", "policy x takes over"))
        if account is not None:
            account(config)
        return report()

    def simulate(
        config: RunConfig, policy: PolicySource, watch: Watch, served: object, account: Told
    ) -> SimulateReport:
        seen.append((config, policy))
        if account is not None:
            account(config)
        return simulate_report()

    monkeypatch.setattr(control, "run", run)
    monkeypatch.setattr(control, "simulate", simulate)
    return seen


def said(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line with which a command line is refused; nothing is left behind."""
    before = sorted(os.listdir())
    try:
        code: object = main(argv)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert sorted(os.listdir()) == before
    return captured.err


WRONG_FLAGS = {
    "--load 0": "argument --load: must be a load, above 0 and at most 10, got '0'",
    "--load nan": "argument --load: must be a load",
    "--load 11": "at most 10, got '11'",
    "--load -1": "argument --load: must be a load, above 0",
    "--load many": "got 'many'",
    "--window 0.5": "argument --window: must be seconds, at least 1 and at most 86400, got '0.5'",
    "--window 86401": "got '86401'",
    "--hours 0": "argument --hours: must be hours, above 0, got '0'",
    "--hours inf": "argument --hours: must be hours, above 0, got 'inf'",
    "--seed -1": "argument --seed: must be a whole number from 0",
    "--seed 1.5": "argument --seed: must be a whole number",
    "--seed 99999999999999999999": "argument --seed: must be a whole number",
    "--budget -1": "argument --budget: must be CPU-seconds of evolution per second of serving, at least 0",
    "--objective cost_good": "argument --objective: unknown objective 'cost_good'; did you mean cost_per_good",
    "--provider structurl": "unknown provider 'structurl'; did you mean structural?",
    "--provider command": "--provider command needs --provider-command",
    "--provider-command ./x": "--provider-command belongs to --provider command",
    "--model-name x": "--model-name belongs to --provider openai",
    "--share llama-3.1-8b=0": "--share llama-3.1-8b=0: must be a part of the cluster, above 0 and at most 1, got '0'",
    "--share llama-3.1-8b=nan": "must be a part of the cluster",
    "--share llama-3.1-8b": "argument --share: must have the form MODEL=X, got 'llama-3.1-8b'",
    "--share llama-3.1-9b=0.5": "unknown model 'llama-3.1-9b'; did you mean llama-3.1-8b",
    "--share llama-3.1-405b=0.5": "unknown model 'llama-3.1-405b'",
    "--share llama-3.1-8b=0.5 --share llama-3.1-8b=0.2": "the model has a share already",
    "--share llama-3.1-8b=0.7 --share llama-3.1-70b=0.4": "the shares add up to 1.1",
    "--router round_robin": "argument --router: unknown router 'round_robin'; did you mean round-robin",
    "--objective total_time": "total_time is the objective of paper mode: use --paper",
    "--share llama-3.1-8b=1": "the shares leave nothing for llama-3.1-70b; lower them",
    "--workload llama-3.1-8b=a.csv": "the model has a workload already; give each model once",
    "--workload llama-3.1-405b=": "argument --workload: must have the form MODEL=FILE",
    "--workload llama-3.1-405b=absent.csv": "absent.csv: there is no such file; check the path",
    "--workload llama-3.1-405b=.": ": is a folder; give the path of a trace file",
    "--workload llama-4=a.csv": "--workload llama-4=a.csv: unknown model 'llama-4'; did you mean llama-3.1-",
    "--cluster homogenous-32": "unknown cluster 'homogenous-32'; did you mean homogeneous-32",
    "--cluster absent.toml": "absent.toml: cannot be read",
    "--slo absent.toml": "absent.toml: cannot be read: No such file or directory; give the path of a TOML file",
    "--envelope a.csv": "a.csv: not valid TOML",
    "--json absent/out.json": "--json absent/out.json: folder 'absent' does not exist; create it",
    "--json .": "--json .: is a folder",
    "--json a.csv": "--json a.csv: is the file of --workload, which it would replace",
    "--json ./autopoiesis.db": "is the file of --store",
    "--report absent/page.html": "--report absent/page.html: folder 'absent' does not exist; create it",
    "--report a.csv": "--report a.csv: is the file of --workload, which it would replace",
    "--json page.html --report page.html": "--report page.html: is the file of --json",
    "--store absent/x.db": "--store absent/x.db: folder 'absent' does not exist",
    "--store .": "--store .: is a folder",
    "--laod 1": "unexpected argument '--laod'; did you mean --load",
    "--lo 1": "unexpected argument '--lo'",
    "extra": "unexpected argument 'extra'; see autopoiesis run --help",
    "--quiet --verbose": "argument --verbose: not allowed with argument --quiet",
}


@pytest.mark.parametrize(("flags", "why"), WRONG_FLAGS.items())
def test_a_wrong_flag_is_refused_in_one_line_that_names_it(
    flags: str, why: str, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(capsys, ["run", *TWO, *flags.split()])
    assert why in line
    assert re.match(r"autopoiesis( run)?: error: ", line)
    assert runs == []


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "autopoiesis: error: the following arguments are required: COMMAND"),
        (["rum"], "unknown command 'rum'; did you mean run?"),
        (["policy", "shw", "x"], "autopoiesis policy: error: unknown command 'shw'; did you mean show?"),
        (["run"], "the following arguments are required: --workload, --cluster"),
        (["simulate", *SCENE], "the following arguments are required: --policy"),
        (
            ["run", *SCENE, "--share", "llama-3.1-8b=0.5"],
            "--share divides the cluster among workloads; it needs at least",
        ),
        (["simulate", *SCENE, "--policy", "statc"], "unknown policy 'statc'; did you mean static?"),
        (["simulate", *SCENE, "--policy", "absent.py"], "absent.py: cannot be read"),
        (["simulate", *SCENE, "--policy", "./a.csv"], "policy ./a.csv: line "),
        (["simulate", *SCENE, "--policy", "static", "--budget", "1"], "unexpected argument '--budget'"),
        (["demo", "--seed", "x"], "argument --seed: must be a whole number"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    argv: list[str], why: str, runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in said(capsys, argv)
    assert runs == []


def test_the_flags_of_a_run_become_its_configuration(runs: list[RunConfig]) -> None:
    Path("slo.toml").write_text('["llama-3.1-70b"]\nttft_s = 3')
    Path("envelope.toml").write_text("maximum_gpus = 8")
    Path("x.db").touch()
    flags = "--load 1.1 --share llama-3.1-8b=0.25 --window 30 --objective delay --slo slo.toml --envelope envelope.toml"
    flags += " --hours 2 --seed 5 --paper --store x.db --provider command --budget 0.5 --provider-command"
    assert main(["run", *TWO, *flags.split(), "cat -u"]) == 0
    (config,) = runs
    scenario = config.scenario
    assert scenario.workloads == (WorkloadFile("llama-3.1-8b", "a.csv"), WorkloadFile("llama-3.1-70b", "b.csv"))
    assert (scenario.cluster, scenario.load, scenario.shares) == ("demo-8", 1.1, {"llama-3.1-8b": 0.25})
    assert (scenario.window_s, scenario.objective, scenario.hours, scenario.seed) == (30.0, "delay", 2.0, 5)
    assert scenario.slos == {"llama-3.1-70b": SLO(3.0, 0.0005, 0.1)}
    assert scenario.envelope.maximum_gpus == 8
    assert config.evolution == EvolutionConfig("command", "cat -u", None, 0.5)
    assert (config.paper, config.store) == (True, "x.db")


def test_flags_that_are_left_out_take_the_defaults_of_the_configuration(runs: list[RunConfig]) -> None:
    assert main(["run", *SCENE]) == 0
    scenario = runs[0].scenario
    wanted = type(scenario)((WorkloadFile("llama-3.1-8b", "a.csv"),), "demo-8")
    assert runs == [RunConfig(wanted, jobs=evaluators())]


def test_a_run_is_told_how_much_of_the_machine_it_may_take(runs: list[RunConfig]) -> None:
    assert main(["run", *SCENE, "--jobs", "3", "--priority", "idle"]) == 0
    assert (runs[0].jobs, runs[0].priority) == (3, Priority.IDLE)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--jobs", "0"], "--jobs"), (["--jobs", "two"], "--jobs"), (["--priority", "lo"], "did you mean low")],
)
def test_a_share_of_the_machine_that_makes_no_sense_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *SCENE, *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_prints_tables_on_stdout_and_events_on_stderr(
    runs: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *SCENE, "--json", "out.json"]) == 0
    captured = capsys.readouterr()
    assert all(title in captured.out for title in ("Operator mode", "Paper mode", "Swaps"))
    assert captured.err == "[ 0:01:00] evolving  swap        policy x takes over\n"
    assert Path("out.json").read_text().startswith('{\n  "rows": [')
    assert main(["run", *SCENE, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_simulation_prints_its_row_and_its_speed(
    runs: list[tuple[RunConfig, PolicySource]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *SCENE, "--policy", "milp-replan", "--json", "out.json"]) == 0
    assert [policy.name for _, policy in runs] == ["milp-replan"]
    assert "3.25 s, 123457 simulated requests/s, 210 MB" in capsys.readouterr().out
    assert '"simulated_requests_per_s": 123456.789' in Path("out.json").read_text()


@pytest.mark.parametrize("command", [["run"], ["simulate", "--policy", "static"]])
def test_a_page_is_written_where_it_is_asked_for(runs: list[Any], pages: None, command: list[str]) -> None:
    assert main([*command, *SCENE, "--seed", "5", "--report", "page.html"]) == 0
    assert Path("page.html").read_text() == "<p>seed 5</p>"
    assert main([*command, *SCENE]) == 0
    assert sorted(Path().glob("*.html")) == [Path("page.html")]


@pytest.mark.parametrize(
    "argv", [["run", *SCENE], ["simulate", "--policy", "static", *SCENE], ["demo"]], ids=lambda argv: argv[0]
)
def test_without_the_plotting_library_a_page_is_refused_before_anything_runs(
    argv: list[str], runs: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_page, "can_draw", lambda: False)
    line = said(capsys, [*argv, "--report", "page.html"])
    assert "--report: plots are drawn by matplotlib, which is not installed; pip install 'autopoiesis[report]'" in line
    assert runs == []


def test_the_demo_needs_no_file_and_leaves_a_page(
    runs: list[RunConfig], pages: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    assert main(["demo", "--seed", "3"]) == 0
    assert sorted(os.listdir()) == sorted([*before, "autopoiesis-demo.html"])
    assert Path("autopoiesis-demo.html").read_text() == "<p>seed 3</p>"
    (config,) = runs
    assert not Path(config.store).parent.exists()
    assert all(workload.path is None for workload in config.scenario.workloads)
    assert config.scenario.seed == 3
    out = capsys.readouterr().out
    assert "answered 95.0 % of them within their SLO and lost 5" in out
    assert "5.3 % less than the best fixed policy (milp-replan)" in out
    assert "Once a better policy passed all gates" in out
    assert Path("autopoiesis-demo.html").resolve().as_uri() in out
    assert "autopoiesis run --help" in out


def test_the_demo_runs_without_the_plotting_library_and_says_what_is_missing(
    runs: list[RunConfig], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autopoiesis.cli.demo.can_draw", lambda: False)
    before = sorted(os.listdir())
    assert main(["demo"]) == 0
    assert sorted(os.listdir()) == before
    assert "pip install 'autopoiesis[report]'" in capsys.readouterr().out


def test_the_demo_refuses_a_page_that_it_could_not_write(
    runs: list[RunConfig], pages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "folder 'absent' does not exist" in said(capsys, ["demo", "--report", "absent/page.html"])
    assert runs == []


def doing(monkeypatch: pytest.MonkeyPatch, act: Callable[[Watch], None]) -> None:
    """Let `control.run` do this."""

    def run(config: RunConfig, watch: Watch, account: object) -> Report:
        act(watch)
        return report()

    monkeypatch.setattr(control, "run", run)


def test_an_error_of_a_run_is_one_line_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(watch: Watch) -> None:
        raise ScenarioError("a.csv: line 2:\n  column 'x'")

    doing(monkeypatch, fail)
    assert said(capsys, ["run", *SCENE, "--json", "out.json"]) == "autopoiesis: error: a.csv: line 2:; column 'x'\n"


def plainly(number: int, watch: Watch) -> None:
    os.kill(os.getpid(), number)


def swallowed(number: int, watch: Watch) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    watch.stage("serving on")


def turned_into_another_error(number: int, watch: Watch) -> None:
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as interrupt:
        raise RuntimeError("no compiled object yet") from interrupt


def in_a_callback_of_foreign_code(number: int, watch: Watch) -> None:
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), number))()
    watch.progress("evolving", "operator", 0.5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", [plainly, swallowed, turned_into_another_error, in_a_callback_of_foreign_code])
def test_ctrl_c_and_sigterm_end_a_run_in_one_line_that_says_how_to_go_on(
    number: signal.Signals,
    way: Callable[[int, Watch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(number)
    doing(monkeypatch, lambda watch: way(number, watch))
    assert main(["run", *SCENE, "--json", "out.json"]) == 128 + number
    expected = "interrupted; the next run with the same arguments and store goes on from here\n"
    assert capsys.readouterr() == ("", expected)
    assert not Path("out.json").exists()
    assert signal.getsignal(number) is before


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(watch: Watch) -> None:
        raise ZeroDivisionError

    doing(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", *SCENE])


def process(*argv: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "autopoiesis", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **settings)


def test_the_module_is_the_command() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"autopoiesis {__version__}\n")
    done = process("run", *SCENE, "--cluster", "demo-9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "autopoiesis: error: unknown cluster 'demo-9'; did you mean demo-8? (or give the path of a .toml file)\n"
    )


@pytest.mark.parametrize(
    "command", [[], ["run"], ["simulate"], ["policy"], ["policy", "check"], ["policy", "export"], ["log"], ["demo"]]
)
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert re.search(r"examples?:\n  autopoiesis ", out)
    assert max(map(len, out.splitlines())) <= 100


def test_help_and_policy_commands_do_not_wait_for_the_compiler() -> None:
    code = (
        "import sys; from autopoiesis.cli import main\n"
        "for argv in (['--help'], ['run', '--help'], ['policy', 'show', 'static'], ['policy', 'check', 'static']):\n"
        "    try: main(argv)\n"
        "    except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('numba', 'highspy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "autopoiesis", "policy", "show", "static"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_closed_streams_are_no_error() -> None:
    for closed, argv in ((">&-", "policy list"), (">&-", "--help"), (">&- 2>&-", "policy show static")):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m autopoiesis {argv} {closed}', sys.executable],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_an_error() -> None:
    command = [sys.executable, "-m", "autopoiesis", "policy", "show", "static"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"autopoiesis: error: standard output cannot be written: No space left")
    assert done.stderr.count(b"\n") == 1
