"""`route` and `priority`: what the grammar takes and refuses, and that compiled and interpreted mean the same."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from random import Random

import numpy as np
import pytest
from counted_routers import counted_route
from cpu_time import least_cpu_seconds
from hostile_routers import BODIES, FIRST_LINE, HEADER, TEXTS, router
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_calls import array_of, check_priority_means, check_route_means, generated_inputs, matrix_of, views_of
from router_texts import any_route_text, priority_text, route_text, values

from autopoiesis.errors import PolicyError
from autopoiesis.policy import HOLD, SHED, Request
from autopoiesis.policy.bound import count_operations, over_budget
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.grammar import TypedFunction, typed_function
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.route import (
    FAULT,
    compile_priority,
    compile_route,
    interpret_priority,
    interpret_route,
    operations_bound,
)
from autopoiesis.policy.source import parse_policy


def module(body: str, name: str = "route") -> str:
    arguments = "request, replicas" if name == "route" else "request"
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return f"{HEADER}def {name}({arguments}):\n{indented}"


def request_of(**fields: float) -> Request:
    return Request(**{name: float(fields.get(name, 0.0)) for name in REQUEST_FIELDS})


def rows_of(in_flight: Sequence[float]) -> list[list[float]]:
    """Replicas that differ in `in_flight`, the first field, only."""
    return [[float(load)] + [0.0] * (len(REPLICA_FIELDS) - 1) for load in in_flight]


def answers(body: str, in_flight: Sequence[float], **fields: float) -> int:
    """What the compiled `route` answers, having made sure that the interpreted one agrees."""
    compiled, interpreted = compile_route(module(body)), interpret_route(module(body))
    assert compiled is not None
    assert interpreted is not None
    request, rows = request_of(**fields), rows_of(in_flight)
    answer = compiled(array_of(request), matrix_of(rows))
    assert interpreted(request, views_of(rows)) == answer
    return answer


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_least_loaded_breaks_ties_to_the_lower_index() -> None:
    body = "return min(replicas, key=lambda r: r.in_flight).index"
    assert answers(body, [3, 1, 1, 2]) == 1


def test_the_greatest_breaks_ties_to_the_lower_index_too() -> None:
    assert answers("return max(replicas, key=lambda r: r.in_flight).index", [3, 1, 3]) == 0


def test_round_robin_follows_the_sequence() -> None:
    body = "return floor(request.sequence % len(replicas))"
    assert [answers(body, [0, 0, 0], sequence=s) for s in (0, 1, 2, 3, 2**52 + 1)] == [0, 1, 2, 0, (2**52 + 1) % 3]


def test_power_of_two_takes_the_better_of_two_drawn() -> None:
    body = """
n = len(replicas)
if n == 0:
    return HOLD
a = replicas[floor(request.uniform1 * n)]
b = replicas[floor(request.uniform2 * n)]
if a.in_flight <= b.in_flight:
    return a.index
return b.index
"""
    assert answers(body, [5, 1, 3, 2], uniform1=0.1, uniform2=0.6) == 2
    assert answers(body, [], uniform1=0.1, uniform2=0.6) == HOLD


def test_a_router_may_hold_and_shed() -> None:
    body = """
free = sum(1 for r in replicas if r.in_flight < LIMIT)
if free > 0:
    return min((r for r in replicas if r.in_flight < LIMIT), key=lambda r: r.in_flight).index
elif request.waited_s > 30:
    return SHED
else:
    return HOLD
"""
    assert answers(body, [9, 7, 8]) == 1
    assert answers(body, [9, 9], waited_s=1) == HOLD
    assert answers(body, [9, 9], waited_s=31) == SHED


def test_loops_nest_twice_and_locals_keep_their_kind() -> None:
    body = """
best = 0
most = -inf
for i, r in enumerate(replicas):
    score = 0
    for s in replicas:
        if s.in_flight > r.in_flight:
            score += 1.5
    if score > most:
        most = score
        best = i
