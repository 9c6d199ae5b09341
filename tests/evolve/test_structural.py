"""Synthesis without a model: its offspring are whole policies, and crossing keeps what names mean."""

from __future__ import annotations

import ast
import builtins
import random
from types import SimpleNamespace
from typing import Any

import pytest
from evolve_samples import AMORTISED, PARENTS, PERIODIC, THRESHOLD, asked
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.errors import PolicyError, ProviderError
from autopoiesis.evolve import structural
from autopoiesis.evolve.crossover import graft, parse_module, render
from autopoiesis.evolve.prompt import extract_source
from autopoiesis.evolve.providers import CompletionRequest, provider
from autopoiesis.evolve.scopes import global_names, rename_globals
from autopoiesis.evolve.structural import perturbed, synthesise
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.source import PolicySource


def strain(source: PolicySource) -> structural.Strain:
    return structural._strain(source)


def unresolved(text: str) -> set[str]:
    """Globals that a module uses and nobody binds."""
    names = [global_names(statement) for statement in ast.parse(text).body]
    bound = frozenset().union(*(part.binds for part in names))
    return {name for part in names for name in part.uses - bound if not hasattr(builtins, name)}


def test_five_hundred_offspring_pass_the_check_and_leave_no_name_undefined() -> None:
    identities = set()
    for seed in range(500):
        text = synthesise(PARENTS, random.Random(seed))
        source = PolicySource("child", text)
        assert source.has("should_reschedule")
        assert source.has("plan")
        assert unresolved(text) == set()
        assert check_policy(text) == []
        assert source.identity not in {parent.identity for parent in PARENTS}
        assert "\n" not in (ast.get_docstring(ast.parse(text)) or "\n")
        identities.add(source.identity)
    assert len(identities) > 350


@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_text(seed: int) -> None:
    assert synthesise(PARENTS, random.Random(seed)) == synthesise(PARENTS, random.Random(seed))


def test_a_line_of_fifty_generations_stays_whole_and_within_its_size() -> None:
    generation = list(PARENTS)
    for seed in range(50):
        text = synthesise(generation[-4:], random.Random(seed))
        assert unresolved(text) == set()
        assert check_policy(text) == []
        assert len(text) <= structural.MAX_SOURCE_CHARS
        generation.append(PolicySource(f"child-{seed}", text))


def test_a_single_parent_without_constants_still_has_offspring() -> None:
    bare = PolicySource(
        "bare", "interface = 1\ndef should_reschedule(state):\n    return False\ndef plan(state):\n    return None\n"
    )
    for seed in range(30):
        assert PolicySource("child", synthesise((bare,), random.Random(seed))).identity != bare.identity


def test_a_parent_that_does_not_parse_or_lacks_a_function_is_named() -> None:
    with pytest.raises(PolicyError, match="'broken' does not parse"):
        synthesise((PolicySource("broken", "def plan(:"),), random.Random(0))
    with pytest.raises(PolicyError, match="'half' lacks plan"):
        synthesise((PolicySource("half", "def should_reschedule(state): return True"),), random.Random(0))


def test_a_taken_trigger_brings_its_helpers_and_constants_renamed_where_the_host_means_something_else() -> None:
    host, donor = parse_module(PERIODIC.text), parse_module(THRESHOLD.text)
    text = render(graft(host, donor, frozenset({"should_reschedule"})), "mixed")
    # The host's `measure` and WINDOWS served only the trigger that was replaced, so nothing clashes.
    assert "DRIFT = 0.3" in text
    assert "WINDOWS = 4" in text
    assert "import math" in text
    assert "LIMIT" not in text
    planner = graft(donor, parse_module(THRESHOLD.text.replace("measure(state)}", "measure(state) * 2}")), frozenset())
    assert render(planner, "") == render(parse_module(THRESHOLD.text), "")


