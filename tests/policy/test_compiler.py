"""The compiler in a process of its own: what it makes means the same, and whatever ends it harms nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import gone, until
from router_calls import check_priority_means, check_route_means
from router_texts import priority_text, route_text

from autopoiesis.errors import PolicyError
from autopoiesis.policy.compiler import NICENESS, Compiler
from autopoiesis.policy.native import CompiledRoute
from autopoiesis.policy.route import compile_route

HERE = Path(__file__).parent
ROUTE = route_text(Random(0))
NOTHING = "interface = 1\n"
REFUSED = "interface = 1\n\ndef route(request, replicas):\n    return request.secret\n"


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as made:
        yield made


# --- what it makes --------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_what_another_process_compiled_means_what_is_interpreted(compiler: Compiler, seed: int) -> None:
    check_means_the_same(compiler, Random(seed))


@pytest.mark.slow
def test_two_hundred_modules_compiled_in_another_process_mean_what_is_interpreted(compiler: Compiler) -> None:
    for seed in range(200):
        check_means_the_same(compiler, Random(seed))


def check_means_the_same(compiler: Compiler, random: Random) -> None:
    route, priority = route_text(random), priority_text(random)
    check_route_means(route, compiler.submit(route).result().route, random)
    check_priority_means(priority, compiler.submit(priority).result().priority, random)


def test_a_module_with_both_functions_gives_both(compiler: Compiler) -> None:
    random = Random(1)
    text = route_text(random) + priority_text(random).partition("\n\n")[2]
    route, priority = compiler.submit(text).result()
    check_route_means(text, route, random)
    check_priority_means(text, priority, random)


def test_a_module_without_either_gives_neither_and_starts_no_process() -> None:
    with Compiler() as unused:
        assert unused.submit(NOTHING).result() == (None, None)
        assert unused.pid is None


def test_modules_are_compiled_in_the_order_in_which_they_came(compiler: Compiler) -> None:
    futures = [compiler.submit(route_text(Random(seed))) for seed in range(3)]
    futures[-1].result()
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("text", [REFUSED, "def route(", "def route(): '\ud800'"], ids=["grammar", "syntax", "text"])
def test_a_refusal_is_the_one_of_compiling_at_home(compiler: Compiler, text: str) -> None:
    with pytest.raises(PolicyError) as here:
        compile_route(text)
    with pytest.raises(PolicyError) as there:
        compiler.submit(text).result()
    assert str(there.value) == str(here.value)


def test_what_is_no_object_file_is_refused() -> None:
    with pytest.raises(PolicyError, match="cannot be loaded"):
        CompiledRoute(b"\x7fELF and nothing else")


# --- while somebody serves ------------------------------------------------------------------------------------------


def test_an_event_loop_is_served_by_the_old_router_until_the_new_one_is_ready_and_never_imports_numba() -> None:
    ended = subprocess.run([sys.executable, HERE / "served_ticks.py"], capture_output=True, text=True, check=True)
    told = json.loads(ended.stdout)
    assert [key for key, _ in groupby(map(tuple, told["ticks"]))] == [(False, 0), (True, 1)]
    assert not told["numba"]


def test_the_compiling_process_gives_way_to_the_serving_one(compiler: Compiler) -> None:
    compiler.submit(ROUTE).result()
    assert compiler.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, compiler.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


# --- whatever ends it -----------------------------------------------------------------------------------------------


def test_a_process_killed_while_it_compiles_fails_that_module_and_no_other() -> None:
    with Compiler() as compiler:
        lost, next_one = compiler.submit(ROUTE), compiler.submit(ROUTE)
        assert until(lambda: compiler.pid is not None)
        os.kill(compiler.pid or 0, signal.SIGKILL)
        with pytest.raises(PolicyError, match=r"its process ended \(signal 9\)"):
            lost.result()
        assert next_one.result().route is not None


def test_a_process_that_has_died_meanwhile_is_replaced_unseen() -> None:
    with Compiler() as compiler:
        compiler.submit(ROUTE).result()
        before = compiler.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        assert gone(before)
        assert compiler.submit(ROUTE).result().route is not None
        assert compiler.pid != before


def test_a_process_makes_room_for_another_before_it_has_grown_large() -> None:
    with Compiler(modules=2) as compiler:
        pids = []
        for _ in range(4):
            compiler.submit(ROUTE).result()
            pids.append(compiler.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_module_past_its_deadline_fails_and_its_process_is_ended() -> None:
    with Compiler(deadline_s=0.001) as compiler:
        with pytest.raises(PolicyError, match=r"within 0\.001 s"):
            compiler.submit(ROUTE).result()
        assert compiler.pid is None


def test_closing_fails_what_is_being_compiled_cancels_what_waits_and_leaves_no_process() -> None:
    compiler = Compiler()
    running, waiting = compiler.submit(ROUTE), compiler.submit(ROUTE)
    assert until(lambda: compiler.pid is not None)
    pid = compiler.pid
    compiler.close()
    assert isinstance(running.exception(), PolicyError)
    assert waiting.cancelled()
    assert pid is not None
    assert gone(pid, within_s=0.0)
    with pytest.raises(PolicyError, match="closed"):
        compiler.submit(ROUTE)


ORPHANING = """
import signal, sys
from test_compiler import ROUTE, Compiler
compiler = Compiler()
compiler.submit(ROUTE).result()
more = [compiler.submit(ROUTE) for _ in range(int(sys.argv[1]))]
print(compiler.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("waiting", [0, 1_000], ids=["idle", "compiling"])
def test_killing_the_serving_process_leaves_no_compiling_one(waiting: int) -> None:
    command = [sys.executable, "-c", ORPHANING, str(waiting)]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid, within_s=0.0)
        parent.kill()
    assert gone(pid)