return best
"""
    assert answers(body, [2, 0, 1]) == 1


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 / 0", math.inf),
        ("-1 / 0", -math.inf),
        ("request.model / request.model", math.nan),
        ("1 // request.model", math.inf),
        ("1 % request.model", math.nan),
        ("-7.5 // 2", -4.0),
        ("-7.5 % 2", 0.5),
        ("1.0 // 0.1", 9.0),
        ("sqrt(-1)", math.nan),
        ("log(-1)", math.nan),
        ("log(0)", -math.inf),
        ("exp(1000)", math.inf),
        ("min(request.tpot_slo_s, 1.0)", math.nan),
        ("min(1.0, request.tpot_slo_s)", 1.0),
        ("max(0, 2, 1.5)", 2.0),
        ("floor(-0.5)", -1.0),
        ("floor(request.tpot_slo_s)", math.nan),
        ("7 // 2", 3.0),
        ("7 // 0", math.nan),
        ("9007199254740992 + 1 - 1", math.nan),
        ("9007199254740993 * 1.0", 9007199254740992.0),
        ("1.0 if request.tpot_slo_s == request.tpot_slo_s else 0.0", 0.0),
    ],
)
def test_arithmetic_is_ieee_and_never_raises(expression: str, expected: float) -> None:
    text = module(f"return {expression}", "priority")
    request = request_of(tpot_slo_s=math.nan)
    compiled, interpreted = compile_priority(text), interpret_priority(text)
    assert compiled is not None
    assert interpreted is not None
    np.testing.assert_equal(compiled(array_of(request)), expected)
    np.testing.assert_equal(interpreted(request), expected)


@pytest.mark.parametrize(
    "body",
    [
        "return replicas[len(replicas)].index",
        "return replicas[-1].index",
        "return len(replicas)",
        "return -4",
        "return floor(1 / 0)",
        "return min((r for r in replicas if r.running > 1), key=lambda r: r.running).index",
        "return 0 if min(r.running for r in replicas if r.running > 1) > 0 else 1",
        "x = 3\nfor r in replicas:\n    for s in replicas:\n        x = x * x\nreturn x % 2",
        "return 1 % (len(replicas) - 3)",
    ],
)
def test_a_call_without_an_answer_is_a_fault(body: str) -> None:
    assert answers(body, [0, 0, 0]) == FAULT


def test_the_least_of_no_replicas_is_a_fault() -> None:
    assert answers("return min(replicas, key=lambda r: r.in_flight).index", []) == FAULT


def test_conditions_look_no_further_than_python_does() -> None:
    body = "return 0 if len(replicas) == 0 or replicas[5 - len(replicas)].in_flight > 1 else 1"
    assert answers(body, []) == FAULT
    body = "return HOLD if len(replicas) == 0 or replicas[5].in_flight > 1 else 1"
    assert answers(body, []) == HOLD


def compiled_equals_interpreted(random: Random) -> None:
    text = route_text(random)
    check_route_means(text, compile_route(text), random)


@settings(max_examples=45, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_compiled_route_equals_the_interpreted_one(seed: int) -> None:
    compiled_equals_interpreted(Random(seed))


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_compiled_priority_equals_the_interpreted_one_to_the_bit(seed: int) -> None:
    random = Random(seed)
    text = priority_text(random)
    check_priority_means(text, compile_priority(text), random)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_made_to_be_accepted_is_accepted_and_always_answers(seed: int) -> None:
    random = Random(seed)
    text = route_text(random)
    route = interpret_route(text)
    assert route is not None
    rows = [values(random, len(REPLICA_FIELDS)) for _ in range(3)]
    assert route(Request(*values(random, len(REQUEST_FIELDS))), views_of(rows)) in (0, 1, 2, HOLD, SHED, FAULT)


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSED = {
    "while": ("while True:\n    x = 1\nreturn 0", "while"),
    "range": ("for i in range(3):\n    x = 1\nreturn 0", "range"),
    "falling off the end": ("if request.model > 0:\n    return 0", "every path"),
    "ending in a loop": ("for r in replicas:\n    return r.index", "every path"),
    "third loop": (
        "for r in replicas:\n    for s in replicas:\n        x = sum(1 for t in replicas)\nreturn 0",
        "deeper",
    ),
    "float as index": ("return request.sequence % len(replicas)", "floor"),
    "replica as index": ("return min(replicas, key=lambda r: r.running)", "r.index"),
    "truth of a number": ("if request.model:\n    return 0\nreturn 1", "comparison"),
    "two kinds": ("x = len(replicas)\nx = 0.5\nreturn 0", "one kind"),
    "unassigned": ("if request.model > 0:\n    x = 1\nreturn x", "before it is assigned"),
    "loop variable afterwards": ("for r in replicas:\n    x = 1\nreturn r.index", "before it is assigned"),
    "attribute": ("return replicas[0].secret", "field"),
    "output length": ("return 0 if request.output_tokens > 1 else 1", "field"),
    "power": ("return 0 if request.model ** 2 > 1 else 1", "x * x"),
    "call": ("return int(request.model)", "floor"),
    "module": ("return 0 if math.sqrt(2) > 1 else 1", "`sqrt(x)`"),
    "method": ("return replicas.index(replicas[0])", "listed"),
    "tuple key": ("return min(replicas, key=lambda r: (r.running, r.waiting)).index", "single number"),
    "list": ("x = [1, 2]\nreturn 0", "language"),
    "string": ("return 'a'", "language"),
    "import": ("import math\nreturn 0", "import"),
    "assignment to a field": ("request.model = 1\nreturn 0", "target"),
    "unpacking": ("a, b = 1, 2\nreturn 0", "target"),
    "in place": ("x = 1\nx //= 2\nreturn x", "name = name // value"),
    "walrus": ("return (x := 1)", "assignment"),
    "reserved name": ("inf = 3\nreturn inf", "another name"),
    "constant as local": ("LIMIT = 3\nreturn LIMIT", "another name"),
    "unknown name": ("return other", "not known"),
    "function as value": ("return plan", "numeric"),
    "unreachable": ("return 0\nx = 1", "reached"),
    "nested function": ("def f():\n    return 1\nreturn 0", "expression in place"),
    "try": ("try:\n    x = 1\nexcept ValueError:\n    x = 2\nreturn x", "condition"),
    "is": ("return 0 if request.model is 1 else 1", "comparison"),
    "alone": ("x = replicas\nreturn 0", "not a value"),
    "default": ("return floor(min((r.running for r in replicas), default=0))", "form"),
    "slice": ("return min(replicas[1:], key=lambda r: r.running).index", "one generator"),
    "yield": ("yield 1\nreturn 0", "return"),
    "expression statement": ("len(replicas)\nreturn 0", "assignment"),
}


@pytest.mark.parametrize(("body", "mend"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_named_is_refused_with_its_line_and_a_mend(body: str, mend: str) -> None:
    text = module(body)
    refusals = check_policy(text)
    assert refusals
    assert all(7 < refusal.line <= 7 + len(body.splitlines()) for refusal in refusals)
    assert mend in "\n".join(map(str, refusals))
    with pytest.raises(PolicyError, match=r"(?s)refused:.*line"):
        compile_route(text)


def test_there_are_hostile_routers_enough() -> None:
    assert len(BODIES) + len(TEXTS) >= 100


@pytest.mark.parametrize(("body", "said"), BODIES.values(), ids=BODIES.keys())
def test_a_hostile_router_is_refused_at_once_with_its_line_and_a_mend(body: str, said: str) -> None:
    text = router(body)
    refusals = check_policy(text)
    assert any(part in "\n".join(map(str, refusals)) for part in said.split("|"))
    for refusal in refusals:
        # A text that is no Unicode has no lines; what is wrong with the whole function stands on its first.
        first = 1 if "surrogates" in said else FIRST_LINE - 1
        assert first <= refusal.line <= FIRST_LINE + body.count("\n")
        assert refusal.construct
        assert refusal.why
        assert refusal.instead
    with pytest.raises(PolicyError, match=r"refused:\n +line \d+: "):
        compile_route(text)
    assert least_cpu_seconds(lambda: check_policy(text)) < 0.05


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS.keys())
def test_a_hostile_module_around_a_router_is_refused_at_once(text: str, said: str) -> None:
    assert said in "\n".join(map(str, check_policy(text)))
    assert least_cpu_seconds(lambda: check_policy(text)) < 0.05


@pytest.mark.parametrize(
    "signature",
    ["def route(request):", "def route(r, replicas):", "def route(request, replicas=None):", "def route(*request):",
     "def route(request: print(1), replicas):", "@staticmethod\ndef route(request, replicas):"],
)  # fmt: skip
def test_the_signature_is_fixed(signature: str) -> None:
    assert check_policy(f"{HEADER}{signature}\n    return 0\n")


def test_the_module_may_not_give_the_language_other_meanings() -> None:
    text = module("return floor(log(2))")
    assert check_policy(text) == []
    assert check_policy("from math import log\n" + text) == []
    assert check_policy("from math import exp as log\n" + text)
    assert check_policy("HOLD = 7\n" + text)


def test_a_constant_that_changes_is_none() -> None:
    assert check_policy(module("return LIMIT")) == []
    assert check_policy("LIMIT = 3\n" + module("return LIMIT"))


def test_size_nodes_and_depth_are_bounded() -> None:
    assert "bytes" in str(check_policy(module("x = 1" + " " * 17_000 + "\nreturn 0"))[0])
    assert "nodes" in str(check_policy(module("x = 1\n" * 700 + "return 0"))[0])
    assert "nesting" in str(check_policy(module("return " + "-" * 40 + "1"))[0])


def test_priority_has_no_replicas_and_no_loops() -> None:
    assert check_policy(module("return request.waited_s", "priority")) == []
    assert check_policy(module("return len(replicas)", "priority"))
    assert check_policy(module("for r in request:\n    x = 1\nreturn 0.0", "priority"))


# --- the bound on operations ----------------------------------------------------------------------------------------


def test_the_bound_counts_loops_by_their_nesting() -> None:
    assert operations_bound(module("return 0")) == (2, 0, 0)
    assert operations_bound(HEADER) == (0, 0, 0)
    a, b, c = operations_bound(module("return min(replicas, key=lambda r: sum(s.running for s in replicas)).index"))
    assert a > 0
    assert b > 0
    assert c > 0


@pytest.mark.parametrize(
    "body",
    [
        "return 0",
        "x = 0.0\nfor r in replicas:\n    for s in replicas:\n        x += exp(r.running - s.running)\nreturn floor(x)",
        "return min(replicas, key=lambda r: sum(log(s.running) for s in replicas if s.running >= r.running)).index",
        "return max((r for r in replicas if r.running >= 0), key=lambda r: max(r.running, r.waiting)).index",
    ],
)
def test_the_bound_is_near_what_a_call_without_branches_does(body: str) -> None:
    typed = checked(module(body))
    a, b, c = count_operations(typed.node)
    call = counted_route(typed)
    for n in (1, 10, 40):
        done = call(request_of(), views_of(rows_of([0] * n)))
        assert 0.6 * (a + b * n + c * n * n) <= done <= a + b * n + c * n * n


def checked(text: str) -> TypedFunction:
    tree = parse_policy(text)
    assert isinstance(tree, ast.Module)
    typed = typed_function(tree, "route", text)
    assert isinstance(typed, TypedFunction)
    return typed


def check_bounds_of_generated_routers(wanted: int) -> None:
    """Raises AssertionError where a router, of the first so many that are accepted, does more than its bound."""
    seeds = count()
    accepted = 0
    while accepted < wanted:
        random = Random(next(seeds))
        text = any_route_text(random)
        typed = checked(text)
        if over_budget(typed) is not None:
            continue
        accepted += 1
        a, b, c = count_operations(typed.node)
        call = counted_route(typed)
        for n in (0, 1, random.randrange(2, 9)):
            request, rows = generated_inputs(random, n)
            assert call(request, views_of(rows)) <= a + b * n + c * n * n, (n, text)


def test_generated_routers_end_within_their_static_bound() -> None:
    check_bounds_of_generated_routers(1_500)


@pytest.mark.slow
def test_ten_thousand_generated_routers_end_within_their_static_bound() -> None:
    check_bounds_of_generated_routers(10_000)


@pytest.mark.slow
def test_two_hundred_compiled_routes_equal_the_interpreted_ones() -> None:
    for seed in range(0, 10_000, 50):
        compiled_equals_interpreted(Random(seed))


def test_a_router_over_the_budget_is_refused() -> None:
    inner = "        x += s.running * r.waiting + s.waiting * r.running\n" * 8
    text = module(f"x = 0.0\nfor r in replicas:\n    for s in replicas:\n{inner}return 0")
    assert "operations" in str(check_policy(text)[0])
    with pytest.raises(PolicyError, match="operations"):
        compile_route(text)


def test_a_router_that_would_take_long_to_compile_is_refused() -> None:
    text = module("x = 0.0\n" + "x = x + min(r.running for r in replicas)\n" * 100 + "return floor(x)")
    assert "branches" in str(check_policy(text)[0])


def test_a_module_without_the_function_compiles_to_nothing() -> None:
    assert compile_route(HEADER) is None
    assert compile_priority(HEADER) is None
    assert interpret_route(HEADER) is None


NUMBA = "import sys; print('numba' in sys.modules)"
CHECKED = f"from autopoiesis.policy.route import interpret_route as made; made({module('return 0')!r})"


@pytest.mark.parametrize(
    ("program", "loaded"),
    [
        ("import autopoiesis.policy, autopoiesis.policy.check, autopoiesis.policy.route", False),
        ("import autopoiesis.evolve", False),
        ("import autopoiesis.policy.compiler", False),
        (CHECKED, False),
        (CHECKED.replace("interpret", "compile"), True),
    ],
    ids=["policy", "evolve", "compiler", "interpreting", "compiling"],
)
def test_numba_is_imported_only_when_something_is_compiled(program: str, loaded: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", f"{program}\n{NUMBA}"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"{loaded}\n"


def test_arrays_of_another_shape_are_refused() -> None:
    route = compile_route(module("return 0"))
    assert route is not None
    with pytest.raises(PolicyError, match="replicas"):
        route(np.zeros(len(REQUEST_FIELDS)), np.zeros((2, 3)))