def test_names_that_clash_are_renamed_and_both_meanings_work() -> None:
    host = parse_module(THRESHOLD.text)
    table = 'TABLE = {"a": 1}\nTABLE["b"] = 2'
    text = PERIODIC.text.replace("tools.greedy(state, measure)", "(measure, WINDOWS)")
    donor = parse_module(text.replace('TABLE = {"a": 1, "b": 2}', table))
    text = render(graft(host, donor, frozenset({"plan"})), "mixed")
    assert "WINDOWS = 4" in text
    assert "WINDOWS_2 = 3" in text
    assert "TABLE['b'] = 2" in text
    assert "Decision((measure, WINDOWS_2))" in text, "the local `measure` is no global of the host"
    assert unresolved(text) == set()


def test_a_trigger_that_asks_the_planner_asks_the_planner_it_now_lives_with() -> None:
    module = graft(parse_module(THRESHOLD.text), parse_module(AMORTISED.text), frozenset({"should_reschedule"}))
    text = render(module, "mixed")
    assert text.count("def plan(") == 1
    assert "memory={'drift'" in text


def test_an_equal_helper_that_reaches_something_different_is_not_shared() -> None:
    template = (
        "BASE = {}\ndef helper():\n    return BASE\n"
        "def should_reschedule(s):\n    return helper()\ndef plan(s):\n    return helper()\n"
    )
    module = graft(parse_module(template.format(1)), parse_module(template.format(2)), frozenset({"plan"}))
    scope: dict[str, Any] = {}
    exec(render(module, "mixed"), scope)
    assert (scope["should_reschedule"](None), scope["plan"](None)) == (1, 2)


def test_renaming_leaves_locals_attributes_and_keywords_alone() -> None:
    text = (
        "def f(a, X=X):\n    return [X for X in a], a.X, g(X=1)\n"
        "def g(X):\n    return X\n"
        "def h():\n    return [X for y in X if y] + [lambda X: X, lambda: X]\n"
    )
    renamed = rename_globals(text, {"X": "Y"})
    assert "def f(a, X=Y)" in renamed
    assert "[X for X in a], a.X, g(X=1)" in renamed
    assert "def g(X):\n    return X" in renamed
    assert "[Y for y in Y if y] + [lambda X: X, lambda: Y]" in renamed


def functions(child: structural.Strain | None) -> dict[str, Any]:
    """The functions of a module, over tools that find every state worth planning for."""
    assert child is not None
    scope: dict[str, Any] = {}
    exec(render(child.module, ""), scope)
    scope["tools"] = SimpleNamespace(
        target=lambda state: state.plan, expected=lambda state: state, granted=lambda state, wanted: state
    )
    return scope


def answering(trigger: object, planned: object = None) -> structural.Strain:
    body = f"def should_reschedule(s):\n    return {trigger}\ndef plan(s):\n    return {planned}\n"
    return strain(PolicySource("plain", body))


class Plan(SimpleNamespace):
    """A plan that is worth its headroom."""

    def same_replicas(self, other: Plan) -> bool:
        return self == other


def serving(headroom: float = 1.0, feasible: bool = True, **values: Any) -> SimpleNamespace:
    def estimate(plan: Plan) -> SimpleNamespace:
        ok = feasible or plan.headroom != headroom
        return SimpleNamespace(feasible=ok, headroom=plan.headroom)

    plan = Plan(headroom=headroom)
    state = {"now_s": 600.0, "window_s": 60.0, "window": object(), "moving": None, "announced": (), "pools": ()}
    return SimpleNamespace(**{**state, "past_transitions": (), "plan": plan, "estimate": estimate, **values})


def test_a_cooled_trigger_is_silent_after_a_transition_unless_capacity_is_about_to_change() -> None:
    scope = functions(structural.guard_cool_down(answering(True), (), random.Random(0)))
    scope["COOL_DOWN_WINDOWS"] = 3
    late, early = SimpleNamespace(ended_s=600.0 - 100.0), SimpleNamespace(ended_s=600.0 - 200.0)
    trigger = scope["should_reschedule"]
    assert trigger(serving())
    assert trigger(serving(past_transitions=(early,)))
    assert not trigger(serving(past_transitions=(early, late)))
    assert trigger(serving(past_transitions=(late,), announced=(1,)))


