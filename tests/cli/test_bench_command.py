"""`autopoiesis bench` from outside: what cannot be asked for, and Ctrl-C. What it measures: tests/bench."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autopoiesis.bench.suite.work import STORE
from autopoiesis.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--suite", "headrom"), "unknown suite 'headrom'; did you mean headroom?"),
        (("--cells", "nope"), "matches no cell of suite 'quick'; it has 70b-conversation"),
        (("--traces", "nowhere"), "--traces nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_line(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["bench", *words, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_results_need_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["bench", "--out", str(file)]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench"])


def test_ctrl_c_ends_the_workers_keeps_what_there_is_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "autopoiesis", "bench", "--cells", "controls", "--jobs", "2", "--out", str(tmp_path)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60.0
        while not (tmp_path / STORE).exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert (tmp_path / "results.json").exists()
    assert "Traceback" not in said
