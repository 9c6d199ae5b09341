"""The store keeps what was committed, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from evolve_samples import asked
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.errors import ProviderError, StoreError
from autopoiesis.evolve.providers import Completion, CompletionRequest
from autopoiesis.evolve.providers.recorded import RecordedProvider
from autopoiesis.evolve.schema import APPLICATION_ID, MIGRATIONS
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


def test_every_row_comes_back_as_it_was_put(tmp_path: Path) -> None:
    policy = PolicyRecord("ab12", "threshold", "interface = 1\n", "structural", ("cd34",), "a summary")
    completion = CompletionRecord("run", "r1", ({"role": "user", "content": "é"},), "text", None, 3, None, 1.5, True)
    score = ScoreRecord("ab12", "w1", {"tools": "1", "interface": "1"}, "operator", "fluid", 0.25)
    undefined = ScoreRecord("ab12", "w2", {"interface": "1"}, "operator", "event", None)
    gate = GateRecord("run", "operator", 60.0, "ab12", "replay", False, {"windows": [1, 2], "gain": -0.5})
    swap = SwapRecord("run", "operator", 120.0, "ab12", None, "structural", {})
    window = WindowRecord("run", "w1", "operator", 60.0, 120.0, 17)
    deployment = DeploymentRecord("run", "operator", "evolving", 3, 60.5, "apply", {"replicas": [1]})
    with Store(tmp_path / "a.db") as store:
        store.put_policy(policy)
        store.put_completion(completion)
        store.put_score(score)
        store.put_score(undefined)
        store.put_gate(gate)
        store.put_swap(swap)
        store.put_window(window)
        store.put_deployments([deployment])
        store.put_log("run", "operator", "events", b"\x00\xff")
        store.remember("key", b"value")
    with Store(tmp_path / "a.db") as store:
        assert store.get_policy("ab12") == policy
        assert store.policies() == (policy,)
        assert store.get_completion("run", "r1") == completion
        assert store.completions("run") == (completion,)
        assert store.scores("ab12") == store.scores() == (score, undefined)
        assert store.gates("run", "operator") == (gate,)
        assert store.swaps("run", "operator") == store.all_swaps() == (swap,)
        assert store.windows() == (window,)
        assert store.deployments("run", "operator", "evolving") == (deployment,)
        assert store.rows_with_log("run") == (("operator", "events"),)
        assert store.get_log("run", "operator", "events") == b"\x00\xff"
        assert store.recall("key") == b"value"
        assert store.get_policy("none") is None
        assert store.recall("none") is None
        assert store.get_log("run", "paper", "events") is None


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=64), max_size=5))
def test_what_is_remembered_is_recalled(memo: dict[str, bytes]) -> None:
    with Store(":memory:") as store:
        for key, value in memo.items():
            store.remember(key, b"other")
            store.remember(key, value)
        assert {key: store.recall(key) for key in memo} == memo


def test_doing_a_step_again_leaves_one_row() -> None:
    with Store(":memory:") as store:
        for _ in range(3):
            store.put_gate(GateRecord("run", "paper", 1.0, "p", "check", True, {"b": 1, "a": 2}))
            store.put_score(ScoreRecord("p", "w", {"b": "1", "a": "2"}, "paper", "fluid", 1.0))
            store.put_score(ScoreRecord("p", "w", {"a": "2", "b": "1"}, "paper", "fluid", 1.0))
        assert len(store.gates("run", "paper")) == 1
        assert len(store.scores("p")) == 1


def test_a_score_is_a_number_or_undefined_but_never_nan() -> None:
    with Store(":memory:") as store, pytest.raises(ValueError, match="finite"):
        store.put_score(ScoreRecord("p", "w", {}, "paper", "fluid", float("nan")))


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:

        def half() -> None:
            with store.transaction():
                store.remember("a", b"1")
                with store.transaction():
                    store.remember("b", b"2")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            half()
        assert store.recall("a") is store.recall("b") is None
        with store.transaction():
            store.remember("a", b"1")
        assert store.recall("a") == b"1"


def test_threads_and_processes_write_the_same_file_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            with Store(path) as store:
                for number in range(30):
                    store.remember(f"{name}-{number}", b"x")
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store(path) as store:
        assert all(store.recall(f"{i}-{number}") == b"x" for i in range(4) for number in range(30))


def test_runs_are_numbered_as_they_are_used(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        for key in ("one", "two", "one"):
            store.begin_run(key)
        store.finish_run()
        assert [(run.key, run.finished) for run in store.runs()] == [("two", False), ("one", True)]


def test_a_file_of_the_first_schema_is_brought_up_to_date_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    key = "0123456789abcdef" * 2
    with sqlite3.connect(path) as db:
        db.executescript(MIGRATIONS[0])
        db.execute("INSERT INTO policies VALUES ('ab12', 'threshold', '# text', 'structural', '[]', '')")
        db.execute("INSERT INTO memo VALUES (?, x'01'), ('bench:1', x'02'), ('fitness:1', x'03')", [f"leg:{key}:a:b"])
        db.execute(
            "INSERT INTO completions VALUES (?, 'r1', '[]', 'text', NULL, 1, 2, 0.5, 0)",
            [key],
        )
        db.execute("INSERT INTO scores VALUES ('ab12', 'w', '{}', 'operator', 'event', 1.0)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    with Store(path) as store:
        store.check()
        assert [record.id for record in store.policies()] == ["ab12"]
        assert [record.key for record in store.runs()] == [key]
        assert [(record.text, record.digest) for record in store.completions(key)] == [("text", "")]
        assert store.recall(f"leg:{key}:a:b") == b"\x01"
        assert store.recall("bench:1") == b"\x02"
        # replays of another release: nobody asks for them
        assert store.recall("fitness:1") is None
        store.begin_run("now")
        store.drop_run(key)
        assert store.recall(f"leg:{key}:a:b") is None
        assert store.recall("bench:1") == b"\x02"


WRITER = """
import sys
from autopoiesis.evolve.store import Store
with Store(sys.argv[1]) as store:
    number = int(sys.argv[2])
    while True:
        with store.transaction():
            store.remember(f"{number}-a", bytes(3000))
            store.remember(f"{number}-b", bytes(3000))
        print(number, flush=True)
        number += 1
