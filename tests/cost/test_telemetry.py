"""Telemetry files: numbers only, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.cost.telemetry import Stream, read_telemetry, write_telemetry
from autopoiesis.errors import TraceError

LINE = '{"sent_s": 1.0, "prompt_tokens": 8, "token_s": [1.5, 1.5, 2.25]}'


def test_what_is_written_is_read_again_in_order_of_sending(tmp_path: Path) -> None:
    early, late = Stream(0.5, 3, (1.0,)), Stream(1.0, 8, (1.5, 1.5, 2.25))
    write_telemetry(tmp_path / "t.jsonl", [late, early])
    assert read_telemetry(tmp_path / "t.jsonl") == (early, late)
    assert (late.ttft_s, late.e2e_s) == (0.5, 1.25)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: "),
        ('{"sent_s": 1.0, "prompt_tokens": 8}', "missing required field `token_s`"),
        ('{"sent_s": 1.0, "prompt_tokens": 0, "token_s": [2]}', "prompt_tokens must be from 1"),
        ('{"sent_s": 1.0, "prompt_tokens": 8, "token_s": []}', "at least one"),
        ('{"sent_s": 1.0, "prompt_tokens": 8, "token_s": [2, 1.5]}', "must not run back"),
        ('{"sent_s": 1.0, "prompt_tokens": 8, "token_s": [0.5]}', "nor begin before sent_s"),
        ('{"sent_s": 1.0, "prompt_tokens": 8, "token_s": [1e999]}', "line 2: "),
        ('{"sent_s": 1.0, "prompt_tokens": 8, "token_s": [2], "prompt": "x"}', "unknown field `prompt`"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(TraceError) as error:
        read_telemetry(file)
    assert str(file) in str(error.value)
    assert words in str(error.value)
    assert "line 2" in str(error.value)


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_telemetry(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TraceError, match="no request"):
        read_telemetry(tmp_path / "empty.jsonl")
