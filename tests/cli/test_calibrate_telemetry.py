"""`calibrate --telemetry`: from a client's file to coefficients of one configuration."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.control.files import read_coefficients
from autopoiesis.cost.telemetry import Stream, write_telemetry

ENGINE = ["--model", "llama-3.1-8b", "--gpu", "h100", "--tp", "2", "--batched-tokens", "512", "--max-sequences", "8"]


def steady(requests: int) -> list[Stream]:
    """One request after the other; 1 ms per prompt token, 10 ms per decode step."""
    streams = []
    for i in range(requests):
        prompt = 20 + 7 * (i % 9)
        first_s = 2.0 * i + prompt / 1000
        streams.append(Stream(2.0 * i, prompt, tuple(first_s + 0.01 * step for step in range(12))))
    return streams


def test_coefficients_are_printed_and_written_with_their_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_telemetry(tmp_path / "t.jsonl", steady(30))
    telemetry, told, out = (str(tmp_path / name) for name in ("t.jsonl", "c.json", "c.toml"))
    assert main(["calibrate", "--telemetry", telemetry, "--json", told, "--out", out, *ENGINE]) == 0
    written = json.loads((tmp_path / "c.json").read_text())
    (entry,) = written["coefficients"]["h100"]["measured"]
    (read,) = read_coefficients(out).measured
    assert asdict(read) == entry
    assert (entry["model"], entry["gpu"], entry["tensor_parallel"], entry["engine"]) == (
        "llama-3.1-8b",
        "h100",
        2,
        "vllm",
    )
    decode_s = (
        entry["fixed_s"] + max(entry["weights_s"], entry["token_s"]) + entry["sequence_s"] + 60 * entry["context_s"]
    )
    assert decode_s == pytest.approx(0.010, rel=0.02)
    printed = capsys.readouterr().out
    assert "token_s" in printed
    assert "30 requests, 360 steps" in printed


def test_a_file_without_a_load_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_telemetry(tmp_path / "t.jsonl", steady(2))
    assert main(["calibrate", "--telemetry", str(tmp_path / "t.jsonl"), *ENGINE]) == 2
    assert "record a load with at least 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ENGINE[2:], "say with --model what was recorded"),
        ([*ENGINE, "--holdout", "tp=4"], "telemetry is of one engine"),
    ],
)
def test_what_was_recorded_must_be_said(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_telemetry(tmp_path / "t.jsonl", steady(30))
    assert main(["calibrate", "--telemetry", str(tmp_path / "t.jsonl"), *flags]) == 2
    assert message in capsys.readouterr().err
