"""`autopoiesis calibrate`: the table, the JSON, the file that a run takes, and what is said of bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_reports import simulate_report

import autopoiesis.control.run as control
from autopoiesis.cli import main
from autopoiesis.cluster import Hardware, catalog
from autopoiesis.control.config import RunConfig, SimulateReport
from autopoiesis.control.files import read_coefficients
from autopoiesis.control.prepare import read
from autopoiesis.cost import CostModel, Fitted
from autopoiesis.cost.efficiencies import BOUNDS, UNMEASURED

HEADER = "system,model,dtype,tp,kind,batch,isl,osl_or_ctx,prefill_tokens,decode_seqs,latency_ms"
SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
SHAPES = (
    ("h100", SMALL, 1),
    ("h100", SMALL, 2),
    ("h100", SMALL, 4),
    ("h100", LARGE, 4),
    ("a100", SMALL, 1),
    ("a100", SMALL, 4),
)


def rows(faster: float = 1.0) -> list[str]:
    """Steps of engines that are so much faster than the cost model of a GPU that was never measured."""
    cost = CostModel(Hardware(catalog.gpus(), catalog.models()), measured=(), efficiencies={})
    lines = []
    for gpu, model, tp in SHAPES:
        times = cost.steps(model, gpu, tp, 1, 2)
        head = f"{gpu}_sxm,{model.title()},bf16,{tp}"
        for isl in (256, 2048, 8192):
            ms = 1e3 * times.step_s(isl, isl**2, 0, 0) / faster
            lines.append(f"{head},prefill_step,1,{isl},,{isl},0,{ms:.6f}")
        for n in (1, 64):
            ms = 1e3 * times.step_s(0, 0, n, n * 1000) / faster
            lines.append(f"{head},decode_step,{n},,1000,0,{n},{ms:.6f}")
        ms = 1e3 * times.step_s(1024, 1024 * 4096, 32, 32 * (4096 + 128)) / faster
        lines.append(f"{head},mixed_step,33,4096,256,1024,32,{ms:.6f}")
    return lines


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("steps.csv").write_text("\n".join([HEADER, *rows()]) + "\n")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a command line is refused; nothing is left behind."""
    before = sorted(os.listdir())
    try:
        code: object = main(["calibrate", *argv])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1, captured.err
    assert sorted(os.listdir()) == before
    return captured.err


def results(*argv: str) -> dict[str, Any]:
    assert main(["calibrate", "--steps", "steps.csv", "--json", "out.json", *argv]) == 0
    read: dict[str, Any] = json.loads(Path("out.json").read_text())
    return read


def test_json_has_errors_as_fractions_and_coefficients() -> None:
    out = results()
    assert list(out) == ["fit", "holdout", "coefficients"]
    assert list(out["fit"]) == ["prefill_mape", "decode_mape", "mixed_mape"]
    assert all(0 <= error < 0.01 for error in out["fit"].values())
    assert out["holdout"] is None
    assert set(out["coefficients"]) == {"a100", "h100"}
    h100 = out["coefficients"]["h100"]
    assert set(h100["efficiencies"]) == set(BOUNDS)
    assert [(shape["model"], shape["tensor_parallel"]) for shape in h100["measured"]] == [
        (LARGE, 4),
        (SMALL, 1),
        (SMALL, 2),
        (SMALL, 4),
    ]


def test_a_phase_without_steps_has_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("steps.csv").write_text("\n".join([HEADER, *(row for row in rows() if "decode" in row)]) + "\n")
    errors = results()["fit"]
    assert errors["decode_mape"] < 0.01
    assert errors["prefill_mape"] is errors["mixed_mape"] is None
    assert " -  " in capsys.readouterr().out


