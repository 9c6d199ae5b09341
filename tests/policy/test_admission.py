"""A text from outside is parsed in a locked process first, and nowhere else if it is refused there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_samples import BELIEF, OBSERVATION
from hostile_routers import BODIES, TEXTS, router
from no_parser import no_parser

from autopoiesis.errors import PolicyError
from autopoiesis.policy import admission
from autopoiesis.policy.admission import admit, check_alone, refusals_of
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.library import library

HERE = Path(__file__).parent
HOSTILE = {name: router(body) for name, (body, _) in BODIES.items()} | {name: text for name, (text, _) in TEXTS.items()}
GOOD = library()["threshold"].text
WRONG = GOOD.replace("interface = 1", "import os, sys\ninterface = 1\nprint(1)")


@pytest.fixture(scope="module")
def template() -> Iterator[HostTemplate]:
    with HostTemplate(None) as made:
        yield made


@pytest.mark.parametrize("text", [*HOSTILE.values(), "def f(:", WRONG], ids=[*HOSTILE, "no Python", "no policy"])
def test_what_is_refused_is_parsed_nowhere_but_in_the_locked_process(template: HostTemplate, text: str) -> None:
    with PolicyHost(template, text) as host, no_parser():
        refusals = refusals_of(host, "outside")
    assert refusals


def test_a_text_is_refused_there_for_what_the_checker_says(template: HostTemplate) -> None:
    with PolicyHost(template, WRONG) as host:
        assert refusals_of(host, "outside") == tuple(check_policy(WRONG))


def test_a_text_that_passes_becomes_a_policy(template: HostTemplate) -> None:
    with PolicyHost(template, GOOD) as host:
        assert admit(host, "threshold") == library()["threshold"]


def test_a_refusal_names_policy_line_construct_and_mend_and_counts_the_others(template: HostTemplate) -> None:
    with PolicyHost(template, WRONG) as host, pytest.raises(PolicyError) as refused:
        admit(host, "mine")
    first, *others = check_policy(WRONG)
    assert str(refused.value) == f"policy mine: {first} ({len(others)} more refusals)"


def test_a_check_that_comes_to_no_end_admits_nothing(template: HostTemplate) -> None:
    largest = "\n".join(f"x{n} = {n}" for n in range(1500))
    with PolicyHost(template, largest, deadline_s=0.002) as host:
        with pytest.raises(PolicyError, match="policy mine: cannot be checked: no answer within"):
            admit(host, "mine")
        assert host.pid is None


def test_a_template_without_an_estimator_only_checks(template: HostTemplate) -> None:
    with PolicyHost(template, GOOD) as host:
        assert admit(host, "threshold")
        assert "its processes only check policies" in (host.trigger(OBSERVATION, BELIEF).failure or "")


@pytest.fixture
def without_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    def light(estimator: None, *, allow_unlocked: bool) -> HostTemplate:
        unlocked = "host_estimators_unlocked:Counting"
        return HostTemplate(unlocked, python_path=(HERE,), allow_unlocked=allow_unlocked)

    monkeypatch.setattr(admission, "HostTemplate", light)


@pytest.mark.usefixtures("without_wall")
def test_without_a_wall_a_user_s_own_file_is_checked_in_an_unlocked_process() -> None:
    with no_parser():
        good, wrong = (check_alone(text, "mine.py", own=True) for text in (GOOD, WRONG))
    assert good == ()
    assert wrong != ()


@pytest.mark.usefixtures("without_wall")
def test_without_a_wall_what_a_model_wrote_is_not_even_checked() -> None:
    with pytest.raises(PolicyError, match="lacks a bar to new privileges, resource limits, seccomp"):
        check_alone(GOOD, "0123456789abcdef", own=False)


WITHOUT_PROCESSES = """
import sys
sys.modules["resource"] = None
from autopoiesis.policy.admission import check_alone
print([refusal.construct for refusal in check_alone("import os\\ninterface = 2\\n", "mine.py", own=True)])
try:
    check_alone("interface = 1\\n", "0123456789abcdef", own=False)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_processes_a_user_s_own_file_is_checked_in_this_one() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_PROCESSES], capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    own, evolved = ended.stdout.splitlines()
    assert "`import os`" in own
    assert evolved.startswith("WallError policy host: this system can neither fork")
