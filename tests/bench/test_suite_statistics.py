"""Relative scores, headroom and what is closed of it, worked by hand."""

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from suite_samples import CALM, SEEDS, SHIFT, meta, planned, rows, sample

from autopoiesis.bench.suite.intervals import Interval, interval, student_95
from autopoiesis.bench.suite.results import Results
from autopoiesis.bench.suite.statistics import (
    Comparison,
    Variant,
    by_group,
    by_objective,
    comparisons,
    over_cells,
    strongest,
)
from autopoiesis.bench.suite.sweeps import settings

EVOLVING, FOUND = Variant("evolving", "evolving"), Variant("best-found", "bound")
AMORTISED, MILP = Variant("amortised", "tuned"), Variant("milp-replan", "tuned")
Scores = Mapping[tuple[str, str], Sequence[float]]


def compared(scores: Scores, objective: str = "cost_per_good", without: Sequence[object] = ()) -> Comparison:
    """The comparison of one cell; `without` names (policy, kind, seed) that were planned and not measured."""
    wanted = rows(scores, objective=objective)
    kept = [row for row in wanted if (row.policy, row.kind, row.seed) not in without]
    (found,) = comparisons(sample(meta=meta(planned_rows=planned(wanted)), rows=kept))
    return found


def mean(group: Sequence[Comparison], of: Variant) -> float | None:
    """Over cells."""
    return over_cells((comparison, of) for comparison in group)


def changed(scores: Scores, **of: Sequence[float]) -> Scores:
    """Other scores for tuned `amortised`, `evolving` or `best_found`."""
    names = {
        "amortised": ("amortised", "tuned"),
        "evolving": ("evolving", "evolving"),
        "found": ("best-found", "bound"),
    }
    return {**scores, **{names[name]: values for name, values in of.items()}}


def parts(found: Interval | None) -> list[float | None]:
    """Mean, half the width and count, to nine digits."""
    assert found is not None
    return [round(found.mean, 9), None if found.half is None else round(found.half, 9), found.n]


