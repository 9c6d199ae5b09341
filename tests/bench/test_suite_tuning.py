"""The search for a human policy's best parameters."""

from __future__ import annotations

import math

import pytest

from autopoiesis.bench.suite.tuning import Tuned, search, settings, shipped, spaces, strongest, with_setting
from autopoiesis.errors import PolicyError
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource

TEXT = '''"""A policy."""
interface = 1
# Of the load.
MARGIN = 1.25  # see above
WINDOWS = 5
'''
POLICY = PolicySource("one", TEXT)
NAME = "amortised"


def test_constants_are_replaced_where_they_stand_and_whole_numbers_stay_whole() -> None:
    changed = with_setting(POLICY, {"MARGIN": 2.0, "WINDOWS": 3.0})
    assert changed.text == TEXT.replace("1.25", "2.0").replace("5\n", "3\n")


def test_a_constant_that_a_policy_does_not_have_is_named() -> None:
    with pytest.raises(PolicyError, match="'one': has no numeric constant 'OTHER'"):
        with_setting(POLICY, {"OTHER": 1.0})


@pytest.mark.parametrize("name", spaces())
def test_every_setting_of_every_policy_passes_the_check(name: str) -> None:
    for setting in settings(name, 16, 0):
        assert check_policy(with_setting(library()[name], setting).text) == []


@pytest.mark.parametrize("name", spaces())
def test_what_ships_is_tried_first_and_nothing_twice(name: str) -> None:
    tried = settings(name, 16, 0)
    assert tried[0] == shipped(library()[name], tried[0])
    assert len({tuple(sorted(setting.items())) for setting in tried}) == len(tried) <= 16
    assert tried == settings(name, 16, 0)


def test_the_best_of_the_first_day_are_compared_on_the_second() -> None:
    tried = settings(NAME, 4, 0)
    number = {with_setting(library()[NAME], setting).text: i for i, setting in enumerate(tried)}
    # the first day prefers 3 to 2 to 1 to 0, the second 2 to all others
    first, second = [4.0, 3.0, 2.0, 1.0], [4.0, 4.0, 1.0, 4.0]
    seen: list[int] = []

    def second_day(source: PolicySource) -> float:
        seen.append(number[source.text])
        return second[number[source.text]]

    found = search(NAME, 4, 2, 0, [lambda source: first[number[source.text]], second_day])
    # relative to what ships: 2: (2/4 + 1/4)/2 = 0.375; 3: (1/4 + 4/4)/2 = 0.625
    assert (found.setting, found.trials, found.scores) == (tried[2], 4, [2.0, 1.0])
    assert sorted(seen) == [0, 2, 3]


def test_what_ships_stays_where_nothing_is_better_and_a_setting_that_fails_never_wins() -> None:
    found = search(NAME, 4, 2, 0, [lambda source: 1.0 if source.text == library()[NAME].text else math.inf])
    assert found.setting == {}
    assert found.scores == [1.0]


def served(*days: list[float]) -> Tuned:
    """What is found if the first settings of a policy score so on each day, of at most two finalists."""
    number = {with_setting(library()[NAME], setting).text: i for i, setting in enumerate(settings(NAME, 4, 0))}
    return search(NAME, 4, 2, 0, [lambda source, day=day: day[number[source.text]] for day in days])  # type: ignore[misc]


FAILED = math.inf


def test_a_policy_that_fails_as_it_ships_is_tuned_all_the_same() -> None:
    # Relative to what ships: 2: (0 + 3/2)/2 = 0.75; 1: (0 + 5/2)/2 = 1.25; what ships itself: 1. The first day alone
    # cannot tell that 1, which it prefers, is worse than 2.
    found = served([FAILED, 1.0, 2.0, FAILED], [2.0, 5.0, 3.0, 1.0])
    assert (found.setting, found.scores) == (settings(NAME, 4, 0)[2], [2.0, 3.0])
    # Failing on both days counts 1 twice, failing on one of them (0 + 1)/2.
    assert served([FAILED, 1.0, FAILED, FAILED], [FAILED] * 4).scores == [1.0, None]


def test_a_score_of_nothing_is_the_best_there_is() -> None:
    # What ships costs nothing on the first day: 3, with nothing either, is (1 + 1/2)/2; 1 is infinitely worse, however
    # good its second day.
    found = served([0.0, 1.0, 2.0, 0.0], [4.0, 0.5, 4.0, 2.0])
    assert (found.setting, found.scores) == (settings(NAME, 4, 0)[3], [0.0, 2.0])
    assert served([0.0, 1.0, 2.0, 3.0], [4.0, 0.5, 4.0, 2.0]).setting == {}


def test_a_setting_that_fails_on_the_first_day_is_a_finalist_only_if_all_do() -> None:
    # Only 1 and what ships get as far as the second day, where 2 would have been best: (3/2 + 4/8)/2 = 1 is no better
    # than what ships.
    assert served([2.0, 3.0, FAILED, FAILED], [8.0, 4.0, 0.1, 0.1]).setting == {}
    # Where all fail, the first two are finalists: 1 is (1 + 4/8)/2.
    found = served([FAILED] * 4, [8.0, 4.0, 0.1, 0.1])
    assert (found.setting, found.scores) == (settings(NAME, 4, 0)[1], [None, 4.0])


def test_the_strongest_did_best_on_all_training_days() -> None:
    tuned = {"a": Tuned({}, 1, [1.0, 4.0]), "b": Tuned({}, 1, [2.0, 2.0]), "c": Tuned({}, 1, [0.1, None])}
    assert strongest(tuned) == "b"
