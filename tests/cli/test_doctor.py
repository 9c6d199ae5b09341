"""`autopoiesis doctor`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autopoiesis.cli import doctor, main
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.limits import Wall

WHOLE = Wall(nobody=True, no_network=True, rlimits=True, no_new_privileges=True, landlock=7, seccomp=True)
BARE = Wall(nobody=False, no_network=False, rlimits=False, no_new_privileges=False, landlock=0, seccomp=False)


def words(text: str) -> str:
    return " ".join(text.split())


def here(monkeypatch: pytest.MonkeyPatch, wall: Wall | None, refusal: str | None) -> None:
    monkeypatch.setattr(doctor, "_wall", lambda: (wall, refusal))


@pytest.mark.skipif(sys.platform != "linux", reason="the wall is made of Linux")
def test_the_wall_is_tried_and_the_same_is_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopoiesis.simulate.hosted.ESTIMATOR", "autopoiesis.policy.interface:Estimator")
    status = main(["doctor", "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    wall = Wall(**found["wall"])
    assert status == (0 if wall.holds else 1)
    assert found["policies_may_run"] is wall.holds
    assert found["sqlite"] in printed
    assert f"yes, ABI {wall.landlock}" in printed or not wall.landlock
    assert all(title in printed for title in ("Landlock", "seccomp", "compiled code", *doctor.OPTIONAL))


def test_each_missing_layer_is_said_with_what_that_means_and_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, layer in doctor.LAYERS.items():
        here(monkeypatch, Wall(**(asdict(WHOLE) | {name: getattr(BARE, name)})), None)
        assert main(["doctor"]) == 0
        printed = capsys.readouterr().out
        lines = [line.split("  ")[0] for line in printed.splitlines() if "  no   " in line]
        assert layer.title in lines
        assert all(word in words(printed) for word in layer.missing.split())
        assert not any(other.title in lines for other in doctor.LAYERS.values() if other is not layer)


@pytest.mark.parametrize(("version", "gap"), [(3, "TCP"), (5, "signals"), (7, None)])
def test_an_old_landlock_is_said_with_what_it_lacks(
    version: int, gap: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, replace(WHOLE, landlock=version), None)
    main(["doctor"])
    printed = words(capsys.readouterr().out)
    assert f"yes, ABI {version}" in printed
    assert ("This version leaves" in printed) is (gap is not None)
    assert gap is None or f"This version leaves {gap}" in printed


def test_where_no_layer_holds_code_the_answer_is_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, BARE, "neither stands")
    assert main(["doctor", "--json", str(tmp_path / "out.json")]) == 1
    assert "would be refused here: neither stands." in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["policies_may_run"], found["refusal"]) == (False, "neither stands")
    assert found["wall"] == asdict(BARE)


@pytest.mark.skipif(sys.platform != "linux", reason="the wall is made of Linux")
def test_a_wall_that_does_not_hold_is_refused_by_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopoiesis.simulate.hosted.ESTIMATOR", "autopoiesis.policy.interface:Estimator")
    monkeypatch.setattr(PolicyHost, "wall", replace(WHOLE, rlimits=False, seccomp=False, landlock=5))
    assert main(["doctor"]) == 1
    said = "the wall lacks resource limits, seccomp (or Landlock ABI 6 and no network)."
    assert f"would be refused here: {said}" in words(capsys.readouterr().out)


def test_elsewhere_than_on_linux_the_answer_is_no_in_a_clear_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "would be refused here: the wall is made of Linux, and this is darwin." in printed
    assert printed.count("not tried") == len(doctor.LAYERS)


def test_a_file_that_cannot_be_written_is_said_before_anything_is_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: pytest.fail("tried"))
    assert main(["doctor", "--json", "/no/such/folder/out.json"]) == 2
    assert "--json" in capsys.readouterr().err