def test_a_floored_trigger_also_speaks_when_the_plan_in_force_has_no_room_left() -> None:
    scope = functions(structural.guard_floor(answering(False), (), random.Random(0)))
    scope["HEADROOM_FLOOR"] = 1.1
    trigger = scope["should_reschedule"]
    assert trigger(serving(headroom=1.0))
    assert not trigger(serving(headroom=1.2))
    assert not trigger(serving(headroom=1.0, moving=object()))
    assert not trigger(serving(headroom=1.0, window=None))


def test_a_guarded_planner_keeps_the_plan_until_the_gain_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structural, "_GAINS", structural._GAINS[:1])
    scope = functions(structural.guard_gain(answering(True, "PROPOSED"), (), random.Random(0)))
    scope["MINIMUM_GAIN"] = 1.2

    def planned(headroom: float, state: SimpleNamespace) -> Any:
        scope["PROPOSED"] = SimpleNamespace(plan=Plan(headroom=headroom), capacity={"a": 8}, memory={"seen": 1})
        return scope["plan"](state)

    small = planned(1.1, serving())
    assert (small.plan, small.capacity, small.memory) == (Plan(headroom=1.0), {}, {"seen": 1})
    assert planned(1.3, serving()) is scope["PROPOSED"]
    assert planned(1.1, serving(announced=(1,))) is scope["PROPOSED"], "capacity is about to change"
    assert planned(0.5, serving(feasible=False)) is scope["PROPOSED"], "the plan in force does not stand"
    assert planned(1.0, serving()) is scope["PROPOSED"], "nothing moves, so its capacity and shares are free"


@pytest.mark.parametrize(("left", "right"), [(False, False), (False, True), (True, False), (True, True)])
def test_combined_triggers_say_and_or_or(left: bool, right: bool) -> None:
    words = set()
    for seed in range(8):
        child = structural.combine_triggers(answering(left), [answering(right)], random.Random(seed))
        assert child is not None
        word = child.trigger.split()[1]
        words.add(word)
        answer = functions(child)["should_reschedule"](None)
        assert answer is ((left and right) if word == "and" else (left or right))
    assert words == {"and", "or"}


def test_a_docstring_says_where_the_parts_come_from_and_survives_generations() -> None:
    child = structural.take_trigger(strain(THRESHOLD), [strain(PERIODIC)], random.Random(0))
    assert child is not None
    doc = structural._doc(child)
    assert doc.startswith("periodic trigger, threshold plan, threshold route, ")
    again = strain(PolicySource("child", render(child.module, doc)))
    assert (again.trigger, again.planner, again.router) == ("periodic", "threshold", "threshold")


@given(
    st.one_of(st.integers(1, 10**6), st.floats(1e-6, 0.999), st.floats(1.0, 1e6)), st.floats(0.05, 20), st.booleans()
)
def test_a_perturbed_constant_stays_of_its_kind(value: float, factor: float, near_one: bool) -> None:
    moved = perturbed(value, factor, near_one)
    assert type(moved) is type(value)
    if isinstance(value, int):
        assert moved >= 1
    else:
        assert moved > 0
        assert value >= 1 or moved < 1


def test_the_provider_answers_in_a_fenced_block_and_its_latency_repeats() -> None:
    source = provider("structural")
    first, second = source.complete(asked(seed=5)), source.complete(asked(seed=5))
    assert first == second
    assert first.metered
    assert 0 < first.latency_s < 1
    assert extract_source(first.text) == synthesise(PARENTS, random.Random(5))
    with pytest.raises(ProviderError, match="at least one parent"):
        source.complete(CompletionRequest("r", (), 0.0, 1, (), 0))
