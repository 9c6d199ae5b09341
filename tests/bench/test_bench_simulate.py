"""The benchmark of the simulator: its scenes are what they are called, its figures say what was measured."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from autopoiesis.bench import scenes, simulate, vidur, vidur_run
from autopoiesis.bench.figures import Figure, drawn, number
from autopoiesis.bench.process import machine, peak_rss_mb, timed
from autopoiesis.bench.scenes import COST, FLEET, KV_PART, LONGEST, MODEL, SPLIT_FLEET, Lengths, Scene
from autopoiesis.errors import TraceError
from autopoiesis.evolve.routers import ROUTERS
from autopoiesis.simulate.hosted import routing_of
from autopoiesis.simulate.layout import SECOND
from autopoiesis.workload import PREFIX_BLOCK_TOKENS
from autopoiesis.workload.status import Status

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")

# --- scenes ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2_000), st.integers(0, 9))
def test_sessions_carry_what_was_said(count: int, seed: int) -> None:
    requests = scenes.block_requests(count, 5.0, Lengths(), seed)
    assert len(requests) == count
    later = np.flatnonzero(requests.previous >= 0)
    before = requests.previous[later]
    assert len(np.unique(before)) == len(before)
    said = requests.input_tokens[before] + requests.output_tokens[before]
    assert np.all((requests.prefix_tokens[later] == said) | (requests.prefix_tokens[later] == 0))
    assert not requests.prefix_tokens[requests.previous < 0].any()
    assert np.all(requests.input_tokens > requests.prefix_tokens)
    assert requests.input_tokens.max() <= LONGEST
    assert np.all((requests.think_s > 0) == (requests.previous >= 0))

    def blocks(row: int) -> list[int]:
        start = int(requests.block_start[row])
        return list(requests.block_ids[start : start + int(requests.block_count[row])].tolist())

    for row in later.tolist():
        mine, earlier = blocks(row), blocks(int(requests.previous[row]))
        assert len(mine) == requests.input_tokens[row] // PREFIX_BLOCK_TOKENS
        common = len(earlier) if requests.prefix_tokens[row] else 0
        assert mine[:common] == earlier[:common]
        assert not set(mine[max(common, 1) :]) & set(earlier)


def test_chat_requests_come_at_their_rate_with_their_lengths() -> None:
    requests = scenes.chat_requests(50_000, 20.0, Lengths())
    assert len(requests) / requests.arrival_s[-1] == pytest.approx(20.0, rel=0.03)
    for tokens, (mean, deviation) in zip((requests.input_tokens, requests.output_tokens), scenes.CHAT, strict=True):
        assert np.median(tokens) == pytest.approx(np.exp(mean), rel=0.03)
        assert np.log(tokens).std() == pytest.approx(deviation, rel=0.03)


def test_lengths_of_a_trace_are_drawn_in_pairs(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,99999,3\n")
    given, wanted = scenes.lengths_of(str(trace)).draw(200, np.random.default_rng(0))
    assert set(zip(given.tolist(), wanted.tolist(), strict=True)) == {(10, 1), (20, 2), (LONGEST, 3)}
    with pytest.raises(TraceError, match="no such file"):
        scenes.lengths_of(str(tmp_path / "absent.csv"))


def test_a_fleet_keeps_up_below_its_saturation_and_not_above() -> None:
    requests = scenes.chat_requests(4_000, 1.0, Lengths(), seed=1)
    rate_rps = scenes.saturation_rps(Scene(requests, FLEET))

    def backlog(load: float) -> int:
        """What is unfinished when the last request comes."""
        scene = Scene(scenes.chat_requests(4_000, load * rate_rps, Lengths()), FLEET)
        rows = scenes.play(scene).simulation.state.requests
        assert np.all(rows["status"] == Status.COMPLETED)
        return int((rows["done"] > rows["arrival"].max()).sum())

    assert backlog(2.0) > 2 * backlog(0.8)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 99))
def test_the_scene_that_exercises_everything_does(seed: int) -> None:
    requests = scenes.block_requests(3_000, 40.0, Lengths(), seed)
    served = scenes.play(Scene(requests, SPLIT_FLEET, routing_of(ROUTERS["weighted"]), KV_PART))
    shown = simulate.exercised(served)
    several = requests.output_tokens > 1
    assert shown.prompt_tokens == int(requests.input_tokens.sum())
    assert 0 < shown.hit_tokens <= PREFIX_BLOCK_TOKENS * int(requests.block_count.sum())
    assert shown.transfers == int(several.sum())
    assert shown.preemptions > 0
    assert served.simulation.route_faults == 0


def test_a_scene_is_played_from_columns_to_percentiles() -> None:
    served = scenes.play(Scene(scenes.chat_requests(500, 50.0, Lengths()), FLEET))
    rows = served.simulation.state.requests
    e2e_s = np.sort((rows["done"] - rows["arrival"]) / SECOND)
    assert served.e2e_s.p90 == pytest.approx(e2e_s[449])
    assert served.ttft_s.p50 < served.e2e_s.p50


# --- figures --------------------------------------------------------------------------------------------------------


def test_the_best_of_the_repeats_is_held_against_the_goal() -> None:
    fast = Figure("speed", "requests/s", (400_000.0, 612_345.0, 500_000.0), 500_000)
    assert (fast.best, fast.median, fast.met) == (612_345.0, 500_000.0, True)
    large = Figure("memory", "MB", (310.0, 305.0), 300, more=False)
    assert (large.best, large.median, large.met) == (305.0, 307.5, False)
    absent = Figure("other", "requests/s", (), 1.0, note="not measured: no network")
    assert (absent.best, absent.median, absent.met) == (None, None, None)
    assert Figure("speed", "requests/s", (1.0,)).met is None


def test_the_table_shows_figures_goals_and_reasons() -> None:
    figures = [
        Figure("speed", "requests/s", (612_345.0,), 500_000),
        Figure("memory", "MB", (305.0,), 300, more=False),
        Figure("other", "requests/s", (), note="not measured: no network"),
    ]
    page = io.StringIO()
    Console(file=page, width=120).print(drawn("Speed", figures))
    lines = [" ".join(line.split()) for line in page.getvalue().splitlines()]
    assert lines[2:] == [
        "speed 612 000 612 000 ≥ 500 000 requests/s met",
        "memory 305 305 ≤ 300 MB missed",
        "other - - requests/s not measured: no network",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.8712, "0.871"),
        (41.26, "41.3"),
        (999.6, "1 000"),
        (1000.0, "1 000"),
        (612_345.0, "612 000"),
        (4e6, "4 000 000"),
    ],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_what_is_measured_takes_turns() -> None:
    calls: list[str] = []
    one, other = timed(3, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b"] * 3
    assert len(one) == len(other) == 3


def test_memory_and_machine_are_those_of_this_process() -> None:
    before = peak_rss_mb()
    block = np.ones(50_000_000 // 8)
    assert peak_rss_mb() >= before
    assert block.nbytes / 1e6 < peak_rss_mb() < 100_000
    assert set(machine()) == {"cpu", "system", "python", "numpy", "numba"}


# --- Vidur ----------------------------------------------------------------------------------------------------------


def test_vidur_looks_up_our_step_times() -> None:
    step = asdict(COST.steps(MODEL, "h100", 1, 1, 2))
    config = SimpleNamespace(
        prediction_max_tokens_per_request=512,
        prediction_max_batch_size=4,
        prediction_max_prefill_chunk_size=128,
        kv_cache_prediction_granularity=256,
    )
    table = vidur_run.predictions(config, step)
    assert set(table["attn_decode"]) == {(batch, cache) for batch in range(1, 5) for cache in (0, 256, 512)}
    assert set(table["attn_prefill"]) == {(cache, chunk) for cache in (0, 256, 512) for chunk in (32, 64, 96, 128)}
    dense_ms = vidur_run.LAYERS * sum(table[name][(4,)] for name in vidur_run.DENSE)
    decode_ms = vidur_run.LAYERS * table["attn_decode"][(4, 512)]
    assert (dense_ms + decode_ms) / 1e3 == pytest.approx(COST.steps(MODEL, "h100", 1, 1, 2).step_s(0, 0, 4, 4 * 512))


def test_a_vidur_that_cannot_be_had_is_a_row_that_says_why(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho first >&2\necho 'no matching distribution' >&2\nexit 1\n")
    python.chmod(0o755)
    bench = simulate.Bench(simulate.Settings(repeats=1, vidur_venv=tmp_path, vidur_requests=50))
    ours, theirs = bench.vidur()
    assert ours.best is not None
    assert theirs.values == ()
    assert theirs.note == "not measured: no matching distribution"


def test_the_version_on_the_page_is_the_one_that_is_measured() -> None:
    assert f"`vidur=={vidur.VERSION}`" in PAGE


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["--requests", "0"], 2, "must be a whole number above 0, got '0'"),
        (["--workload", "absent.csv"], 2, "absent.csv: no such file"),
        (["--json", "absent/x.json"], 2, "folder 'absent' does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    argv: list[str], code: int, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "pin", lambda: None)
    try:
        got: object = simulate.main(argv)
    except SystemExit as stop:
        got = stop.code
    assert got == code
    assert why in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_benchmark_measures_every_row_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "pin", lambda: None)
    monkeypatch.setattr(simulate, "SIZES", (200, 400))
    monkeypatch.setattr(simulate, "CANDIDATE", 400)
    path = tmp_path / "figures.json"
    argv = ["--requests", "400", "--largest", "400", "--repeats", "1", "--json", str(path)]
    assert simulate.main(argv) == 0
    out = capsys.readouterr().out
    read = json.loads(path.read_text())
    assert set(read) == {"machine", "figures"}
    for figure in read["figures"]:
        assert figure["best"] > 0
        assert figure["name"].split(",")[0] in out
        if not any(c.isdigit() for c in figure["name"]):
            assert f"| {figure['name']} |" in PAGE
