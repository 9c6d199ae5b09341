"""The generated part of the page of benchmarks, and its pictures."""

import math
import random
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from suite_samples import SHIFT, meta, planned, rows, sample

from autopoiesis.bench.suite.page import BEGIN, END, main, place
from autopoiesis.bench.suite.plots import pictures
from autopoiesis.bench.suite.results import Results, write
from autopoiesis.errors import AutopoiesisError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "benchmarks.md").write_text(f"before\n\n{BEGIN}\nof another run\n{END}\n\nafter\n")
    return folder


def test_only_what_stands_between_the_markers_is_written_anew(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, sample())
    assert main([str(tmp_path), str(docs)]) == 0
    page = (docs / "benchmarks.md").read_text()
    assert page.startswith(f"before\n\n{BEGIN}\n\nSuite headroom")
    assert page.endswith(f"\n{END}\n\nafter\n")
    assert "of another run" not in page
    assert "`autopoiesis bench --suite headroom --out DIR`" in page
    assert "| shift | cost | amortised, tuned | $25833/1k | 21.7 ±7.2 | yes |" in page
    assert capsys.readouterr().out.splitlines()[0] == str(docs / "benchmarks.md")


def test_every_picture_of_the_page_is_there_and_no_other(docs: Path, tmp_path: Path) -> None:
    def shown() -> set[str]:
        assert main([str(tmp_path), str(docs)]) == 0
        found = set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", (docs / "benchmarks.md").read_text()))
        assert found == {f"benchmarks/{file.name}" for file in (docs / "benchmarks").iterdir()}
        return found

    write(tmp_path, sample())
    assert len(shown()) == 3
    write(tmp_path, sample(sweeps=[]))
    assert shown() == {"benchmarks/headroom.svg", "benchmarks/headroom-policies.svg"}


def test_the_same_results_write_the_same_page(docs: Path, tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        assert main([str(tmp_path), str(docs)]) == 0
        return {str(file): file.read_bytes() for file in docs.rglob("*") if file.is_file()}

    results, chance = sample(), random.Random(7)
    write(tmp_path, results)
    first = written()
    shuffled = [chance.sample(of, len(of)) for of in (results.rows, results.sweeps, results.papers)]
    write(tmp_path, Results(results.meta, *shuffled))  # type: ignore[arg-type]
    assert written() == first


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_one_place_for_it_is_left_alone(docs: Path, tmp_path: Path, text: str) -> None:
    (docs / "benchmarks.md").write_text(text)
    write(tmp_path, sample())
    assert main([str(tmp_path), str(docs)]) == 2
    assert (docs / "benchmarks.md").read_text() == text
    assert not (docs / "benchmarks").exists()
    with pytest.raises(AutopoiesisError, match=r"benchmarks\.md: wants one line <!-- headroom:begin"):
        place(text, "benchmarks.md")


def test_missing_results_and_a_missing_page_are_errors(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere"), str(docs)]) == 2
    write(tmp_path, sample())
    assert main([str(tmp_path), str(tmp_path / "nowhere")]) == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "error"]


def test_the_page_of_the_project_has_the_place() -> None:
    head, tail = place((DOCS / "benchmarks.md").read_text(encoding="utf-8"), "benchmarks.md")
    assert head.endswith(BEGIN)
    assert tail.startswith(END)


def test_pictures_are_drawn_of_whatever_there_is() -> None:
    later = meta(planned_rows=planned(rows(SHIFT, "later", objective="delay")))
    failing = {**SHIFT, ("evolving", "evolving"): (11.0, math.inf, 36.5), ("amortised", "tuned"): (math.inf,) * 3}
    beaten = {**SHIFT, ("evolving", "evolving"): (1.0, 2.0, 3.0)}
    far = {**SHIFT, ("amortised", "default"): (300.0, 600.0, 900.0), ("evolving", "evolving"): (800.0,) * 3}
    idle = rows(dict.fromkeys(SHIFT, (0.001,) * 3), "idle", "controls", "delay")
    for drawn in (
        pictures(sample()),
        pictures(
            sample(meta=later, rows=rows(failing) + rows(beaten, "other", "elastic") + rows(far, "far", "spot") + idle)
        ),
        pictures(sample(meta=meta(seeds=[1]), rows=[row for row in rows(SHIFT) if row.seed == 1])),
    ):
        assert set(drawn) == {"headroom", "policies", "sweeps"}
        for svg in drawn.values():
            assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert pictures(sample(meta=later, rows=[], sweeps=[], papers=[])) == {}
