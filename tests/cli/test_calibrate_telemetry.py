"""`calibrate --telemetry`: from a client's file to coefficients of one configuration."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from autopoiesis.cli.calibrate_telemetry import add_telemetry, calibrate_from_telemetry
from autopoiesis.cost.telemetry import Stream, write_telemetry
from autopoiesis.errors import TraceError


def arguments(file: Path, output: Path | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_telemetry(parser)
    known = parser.parse_args(["--telemetry", str(file), "--batched-tokens", "512", "--max-sequences", "8"])
    known.json = None if output is None else str(output)
    known.model, known.gpu, known.engine, known.dtype = "llama-3.1-8b", "h100", "vllm", "bf16"
    known.tensor_parallel, known.pipeline_parallel = 2, 1
    return known


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
    assert calibrate_from_telemetry(arguments(tmp_path / "t.jsonl", tmp_path / "c.json")) == 0
    written = json.loads((tmp_path / "c.json").read_text())
    (entry,) = written["coefficients"]
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


def test_a_file_without_a_load_is_refused(tmp_path: Path) -> None:
    write_telemetry(tmp_path / "t.jsonl", steady(2))
    with pytest.raises(TraceError, match="record a load with at least 50"):
        calibrate_from_telemetry(arguments(tmp_path / "t.jsonl", None))
