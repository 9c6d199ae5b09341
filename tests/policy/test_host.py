"""The policy host is given raw source here, as if the static checker had been talked around."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from host_samples import BELIEF, ESCAPE, OBSERVATION, PLAN
from processes import gone, until

from autopoiesis.errors import PolicyError
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.host import Answer, PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.interface import MEMORY_BYTES
from autopoiesis.policy.limits import Limits
from autopoiesis.policy.meter import Charge

HERE = Path(__file__).parent
ESTIMATOR = "host_estimators:Counting"
PLANNER = """
from autopoiesis.policy import Decision
def plan(state):
    return Decision(state.plan, capacity={"pool": 8}, memory={"seen": state.memory["seen"] + [3]})
"""


@pytest.fixture(scope="module")
def template() -> Iterator[HostTemplate]:
    limits = Limits(memory_bytes=2**28, cpu_s=600)
    with HostTemplate(ESTIMATOR, python_path=(HERE,), limits=limits, line_budget=100_000) as made:
        yield made


def triggered(template: HostTemplate, body: str, *, before: str = "", deadline_s: float = 10.0) -> Answer[bool]:
    source = f"{before}\ndef should_reschedule(state):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    with PolicyHost(template, source, deadline_s) as host:
        return host.trigger(OBSERVATION, BELIEF)


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_trigger_answers_yes_or_no(template: HostTemplate) -> None:
    assert triggered(template, "return state.now_s > 50").value is True
    assert triggered(template, "return state.now_s > 70").value is False


def test_a_numpy_bool_is_a_bool(template: HostTemplate) -> None:
    assert triggered(template, "return np.float64(1) < 2", before="import numpy as np").value is True


@pytest.mark.parametrize("value", ["None", "1", "'yes'", "state", "[]"])
def test_a_trigger_that_answers_anything_else_has_failed(template: HostTemplate, value: str) -> None:
    answer = triggered(template, f"return {value}")
    assert answer.value is None
    assert "must return a bool" in (answer.failure or "")


def test_a_planner_answers_a_decision_with_the_new_memory(template: HostTemplate) -> None:
    with PolicyHost(template, PLANNER) as host:
        answer = host.plan(OBSERVATION, BELIEF)
    assert answer.failure is None
    assert answer.value is not None
    assert answer.value.plan == PLAN
    assert answer.value.capacity == {"pool": 8}
    assert answer.value.memory == {"seen": [1, 2, 3]}
    assert answer.cpu_s > 0 or sys.platform != "linux"


def test_numbers_of_numpy_come_back_as_numbers(template: HostTemplate) -> None:
    source = """
import numpy as np
from autopoiesis.policy import ClassShares, Decision, ServingPlan
def plan(state):
    shares = ClassShares("m/0", tuple(np.array([0.25, 0.75])))
    return Decision(ServingPlan(state.plan.replicas, (shares,)), {"pool": np.int64(8)}, memory={"x": (np.float64(2),)})
