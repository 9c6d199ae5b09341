"""`autopoiesis policy lineage|scores|export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.evolve.store import PolicyRecord, ScoreRecord, Store, SwapRecord, WindowRecord
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource

STATIC = library()["static"]
CHANGED = PolicySource("openai-7", STATIC.text.replace("return False", "return state.now_s > 60"))
RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`static` → `mid` → CHANGED, which took over twice; and a `loser`."""
    monkeypatch.chdir(tmp_path)
    with Store("kept.db") as opened:
        for record in (
            PolicyRecord(STATIC.identity, "static", STATIC.text, "human"),
            PolicyRecord("aaaaaa1111111111", "openai-3", "# mid\n", "openai", (STATIC.identity,), "Once.\x1b[2J"),
            PolicyRecord("aaaaaa2222222222", "openai-4", "# loser\n", "openai", (STATIC.identity,), "Loses."),
            PolicyRecord(
                CHANGED.identity,
                CHANGED.name,
                CHANGED.text,
                "openai",
                ("aaaaaa1111111111", STATIC.identity, "feedfeedfeedfeed"),
                "Sooner.",
            ),
        ):
            opened.put_policy(record)
        for t in (120.0, 3720.0):
            evidence = {"train_ratio": 0.91}
            opened.put_swap(SwapRecord(RUN, "operator", t, CHANGED.identity, STATIC.identity, "openai", evidence))
        opened.put_window(WindowRecord(RUN, "w1" * 8, "operator", 60.0, 120.0, 17))
        versions = {"interface": "1", "package": "0011223344556677"}
        opened.put_score(ScoreRecord(CHANGED.identity, "w1" * 8, versions, "operator", "event", 0.0123456))
        opened.put_score(ScoreRecord(STATIC.identity, "w2" * 8, versions, "operator", "event", None))
    return "kept.db"


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["policy", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["policy", *argv, "--store", "kept.db"]) == 0
    return capsys.readouterr().out


def test_lineage_is_a_tree_from_who_took_over_to_those_it_was_made_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "lineage").splitlines() == [
        f"{CHANGED.identity}  (openai) Sooner.; took over at 0:02:00 (operator mode, run 01234567)"
        "; took over at 1:02:00 (operator mode, run 01234567)",
        "├─ aaaaaa1111111111  (openai) Once.\ufffd[2J",
        f"│  └─ {STATIC.identity}  (human) static",
        f"├─ {STATIC.identity}  (human) static",
        "└─ feedfeedfeedfeed  (no longer in the store)",
    ]


def test_lineage_of_one_policy_by_the_beginning_of_its_identity_or_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert printed(capsys, "lineage", "aaaaaa2").splitlines() == [
        "aaaaaa2222222222  (openai) Loses.",
        f"└─ {STATIC.identity}  (human) static",
    ]
    assert printed(capsys, "lineage", "static") == f"{STATIC.identity}  (human) static\n"


def test_a_long_line_of_descent_is_no_recursion(capsys: pytest.CaptureFixture[str]) -> None:
    with Store("kept.db") as store, store.transaction():
        for number in range(3000):
            parents = (f"{number - 1:016}",) * 2 if number else ()
            store.put_policy(PolicyRecord(f"{number:016}", "x", "", "openai", parents, "x"))
    assert len(printed(capsys, "lineage", f"{2999:016}").splitlines()) == 3000


def test_a_policy_with_ancestors_is_spelled_out_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Store("kept.db") as store:
        parents = ("aaaaaa1111111111", CHANGED.identity)
        store.put_policy(PolicyRecord("cccccccccccccccc", "x", "", "openai", parents, "Both."))
    lines = printed(capsys, "lineage", "cccccc").splitlines()
    assert sum("Once." in line for line in lines) == 2
    assert sum("Once." in line and line.endswith("(see above)") for line in lines) == 1


def test_a_store_in_which_nobody_took_over_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Store("new.db").close()
    assert main(["policy", "lineage", "--store", "new.db"]) == 0
    assert "no policy took over; autopoiesis policy list --store new.db" in capsys.readouterr().out
    assert main(["policy", "scores", "--store", "new.db"]) == 0
    assert "no scores" in capsys.readouterr().out


def test_scores_are_a_table_of_policy_window_versions_mode_fidelity_and_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys, "scores").splitlines()
    cells = [line.split() for line in lines if line.startswith((CHANGED.identity, STATIC.identity))]
    versions = ["interface", "1,", "package", "00112233"]
    assert sorted(cells) == sorted(
        [
            [CHANGED.identity, "w1w1w1w1", "0:01:00-0:02:00", *versions, "operator", "event", "0.012346"],
            [STATIC.identity, "w2w2w2w2", "-", *versions, "operator", "event", "-"],
        ]
    )
    assert max(map(len, lines)) <= 100


def test_scores_as_json_have_every_digit_of_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["policy"]: row for row in json.loads(printed(capsys, "scores", "--json"))}
    assert rows[CHANGED.identity] == {
        "policy": CHANGED.identity,
        "window": "w1" * 8,
        "start_s": 60.0,
        "end_s": 120.0,
        "requests": 17,
        "versions": {"interface": "1", "package": "0011223344556677"},
        "mode": "operator",
        "fidelity": "event",
        "value": 0.0123456,
    }
    assert rows[STATIC.identity]["value"] is rows[STATIC.identity]["start_s"] is None


def test_an_export_tells_where_a_policy_comes_from_and_is_the_same_policy(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "export", CHANGED.identity[:6])
    assert text.endswith(CHANGED.text)
    assert text.splitlines()[:4] == [
        f"# Policy {CHANGED.identity} (openai-7), made by: openai",
        f"# Parents: aaaaaa1111111111, {STATIC.identity}, feedfeedfeedfeed",
        "# Took over at 0:02:00 (operator mode, run 01234567): train_ratio 0.91",
        "# Took over at 1:02:00 (operator mode, run 01234567): train_ratio 0.91",
    ]
    assert PolicySource("again", text).identity == CHANGED.identity
    assert not check_policy(text)


def test_an_export_goes_to_a_file_whole_or_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "export", CHANGED.identity, "--out", "mine.py") == ""
    assert Path("mine.py").read_text().endswith(CHANGED.text)
    assert "folder 'no' does not exist" in failure(
        capsys, "export", CHANGED.identity, "--out", "no/mine.py", "--store", "kept.db"
    )
    assert "--out kept.db: is the file of --store" in failure(
        capsys, "export", CHANGED.identity, "--out", "kept.db", "--store", "kept.db"
    )


def test_names_that_mean_nothing_or_two_things_are_answered_with_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    near = ("--store", "kept.db")
    assert "aaaaaa1111111111 and aaaaaa2222222222; give more digits" in failure(capsys, "lineage", "aaaaaa", *near)
    assert "did you mean aaaaaa1111111111" in failure(capsys, "export", "aaaaab1111111111", *near)
    assert "did you mean static" in failure(capsys, "export", "statik", *near)
    assert "unknown policy 'q'; autopoiesis policy list --store kept.db" in failure(capsys, "lineage", "q", *near)


@pytest.mark.parametrize("argv", [["lineage"], ["scores"], ["export", "aaaaaa1"]])
def test_looking_into_a_store_that_is_not_there_creates_none(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "store absent.db: there is no such file; check the path" in failure(capsys, *argv, "--store", "absent.db")
    assert not (tmp_path / "absent.db").exists()
