"""The page on policies says what is so: its examples pass, its names exist, and no field is left out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import autopoiesis.policy
from autopoiesis.plan import ClassShares, Envelope, Replica, ServingPlan
from autopoiesis.policy import interface, tools
from autopoiesis.policy.check import check_policy
from autopoiesis.workload import ClassWindow, Window

PAGE = (Path(autopoiesis.policy.__file__).parent / "policy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
REST = "interface = 1\ndef should_reschedule(state):\n    return False\ndef plan(state):\n    return None\n"


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
