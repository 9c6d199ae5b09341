"""The summary says what the numbers say, and nothing else."""

from __future__ import annotations

import pytest
from report_accounts import SWAP, account, alone

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'autopoiesis[report]'")

from autopoiesis.control.account import Account
from autopoiesis.report.cast import cast_of
from autopoiesis.report.numbers import change, counted, span
from autopoiesis.report.words import summary


def said(account: Account) -> str:
    return " ".join(summary(account, cast_of(account))).replace("\u00a0", " ")


def test_who_won_by_how_much_and_by_what() -> None:
    text = said(account(good=950))
    assert (
        "paid $13.2 for a thousand good answers. That is 5.3 % less, and so better, than the best fixed policy" in text
    )
    assert "amortised, which paid $13.9" in text
    assert (
        "It spent as much on GPUs ($12.50 against $12.50) and gave 5.6 % more good answers (950 against 900)." in text
    )
    assert "It did better than all 7 fixed policies." in text


def test_a_loss_is_called_one() -> None:
    text = said(account(good=890 - 5))
    assert "That is 1.7 % more, and so worse, than the best fixed policy" in text
    assert "It did better than 5 of the 7 fixed policies: " in text


def test_a_draw_is_called_one() -> None:
    assert "It did as well as the best fixed policy, amortised" in said(account(good=900))


def test_no_good_answer_is_no_price() -> None:
    text = said(account(good=0))
    assert "paid $12.50 and gave no good answer" in text
    assert "no ratio says how they compare" in text
    assert "It did better than none of the fixed policies." in text


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("goodput", "95.00 % of the requests within their SLO. That is 5.6 % more, and so better"),
        ("delay", "a mean delay of"),
    ],
)
def test_it_speaks_of_the_objective(objective: str, words: str) -> None:
    assert words in said(account(objective=objective))


def test_takeovers_are_told_with_what_would_have_been() -> None:
    text = said(account())
    assert "Evolution made 3 new programs that passed the checker." in text
    assert "beat the incumbent of the time 2 times, and once also on the windows held out." in text
    assert (
        "Once a policy that had passed all gates took over while requests kept flowing at 0:05:00, made by command."
        in text
    )
    assert "Had none taken over, static would have served: 85.00 % good instead of 95.00 %." in text


def test_it_says_when_nothing_took_over() -> None:
    text = said(account(swaps=()))
    assert "No policy took over: no program passed all gates, so the evolving system served under static" in text
    assert "In replays a program beat the incumbent of the time never." in text
    assert "after the first takeover" not in text


def test_a_policy_that_was_withdrawn_is_no_success() -> None:
    back = SWAP.__class__(400.0, "operator", SWAP.parent or "", SWAP.policy, "human", {"rollback": "it failed"})
    text = said(account(swaps=(SWAP, back)))
    assert "Once a policy that had passed all gates took over" in text
    assert "1 policy that failed while serving was withdrawn." in text


def test_what_was_not_answered_is_told() -> None:
    text = said(account())
    assert "Of its requests 5 were lost, 20 were shed, 5 were rejected for their length." in text
    assert "There was 1 change of capacity or notice of one." in text


@pytest.mark.parametrize(("load", "words"), [(1.2, "an overload by design"), (0.9, "That is 90 % of the most")])
def test_the_load_is_put_in_proportion(load: float, words: str) -> None:
    assert words in said(account(load=load))


def test_a_policy_by_itself_is_compared_with_nobody() -> None:
    text = said(alone())
    assert "static paid $14.7 for a thousand good answers." in text
    assert "best fixed policy," not in text
    assert "took over" not in text


def test_batches_are_told_under_both_accountings() -> None:
    text = said(account(paper=True))
    assert "Served as batches (overlapped) it took 3000 s, the same as the best fixed policy there, amortised" in text
    assert "Served as batches (additive)" in text


def test_numbers_in_words() -> None:
    assert [span(seconds) for seconds in (45.0, 720.0, 5400.0)] == ["45.0 s", "12 min", "1.5 h"]
    assert [counted(count, "policy", "policies") for count in (0, 1, 2000)] == [
        "no policy",
        "1 policy",
        "2,000 policies",
    ]
    assert change(1.05, 1.0) == 5.0
    assert change(None, 1.0) is change(1.0, 0.0) is None