"""
    with PolicyHost(template, source) as host:
        decision = host.plan(OBSERVATION, BELIEF).value
    assert decision is not None
    assert decision.plan.shares[0].fractions == (0.25, 0.75)
    assert decision.capacity == {"pool": 8}
    assert decision.memory == {"x": [2.0]}


def test_adopt_keeps_what_it_wants_of_a_memory(template: HostTemplate) -> None:
    with PolicyHost(template, "def adopt(memory): return {'kept': memory['a']}") as host:
        assert host.adopt({"a": 1, "b": 2}).value == {"kept": 1}


def test_a_policy_without_adopt_keeps_nothing(template: HostTemplate) -> None:
    with PolicyHost(template, PLANNER) as host:
        assert host.adopt({"a": 1}).value == {}


@pytest.mark.parametrize(
    "text", [PLANNER, "def f(:", "-" * 50_000 + "1", "a" + "()" * 30_000, "interface = 1\nimport os"]
)
def test_source_is_checked_behind_the_wall_and_not_run(template: HostTemplate, text: str) -> None:
    with PolicyHost(template, text) as host:
        answer = host.check()
        assert (answer.value, answer.failure) == (tuple(check_policy(text)), None)
        assert host.check().value == answer.value


def test_one_process_checks_a_candidate_and_then_serves_it(template: HostTemplate) -> None:
    candidate = "interface = 1\ndef should_reschedule(state):\n    return True\n" + PLANNER.strip() + "\n"
    with PolicyHost(template, candidate) as host:
        assert host.check().value == ()
        pid = host.pid
        assert host.trigger(OBSERVATION, BELIEF).value is True
        assert host.plan(OBSERVATION, BELIEF).value is not None
        assert host.check().value == ()
        assert host.pid == pid


def test_checking_a_candidate_first_changes_neither_its_answers_nor_its_bill(template: HostTemplate) -> None:
    def planned(check_first: bool) -> tuple[object, Charge]:
        with PolicyHost(template, CARRYING) as host:
            if check_first:
                host.check()
            answer = host.plan(replace(OBSERVATION, memory={"past": []}), BELIEF)
            return answer.value, answer.charge

    assert planned(check_first=True) == planned(check_first=False)


def test_source_that_the_checker_takes_too_long_over_fails_the_check(template: HostTemplate) -> None:
    largest = "\n".join(f"x{n} = {n}" for n in range(1990))
    with PolicyHost(template, largest, deadline_s=0.005) as host:
        assert host.check().failure == "no answer within 0.005 s"
        assert host.pid is None


def test_the_estimator_is_asked_from_the_belief_that_came_with_the_call(template: HostTemplate) -> None:
    source = "def should_reschedule(state): return state.estimate(state.plan).goodput > 10"
    with PolicyHost(template, source) as host:
        assert host.trigger(OBSERVATION, msgspec.msgpack.encode(0.5)).value is False
        assert host.trigger(OBSERVATION, msgspec.msgpack.encode(20.0)).value is True


def test_an_estimator_is_kept_while_the_belief_is_the_same(template: HostTemplate) -> None:
    source = "def should_reschedule(state): return state.estimate(state.plan).goodput == 2.5"
    with PolicyHost(template, source) as host:
        assert [host.trigger(OBSERVATION, BELIEF).value for _ in range(3)] == [False, True, False]


def test_the_estimator_is_warmed_before_the_lock(template: HostTemplate) -> None:
    assert triggered(template, "return state.estimate(state.plan).feasible").value is True


def test_a_belief_that_the_estimator_refuses_fails_the_call(template: HostTemplate) -> None:
    with PolicyHost(template, "def should_reschedule(state): return True") as host:
        assert "ValidationError" in (host.trigger(OBSERVATION, msgspec.msgpack.encode("x")).failure or "")


def test_globals_are_discarded_between_calls(template: HostTemplate) -> None:
    source = """
seen = []
def should_reschedule(state):
    seen.append(1)
    return len(seen) > 1
"""
    with PolicyHost(template, source) as host:
        pids = set()
        for _ in range(3):
            assert host.trigger(OBSERVATION, BELIEF).value is False
            pids.add(host.pid)
    assert len(pids) == 1


CARRYING = """
from autopoiesis.policy import Decision
import statistics
import numpy as np
seen = []
def plan(state):
    seen.append(state.now_s)
    drawn = float(np.random.random()) + statistics.NormalDist(0, 1).samples(1)[0] + np.array([0.5, 1.5]).mean()
    past = state.memory["past"] + [[len(seen), drawn, state.now_s]]
    return Decision(state.plan, memory={"past": past[-5:]})
