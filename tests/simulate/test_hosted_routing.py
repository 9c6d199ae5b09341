"""The functions of a policy at work: compiled elsewhere, called here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autopoiesis.errors import PolicyError
from autopoiesis.simulate.hosted import routing_of

FIRST, LAST = (f"interface = 1\n\ndef route(request, replicas):\n    return {index}\n" for index in ("0", "-1"))
FORKING = f"""
import os
from autopoiesis.simulate.hosted import routing_of
routing_of({FIRST!r})
child = os.fork()
compiled = routing_of({LAST!r}).route is not None
if child == 0:
    os._exit(not compiled)
raise SystemExit(not compiled or os.waitpid(child, 0)[1])
"""


def test_a_text_is_compiled_once() -> None:
    assert routing_of(FIRST) is routing_of(FIRST)


def test_a_policy_without_functions_has_no_routing() -> None:
    assert routing_of("interface = 1\n") == (None, None)


def test_a_refused_policy_has_none_either() -> None:
    with pytest.raises(PolicyError, match="refused"):
        routing_of("interface = 1\n\ndef route(request):\n    return 0\n")


def test_a_forked_process_compiles_for_itself_and_leaves_its_parent_s_compiler_alone() -> None:
    assert subprocess.run([sys.executable, "-c", FORKING], timeout=120).returncode == 0