"""


def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    next_number = 0
    for round_ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(next_number)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        committed = next_number - 1
        for _ in range(1 + 7 * round_):
            committed = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        writer.wait()
        writer.stdout.close()
        committed = max([committed, *(int(line) for line in rest[:-1])])
        with Store(path) as store:
            store.check()
            for number in range(committed + 1):
                assert store.recall(f"{number}-a") is not None
                assert store.recall(f"{number}-b") is not None
            # One more may have been committed and not yet told; it is whole or absent.
            assert (store.recall(f"{committed + 1}-a") is None) == (store.recall(f"{committed + 1}-b") is None)
        next_number = committed + 1


def test_readers_see_whole_transactions_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    seen: list[int] = []
    failures: list[str] = []

    def read() -> None:
        number = 0
        try:
            with Store(path) as store:
                while number < 150:
                    if store.recall(f"{number}-b") is None:
                        continue
                    if store.recall(f"{number}-a") is None:
                        failures.append(f"half of {number}")
                    number += 1
        except StoreError as error:
            failures.append(str(error))
        seen.append(number)

    threads = [threading.Thread(target=read) for _ in range(3)]
    try:
        # or the pipe would fill and the writer wait
        drain = threading.Thread(target=writer.stdout.read)
        for thread in (drain, *threads):
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        writer.kill()
        writer.wait()
        drain.join()
        writer.stdout.close()
    assert failures == []
    assert seen == [150, 150, 150]


def test_a_full_disk_is_one_line_and_the_file_stays_sound(tmp_path: Path) -> None:
    path = tmp_path / "full.db"
    kept = -1
    with Store(path, max_bytes=200_000) as store:

        def fill() -> None:
            nonlocal kept
            while kept < 1000:
                store.remember(str(kept + 1), bytes(5000))
                kept += 1

        with pytest.raises(StoreError, match="full; make room and resume") as caught:
            fill()
        assert "\n" not in str(caught.value)
        assert store.recall(str(kept)) is not None
        assert store.recall(str(kept + 1)) is None
        store.check()
    with Store(path) as store:
        store.check()
        store.remember(str(kept + 1), bytes(5000))


def test_files_that_are_no_stores_are_refused_untouched_and_named(tmp_path: Path) -> None:
    text, foreign = tmp_path / "notes.txt", tmp_path / "foreign.db"
    text.write_text("dear diary\n" * 100)
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    for path, why in ((text, "not a SQLite file; name another"), (foreign, "no store of ours; name another file")):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=why) as caught:
            Store(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="folder does not exist; create it"):
        Store(tmp_path / "nowhere" / "a.db")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_a_damaged_file_is_a_store_error_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    with Store(path) as store:
        for number in range(200):
            store.remember(str(number), bytes(2000))
    content = bytearray(path.read_bytes())
    content[8192 : len(content) // 2] = os.urandom(len(content) // 2 - 8192)
    path.write_bytes(content)

    def read() -> None:
        with Store(path) as store:
            store.check()

    with pytest.raises(StoreError, match=r"damaged\.db: damaged .*restore a copy"):
        read()


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"newer release .* update autopoiesis"):
        Store(path)


class Scripted:
    """Answers in turn; an exception is raised."""

    name = "scripted"

    def __init__(self, *answers: str | ProviderError) -> None:
        self.answers = list(answers)

    def complete(self, request: CompletionRequest) -> Completion:
        answer = self.answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return Completion(answer, 10, 20, 2.5, metered=False)


def test_a_resumed_run_asks_nobody_twice_and_repeats_answers_and_failures(tmp_path: Path) -> None:
    inner = Scripted("one", ProviderError("HTTP 500"))
    with Store(tmp_path / "a.db") as store:
        recorded = RecordedProvider(store, inner, "run")
        first = recorded.complete(asked("r1"))
        with pytest.raises(ProviderError, match="HTTP 500"):
            recorded.complete(asked("r2"))
    with Store(tmp_path / "a.db") as store:
        resumed = RecordedProvider(store, Scripted(), "run")
        assert resumed.name == "scripted"
        assert resumed.complete(asked("r1")) == first == Completion("one", 10, 20, 2.5, False)
        with pytest.raises(ProviderError, match="HTTP 500"):
            resumed.complete(asked("r2"))
        with pytest.raises(StoreError, match="another prompt"):
            resumed.complete(asked("r1", content="something else"))
        assert RecordedProvider(store, Scripted("two"), "other run").complete(asked("r1")).text == "two"
