"""What is refused in a policy module, and that every refusal can be acted upon."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.policy.check import check_policy
from autopoiesis.policy.source import SOURCE_BYTES

GOOD = '''"""Re-solve when the mix drifts."""
from __future__ import annotations

import functools
import math
from collections import defaultdict

import numpy as np
from autopoiesis.policy import HOLD, SHED, Decision, ReplicaView, Request, ServingState, tools
from math import inf, sqrt

interface = 1
LIMIT = 8
DRIFT: float = 0.2
WEIGHTS = {"prefix": 2.0}

class Candidate:
    def __init__(self, score):
        self.score = score

    def __lt__(self, other):
        return self.score < other.score

def mean(values):
    values = list(values)
    return math.fsum(values) / max(1, len(values))

def should_reschedule(state: ServingState) -> bool:
    rates = np.array([entry.rate_rps for entry in state.window.classes])
    return bool(np.linalg.norm(rates) > DRIFT)

def plan(state: ServingState) -> Decision:
    rng = np.random.default_rng(int(state.now_s))
    try:
        best = min([Candidate(rng.random()) for _ in range(3)])
    except ValueError:
        best = None
    return Decision(plan=state.plan, memory={"best": f"{best}"})

def route(request: Request, replicas: list[ReplicaView]) -> int:
    """Least loaded."""
    if len(replicas) == 0:
        return HOLD
    return min(replicas, key=lambda r: r.in_flight).index

def priority(request: Request) -> float:
    return request.waited_s

def adopt(memory: dict) -> dict:
    return memory
'''

MINIMAL = """interface = 1
def should_reschedule(state):
    return False
def plan(state):
    return None
