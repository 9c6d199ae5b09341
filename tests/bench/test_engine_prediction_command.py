"""The command: what it says when there is nothing to compare."""

from __future__ import annotations

import pytest
from canned_server import Canned, canned_server

from autopoiesis.bench.engine_prediction import main

LIMITS = ["--first-token=1", "--last-token=9", "--max-sequences=8", "--batched-tokens=64"]
SHORT = ["--parts=1", "--seconds=0.2"]


def test_an_engine_that_answers_nothing_is_an_error_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    busy = Canned([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], pause_s=0.0)
    with canned_server(busy):
        assert main(["--url", busy.url, *LIMITS, *SHORT]) == 2
    assert capsys.readouterr().err == "error: no request was answered: status 503\n"


def test_an_engine_elsewhere_is_not_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://192.0.2.1:8000/v1", *LIMITS, *SHORT]) == 2
    assert "not an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("load", ["1,2", "1,2,x", "0,2,3", "nan,1,1"])
def test_a_load_that_makes_no_sense_is_refused(load: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--url", "http://127.0.0.1:1/v1", *LIMITS, "--predict", load])
    assert "--predict" in capsys.readouterr().err
