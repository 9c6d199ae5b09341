"""The pool: results as they come, and what happens to one worker is the result of one job."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from autopoiesis.bench.evolution.trial import Trial
from autopoiesis.errors import EvaluationError
from autopoiesis.evolve.worker_messages import KEPT_CONTEXTS, Priority
from autopoiesis.evolve.workers import Context, Result, Workers

HERE = Path(__file__).parent
ORDERS = "worker_evaluators:Orders"


@pytest.fixture
def pool() -> Iterator[Workers]:
    with Workers(ORDERS, 2, deadline_s=20.0, python_path=(HERE,)) as opened:
        yield opened


def descendants() -> list[int]:
    """Processes that this one has started, and those below them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], 20.0)[0], f"process {pid} is still there"
        finally:
            os.close(descriptor)


def test_every_job_gets_its_own_result(pool: Workers) -> None:
    tickets = {pool.submit(b"job %d" % i): b"job %d" % i for i in range(50)}
    assert {ticket: result.value for ticket, result in pool.finished()} == tickets


def test_jobs_may_be_submitted_while_results_come(pool: Workers) -> None:
    pool.submit(b"0")
    seen = []
    for _, result in pool.finished():
        assert result.value is not None
        seen.append(int(result.value))
        if len(seen) < 10:
            pool.submit(b"%d" % len(seen))
    assert seen == list(range(10))


def test_a_result_may_be_waited_for_out_of_order(pool: Workers) -> None:
    tickets = [pool.submit(b"job %d" % i) for i in range(5)]
    assert [pool.result(ticket).value for ticket in reversed(tickets)] == [b"job %d" % i for i in reversed(range(5))]


def test_a_result_is_handed_over_once(pool: Workers) -> None:
    ticket = pool.submit(b"job")
    pool.result(ticket)
    with pytest.raises(KeyError):
        pool.result(ticket)


def test_an_evaluator_says_why_there_is_no_value(pool: Workers) -> None:
    assert pool.result(pool.submit(b"refuse line 3: `exec` is refused")) == Result(None, "line 3: `exec` is refused")


def test_a_dropped_job_has_no_result(pool: Workers) -> None:
    kept, dropped = pool.submit(b"kept"), [pool.submit(b"dropped %d" % i) for i in range(4)]
    for ticket in dropped:
        pool.drop(ticket)
    assert [ticket for ticket, _ in pool.finished()] == [kept]


def test_a_context_travels_once_and_the_last_few_are_kept() -> None:
    contexts = [Context(f"stretch {i}", bytes(1000 + i)) for i in range(KEPT_CONTEXTS + 1)]
    asked = [contexts[0], contexts[0], *contexts, contexts[1], contexts[0], contexts[4], contexts[0]]
    with Workers(ORDERS, 1, deadline_s=20.0, python_path=(HERE,)) as pool:
        tickets = [pool.submit(b"context", context) for context in asked]
        lengths = [int(pool.result(ticket).value or b"") for ticket in tickets]
    assert lengths == [len(context.data) for context in asked]


def test_a_job_whose_worker_dies_is_tried_once_more(pool: Workers, tmp_path: Path) -> None:
    order = b"die-once " + str(tmp_path / "died").encode()
    assert pool.result(pool.submit(order)) == Result(order, None)


def test_a_job_that_kills_its_workers_fails_and_no_other_does(pool: Workers) -> None:
    deadly = pool.submit(b"die")
    others = [pool.submit(b"job %d" % i) for i in range(6)]
    assert pool.result(deadly).failure == "the worker died (signal 9)"
    assert [pool.result(ticket).value for ticket in others] == [b"job %d" % i for i in range(6)]


def test_a_job_past_its_deadline_fails_and_its_worker_is_replaced() -> None:
    with Workers(ORDERS, 1, deadline_s=1.0, python_path=(HERE,)) as pool:
        before = pool.result(pool.submit(b"pid")).value
        assert pool.result(pool.submit(b"sleep 60")) == Result(None, "no answer within 1 s")
        after = pool.result(pool.submit(b"pid")).value
        assert before is not None
        assert after is not None
        assert after != before
        assert gone(int(before))


def test_large_jobs_sent_ahead_to_busy_workers_hold_up_nobody() -> None:
    size = 700_000
    with Workers(ORDERS, 2, deadline_s=20.0, depth=3, python_path=(HERE,)) as pool:
        jobs = [b"%d " % i + bytes(size) for i in range(12)]
        tickets = {pool.submit(job): job for job in jobs}
        assert {ticket: result.value for ticket, result in pool.finished()} == tickets


def test_jobs_sent_ahead_to_a_worker_that_dies_go_to_another(tmp_path: Path) -> None:
    with Workers(ORDERS, 1, deadline_s=20.0, depth=3, python_path=(HERE,)) as pool:
        deadly = pool.submit(b"die")
        others = [pool.submit(b"job %d" % i) for i in range(5)]
        unwanted = pool.submit(b"die-once " + str(tmp_path / "begun").encode())
        pool.drop(unwanted)
        assert pool.result(deadly).failure == "the worker died (signal 9)"
        assert [pool.result(ticket).value for ticket in others] == [b"job %d" % i for i in range(5)]
    assert not (tmp_path / "begun").exists()


def test_a_result_too_large_to_be_sent_is_said_to_be_so(pool: Workers) -> None:
    failure = pool.result(pool.submit(b"answer " + bytes(2**20))).failure
    assert failure is not None
    assert "more than" in failure


