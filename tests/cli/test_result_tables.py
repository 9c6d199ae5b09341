"""The tables at the end of a run."""

from dataclasses import replace

import pytest
from cli_reports import books, report, row
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cli.table import drawn, evidence_summary, operator_table, render
from autopoiesis.control.config import Row
from autopoiesis.report.numbers import clock, short
from autopoiesis.report.ranking import best_baseline
from autopoiesis.simulate.outcome import Spread, score


def line_of(text: str, name: str, part: int = 0) -> str:
    return [line for line in text.splitlines() if line.startswith(name)][part]


def test_the_evolving_system_stands_beside_the_baselines() -> None:
    text = render(report(paper=False), "cost_per_good")
    assert line_of(text, "evolving").split() == [
        *("evolving", "evolving", "95.00", "13.2", "-5.3", "0.25/1.10/2.35", "45.6", "0.31", "8.00", "5/20/5", "3")
    ]
    assert line_of(text, "milp-replan").split()[4] == "+0.0"
    assert "against the best baseline, milp-replan; less is better" in text
    assert "Paper mode" not in text


def test_the_comparison_follows_the_objective() -> None:
    rows = report().rows
    assert [best_baseline(rows, objective).name for objective in ("cost_per_good", "goodput", "delay")] == [  # type: ignore[union-attr]
        *("milp-replan", "milp-replan", "static")
    ]
    goodput = render(report(), "goodput")
    assert line_of(goodput, "evolving").split()[4] == "+5.6"
    assert "more is better" in goodput


def test_under_delay_a_policy_that_drops_requests_is_no_better_for_it() -> None:
    lazy = replace(books(delay_s=0.0), completed=500, shed=490)
    rows = [Row("lazy", "baseline", lazy, None, 0), row("static", "baseline")]
    best = best_baseline(rows, "delay")
    assert best is not None
    assert best.name == "static"
    change = 100 * (score("delay", lazy, None) / score("delay", books(), None) - 1)
    assert line_of(drawn(operator_table(rows, "delay")), "lazy").split()[4] == f"{change:+.1f}"


def test_paper_mode_shows_both_accountings_side_by_side() -> None:
    text = render(report(), "cost_per_good")
    assert line_of(text, "evolving", 1).split() == [
        *("evolving", "evolving", "3000", "10.0/20.0/2970", "-16.7", "6000", "10.0/20.0/5970", "-16.7")
    ]


def test_swaps_are_listed_with_their_evidence() -> None:
    text = render(report(), "cost_per_good")
    swap = line_of(text, "1:02:00")
    assert "0123456789abcdef" in swap
    assert "structural" in swap
    assert "holdout.incumbent 0.0141" in text
    assert "Swaps" not in render(replace(report(), swaps=()), "cost_per_good")


def test_without_a_good_request_there_is_no_cost_and_no_comparison() -> None:
    rows = [row("evolving", "evolving", good=0), row("static", "baseline", good=0)]
    text = drawn(operator_table(rows, "cost_per_good"))
    assert line_of(text, "evolving").split()[2:5] == ["0.00", "-", "0.25/1.10/2.35"]


def test_a_best_baseline_at_zero_gives_no_ratio() -> None:
    perfect = Row(
        "static", "baseline", replace(books(delay_s=0.0), completed=1000, lost=0, shed=0, rejected=0), None, 0
    )
    rows = [row("evolving", "evolving", delay_s=1.0), perfect]
    assert line_of(drawn(operator_table(rows, "delay")), "evolving").split()[4] == "-"


def test_one_row_is_compared_with_nothing() -> None:
    assert "vs" not in drawn(operator_table([row("static", "baseline")]))


@pytest.mark.parametrize("objective", ["cost_per_good", "goodput", "delay"])
def test_the_largest_numbers_fit_into_a_hundred_columns(objective: str) -> None:
    slow = Spread(900.0, 800.0, 1200.0, 4000.0)
    large = replace(
        books(), lost=12345, shed=23456, rejected=1234, ttft_s=slow, tpot_s=slow, delay_s=1e6, gpu_hours=98765.4
    )
    paper = row("x", "baseline", paper_s=123456.0).paper
    rows = (Row("a-policy-of-a-long-name", "baseline", large, paper, 12345), *report().rows)
    text = render(replace(report(), rows=rows), objective)
    assert max(map(len, text.splitlines())) <= 100
    assert "12345/23456/1234" in text
    assert "…" not in text
    assert "\x1b" not in text


def test_names_and_evidence_cannot_speak_to_the_terminal() -> None:
    swap = replace(report().swaps[0], policy="[red]\x1b[2J", evidence={"why": "\x1b[31m[bold]x"})
    text = render(replace(report(), swaps=(swap,)), "cost_per_good")
    assert "\x1b" not in text
    assert "[red]" in text
    assert "[bold]x" in text


def test_long_evidence_is_cut() -> None:
    assert len(evidence_summary({f"gate {n}": n / 3 for n in range(100)})) == 160
    assert evidence_summary({"a": {"b": None}, "c": [1, 2], "d": "text"}) == "c [2], a.b none, d text"


def test_times_of_day_and_numbers_are_short() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 3600, 360000)] == ["0:00:00", "0:00:59", "1:00:00", "100:00:00"]
    assert [short(value) for value in (0, 0.0123, 0.123, 9.99, 45.67, 1234.5)] == [
        *("0", "0.012", "0.12", "9.99", "45.7", "1234")
    ]


@given(st.floats(0.001, 1e6))
def test_a_short_number_is_within_five_percent(value: float) -> None:
    assert float(short(value)) == pytest.approx(value, rel=0.05, abs=0.0005)
