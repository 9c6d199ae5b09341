"""What happens to loads on our gateway in the scenarios of its benchmark, each of them short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autopoiesis.bench.environment import Unavailable
from autopoiesis.bench.gateway import agreement, drain, engines, failover, swaps
from autopoiesis.bench.gateway.answer import Ending
from autopoiesis.bench.gateway.cells import PLAIN_256
from autopoiesis.bench.gateway.claims import Claim
from autopoiesis.bench.gateway.engines import Engines
from autopoiesis.bench.gateway.processes import pinned
from autopoiesis.bench.gateway.scene import Scene
from autopoiesis.bench.gateway.targets import DIRECT, OURS


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.here(tmp_path, tmp_path)


def missed(claims: list[Claim], *but: str) -> list[str]:
    """What was claimed and not reached, other than what these say."""
    return [row.text for row in claims if not row.reached and not any(text in row.text for text in but)]


def test_two_processes_count_what_is_in_flight_as_the_engines_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "LOOKS", 5)
    few = {"connections": 16, "seconds": 5.0, "requests": 160}
    monkeypatch.setattr(agreement, "PLAIN_256", replace(PLAIN_256, plan=few))
    with pinned(scene.cores.rest):
        result = agreement.agreement(scene, 1)
    assert missed(result.claims(), "CPU") == []
    assert [sample.report.endings for sample in result.samples] == [{Ending.WHOLE: 160}] * 2


def test_a_killed_replica_costs_no_plain_request_and_its_streams_end_in_an_error_event(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "KILL_S", 0.3)
    monkeypatch.setattr(failover, "RESTART_S", 0.3)
    for name in ("PLAIN", "STREAMS"):
        monkeypatch.setitem(getattr(failover, name), "seconds", 3.0)
    with pinned(scene.cores.rest):
        result = failover.failover(scene, OURS)
    assert missed(result.claims(), "replica back") == []
    assert result.streams.endings[Ending.ERROR_EVENT] > 0


def test_drained_replicas_get_nothing_and_nothing_is_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "DRAINS", 2)
    monkeypatch.setattr(drain, "BEFORE_S", 0.1)
    for name in ("PLAIN", "STREAMS"):
        monkeypatch.setitem(getattr(drain, name), "seconds", 6.0)
    with pinned(scene.cores.rest):
        result = drain.drain(scene)
    assert missed(result.claims()) == []
    assert len(result.drained_s) == len(result.back_s) == 2


def test_swaps_under_load_lose_nothing_and_are_as_many_as_were_asked_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swaps, "SWAPS", 60)
    monkeypatch.setattr(swaps, "TURNS", 1)
    monkeypatch.setattr(swaps, "COMPILED_S", 0.0)
    # too short for all of its swaps: there must be more loads than one
    monkeypatch.setitem(swaps.LOAD, "seconds", 1.0)
    with pinned(scene.cores.rest):
        result = swaps.swaps(scene)
    assert missed(result.claims(), "latency") == []
    assert result.swaps == 60
    assert len(result.without) == len(result.during) + 1 > 2


def test_a_load_that_does_not_begin_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engines(scene.cores, scene.folder) as ready, scene.gateway(DIRECT, ready):
        monkeypatch.setattr(engines, "START_S", 0.1)
        with pytest.raises(Unavailable, match="0 of 1 requests were in progress"):
            ready.wait_busy(1)