def adopt(memory):
    seen.append(0)
    return {"past": memory["past"] + [[len(seen), 0.0, 0.0]]}
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a.sum()", 6.0), ("a.mean()", 2.0), ("a.std()", 0.816), ("a.var()", 0.667), ("a.max()", 3.0), ("a.min()", 1.0),
        ("a.prod()", 6.0), ("a.any()", 1.0), ("a.all()", 1.0), ("a.clip(0, 2).sum()", 5.0), ("len(str(a))", 10.0),
        ("len(f'{a}')", 10.0), ("a.argsort().sum()", 3.0), ("np.median(a)", 2.0), ("np.linalg.norm(a)", 3.742),
    ],
)  # fmt: skip
def test_numpy_works_in_a_fresh_process_as_it_does_in_one_that_has_used_it(
    template: HostTemplate, expression: str, value: float
) -> None:
    source = f"""
from autopoiesis.policy import Decision
import numpy as np
interface = 1
def should_reschedule(state):
    return True
def plan(state):
    a = np.array([1.0, 2.0, 3.0])
    return Decision(state.plan, memory={{"value": float({expression})}})
"""
    assert not check_policy(source)
    with PolicyHost(template, source) as host:
        for _ in range(2):
            planned = host.plan(OBSERVATION, BELIEF)
            assert planned.failure is None
            assert planned.value is not None
            assert planned.value.memory == {"value": pytest.approx(value, abs=1e-3)}


def test_a_host_that_is_restarted_at_random_answers_the_same(template: HostTemplate) -> None:
    def answers(restarts: random.Random | None) -> list[tuple[object, Charge]]:
        given: list[tuple[object, Charge]] = []
        memory: dict[str, Any] = {"past": []}
        with PolicyHost(template, CARRYING) as host:
            for number in range(24):
                if restarts is not None and restarts.random() < 0.4:
                    host.close()
                adopted = host.adopt(memory) if number % 7 == 6 else None
                planned = host.plan(replace(OBSERVATION, now_s=60.0 * number, memory=memory), BELIEF)
                assert planned.value is not None
                memory = (adopted and adopted.value) or planned.value.memory or {}
                given.append((memory, planned.charge))
        return given

    assert answers(random.Random(1)) == answers(None)


@pytest.mark.parametrize(
    "shared", ["tools.greedy", "Decision", "statistics.mean", "np.median", "np.median._implementation"]
)
def test_what_a_policy_sets_on_what_others_use_is_gone_before_the_next_call(
    template: HostTemplate, shared: str
) -> None:
    source = f"""
from autopoiesis.policy import Decision, tools
import statistics
import numpy as np
class Keeper:
    count = 0
    def keep(self):
        try:
            self.seen = self.seen + 1
        except AttributeError:
            self.seen = 1
        return self.seen
def plan(state):
    return Decision(state.plan, memory={{"seen": Keeper.keep({shared})}})
"""
    with PolicyHost(template, source) as host:
        for _ in range(3):
            planned = host.plan(OBSERVATION, BELIEF)
            assert planned.value is not None, planned.failure
            assert planned.value.memory == {"seen": 1}


def test_restart_goes_on_with_other_source_in_another_process(template: HostTemplate) -> None:
    with PolicyHost(template, "def should_reschedule(state): return False") as host:
        assert host.trigger(OBSERVATION, BELIEF).value is False
        first = host.pid
        host.restart("def should_reschedule(state): return True")
        assert host.trigger(OBSERVATION, BELIEF).value is True
        assert host.pid != first


# --- failures -------------------------------------------------------------------------------------------------------


def test_an_exception_is_told_with_its_type_text_and_line(template: HostTemplate) -> None:
    answer = triggered(template, "x = 1\nreturn x / 0")
    assert answer.failure == "ZeroDivisionError: division by zero (line 4 of the policy)"
    assert answer.charge.lines > 0


def test_the_text_of_an_exception_is_cut(template: HostTemplate) -> None:
    answer = triggered(template, "raise ValueError('x' * 10**6)")
    assert 500 < len(answer.failure or "") < 600