def test_a_pool_that_is_closed_leaves_no_process_and_takes_no_job() -> None:
    others = set(descendants())
    with Workers("autopoiesis.bench.evolution.trivial:TrivialEvaluator", 2, deadline_s=20.0) as pool:
        tickets = [pool.submit(trial(PROGRAM)) for _ in range(4)]
        assert [pool.result(ticket).failure for ticket in tickets] == [None] * 4
        below = [pid for pid in descendants() if pid not in others]
        assert len(below) >= 4
    wait_until_gone(below)
    with pytest.raises(EvaluationError, match="closed"):
        pool.submit(b"job")


def test_an_evaluator_that_cannot_be_made_is_said_so() -> None:
    with (
        Workers("worker_evaluators:Broken", 1, deadline_s=20.0, python_path=(HERE,)) as pool,
        pytest.raises(EvaluationError, match="ValueError: no such luck"),
    ):
        pool.result(pool.submit(b"job"))


@pytest.mark.parametrize(
    ("priority", "nice", "policy"),
    [
        (Priority.NORMAL, os.nice(0), os.SCHED_OTHER),
        (Priority.LOW, min(19, os.nice(0) + 10), os.SCHED_OTHER),
        (Priority.IDLE, 19, os.SCHED_IDLE),
    ],
)
def test_workers_give_way_to_others(priority: Priority, nice: int, policy: int) -> None:
    with Workers(ORDERS, 1, deadline_s=60.0, priority=priority, python_path=(HERE,)) as pool:
        assert pool.result(pool.submit(b"nice")).value == f"{nice} {policy}".encode()


# --- candidates that misbehave ----------------------------------------------------------------------------------------

PROGRAM = """
interface = 1
from autopoiesis.policy import Decision


def should_reschedule(state):
    return True


def plan(state):
    {}
    return Decision(state.plan, memory={{"score": {}}})
"""
ESCAPE = """
    wrap = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "_wrap_close"][0]
    os = wrap.__init__.__globals__["sys"].modules["os"]
    sys = os.sys
"""
MISBEHAVING = {
    "hangs": ("while True: pass", "no answer within"),
    "sleeps": (ESCAPE + "    sys.modules['time'].sleep(3600)", "no answer within"),
    "memory bomb": ("grown = [0]\n    while True: grown = grown + grown", "MemoryError"),
    "fork bomb": (ESCAPE + "    while True: os.fork()", "PermissionError"),
    "early exit": (ESCAPE + "    os._exit(0)", "the process died (exit code 0)"),
    "kills its group": (ESCAPE + "    os.killpg(0, 9)", "PermissionError"),
    "forged result": (ESCAPE + "    os.write(3, b'\\0\\0\\0\\x0e' + b'{\"score\": 1e9}'); os._exit(0)", "malformed"),
}


def trial(text: str, deadline_s: float = 20.0, *, body: str = "pass", score: float = 0.5) -> bytes:
    return msgspec.msgpack.encode(Trial(text.format(body, score), deadline_s))


def survived(body: str, deadline_s: float, count: int = 60, every: int = 5) -> tuple[list[str], list[float]]:
    """Failures and scores of `count` candidates, of which every fifth does `body`; nothing may be left behind."""
    failures, scores = [], []
    others = set(descendants())
    with Workers("worker_evaluators:Unchecked", 2, deadline_s=60.0, python_path=(HERE,)) as pool:
        wanted = {}
        for i in range(count):
            bad = i % every == every - 1
            wanted[pool.submit(trial(PROGRAM, deadline_s, body=body if bad else "pass", score=i / count))] = i / count
        for ticket, result in pool.finished():
            if result.value is None:
                failures.append(result.failure or "")
            else:
                scores.append(msgspec.msgpack.decode(result.value, type=float))
                assert scores[-1] == wanted[ticket]
        below = [pid for pid in descendants() if pid not in others]
    wait_until_gone(below)
    return failures, scores


@pytest.mark.parametrize("kind", MISBEHAVING)
def test_one_candidate_in_five_misbehaves_and_all_others_get_their_score(kind: str) -> None:
    body, said = MISBEHAVING[kind]
    failures, scores = survived(body, deadline_s=0.7 if "answer within" in said else 20.0)
    assert len(scores) == 48
    assert len(failures) == 12
    assert all(said in failure for failure in failures), failures


def test_gigabytes_printed_by_one_in_five_change_nothing() -> None:
    body = ESCAPE + "    for _ in range(1024): os.write(1, b'x' * 2**20); os.write(2, b'x' * 2**20)"
    failures, scores = survived(body, deadline_s=20.0)
    assert (len(failures), len(scores)) == (0, 60)


# --- the end of the pool's own process --------------------------------------------------------------------------------

OWNER = f"""
import os
import sys
from pathlib import Path

sys.path.insert(0, {str(HERE)!r})
from test_workers import HERE, PROGRAM, Workers, descendants, trial

with Workers("worker_evaluators:Unchecked", 2, deadline_s=60.0, python_path=(HERE,)) as pool:
    pool.result(pool.submit(trial(PROGRAM)))
    hanging = [pool.submit(trial(PROGRAM, 60.0, body="while True: pass")) for _ in range(2)]
    pool.submit(trial(PROGRAM))
    try:
        print(*descendants(), flush=True)
        pool.result(hanging[0])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_owner_is_killed_or_interrupted(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        below = [int(pid) for pid in line.split()]
        assert len(below) >= 2, owner.communicate()[1]
        owner.send_signal(number)
        said, complaints = owner.communicate(timeout=30)
    wait_until_gone(below)
    if number == signal.SIGINT:
        assert (owner.returncode, said, complaints) == (0, "interrupted\n", "")