@pytest.mark.parametrize("holdout", ["tp=4", "model=LLAMA-3.1-70b"])
def test_what_is_held_out_is_not_fitted_and_is_predicted(holdout: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = results("--holdout", holdout)
    assert all(error < 0.01 for error in out["holdout"].values())
    shapes = [(s["model"], s["tensor_parallel"]) for gpu in out["coefficients"].values() for s in gpu["measured"]]
    assert (LARGE, 4) not in shapes
    assert ((SMALL, 4) in shapes) == holdout.startswith("model")
    sample, held = capsys.readouterr().out.split("\n\n")
    assert "roofline" not in sample
    assert f"Held out: {holdout}" in held
    assert " measured" not in held


def test_the_table_has_a_line_per_shape_and_kind_and_one_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    results()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["GPU", "model", "TP", "steps"]
    assert [line[:4] for line in lines[2:]] == [
        ["a100", SMALL, "1", "6"],
        ["a100", SMALL, "4", "6"],
        ["a100", "all", "12", lines[4][3]],
        ["h100", LARGE, "4", "6"],
        *(["h100", SMALL, tp, "6"] for tp in ("1", "2", "4")),
        ["h100", "all", "24", lines[9][3]],
        ["all", "36", *lines[10][2:4]],
    ]


def test_the_engine_of_a_table_is_named() -> None:
    assert main(["calibrate", "--steps", "steps.csv", "--engine", "sglang", "--out", "mine.toml"]) == 0
    assert {shape.engine for shape in read_coefficients("mine.toml").measured} == {"sglang"}


def test_the_same_steps_give_the_same_bytes() -> None:
    results("--out", "a.toml")
    first = Path("out.json").read_bytes()
    results("--out", "b.toml")
    assert Path("out.json").read_bytes() == first
    assert Path("a.toml").read_bytes() == Path("b.toml").read_bytes()


def test_the_file_that_is_written_is_what_a_run_serves_with(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("steps.csv").write_text("\n".join([HEADER, *rows(faster=1.1)]) + "\n")
    results("--out", "mine.toml")
    Path("a.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n")
    seen: list[RunConfig] = []

    def simulate(config: RunConfig, *_: object) -> SimulateReport:
        seen.append(config)
        return simulate_report()

    monkeypatch.setattr(control, "simulate", simulate)
    scene = ["simulate", "--policy", "static", "--cluster", "demo-8", "--workload", f"{SMALL}=a.csv"]
    assert main(scene) == main([*scene, "--coefficients", "mine.toml"]) == 0
    usual, ours = (read(config.scenario, lambda _: None).scenario for config in seen)
    fitted = read_coefficients("mine.toml")
    assert seen[0].scenario.coefficients == Fitted()
    assert seen[1].scenario.coefficients == fitted
    assert ours.cost.measured == fitted.measured
    assert ours.cost.efficiencies["h100"] == fitted.efficiencies["h100"] != UNMEASURED
    assert ours.digest() != usual.digest()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--steps absent.csv", "absent.csv: no such file; check the path"),
        ("--steps .", "is a directory"),
        ("--steps steps.csv --holdout tp=8", "--holdout tp=8: unknown tensor parallel degree '8'; there are: 1, 2, 4"),
        ("--steps steps.csv --holdout model=x", f"unknown model 'x'; there are: {LARGE}, {SMALL}"),
        ("--steps steps.csv --holdout model=llama-3.1-7b", "did you mean llama-3.1-"),
        (f"--steps steps.csv --holdout model={SMALL}", "leaves no step of a100 to fit; hold out something else"),
        ("--steps steps.csv --holdout gpu=h100", "--holdout gpu=h100: must be tp=N or model=NAME"),
        ("--steps steps.csv --holdout tp", "argument --holdout: must have the form tp=4 or model=NAME, got 'tp'"),
        (
            "--steps steps.csv --holdout tp=4 --out x.toml",
            "--out: with --holdout the coefficients would lack the steps",
        ),
        ("--steps steps.csv --json steps.csv", "--json steps.csv: is the file of --steps, which it would replace"),
        ("--steps steps.csv --out steps.csv", "--out steps.csv: is the file of --steps"),
        (
            "--steps steps.csv --tp 4",
            "--tp: says what was recorded with --telemetry; a table of steps says it by itself",
        ),
        ("--steps steps.csv --out x --json x", "--out x: is the file of --json"),
        ("--steps steps.csv --out absent/x.toml", "--out absent/x.toml: folder 'absent' does not exist; create it"),
        ("--step steps.csv", "one of the arguments --steps --telemetry is required"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys: pytest.CaptureFixture[str], flags: str, text: str) -> None:
    assert text in said(capsys, *flags.split())


def test_a_bad_cell_is_named_by_file_line_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    Path("steps.csv").write_text("\n".join([HEADER, *rows()[:3], rows()[3].rpartition(",")[0] + ",nan"]) + "\n")
    assert "steps.csv: line 5: column 'latency_ms': 'nan' is not finite" in said(capsys, "--steps", "steps.csv")


def test_a_bad_file_of_coefficients_stops_a_run_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n")
    Path("mine.toml").write_text("[h10.efficiencies]\n")
    scene = ["run", "--cluster", "demo-8", "--workload", f"{SMALL}=a.csv", "--coefficients"]
    assert main([*scene, "mine.toml"]) == main([*scene, "absent.toml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "mine.toml: unknown GPU 'h10'; did you mean" in first
    assert "absent.toml: cannot be read" in second