def test_an_exception_whose_text_raises_is_still_told(template: HostTemplate) -> None:
    before = "class Odd(Exception):\n    def __str__(self):\n        raise self"
    assert "Odd" in (triggered(template, "raise Odd()", before=before).failure or "")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def should_reschedule(state) return 1", "SyntaxError"),
        ("x = 1", "no function 'should_reschedule'"),
        ("import os", "a policy cannot import os"),
        ("from autopoiesis.policy import host", "cannot import name 'host'"),
        ("import autopoiesis.policy.limits", "a policy cannot import"),
        ("x = open('/etc/hosts')", "name 'open' is not defined"),
        ("x = eval('1')", "name 'eval' is not defined"),
        ("x = getattr(1, 'real')", "name 'getattr' is not defined"),
        ("def should_reschedule(state): return should_reschedule(state)", "RecursionError"),
        ("x = type(1)", "name 'type' is not defined"),
    ],
)
def test_bad_source_fails_the_call_and_says_why(template: HostTemplate, source: str, reason: str) -> None:
    with PolicyHost(template, source) as host:
        assert reason in (host.trigger(OBSERVATION, BELIEF).failure or "")


@pytest.mark.parametrize(
    "statement",
    ["import math, heapq, bisect, itertools, functools, collections, statistics", "import numpy.linalg as la",
     "from __future__ import annotations",
     "import numpy as np\nnp.percentile([1, 2], 50), np.fft.fft(np.ones(4)), np.random.default_rng(1).random()",
     "import autopoiesis.policy as p\np.Decision", "from autopoiesis.policy import tools",
     "class A:\n    def __init__(self, x):\n        self.x = x\nA(2).x < A(3).x"],
)  # fmt: skip
def test_a_policy_may_import_what_the_interface_lists(template: HostTemplate, statement: str) -> None:
    with PolicyHost(template, f"{statement}\ndef should_reschedule(state): return True") as host:
        assert host.trigger(OBSERVATION, BELIEF).failure is None


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        ("{'x': 'y' * 70000}", f"more than {MEMORY_BYTES}"),
        ("{'x': float('nan')}", "must be JSON"),
        ("{'x': object()}", "must be JSON"),
        ("{1: 2}", "str keys"),
        ("[1]", "must be a dict"),
    ],
)
def test_a_memory_that_is_too_large_or_not_json_fails_the_call(
    template: HostTemplate, memory: str, reason: str
) -> None:
    source = PLANNER + f"\ndef adopt(state): return {memory}\n"
    with PolicyHost(template, source.replace('{"seen": state.memory["seen"] + [3]}', memory)) as host:
        assert reason in (host.plan(OBSERVATION, BELIEF).failure or "")
        assert reason in (host.adopt({}).failure or "")


def test_a_decision_of_wrong_types_is_refused_by_the_parent(template: HostTemplate) -> None:
    for wrong in ("Decision('a plan')", "Decision(state.plan, capacity={'pool': 'many'})"):
        with PolicyHost(template, PLANNER + f"\ndef plan(state): return {wrong}") as host:
            answer = host.plan(OBSERVATION, BELIEF)
        assert answer.value is None
        assert "malformed" in (answer.failure or "")


def test_an_answer_that_is_too_large_is_refused(template: HostTemplate) -> None:
    source = PLANNER + "\ndef plan(state): return Decision(state.plan, capacity={'x' * 2**21: 1})"
    with PolicyHost(template, source) as host:
        assert "more than 1048576" in (host.plan(OBSERVATION, BELIEF).failure or "")


# --- hostile policies -----------------------------------------------------------------------------------------------

LOOPS = {
    "in C": "sum(range(10**12))",
    "of nothing, which has no lines": "while True: pass",
    "swallowing everything": "while True:\n    try:\n        while True: pass\n    except: pass",
}


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS.keys())
def test_a_call_past_its_deadline_is_killed_and_the_next_one_is_served(template: HostTemplate, body: str) -> None:
    source = "def should_reschedule(state):\n    if state.now_s < 100: return True\n    " + body.replace("\n", "\n    ")
    with PolicyHost(template, source, deadline_s=0.5) as host:
        answer = host.trigger(replace(OBSERVATION, now_s=200.0), BELIEF)
        assert answer.failure == "no answer within 0.5 s"
        assert answer.charge == Charge()
        assert 0.5 <= answer.wall_s < 2.0
        assert host.pid is None
        assert host.trigger(OBSERVATION, BELIEF).value is True


def test_an_endless_loop_ends_at_the_line_budget(template: HostTemplate) -> None:
    answer = triggered(template, "while True:\n    pass")
    assert "more than 100000 lines" in (answer.failure or "")
    assert answer.charge.lines == 100_001


