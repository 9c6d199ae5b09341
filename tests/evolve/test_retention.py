"""A store that has grown beyond its limit forgets what no run needs, in a fixed order, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.evolve.retention import TARGET, trim
from autopoiesis.evolve.store import (
    CompletionRecord,
    DeploymentRecord,
    GateRecord,
    PolicyRecord,
    ScoreRecord,
    Store,
    SwapRecord,
    WindowRecord,
)

PROMPT = ({"role": "user", "content": "x" * 20_000},)
LIMIT = 400_000


def fill(store: Store, run: str, completions: int = 10, finished: bool = True) -> None:
    """A run of some 200 kB: prompts, replays, scores, a log; its policy `<run>-taken` took over, `<run>-idle` not."""
    store.begin_run(run)
    with store.transaction():
        for name, parents in (("parent", ()), ("taken", (f"{run}-parent",)), ("idle", ())):
            store.put_policy(PolicyRecord(f"{run}-{name}", name, "# source\n", "openai", parents))
            store.put_gate(GateRecord(run, "operator", 60.0, f"{run}-{name}", "checked", True, {}))
        store.put_swap(SwapRecord(run, "operator", 60.0, f"{run}-taken", None, "openai", {}))
        for number in range(completions):
            store.put_completion(CompletionRecord(run, f"r{number}", PROMPT, "answer", digest=f"d{number}"))
        store.remember(f"fitness:{run}", bytes(5000))
        store.put_score(ScoreRecord(f"{run}-taken", "w", {}, "operator", "event", 1.0))
        store.put_window(WindowRecord(run, "w", "operator", 0.0, 60.0, 9))
        store.put_log(run, "operator", "evolving", bytes(5000))
        store.put_deployments([DeploymentRecord(run, "operator", "evolving", -1, 0.0, "start", {})])
    if finished:
        store.finish_run()


def left(store: Store) -> list[str]:
    return [run.key for run in store.runs()]


def test_below_its_limit_nothing_is_forgotten(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "one")
        fill(store, "two")
        assert not trim(store, 10 * LIMIT, "two")
        assert left(store) == ["one", "two"]


def test_runs_go_whole_and_those_used_longest_ago_first(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        for run in ("first", "second", "third"):
            fill(store, run)
        store.begin_run("first")  # used again
        store.finish_run()
        fill(store, "now", finished=False)
        assert trim(store, 600_000, "now")
        assert left(store) == ["first", "now"]
        assert store.used_bytes() <= TARGET * 600_000
        for gone in ("second", "third"):
            assert not store.completions(gone)
            assert not store.gates(gone, "operator")
            assert store.get_log(gone, "operator", "evolving") is store.recall(f"fitness:{gone}") is None
            assert not store.scores(f"{gone}-taken")
            assert not store.deployments(gone, "operator", "evolving")
        assert {window.run_key for window in store.windows()} == {"first", "now"}
        assert len(store.completions("first")) == 10


def test_a_run_that_has_not_finished_outlives_one_that_has(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "killed", finished=False)
        fill(store, "finished")
        fill(store, "now", finished=False)
        trim(store, 600_000, "now")
        assert left(store) == ["killed", "now"]


def test_who_took_over_stays_with_its_ancestors(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "old")
        store.put_policy(PolicyRecord("human", "static", "# source\n", "human"))
        fill(store, "now")
        trim(store, LIMIT, "now")
        assert left(store) == ["now"]
        names = {record.id for record in store.policies()}
        assert names == {"old-taken", "old-parent", "human", "now-taken", "now-parent", "now-idle"}
        assert [swap.run_key for swap in store.all_swaps()] == ["now", "old"]


def test_the_current_run_keeps_what_it_needs_to_go_on_however_small_the_limit(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "now", completions=200, finished=False)
        before = store.completions("now")
        trim(store, 1, "now")
        after = store.completions("now")
        assert [(c.request_id, c.digest, c.text) for c in after] == [(c.request_id, c.digest, c.text) for c in before]
        assert all(c.prompt == () for c in after)
        assert store.recall("fitness:now") is not None
        assert store.get_log("now", "operator", "evolving") is not None
        assert len(store.gates("now", "operator")) == 3
        assert store.scores("now-taken")
        assert not trim(store, 1, "now"), "nothing is left that could go"


def test_only_as_many_prompts_go_as_must_the_oldest_first(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "now", completions=200, finished=False)
        trim(store, 3_000_000, "now")
        kept = [bool(completion.prompt) for completion in store.completions("now")]
        assert kept == [False] * kept.count(False) + [True] * kept.count(True)
        assert 0 < kept.count(True) < 200


def test_what_a_run_recalls_of_another_is_its_own_from_then_on(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "old")
        fill(store, "now", finished=False)
        assert store.recall("fitness:old") is not None
        trim(store, LIMIT, "now")
        assert left(store) == ["now"]
        assert store.recall("fitness:old") is not None


def test_measurements_of_a_bench_and_prepared_scenarios_belong_to_nobody_and_stay(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        store.remember("bench:1", bytes(300_000))
        store.remember("prepared:1", bytes(300))
        fill(store, "old")
        fill(store, "now", finished=False)
        assert store.recall("bench:1") is not None
        trim(store, 1, "now")
        assert left(store) == ["now"]
    with Store(tmp_path / "a.db") as store:
        assert store.recall("bench:1") == bytes(300_000)
        assert store.recall("prepared:1") == bytes(300)


def test_the_file_gives_back_what_was_forgotten_and_stays_bounded_over_many_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for number in range(12):
        with Store(path) as store:
            fill(store, f"run-{number:02}")
            trim(store, 600_000, f"run-{number:02}")
            store.check()
        assert path.stat().st_size < 2 * 600_000
    with Store(path) as store:
        assert left(store) == ["run-10", "run-11"]


def test_the_run_that_is_under_way_cannot_be_dropped(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        fill(store, "now", finished=False)
        with pytest.raises(ValueError, match="under way"):
            store.drop_run("now")
