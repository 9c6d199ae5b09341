"""The benchmark of gateways: who is started and how, what is measured of them, and what is claimed of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from autopoiesis.bench.environment import Unavailable
from autopoiesis.bench.gateway import __main__ as command
from autopoiesis.bench.gateway.agreement import Look
from autopoiesis.bench.gateway.cells import Cell, Sample, memory, rounds
from autopoiesis.bench.gateway.claims import Claim, nothing, of_cells, ratios
from autopoiesis.bench.gateway.engines import CHAT, Engines
from autopoiesis.bench.gateway.load_plan import Report, Spread
from autopoiesis.bench.gateway.processes import Cores, free_port, started, wait_ready
from autopoiesis.bench.gateway.scene import Scene
from autopoiesis.bench.gateway.swaps import Swaps
from autopoiesis.bench.gateway.targets import DIRECT, OURS, PEERS, TARGETS, Ports, configuration
from autopoiesis.bench.gateway.usage import cpu_s, memory_mib, tree
from autopoiesis.serve.config_file import read_config

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def sample(
    cell: str, target: str, number: int, *, rate: float = 6000.0, cpu_us: float = 90.0, ms: float = 0.2
) -> Sample:
    spread = Spread(ms, ms, ms, ms)
    endings = {"whole": 6000}
    report = Report(seconds=1.0, endings=endings, reasons={}, tokens=1, total=spread, added=spread, token=spread)
    return Sample(cell, target, number, report, cpu_us, foreign=0.0)


# --- gateways -------------------------------------------------------------------------------------------------------


def test_our_configuration_is_one_that_an_operator_could_write(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(configuration(["http://127.0.0.1:1"], Ports(2, 3), "secret", workers=2)))
    config = read_config(str(file))
    assert (len(config.keys), config.listen.workers, config.accounting) == (3, 2, True)
    assert config.policy.file is not None
    assert "secret" not in file.read_text()


def test_a_gateway_that_ends_before_it_serves_is_not_available_and_its_last_words_say_why(tmp_path: Path) -> None:
    log, complains = tmp_path / "log", "raise SystemExit('there is no such flag')"
    with (
        started([sys.executable, "-c", complains], Cores.of_this_process().gateway, log) as process,
        pytest.raises(Unavailable, match="there is no such flag"),
    ):
        wait_ready(free_port(), CHAT, "", process, log, 20.0)


def test_a_program_that_is_not_there_is_not_available(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match="No such file"),
        started(["/nowhere/router"], Cores.of_this_process().gateway, tmp_path / "log"),
    ):
        pass


def test_what_is_started_stays_on_its_core_and_the_benchmark_where_it_was(tmp_path: Path) -> None:
    before, cores = os.sched_getaffinity(0), Cores.of_this_process()
    with started([sys.executable, "-c", "input()"], cores.gateway, tmp_path / "log") as process:
        assert os.sched_getaffinity(process.pid) == cores.gateway
    assert os.sched_getaffinity(0) == before


def test_the_page_names_every_peer_as_it_is_installed() -> None:
    assert all(peer.requirement in PAGE for peer in PEERS)


# --- what is measured -----------------------------------------------------------------------------------------------


@contextmanager
def waiting(code: str) -> Iterator[int]:
    """A process that has run this code and waits."""
    command = [sys.executable, "-c", f"import subprocess, sys; {code}; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_the_time_of_children_that_have_ended_counts() -> None:
    spends = "import time\nwhile time.process_time() < 0.3: pass"
    with waiting(f"subprocess.run([sys.executable, '-c', {spends!r}])") as pid:
        assert cpu_s([pid]) >= 0.3


def test_a_tree_is_a_process_and_all_below_it() -> None:
    with waiting("child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)") as pid:
        assert (len(tree(pid)), tree(pid)[0]) == (2, pid)


def test_memory_is_what_a_process_holds_and_its_share_of_it_is_no_more() -> None:
    with waiting("held = bytes(range(256)) * 200_000") as pid:
        assert 48 < memory_mib([pid], "Pss") <= memory_mib([pid], "Rss")


def test_gateways_take_turns_and_every_sample_is_of_one_load(tmp_path: Path) -> None:
    scene = Scene.here(tmp_path, tmp_path)
    cell = Cell("small", "small", {"connections": 8, "seconds": 20.0, "requests": 200})
    with (
        Engines(scene.cores, tmp_path) as engines,
        scene.gateway(DIRECT, engines) as direct,
        scene.gateway(OURS, engines) as ours,
    ):
        samples = list(rounds(scene, engines, (direct, ours), cell, 2))
        resident = memory(ours)
    assert [(s.round, s.target) for s in samples] == [(0, "direct"), (0, "ours"), (1, "ours"), (1, "direct")]
    assert all(s.report.endings == {"whole": 200} for s in samples)
    assert [s.cpu_us is None for s in samples] == [True, False, False, True]
    assert resident is not None
    assert 0 < resident.pss <= resident.rss


# --- what is claimed ------------------------------------------------------------------------------------------------


def test_a_claim_is_reached_at_its_limit_and_not_beyond() -> None:
    assert Claim("at most", "", 2.0, (1.0, 2.0, 9.0)).reached is True
    assert Claim("at most", "", 1.9, (1.0, 2.0, 9.0)).reached is False
    assert Claim("at least", "", 2.0, (1.0, 2.0, 9.0), at_least=True).reached is True
    assert Claim("at least", "", 2.1, (1.0, 2.0, 9.0), at_least=True).reached is False


def test_what_must_never_happen_counts_wherever_it_happened_once() -> None:
    assert nothing("lost", [0, 0, 1]).reached is False


def test_a_claim_without_a_measurement_is_neither_reached_nor_missed() -> None:
    assert Claim("anything", "", 1.0, ()).reached is None


def test_gateways_are_compared_round_by_round_and_a_round_that_lacks_one_is_left_out() -> None:
    samples = [sample("c", "a", 0, cpu_us=10), sample("c", "b", 0, cpu_us=20), sample("c", "a", 1, cpu_us=30)]
    assert ratios(samples, "c", "a", "b", lambda s: s.cpu_us) == (0.5,)


def test_without_a_peer_only_what_is_claimed_against_it_is_not_measured() -> None:
    samples = [sample(cell, "ours", 0) for cell in ("plain-256", "plain-1", "stream-200")]
    missing = [claim.text for claim in of_cells(samples, None) if claim.reached is None]
    assert all("vllm-router" in text or "memory" in text for text in missing)
    assert len(missing) == 3


def test_counts_agree_only_if_all_views_tell_the_same() -> None:
    assert Look(engines=(2, 1), admin=(2, 1), metrics=(2, 1), by_worker=((1, 1), (0, 1))).agree
    assert not Look(engines=(2, 1), admin=(2, 1), metrics=(2, 1), by_worker=((1, 0), (0, 1))).agree
    assert not Look(engines=(2, 1), admin=(2, 1), metrics=(1, 2), by_worker=((1, 1), (0, 1))).agree


def swap_claims(with_swaps: float, without: tuple[float, float, float]) -> list[bool | None]:
    """Whether what is claimed of swaps is reached by loads of these latencies."""
    reports = tuple(sample("", "", 0, ms=ms).report for ms in without)
    result = Swaps(reports, (sample("", "", 0, ms=with_swaps).report,) * 2, swaps=1000)
    return [claim.reached for claim in result.claims()]


def test_swaps_may_add_no_more_than_neighbouring_loads_without_them_differ() -> None:
    assert swap_claims(1.3, (1.0, 1.2, 1.0)) == [True, True, True, True]
    assert swap_claims(1.4, (1.0, 1.2, 1.0)) == [True, True, False, False]


def test_nothing_is_said_of_swaps_where_loads_without_them_differ_by_more_than_a_factor_of_two() -> None:
    assert swap_claims(1.3, (1.0, 2.1, 1.0)) == [True, True, None, None]


# --- command --------------------------------------------------------------------------------------------------------


def test_every_gateway_and_load_can_be_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "nobody"])
    said = capsys.readouterr().err
    assert all(target.name in said for target in TARGETS)


def test_a_folder_for_figures_that_is_not_there_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--json", str(tmp_path / "none" / "f.json")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_figures_say_what_was_claimed_and_what_was_measured(tmp_path: Path) -> None:
    bench = command.Bench(Scene.here(tmp_path, tmp_path), (OURS,), 1)
    bench.samples = [sample("plain-256", "ours", number) for number in range(3)]
    figures = json.loads(json.dumps(bench.as_json()))
    rate = next(claim for claim in figures["claims"] if "per second" in claim["claim"])
    assert (rate["limit"], rate["measured"], rate["reached"]) == (5500, 6000, True)
    assert msgspec.convert(figures["samples"][0]["report"], Report) == bench.samples[0].report