def test_swallowing_the_line_budget_does_not_help(template: HostTemplate) -> None:
    answer = triggered(template, "try:\n    while True:\n        pass\nexcept:\n    return True")
    assert "more than 100000 lines" in (answer.failure or "")


CRASHES = {
    "os._exit": (ESCAPE, "os._exit(7)", "exit code 7"),
    "segmentation fault": (ESCAPE, "sys.modules['ctypes'].string_at(0)", "signal 11"),
    "stack overflow": (ESCAPE, "sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(90000): x = [x]\n"
                       "return repr(x) == ''", "signal 11"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "body", "ending"), CRASHES.values(), ids=CRASHES.keys())
def test_a_crash_fails_the_call_and_the_next_one_is_served(
    template: HostTemplate, before: str, body: str, ending: str
) -> None:
    body = "if state.now_s < 100: return True\n" + body
    source = before + "\ndef should_reschedule(state):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    with PolicyHost(template, source) as host:
        answer = host.trigger(replace(OBSERVATION, now_s=200.0), BELIEF)
        assert ending in (answer.failure or "")
        assert answer.failure
        assert host.trigger(OBSERVATION, BELIEF).value is True


def test_a_memory_bomb_ends_in_a_memory_error(template: HostTemplate) -> None:
    assert "MemoryError" in (triggered(template, "x = [0] * 10**10\nreturn True").failure or "")
    assert "MemoryError" in (triggered(template, "x = []\nwhile True: x.append(bytes(10**7))").failure or "")


def test_a_flood_of_output_goes_nowhere(template: HostTemplate) -> None:
    answer = triggered(template, "for _ in range(5000): sys.stdout.write('x' * 1000)\nreturn True", before=ESCAPE)
    assert answer.value is True


