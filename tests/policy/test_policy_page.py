"""The page on policies says what is so: its examples pass, its names exist, and no field is left out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import autopoiesis.policy
from autopoiesis.evolve.prompt import interface_text
from autopoiesis.plan import ClassShares, Envelope, Replica, ServingPlan
from autopoiesis.policy import bound, grammar, interface, scan, tools
from autopoiesis.policy.check import check_policy
from autopoiesis.workload import ClassWindow, Window

PAGE = (Path(autopoiesis.policy.__file__).parent / "policy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
REST = "interface = 1\ndef should_reschedule(state):\n    return False\ndef plan(state):\n    return None\n"

REFUSED = {
    "`request.sequence % len(replicas)` as an answer": "return request.sequence % len(replicas)",
    "`return min(replicas, key=...)`": "return min(replicas, key=lambda r: r.running)",
    "`key=lambda r: (r.waiting, r.running)`": "return min(replicas, key=lambda r: (r.waiting, r.running)).index",
    "`if replicas:`": "if replicas:\n        return 0\n    return 1",
    "`for i in range(len(replicas))`": "for i in range(len(replicas)):\n        x = 1\n    return 0",
    "`best = None`": "best = None\n    return 0",
    "`[r for r in replicas if r.kv_use < 0.9]`": "x = [r for r in replicas if r.kv_use < 0.9]\n    return 0",
    "`min(xs, default=0)`": "return floor(min((r.running for r in replicas), default=0))",
    "`sorted(replicas, key=f)[0]`": "return sorted(replicas, key=lambda r: r.running)[0].index",
    "`math.sqrt(x)`, `x ** 2`, `int(x)`": "x = math.sqrt(2)\n    y = x ** 2\n    return int(y)",
    "`x = len(replicas)` and later `x = 0.5`": "x = len(replicas)\n    x = 0.5\n    return 0",
    "a helper function": "return helper(request)",
}


def test_what_the_page_says_is_refused_is_refused() -> None:
    table = PAGE.partition("### Refused")[2]
    assert re.findall(r"^\| (.+?) \| .+ \|$", table, re.MULTILINE)[1:] == [*REFUSED]
    for body in REFUSED.values():
        assert check_policy(f"{REST}def route(request, replicas):\n    {body}\n"), body


def test_the_prompt_quotes_the_page_whole() -> None:
    assert interface_text() == PAGE


def test_the_page_says_the_limits_that_there_are() -> None:
    said = " ".join(PAGE.split())
    assert f"{scan.TOKENS:,} tokens, {scan.BRACKETS} nested brackets".replace(",", " ", 1) in said
    assert f"{scan.BLOCKS} nested blocks, {scan.CHAIN} operators" in said
    assert f"{scan.BRANCHES} `elif`s" in said
    assert f"{grammar.FUNCTION_DEPTH} levels of nesting" in said
    assert f"{bound.BUDGET // 1000} 000 operations over {bound.BUDGET_REPLICAS} replicas" in said
    assert f"{bound.BRANCHES} branches" in said


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_on_the_page_passes_the_checker(example: str) -> None:
    assert check_policy(example if "interface = 1" in example else REST + example) == []


def test_the_page_names_only_tools_that_exist() -> None:
    assert set(re.findall(r"tools\.(\w+)", PAGE)) <= set(tools.__all__)


@pytest.mark.parametrize(
    "noun",
    [interface.Observation, interface.PoolView, interface.ReplicaStatus, interface.TransitionStatus,
     interface.PastTransition, interface.CapacityChange, interface.Estimate, interface.Transition, interface.Decision,
     interface.Move, interface.Request, interface.ReplicaView, ServingPlan, Replica, ClassShares, Window, ClassWindow,
     Envelope],
)  # fmt: skip
def test_the_page_names_every_field(noun: type) -> None:
    missing = [field.name for field in dataclasses.fields(noun) if not re.search(rf"\b{field.name}\b", PAGE)]
    assert missing == []


def test_the_documentation_folder_shows_the_same_page() -> None:
    shown = Path(__file__).parents[2] / "docs" / "policy.md"
    assert shown.read_text(encoding="utf-8") == PAGE