"""

HOSTILE = {
    "an attribute set by another name": "def f():\n    g = tools.greedy\n    g.seen = 1",
    "an attribute of what was called": "def f(state):\n    tools.greedy(state).seen = 1",
    "an attribute deleted": "def f(state):\n    del state.seen",
    "an attribute as a loop's target": "def f(state):\n    for state.seen in (1, 2): pass",
    "an attribute added to": "def f(state):\n    state.seen += 1",
    "an attribute with its type": "def f(state):\n    state.seen: int = 1",
    "an attribute as what a block opens": "def f(state, opened):\n    with opened as state.seen: pass",
    "an attribute as a comprehension's target": "def f(state):\n    return [1 for state.seen in (1, 2)]",
    "self outside a class": "def f(self):\n    self.seen = 1",
    "self bound anew": "class A:\n    def f(self):\n        self = tools.greedy\n        self.seen = 1",
    "self of a function within": "class A:\n    def f(self):\n        def g(self):\n            self.seen = 1",
    "self of a static method": "class A:\n    @staticmethod\n    def f(self):\n        self.seen = 1",
    "an attribute behind self": "class A:\n    def f(self):\n        self.g.seen = 1",
    "attributes set by functools": "from functools import wraps\ndef f(g):\n    return wraps(f)(g)",
    "attributes set by functools's other": "import functools\ndef f(g):\n    return functools.update_wrapper(g, f)",
    "a hash, which is an address": "def f(state):\n    return hash(f)",
    "import os": "import os\n",
    "import in a function": "def f():\n    import math\n",
    "from os": "from os import system\n",
    "dotted import": "import numpy.ctypeslib\n",
    "numpy submodule": "from numpy import ctypeslib\n",
    "star": "from math import *\n",
    "relative": "from . import host\n",
    "internals of the house": "import autopoiesis.policy.host\n",
    "more of the house": "from autopoiesis.policy import host\n",
    "plan room": "from autopoiesis.cluster import Cluster\n",
    "sys through statistics": "import statistics\ndef f():\n    return statistics.sys\n",
    "sys through a from-import": "from statistics import sys\n",
    "eval": "def f():\n    return eval('1')\n",
    "aliased exec": "run = exec\n",
    "open": "def f():\n    return open('/etc/passwd').read()\n",
    "dunder import": "def f():\n    return __import__('os')\n",
    "builtins": "def f():\n    return __builtins__['open']\n",
    "subclasses": "def f():\n    return ().__class__.__base__.__subclasses__()\n",
    "normalised dunder": "def f():\n    return ().__ｃlass__\n",
    "globals of a function": "def f():\n    return plan.__globals__\n",
    "getattr": "def f():\n    return getattr(plan, '__glo' + 'bals__')\n",
    "format": "def f(x):\n    return '{0.__class__}'.format(x)\n",
    "format_map": "def f(x):\n    return '{a.__class__}'.format_map(x)\n",
    "generator frame": "def f():\n    g = (x for x in ())\n    return g.gi_frame.f_back\n",
    "frame": "def f():\n    try:\n        1 / 0\n    except Exception as e:\n        return e.__traceback__.tb_frame\n",
    "class pattern": "def f(g):\n    match g:\n        case object(gi_frame=frame):\n            return frame\n",
    "dunder class pattern": "def f(g):\n    match g:\n        case object(__class__=c):\n            return c\n",
    "numpy file": "import numpy as np\ndef f():\n    return np.fromfile('/etc/passwd')\n",
    "numpy load": "import numpy\ndef f():\n    return numpy.load('x', allow_pickle=True)\n",
    "array to file": "import numpy as np\ndef f():\n    np.zeros(3).tofile('/tmp/x')\n",
    "array memory": "import numpy as np\ndef f():\n    return np.zeros(3).ctypes.data\n",
    "numpy under another name": "import numpy as np\nother = np\n",
    "numpy submodule as value": "import numpy as np\nl = np.linalg\n",
    "unseeded chance": "import numpy as np\ndef f():\n    return np.random.rand()\n",
    "generator without a seed": "import numpy as np\ndef f():\n    return np.random.default_rng()\n",
    "global": "seen = 0\ndef f():\n    global seen\n    seen = 1\n",
    "async": "async def f():\n    await g()\n",
    "bare except": "def f():\n    try:\n        pass\n    except:\n        pass\n",
    "base exception": "def f():\n    try:\n        pass\n    except BaseException:\n        pass\n",
    "patching a module": "import math\ndef f():\n    math.sqrt = None\n",
    "patching the interface": "from autopoiesis.policy import Decision\ndef f():\n    Decision.plan = None\n",
    "the raw estimator": "def f(state):\n    return state.estimator\n",
    "module-level loop": "while True:\n    pass\n",
    "module-level call": "print('x')\n",
    "walrus at module level": "x = (plan := 3)\n",
    "metaclass": "class A(metaclass=type):\n    pass\n",
    "attribute hook": "class A:\n    def __getattr__(self, name):\n        return 1\n",
    "interpreter name by import": "import math as __builtins__\n",
    "breakpoint": "def f():\n    breakpoint()\n",
    "second interface": "interface = 2\n",
    "second plan": "def plan(state):\n    return 1\n",
    "plan rebound": "plan = 3\n",
    "vars": "def f():\n    return vars()\n",
    "memoryview": "def f(b):\n    return memoryview(b)\n",
}

UNPARSABLE = {
    "nothing": "\0",
    "parentheses": "(" * 60_000,
    "brackets in turn": "({[" * 20_000,
    "signs": "x = " + "-" * 60_000 + "1",
    "nots": "x = " + "not " * 15_000 + "1",
    "sum": "x = " + "1+" * 30_000 + "1",
    "dots": "x = a" + ".a" * 30_000,
    "calls": "x = f" + "()" * 30_000,
    "powers": "x = 2" + "**2" * 20_000,
    "digits": "x = " + "9" * 60_000,
    "lambdas": "x = " + "lambda:" * 9_000 + "1",
    "blocks": "".join(" " * i + "if 1:\n" for i in range(300)),
    "too large": "#" * (SOURCE_BYTES + 1),
    "surrogate": "x = '\ud800'",
    "conditional chain": "x = " + "1 if 1 else " * 5_000 + "1",
    "f-strings": "x = " + "f'{" * 5_000,
}

TOKENS = [
    "def ", "route", "(", ")", ":", "\n", " ", "for ", "in ", "replicas", "return ", "=", "1", "min", "lambda ", "[",
    "]", "request", ".", ",", "if ", "else", "    ", "interface",
]  # fmt: skip


def test_a_module_that_uses_all_there_is_passes() -> None:
    assert check_policy(GOOD) == []


@pytest.mark.parametrize(
    "statement", ["self.n = 1", "self.n += 1", "self.n: int = 1", "del self.n", "for self.n in (1, 2): pass"]
)
def test_a_method_may_set_what_is_its_own(statement: str) -> None:
    assert check_policy(MINIMAL + f"class A:\n    def f(self):\n        {statement}") == []


def test_the_smallest_module_passes() -> None:
    assert check_policy(MINIMAL) == []


@pytest.mark.parametrize("addition", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_source_is_refused_with_its_line_and_what_to_write_instead(addition: str) -> None:
    first = MINIMAL.count("\n") + 1
    refusals = check_policy(MINIMAL + addition)
    assert refusals
    for refusal in refusals:
        assert first <= refusal.line <= first + addition.count("\n")
        assert refusal.construct
        assert refusal.why
        assert refusal.instead
        assert str(refusal).startswith(f"line {refusal.line}: ")
        assert str(refusal).endswith(f"; write {refusal.instead} instead")


@pytest.mark.parametrize("text", UNPARSABLE.values(), ids=UNPARSABLE.keys())
def test_text_made_to_choke_the_parser_is_refused_quickly(text: str) -> None:
    start = time.process_time()
    assert check_policy(text)
    assert time.process_time() - start < 2.0


def test_many_refusals_are_cut_and_still_quick() -> None:
    start = time.process_time()
    refusals = check_policy(MINIMAL + "import os\n" * 2_000)
    assert len(refusals) == 20
    assert time.process_time() - start < 2.0


def test_a_missing_function_or_interface_number_is_named() -> None:
    said = "\n".join(map(str, check_policy("x = 1\n")))
    assert "`should_reschedule`" in said
    assert "`plan`" in said
    assert "interface = 1" in said


@pytest.mark.parametrize(
    "definition",
    ["def plan():", "def plan(state, more):", "def plan(*state):", "def plan(state=None):", "def plan(a, *, b):"],
)
def test_a_planner_takes_exactly_one_parameter(definition: str) -> None:
    refusals = check_policy(MINIMAL.replace("def plan(state):", definition))
    assert [refusal.line for refusal in refusals] == [4]


def test_a_planner_that_yields_is_refused() -> None:
    assert "generator" in str(check_policy(MINIMAL.replace("return None", "yield None"))[0])


def test_a_misspelt_tool_or_import_gets_the_near_name() -> None:
    text = "from autopoiesis.policy import Decison\n" + MINIMAL
    assert "Decision" in str(check_policy(text)[0])


def test_refusals_of_route_are_among_those_of_the_module() -> None:
    text = MINIMAL + "def route(request, replicas):\n    while True:\n        pass\n    return 0\n"
    assert any("while" in refusal.construct and refusal.line == 7 for refusal in check_policy(text))


@given(st.text(max_size=200))
def test_no_text_makes_the_checker_raise(text: str) -> None:
    assert isinstance(check_policy(text), list)


@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_no_heap_of_tokens_makes_the_checker_raise(tokens: list[str]) -> None:
    body = "def route(request, replicas):\n    return " + "".join(tokens).replace("\n", "\n    ")
    assert check_policy("".join(tokens))
    assert isinstance(check_policy(MINIMAL + body), list)