FORGERIES = {
    "noise": "os.write(3, b'\\x00\\x00\\x00\\x05hello')",
    "a huge length": "os.write(3, b'\\xff' * 64)",
    "an early answer": "os.write(3, frames.framed(messages.Triggered(7, True, messages.Charge())))",
    "negative work": "os.write(3, frames.framed({'type': 'Triggered', 'ticket': 7, 'value': True, "
    "'charge': {'lines': -5}}))",
    "an answer to another call": "os.write(3, frames.framed(messages.Adopted(7, {}, messages.Charge())))",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_answer_is_rejected_and_its_process_ended(template: HostTemplate, forgery: str) -> None:
    before = ESCAPE + "messages = sys.modules['autopoiesis.policy.host_messages']\n"
    before += "frames = sys.modules['autopoiesis.policy.frames']"
    source = f"{before}\ndef should_reschedule(state):\n    {forgery}\n    return True"
    with PolicyHost(template, source) as host:
        answer = host.trigger(OBSERVATION, BELIEF)
        assert answer.value is None
        assert "malformed" in (answer.failure or "") or "another call" in (answer.failure or "")
        assert host.pid is None


def test_an_answer_left_for_the_next_call_is_not_taken_for_its_answer(template: HostTemplate) -> None:
    source = f"""
{ESCAPE}
def should_reschedule(state):
    messages = sys.modules['autopoiesis.policy.host_messages']
    frames = sys.modules['autopoiesis.policy.frames']
    frame = sys._getframe()
    while "call" not in frame.f_locals or not hasattr(frame.f_locals["call"], "ticket"):
        frame = frame.f_back
    ticket = frame.f_locals["call"].ticket
    for _ in range(2):
        os.write(3, frames.framed(messages.Triggered(ticket, True, messages.Charge())))
    return False
""".replace("hasattr(", "sys.modules['builtins'].hasattr(")
    with PolicyHost(template, source) as host:
        host.trigger(OBSERVATION, BELIEF)
        assert host.trigger(OBSERVATION, BELIEF).failure == "it answered another call"


BURNING = f"""
{ESCAPE}
time = sys.modules['time']
def burn(time=time):
    began = time.process_time()
    while time.process_time() < began + 2.5: sum(range(10**7))
"""
UNBILLED = {
    "work in C, which takes a line however long it lasts": (BURNING, "burn()"),
    "lines that nobody counts any more": (
        BURNING.replace("sum(range(10**7))", "pass"),
        "sys.settrace(None)\nsys._getframe().f_trace = None\nburn()",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's CPU clock")
@pytest.mark.parametrize(("before", "body"), UNBILLED.values(), ids=UNBILLED.keys())
def test_a_bill_that_the_cpu_time_belies_fails_the_call_and_ends_its_process(
    template: HostTemplate, before: str, body: str
) -> None:
    body = "\n    ".join(f"{body}\nreturn True".splitlines())
    with PolicyHost(template, f"{before}\ndef should_reschedule(state):\n    {body}", 60.0) as host:
        answer = host.trigger(OBSERVATION, BELIEF)
        assert "used more CPU time than its bill of" in (answer.failure or "")
        assert (answer.value, answer.charge) == (None, Charge())
        assert answer.cpu_s > 2.0
        assert host.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's CPU clock")
def test_what_a_policy_computes_after_its_answer_counts_for_the_next_one(template: HostTemplate) -> None:
    source = f"""
{BURNING}
class Late:
    def __del__(self, burn=burn):
        burn()
def should_reschedule(state):
    late = Late()
    late.itself = late
    return True
"""
    with PolicyHost(template, source, 60.0) as host:
        assert host.trigger(OBSERVATION, BELIEF).value is True
        assert "used more CPU time than its bill" in (host.trigger(OBSERVATION, BELIEF).failure or "")


def test_an_honest_bill_is_believed_however_many_lines_it_has(template: HostTemplate) -> None:
    answer = triggered(template, "return sum(i * i % 7 for i in range(40_000)) > 0")
    assert (answer.value, answer.failure) == (True, None)
    assert answer.charge.lines > 40_000


# --- processes ------------------------------------------------------------------------------------------------------


def test_closing_a_host_leaves_no_process(template: HostTemplate) -> None:
    host = PolicyHost(template, "def should_reschedule(state): return True")
    host.trigger(OBSERVATION, BELIEF)
    pid = host.pid
    assert pid is not None
    host.close()
    assert gone(pid, within_s=0.1)


def test_hosts_of_one_template_live_side_by_side(template: HostTemplate) -> None:
    with (
        PolicyHost(template, "def should_reschedule(state): return True") as yes,
        PolicyHost(template, "def should_reschedule(state): return False") as no,
    ):
        assert yes.trigger(OBSERVATION, BELIEF).value is True
        assert no.trigger(OBSERVATION, BELIEF).value is False
        assert yes.trigger(OBSERVATION, BELIEF).value is True
        assert yes.pid != no.pid


def test_a_host_is_forked_quickly(template: HostTemplate) -> None:
    started = time.monotonic()
    for _ in range(20):
        with PolicyHost(template, PLANNER) as host:
            assert host.wall.rlimits
    assert (time.monotonic() - started) / 20 < 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's CPU clock")
def test_a_process_near_its_cpu_limit_is_replaced_between_calls() -> None:
    pids: set[int | None] = set()
    with (
        HostTemplate(ESTIMATOR, python_path=(HERE,), limits=Limits(cpu_s=2)) as template,
        PolicyHost(template, "def should_reschedule(state): return sum(range(5_000_000)) > 0") as host,
    ):
        while len(pids) < 2:
            assert host.trigger(OBSERVATION, BELIEF).failure is None
            pids.add(host.pid)


def test_a_template_that_died_is_started_anew() -> None:
    with (
        HostTemplate(ESTIMATOR, python_path=(HERE,)) as template,
        PolicyHost(template, "def should_reschedule(state): return True") as host,
    ):
        assert host.trigger(OBSERVATION, BELIEF).value is True
        pid = host.pid
        assert pid is not None
        os.kill(int(Path(f"/proc/{pid}/stat").read_text().split()[3]), signal.SIGKILL)
        assert gone(pid)
        assert "died" in (host.trigger(OBSERVATION, BELIEF).failure or "")
        assert host.trigger(OBSERVATION, BELIEF).value is True


@pytest.mark.parametrize(
    ("estimator", "reason"), [("no_such_module:X", "No module named"), ("host_estimators:Nobody", "Nobody")]
)
def test_an_estimator_that_cannot_be_loaded_is_named(estimator: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        HostTemplate(estimator, python_path=(HERE,))


def test_where_nothing_locks_code_in_a_host_refuses_to_run_unless_told_to() -> None:
    source, estimator = "def should_reschedule(state): return True", "host_estimators_unlocked:Counting"
    with HostTemplate(estimator, python_path=(HERE,)) as template, PolicyHost(template, source) as host:
        with pytest.raises(PolicyError, match="lacks a bar to new privileges, resource limits, seccomp"):
            host.trigger(OBSERVATION, BELIEF)
        assert host.pid is None
    with (
        HostTemplate(estimator, python_path=(HERE,), allow_unlocked=True) as template,
        PolicyHost(template, source) as host,
    ):
        assert host.trigger(OBSERVATION, BELIEF).value is True
        assert not host.wall.holds


WITHOUT_POSIX = """
import sys
sys.modules["resource"] = None
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
try:
    HostTemplate("host_estimators:Counting")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_where_processes_cannot_be_limited_the_host_is_imported_and_refuses_to_run() -> None:
    command = [sys.executable, "-c", WITHOUT_POSIX]
    ended = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    assert ended.stdout.startswith("WallError policy host: this system can neither fork a process nor limit one")
    assert "run on Linux 5.13 or later" in ended.stdout


def test_an_estimator_may_compile_before_the_lock_and_after() -> None:
    source = """
def should_reschedule(state):
    estimate = state.estimate(state.plan)
    return estimate.headroom == estimate.goodput == 1.5
"""
    estimator = "host_estimators_compiled:Compiled"
    with HostTemplate(estimator, python_path=(HERE,)) as template, PolicyHost(template, source) as host:
        assert host.trigger(OBSERVATION, BELIEF).value is True


def test_a_solver_runs_behind_the_wall(template: HostTemplate) -> None:
    body = """
model = sys.modules["highspy"].Highs()
model.setOptionValue("output_flag", False)
model.setOptionValue("threads", 1)
kind = sys.modules["highspy"].HighsVarType.kInteger
xs = [model.addVariable(0, 3, type=kind) for _ in range(9)]
model.addConstr(sum(1.5 * x for x in xs) <= 7.3)
model.maximize(sum((1 + i) * x for i, x in enumerate(xs)))
return model.getObjectiveValue() == 35
"""
    assert triggered(template, body.strip(), before=ESCAPE).value is True


def test_a_closed_template_says_so() -> None:
    template = HostTemplate(ESTIMATOR, python_path=(HERE,))
    template.close()
    with pytest.raises(PolicyError, match="closed"):
        PolicyHost(template, PLANNER).plan(OBSERVATION, BELIEF)


ORPHANING = """
import json, pathlib, sys, threading, time
from host_samples import BELIEF, OBSERVATION
from test_host import ESTIMATOR, HERE, HostTemplate, PolicyHost
template = HostTemplate(ESTIMATOR, python_path=(HERE,))
idle = PolicyHost(template, "def should_reschedule(state): return True")
idle.trigger(OBSERVATION, BELIEF)
busy = PolicyHost(template, "def should_reschedule(state): return sum(range(10**12)) > 0", 600.0)
busy.wall
threading.Thread(target=busy.trigger, args=(OBSERVATION, BELIEF), daemon=True).start()
stat = pathlib.Path(f"/proc/{idle.pid}/stat").read_text()
print(json.dumps([idle.pid, busy.pid, int(stat.split()[3])]), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killing_the_parent_leaves_no_process() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANING], cwd=HERE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids: list[int] = json.loads(parent.stdout.readline())
        assert not any(gone(pid, within_s=0.05) for pid in pids)
        parent.kill()
    assert all(gone(pid) for pid in pids)


HELD_OPEN = """
import os, time
from test_host import ESTIMATOR, HERE, HostTemplate
template = HostTemplate(ESTIMATOR, python_path=(HERE,))
heir = os.fork()
if heir:
    print(template._process.pid, heir, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_template_ends_with_its_host_even_if_a_fork_of_it_keeps_their_connection_open() -> None:
    with subprocess.Popen([sys.executable, "-c", HELD_OPEN], cwd=HERE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        template, heir = map(int, parent.stdout.readline().split())
        try:
            parent.kill()
            assert gone(template)
            assert not gone(heir, within_s=0.05)
        finally:
            os.kill(heir, signal.SIGKILL)


HELD_OPEN_WHILE_IT_IMPORTS = """
import os, socket, sys, threading, time
from test_host import HERE, HostTemplate
ours, theirs = socket.socketpair()
socket.socketpair = lambda: (ours, theirs)
heir = os.fork()
if heir:
    print(heir, flush=True)
    HostTemplate("host_estimators_waiting:Counting", python_path=(HERE, sys.argv[1]))
time.sleep(600)
"""
WAITING = """
import os, pathlib, time
from host_estimators import Counting
here = pathlib.Path(__file__).parent
(here / "pid.new").write_text(str(os.getpid()))
(here / "pid.new").rename(here / "pid")
while not (here / "go").exists():
    time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_template_ends_with_its_host_even_if_that_ends_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "host_estimators_waiting.py").write_text(WAITING)
    command = [sys.executable, "-c", HELD_OPEN_WHILE_IT_IMPORTS, str(tmp_path)]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        heir = int(parent.stdout.readline())
        try:
            assert until((tmp_path / "pid").exists)
            template = int((tmp_path / "pid").read_text())
            parent.kill()
            assert not gone(template, within_s=0.05)
            (tmp_path / "go").touch()
            assert gone(template)
            assert not gone(heir, within_s=0.05)
        finally:
            os.kill(heir, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_template_of_another_than_its_parent_ends_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        module, descriptor = "autopoiesis.policy.host_process", theirs.fileno()
        command = [sys.executable, "-m", module, str(descriptor), "no_such_module:X", str(os.getppid())]
        assert subprocess.run(command, pass_fds=(descriptor,), timeout=60).returncode == 0
        theirs.close()
        assert ours.recv(1) == b""


# --- metering -------------------------------------------------------------------------------------------------------

METERED = """
import heapq
import numpy as np
from autopoiesis.policy import Decision
class Node:
    def __del__(self):
        self.dead = True
def plan(state):
    heap, total = [], 0.0
    for name in {"h100", "a100", "l40s", "b200"}:
        heapq.heappush(heap, (len(heap), name))
        if name < "b":
            total += state.estimate(state.plan).goodput
    while heap:
        heapq.heappop(heap)
    for _ in range(int(np.random.randint(100))):
        node = Node()
        node.itself = node
        total += state.transition(state.plan).seconds
    state.estimator.charge_solver(2, 30)
    return Decision(state.plan, memory={"total": total % 1})
"""


def test_the_same_call_is_charged_the_same_in_every_process() -> None:
    charges: list[Charge] = []
    for _ in range(2):
        with HostTemplate(ESTIMATOR, python_path=(HERE,)) as template:
            for _ in range(2):
                with PolicyHost(template, METERED) as host:
                    answers = [host.plan(OBSERVATION, BELIEF) for _ in range(5)]
                    assert [answer.failure for answer in answers] == [None] * 5
                    charges += [answer.charge for answer in answers]
    assert len(set(charges)) == 1
    assert charges[0].lines > 50
    assert charges[0].evaluations > 1
    assert (charges[0].solver_nodes, charges[0].solver_iterations) == (2, 30)


def test_lines_are_counted_in_the_policy_and_in_no_library(template: HostTemplate) -> None:
    short = triggered(template, "statistics.fmean(range(10))\nreturn True", before="import statistics")
    long = triggered(template, "statistics.fmean(range(9000))\nreturn True", before="import statistics")
    assert short.charge == long.charge == Charge(lines=4)
