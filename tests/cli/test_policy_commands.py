"""`autopoiesis policy`."""

from pathlib import Path

import pytest

from autopoiesis.cli import main
from autopoiesis.evolve.store import PolicyRecord, Store
from autopoiesis.policy import check, source
from autopoiesis.policy.library import library

CHANGED = library()["static"].text.replace("return False", "return state.now > 60")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two evolved policies whose identities share seven digits."""
    path = str(tmp_path / "kept.db")
    with Store(path) as opened:
        opened.put_policy(PolicyRecord("0123456aaaaaaaaa", "0123456a", CHANGED, "structural", (), "Once.\x1b[2J"))
        opened.put_policy(PolicyRecord("0123456bbbbbbbbb", "0123456b", "# b\n", "openai", (), ""))
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["policy", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_list_names_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(library())
    assert lines[list(library()).index("static")].endswith(library()["static"].summary)


def test_list_names_what_evolved_in_a_store(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "list", "--store", store]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "0123456aaaaaaaaa  (structural) Once.\ufffd[2J",
        "0123456bbbbbbbbb  (openai) 0123456b",
    ]


def test_list_of_a_store_that_is_not_there_creates_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in failure(capsys, "list", "--store", "absent.db")
    assert list(tmp_path.iterdir()) == []


def test_show_prints_the_source_as_it_is(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(CHANGED)
    for reference, text in (("static", library()["static"].text), ("mine.py", CHANGED), ("0123456a", CHANGED)):
        assert main(["policy", "show", reference, "--store", store]) == 0
        assert capsys.readouterr().out == text


def test_an_unknown_policy_is_answered_with_near_matches(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean milp-replan" in failure(capsys, "show", "milp-rplan")
    assert "did you mean 0123456aaaaaaaaa" in failure(capsys, "show", "0123457aaaaaaaaa", "--store", store)
    assert "unknown policy 'qqq'; there are: amortised" in failure(capsys, "show", "qqq")
    assert "absent.py: cannot be read: No such file" in failure(capsys, "show", "absent.py")


def test_looking_for_a_policy_creates_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure(capsys, "show", "0123456a")
    (tmp_path / "empty.db").touch()
    failure(capsys, "show", "0123456a", "--store", "empty.db")
    assert [(entry.name, entry.stat().st_size) for entry in tmp_path.iterdir()] == [("empty.db", 0)]


def test_an_identity_needs_six_digits_and_one_meaning(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown policy '01234'" in failure(capsys, "show", "01234", "--store", store)
    assert "stands for 0123456aaaaaaaaa and 0123456bbbbbbbbb; give more digits" in failure(
        capsys, "show", "012345", "--store", store
    )


def test_a_file_that_is_no_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("kept.db").write_text("text that is no database, and long enough to be taken for one" * 20)
    assert "not a SQLite file" in failure(capsys, "show", "0123456a", "--store", "kept.db")


@pytest.mark.parametrize("name", sorted(library()))
def test_every_policy_of_the_library_passes_the_check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", name]) == 0
    assert capsys.readouterr().out == f"ok: {library()[name].identity} {library()[name].summary}\n"


def test_check_says_what_is_refused_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("import os\n" + CHANGED)
    assert main(["policy", "check", "mine.py"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("mine.py: line ") for line in lines)
    assert any("import os" in line for line in lines)


@pytest.mark.parametrize("text", ["", "def", "\x00", "(" * 3000, "x = " + "-" * 50000 + "1"])
def test_check_of_what_is_no_policy_is_no_traceback(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(text)
    assert main(["policy", "check", "mine.py"]) == 2
    assert "line 1" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "simulate"])
def test_a_hostile_file_is_refused_and_never_parsed_here(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(*arguments: object) -> None:
        raise AssertionError("a user's file reached the parser of this process")

    monkeypatch.setattr(source, "parse_policy", parse)
    monkeypatch.setattr(check, "parse_policy", parse)
    Path("mine.py").write_text("import os\n" + CHANGED)
    Path("a.csv").write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
    scene = ["--cluster", "demo-8", "--workload", "llama-3.1-8b=a.csv"]
    argv = ["policy", "check", "mine.py"] if command == "check" else ["simulate", "--policy", "mine.py", *scene]
    assert main(argv) == 2
    said = capsys.readouterr()
    assert "mine.py: line 1: `import os` is not on the list of imports; write " in said.out + said.err


def test_check_of_an_evolved_policy_needs_its_text_to_pass(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "0123456b", "--store", store]) == 2
    assert "0123456b: line 1: the module does not define `plan`" in capsys.readouterr().out


def test_diff_shows_what_changed(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", "static", "0123456a", "--store", store]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["--- static", "+++ 0123456a"]
    assert "-    return False" in lines
    assert "+    return state.now > 60" in lines
    assert main(["policy", "diff", "static", "static"]) == 0
    assert capsys.readouterr().out == ""