def test_an_interval_is_students() -> None:
    # mean 2, deviations -1, 0, 1: variance 2 / 2 = 1, standard error 1 / sqrt(3); t of 2 degrees of freedom is 4.303
    found = interval([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.303 / math.sqrt(3))
    assert found.low == pytest.approx(2 - 4.303 / math.sqrt(3))


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert interval([1.5]) == Interval(1.5, None, 1)
    assert interval([]) is None
    assert interval([1.0, math.inf]) == Interval(math.inf, None, 2)


def test_beyond_the_table_students_t_goes_on_smoothly_to_the_normal() -> None:
    # printed tables: 2.021 with 40, 2.000 with 60, 1.980 with 120 degrees of freedom
    assert [round(student_95(n), 3) for n in (40, 60, 120)] == [2.021, 2.0, 1.98]
    assert student_95(30) > student_95(31) > student_95(10**9) == pytest.approx(1.96, abs=1e-4)


def test_relative_scores_are_ratios_within_a_seed() -> None:
    found = compared(SHIFT)
    # 12.5 / 10 = 1.25, 25 / 20 = 1.25, 40 / 30 = 1.3333: mean 1.27778, not 77.5 / 60 = 1.29167
    relative = found.relative(AMORTISED)
    assert relative is not None
    assert relative.mean == pytest.approx(1.277778, abs=1e-6)
    # deviations -0.027778 twice and 0.055556: variance 0.0046296 / 2, error sqrt(0.0023148 / 3) = 0.027778
    assert relative.half == pytest.approx(4.303 * 0.0277778, abs=1e-6)
    assert parts(found.relative(FOUND)) == [1.0, 0.0, 3]


def test_the_best_tuned_baseline_has_the_least_mean_score_over_the_seeds() -> None:
    # amortised, tuned: 77.5 / 3 = 25.83; milp-replan, tuned: 78 / 3 = 26, though better with seed 3
    assert compared(SHIFT).best_baseline == AMORTISED
    # at its defaults a policy counts too
    better = {**SHIFT, ("amortised", "default"): (12, 25, 40)}
    assert compared(better).best_baseline == Variant("amortised", "default")


def test_neither_bounds_nor_the_evolving_system_are_baselines() -> None:
    assert {of.kind for of in compared(SHIFT).baselines} == {"default", "tuned"}


def test_headroom_is_what_the_best_found_saves_of_the_best_baseline() -> None:
    # (12.5 - 10) / 12.5 = 0.2, (25 - 20) / 25 = 0.2, (40 - 30) / 40 = 0.25: mean 0.216667
    headroom = compared(SHIFT).headroom
    assert headroom is not None
    assert headroom.mean == pytest.approx(0.2166667, abs=1e-7)
    # deviations -1/60, -1/60, 2/60: variance 6/3600/2, standard error sqrt(1/1200/3) = 1/60
    assert headroom.half == pytest.approx(4.303 / 60)


def test_the_share_closed_is_that_of_mean_scores() -> None:
    # 77.5 of the baseline, 60 of the best found, 69.5 of the evolving system: 8 of 17.5
    assert compared(SHIFT).closed == pytest.approx(8 / 17.5)
    # worse than the baseline: less than nothing
    assert compared(changed(SHIFT, evolving=(12.5, 25, 43.5))).closed == pytest.approx(-3.5 / 17.5)


def test_nothing_is_closed_where_there_is_nothing_to_win() -> None:
    found = compared(CALM)
    # (102 - 100) / 102 = 1.96 %
    assert parts(found.headroom) == [round(2 / 102, 9), 0, 3]
    assert found.closed is None
    # 103 instead of 102
    assert parts(found.saved(EVOLVING)) == [round(-1 / 102, 9), 0, 3]


def test_ratios_of_delays_near_zero_are_not_taken() -> None:
    # baseline and best found below 10 ms with one seed: neither relative scores nor headroom
    both = compared(changed(SHIFT, found=(10, 20, 0.004), amortised=(12.5, 25, 0.008)), "delay")
    assert both.relative(EVOLVING) is None
    assert (both.headroom, both.closed) == (None, None)
    # only the best found is: (12.5 - 10) / 12.5, (25 - 20) / 25 and (40 - 0.004) / 40 are sound
    found = compared(changed(SHIFT, found=(10, 20, 0.004)), "delay")
    assert found.relative(EVOLVING) is None
    assert found.headroom is not None
    assert found.headroom.mean == pytest.approx((0.2 + 0.2 + 0.9999) / 3)
    # a cost has no floor: a hundredth of a cent is money
    assert compared(changed(SHIFT, found=(10, 20, 0.004))).relative(EVOLVING) is not None


def test_a_cell_near_zero_enters_no_mean() -> None:
    near = rows(dict.fromkeys(SHIFT, (0.001, 0.002, 0.003)), "idle", objective="delay")
    (_, group), *_ = by_group(comparisons(sample(rows=rows(SHIFT) + near)))
    # 1.25, 1.25 and 1.3333 of the other cell alone
    assert mean(group, AMORTISED) == pytest.approx((1.25 * 1.25 * 4 / 3) ** (1 / 3))


def test_a_policy_without_a_good_request_is_infinitely_far_and_never_best() -> None:
    found = compared(changed(SHIFT, amortised=(12.5, 25, math.inf), evolving=(11, math.inf, 36.5)))
    assert found.relative(AMORTISED) == Interval(math.inf, None, 3)
    assert found.best_baseline == MILP
    assert found.saved(EVOLVING) == Interval(-math.inf, None, 3)
    assert found.closed == -math.inf


def test_where_every_baseline_fails_everything_is_to_be_won() -> None:
    failing = {name: (math.inf,) * 3 if name[1] in ("default", "tuned") else of for name, of in SHIFT.items()}
    found = compared(failing)
    assert parts(found.headroom) == [1.0, 0.0, 3]
    assert found.closed is None


def test_one_seed_has_headroom_without_an_interval() -> None:
    found = compared({name: of[:1] for name, of in SHIFT.items()})
    assert parts(found.headroom) == [0.2, None, 1]


def test_a_seed_that_lacks_a_baseline_does_not_count_for_headroom() -> None:
    # without its best baseline seed 3 would be (39 - 30) / 39 against the other; it is left out instead
    found = compared(SHIFT, without=[("amortised", "tuned", 3)])
    assert found.complete == (1, 2)
    assert parts(found.headroom) == [0.2, 0, 2]
    assert found.missing == ((AMORTISED, (3,)),)


def test_before_a_seed_is_complete_there_is_no_headroom() -> None:
    found = compared(SHIFT, without=[("best-found", "bound", seed) for seed in SEEDS] + [("amortised", "tuned", 1)])
    assert (found.headroom, found.relative(AMORTISED), found.closed) == (None, None, None)
    assert found.missing == ((AMORTISED, (1,)), (FOUND, (1, 2, 3)))


def test_without_its_best_baseline_a_cell_has_no_headroom() -> None:
    # the others alone would leave more to be won than there is
    found = compared(SHIFT, without=[("amortised", "tuned", seed) for seed in SEEDS])
    assert (found.best_baseline, found.headroom) == (None, None)


def test_who_was_not_to_be_measured_in_a_cell_is_not_missing_there() -> None:
    reference = rows({("best-colocated", "reference"): (11, 22, 33)})
    both = rows(SHIFT) + reference + rows(CALM, "calm", "controls")
    calm, shift = comparisons(sample(meta=meta(planned_rows=planned(both)), rows=both))
    assert (calm.missing, shift.missing) == ((), ())
    assert Variant("best-colocated", "reference") in set(shift.everybody) - set(calm.everybody)
    # nobody said what was to be measured: nothing is known to be missing
    assert all(not comparison.missing for comparison in comparisons(sample(rows=both[5:])))


def test_a_cell_that_was_planned_and_never_reached_is_there() -> None:
    wanted = rows(SHIFT, "later", objective="delay")
    later, _ = comparisons(sample(meta=meta(planned_rows=planned(wanted)), rows=rows(SHIFT)))
    assert (later.cell, later.objective, later.runs) == ("later", "delay", {})
    assert (later.headroom, later.best_baseline) == (None, None)
    assert sum(len(seeds) for _, seeds in later.missing) == len(SHIFT) * len(SEEDS)


def test_a_seed_that_nobody_planned_counts_all_the_same() -> None:
    first = [row for row in rows(SHIFT) if row.seed == 1]
    (found,) = comparisons(sample(meta=meta(planned_rows=planned(first)), rows=rows(SHIFT)))
    assert found.seeds == (1, 2, 3)


def test_who_beats_the_best_found_is_named() -> None:
    assert compared(changed(SHIFT, evolving=(9, 18, 27))).beaten == (EVOLVING,)
    assert compared(SHIFT).beaten == ()


def test_the_strongest_of_a_group_has_the_least_geometric_mean() -> None:
    # relative to 1: a policy with 1 and 4 (geometric 2) is before one with 2.1 and 2.1, though its arithmetic is 2.5
    scores = {
        ("best-found", "bound"): (1, 1, 1),
        ("amortised", "tuned"): (1, 1, 1),
        ("milp-replan", "tuned"): (2.1,) * 3,
    }
    other = {**scores, ("amortised", "tuned"): (4, 4, 4)}
    found = comparisons(sample(rows=rows(scores) + rows(other, "other")))
    best = strongest(found)
    assert best is not None
    assert best[0] == AMORTISED
    assert best[1] == pytest.approx(2.0)


def test_means_over_cells_are_geometric_over_seeds_too() -> None:
    # relative scores 1 and 4 with seeds 1 and 2 in the one cell, 2 in the other, where one seed was measured:
    # sqrt(1 * 4) = 2 and 2, not (1 + 4) / 2 = 2.5 and 2
    one = {("best-found", "bound"): (10, 20), ("amortised", "tuned"): (10, 80)}
    other = {("best-found", "bound"): (5,), ("amortised", "tuned"): (10,)}
    found = comparisons(sample(rows=rows(one) + rows(other, "other")))
    assert mean(found, AMORTISED) == pytest.approx(2.0)


@runs(max_examples=30)
@given(st.lists(st.lists(st.floats(0.01, 100), min_size=4, max_size=4), min_size=2, max_size=6))
def test_the_order_of_policies_does_not_depend_on_what_ratios_are_relative_to(given_scores: list[list[float]]) -> None:
    # two policies in cells with two seeds; the best found is 1, or whatever else
    def advantage(found: Sequence[float]) -> float:
        made = [
            row
            for cell, (a, b, c, d) in enumerate(given_scores)
            for row in rows(
                {("best-found", "bound"): found, ("amortised", "tuned"): (a, b), ("milp-replan", "tuned"): (c, d)},
                f"cell {cell}",
            )
        ]
        group = comparisons(sample(rows=made))
        one, other = mean(group, AMORTISED), mean(group, MILP)
        assert one is not None
        assert other is not None
        return one / other

    assert advantage((1, 1)) == pytest.approx(advantage((7, 0.03)))


def test_objectives_of_a_group_are_averaged_apart() -> None:
    found = comparisons(sample(rows=rows(SHIFT) + rows(CALM, "calm", objective="delay")))
    assert [(name, [c.cell for c in of]) for name, of in by_objective(found)] == [
        ("cost_per_good", ["shift"]),
        ("delay", ["calm"]),
    ]


def test_who_lacks_a_cell_or_a_seed_is_not_the_strongest() -> None:
    lacking = [row for row in rows(SHIFT, "other") if row.policy != "amortised" or row.seed == 1]
    for kept in (lacking, [row for row in lacking if row.policy != "amortised"]):
        found = comparisons(sample(rows=rows(SHIFT) + kept))
        assert mean(found, AMORTISED) is None
        # 13 / 10, 26 / 20 and 39 / 30 in both
        best = strongest(found)
        assert best is not None
        assert best[0] == MILP
        assert best[1] == pytest.approx(1.3)
    assert strongest([]) is None


def test_controls_come_last() -> None:
    found = comparisons(sample(rows=rows(CALM, "calm", "controls") + rows(SHIFT)))
    assert [name for name, _ in by_group(found)] == ["shared", "controls"]


def test_a_sweep_has_a_headroom_at_every_value() -> None:
    found = settings(sample())
    assert [(setting.driver, setting.value, setting.own) for setting in found] == [
        ("load", 0.7, True),
        ("load", 1.0, False),
    ]
    headrooms = [setting.comparison.headroom for setting in found]
    # with seed 1: (102 - 100) / 102 and (12.5 - 10) / 12.5
    assert [round(of.mean, 4) for of in headrooms if of] == [0.0196, 0.2]


def test_a_value_that_was_planned_and_never_reached_is_there() -> None:
    wanted = [("shared", "shift", "cost_per_good", "churn", 0.4, 1, "static", "default")]
    (later,) = settings(sample(meta=meta(planned_sweeps=wanted), sweeps=[]))
    assert (later.driver, later.value, later.own) == ("churn", 0.4, False)
    assert later.comparison.missing == ((Variant("static", "default"), (1,)),)


@runs(max_examples=20)
@given(chance=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(chance: random.Random) -> None:
    results = sample()
    shuffled = Results(
        results.meta,
        chance.sample(results.rows, len(results.rows)),
        chance.sample(results.sweeps, len(results.sweeps)),
        results.papers,
    )
    for one, other in zip(comparisons(results), comparisons(shuffled), strict=True):
        assert (one.headroom, one.closed, one.best_baseline) == (other.headroom, other.closed, other.best_baseline)
        assert [one.relative(of) for of in one.everybody] == [other.relative(of) for of in other.everybody]
    ours, theirs = ([(s.value, s.comparison.headroom) for s in settings(of)] for of in (results, shuffled))
    assert ours == theirs
